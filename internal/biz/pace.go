package biz

import (
	"context"
	"sync"
	"time"
)

// pause waits for that long, and returns the cause if ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// pace spreads a long work, so that the store's other callers do not notice it. Works that go on at once may share one: it is safe for
// concurrent use.
type pace struct {
	rate int // items a second

	mu  sync.Mutex
	due time.Time // of the next item
}

func newPace(rate int) *pace { return &pace{rate: max(rate, 1), due: time.Now()} }

// wait waits until the work may go on after n items. What took longer is not caught up on: the store may be slow.
func (p *pace) wait(ctx context.Context, n int) error {
	return pause(ctx, time.Until(p.next(n)))
}

// next returns when the work may go on after n items.
func (p *pace) next(n int) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.due = p.due.Add(time.Duration(n) * time.Second / time.Duration(p.rate))
	if now := time.Now(); p.due.Before(now) {
		p.due = now
	}
	return p.due
}
