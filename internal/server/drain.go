package server

import (
	"context"
	"sync"
	"time"

	"podlink/internal/conf"
)

// Drain is the grace period between the stop signal and the closing of the listeners. During it podlink is not ready but
// still serves, and asks callers to reconnect elsewhere, so that no call meets a closed listener.
type Drain struct {
	period  time.Duration
	once    sync.Once
	started chan struct{}
}

// NewDrain returns a Drain that lasts server.stop.drain.
func NewDrain(c *conf.Server) *Drain {
	return &Drain{period: c.GetStop().GetDrain().AsDuration(), started: make(chan struct{})}
}

// Run starts the drain and waits until it ends. Kratos calls it before it stops the servers.
func (d *Drain) Run(ctx context.Context) error {
	d.once.Do(func() { close(d.started) })
	select {
	case <-ctx.Done():
	case <-time.After(d.period):
	}
	return nil
}

// Started returns a channel that is closed when the drain starts.
func (d *Drain) Started() <-chan struct{} { return d.started }

// Draining reports whether the drain has started.
func (d *Drain) Draining() bool {
	select {
	case <-d.started:
		return true
	default:
		return false
	}
}
