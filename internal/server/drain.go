package server

import (
	"context"
	"sync"
	"time"

	"podlink/internal/conf"
)

// Drain is the pause between the signal to stop and the closing of the listeners. In it podlink is not ready, still
// serves, and asks its callers to go elsewhere, so that none of them finds a closed door.
type Drain struct {
	pause   time.Duration
	once    sync.Once
	started chan struct{}
}

// NewDrain returns a Drain that pauses for server.stop.drain.
func NewDrain(c *conf.Server) *Drain {
	return &Drain{pause: c.GetStop().GetDrain().AsDuration(), started: make(chan struct{})}
}

// Run starts draining and returns when the pause is over; Kratos calls it before it stops the servers.
func (d *Drain) Run(ctx context.Context) error {
	d.once.Do(func() { close(d.started) })
	select {
	case <-ctx.Done():
	case <-time.After(d.pause):
	}
	return nil
}

// Started is closed once draining has begun.
func (d *Drain) Started() <-chan struct{} { return d.started }

// Draining tells whether draining has begun.
func (d *Drain) Draining() bool {
	select {
	case <-d.started:
		return true
	default:
		return false
	}
}
