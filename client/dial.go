package client

import (
	"time"

	"google.golang.org/grpc"
)

const (
	// keepaliveTime is how long a connection may be silent before podlink is asked for a sign of life, and keepaliveTimeout how
	// long it has to give one.
	keepaliveTime, keepaliveTimeout = 10 * time.Second, 3 * time.Second
	// idleConns is how many connections over HTTP are kept for the next calls. Go's default of 2 would open and close them all
	// the time.
	idleConns = 64
)

// attempts is how many times in a row a podlink that hangs is waited for: each attempt has that part of a call's time.
const attempts = 3

// usage is what a connection is for.
type usage struct {
	attempts int // of a call
	// redialPause is the longest pause between two attempts to connect over gRPC, which would let it grow to two minutes, and the
	// time that each of them has.
	redialPause time.Duration
}

var (
	forCalls   = usage{attempts: attempts, redialPause: 2 * time.Second}
	forReports = usage{attempts: 1, redialPause: time.Second}
)

// dial returns what carries out the attempts of calls, and what closes its connections. It does not wait for them.
func dial(target string, o Options, use usage) (grpc.ClientConnInterface, func() error, error) {
	if o.HTTP {
		return dialHTTP(target, o, use)
	}
	return dialGRPC(target, o, use)
}
