package server

import (
	"context"
	"time"
)

// firstCheckTimeout bounds how long a probe waits for the first check of the store, which begins when podlink starts.
const firstCheckTimeout = 2 * time.Second

// Checker knows whether the store is usable.
type Checker interface {
	// Last returns the result of the last check, at once: probes come from anyone, and must not cost the store anything. Before the
	// first one it waits until ctx ends. Its error is for operators and may contain addresses.
	Last(ctx context.Context) error
}

// readiness says whether to send requests to this process. /readyz and gRPC's health service give its answer.
type readiness struct {
	store  Checker
	drain  *Drain
	access *Access
}

// reason returns why podlink is not ready, "" if it is. The text is for operators.
func (r *readiness) reason(ctx context.Context) string {
	if r.drain.Draining() {
		return "podlink is stopping"
	}
	if err := r.access.ready(); err != nil {
		return err.Error()
	}
	ctx, cancel := context.WithTimeout(ctx, firstCheckTimeout)
	defer cancel()
	if err := r.store.Last(ctx); err != nil {
		return err.Error()
	}
	return ""
}
