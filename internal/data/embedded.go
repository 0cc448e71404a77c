package data

import (
	"context"
	"net"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// sweepInterval is how often the embedded store drops keys whose TTL is over. A sweep takes the time since the last one
// off every TTL, also off one that was set in between: a key goes up to one interval early. Links don't mind, for their
// keys outlive them by the second that lua/lib/link.lua calls GRACE_MS.
const sweepInterval = 500 * time.Millisecond

// embedded is a Redis-compatible store in the process, for development: no port is opened.
//
// Its clock is the process' own, to the microsecond, as epochs and expiries need it. Its TTLs do not tick by themselves:
// of the two ways to make them, FastForward leaves that clock alone.
type embedded struct {
	server *miniredis.Miniredis
	stop   chan struct{}
	done   chan struct{}
}

func newEmbedded() *embedded {
	e := &embedded{server: miniredis.NewMiniRedis(), stop: make(chan struct{}), done: make(chan struct{})}
	go e.sweep()
	return e
}

func (e *embedded) sweep() {
	defer close(e.done)
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-e.stop:
			return
		case <-ticker.C:
			now := time.Now()
			e.server.FastForward(now.Sub(last))
			last = now
		}
	}
}

func (e *embedded) close() {
	close(e.stop)
	<-e.done
	e.server.Close()
}

// options points the client at the store; addresses and credentials are those of a Redis that is not used.
func (e *embedded) options(o *redis.Options) *redis.Options {
	o.Dialer = func(context.Context, string, string) (net.Conn, error) { return e.server.Dial() }
	o.Username, o.Password, o.DB = "", "", 0
	return o
}
