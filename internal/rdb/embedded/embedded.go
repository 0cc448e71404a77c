// Package embedded runs an in-memory, Redis-compatible store inside the process, for development. Its data is lost when the
// process ends.
package embedded

import (
	"crypto/tls"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"

	"podlink/internal/rdb"
)

// sweepInterval is the interval at which expired keys are removed. A sweep subtracts the time since the last sweep from
// every TTL, even from one that was set in between, so a key may expire up to one interval early. That does not affect
// links: their keys outlive them by a second (GRACE_MS in data/lua/lib/write.lua).
const sweepInterval = 500 * time.Millisecond

// Server is the store. It listens on a loopback port, with TLS and for a client certificate that only this process has.
// In-memory connections of miniredis would need neither, but they are unbuffered, so a pipeline deadlocks: the client writes
// its next command while the store writes its first reply.
//
// Its clock is that of the process, in microseconds, as epochs and expiries need it. miniredis does not expire keys by
// itself; sweep does it with FastForward, which does not change the clock.
type Server struct {
	server *miniredis.Miniredis
	client *tls.Config
	stop   chan struct{}
	done   chan struct{}
}

// Start starts a store on a free loopback port. The caller must call Close.
func Start() (*Server, error) {
	secured, client, err := newTLS()
	if err != nil {
		return nil, fmt.Errorf("the embedded store can't make its certificate: %w", err)
	}
	s := &Server{server: miniredis.NewMiniRedis(), client: client, stop: make(chan struct{}), done: make(chan struct{})}
	if err := s.server.StartTLS(secured); err != nil {
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
			// At most one interval: after a stall, a new key must not lose time from before it was set.
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

// Options returns o with the address and certificate of this store, and without the options that it doesn't support.
func (s *Server) Options(o rdb.Options) rdb.Options {
	o.Mode, o.Addrs, o.DB = rdb.Standalone, []string{s.server.Addr()}, 0
	o.TLS = func() *tls.Config { return s.client }
	o.Username, o.Password = "", ""
	o.WaitReplicas, o.Embedded = 0, true
	return o
}
