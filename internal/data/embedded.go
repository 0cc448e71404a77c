package data

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// sweepInterval is how often the embedded store drops keys whose TTL is over. A sweep takes the time since the last one
// off every TTL, also off one that was set in between: a key goes up to one interval early. Links don't mind, for their
// keys outlive them by the second that lua/lib/write.lua calls GRACE_MS.
const sweepInterval = 500 * time.Millisecond

// embedded is a Redis-compatible store in the process, for development. It listens on a loopback port, behind a password
// that only this process knows: its in-memory connections would do without, but have no buffers, and a pipeline over one
// stands still for good, the client writing its next command and the store its first reply.
//
// Its clock is the process' own, to the microsecond, as epochs and expiries need it. Its TTLs do not tick by themselves:
// of the two ways to make them, FastForward leaves that clock alone.
type embedded struct {
	server   *miniredis.Miniredis
	password string
	stop     chan struct{}
	done     chan struct{}
}

func startEmbedded() (*embedded, error) {
	e := &embedded{
		server: miniredis.NewMiniRedis(), password: rand.Text(), stop: make(chan struct{}), done: make(chan struct{}),
	}
	e.server.RequireAuth(e.password)
	if err := e.server.Start(); err != nil {
		return nil, fmt.Errorf("the embedded store can't start: %w", err)
	}
	go e.sweep()
	return e, nil
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
			// Never more than one interval: after a stall a key must not pay for time in which it did not exist.
			e.server.FastForward(min(time.Since(last), sweepInterval))
			last = time.Now()
		}
	}
}

func (e *embedded) close() {
	close(e.stop)
	<-e.done
	e.server.Close()
}

// options points the client at the store, instead of at the Redis that is configured but not used.
func (e *embedded) options(o *redis.Options) *redis.Options {
	o.Addr, o.Username, o.Password, o.DB = e.server.Addr(), "", e.password, 0
	return o
}
