package server

// Checker knows whether the store is usable.
type Checker interface {
	// Last returns the result of the last check, at once: probes come from anyone, and must not cost the store anything. Its error
	// is for operators and may contain addresses.
	Last() error
}

// readiness says whether to send requests to this process. /readyz and gRPC's health service give its answer.
type readiness struct {
	store  Checker
	drain  *Drain
	access *Access
}

// reason returns why podlink is not ready, "" if it is. The text is for operators.
func (r *readiness) reason() string {
	if r.drain.Draining() {
		return "podlink is stopping"
	}
	if err := r.access.ready(); err != nil {
		return err.Error()
	}
	if err := r.store.Last(); err != nil {
		return err.Error()
	}
	return ""
}
