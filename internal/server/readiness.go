package server

import (
	"context"
	"sync"
	"time"
)

// readyTimeout bounds a check of the store.
const readyTimeout = time.Second

// Checker reports whether the store is usable. Its error is for operators and may contain addresses.
type Checker interface {
	Check(ctx context.Context) error
}

// readiness says whether to send requests to this process. /readyz and gRPC's health service give its answer.
type readiness struct {
	store  Checker
	drain  *Drain
	access *Access

	mu    sync.Mutex
	last  string // reason of the last check by recent
	until time.Time
}

// reason returns why podlink is not ready, "" if it is. The text is for operators.
func (r *readiness) reason(ctx context.Context) string {
	if r.drain.Draining() {
		return "podlink is stopping"
	}
	if err := r.access.ready(); err != nil {
		return err.Error()
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := r.store.Check(ctx); err != nil {
		return err.Error()
	}
	return ""
}

// recent is reason, from a check that is shared by all callers and is at most an interval old. Only the drain counts at once.
func (r *readiness) recent(interval time.Duration) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.After(r.until) || r.drain.Draining() {
		// No caller's context: its end would count as the store's fault for the others.
		r.last = r.reason(context.Background())
		r.until = time.Now().Add(interval)
	}
	return r.last
}
