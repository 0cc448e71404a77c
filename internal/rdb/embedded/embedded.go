// Package embedded is a Redis-compatible store inside the process, for development: it lives in memory and ends with it.
package embedded

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"

	"podlink/internal/rdb"
)

// sweepInterval is how often the store drops keys whose TTL is over. A sweep takes the time since the last one off every
// TTL, also off one that was set in between: a key goes up to one interval early. Links don't mind, because their keys
// outlive them by the second that data/lua/lib/write.lua calls GRACE_MS.
const sweepInterval = 500 * time.Millisecond

// Server is the store. It listens on a loopback port, behind a password that only this process knows. miniredis' in-memory
// connections would need neither, but they have no buffers, and a pipeline over one deadlocks: the client writes its next
// command while the store writes its first reply.
//
// Its clock is the process' own, to the microsecond, as epochs and expiries need it. Its TTLs do not tick by themselves;
// of the two ways to make them, FastForward leaves that clock alone.
type Server struct {
	server   *miniredis.Miniredis
	password string
	stop     chan struct{}
	done     chan struct{}
}

// Start starts a store on a free loopback port.
func Start() (*Server, error) {
	s := &Server{
		server: miniredis.NewMiniRedis(), password: rand.Text(), stop: make(chan struct{}), done: make(chan struct{}),
	}
	s.server.RequireAuth(s.password)
	if err := s.server.Start(); err != nil {
		return nil, fmt.Errorf("the embedded store can't start: %w", err)
	}
	go s.sweep()
	return s, nil
}

func (s *Server) sweep() {
	defer close(s.done)
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-s.stop:
			return
		case <-ticker.C:
			// Never more than one interval: after a stall a key must not pay for time in which it did not exist.
			s.server.FastForward(min(time.Since(last), sweepInterval))
			last = time.Now()
		}
	}
}

// Close stops the store.
func (s *Server) Close() {
	close(s.stop)
	<-s.done
	s.server.Close()
}

// Options returns o for this store, in place of the Redis that it names. Replicas and servers to ask about do not exist.
func (s *Server) Options(o rdb.Options) rdb.Options {
	o.Mode, o.Addrs, o.DB, o.TLS = rdb.Standalone, []string{s.server.Addr()}, 0, nil
	o.Username, o.Password = "", s.password
	o.WaitReplicas, o.Embedded = 0, true
	return o
}
