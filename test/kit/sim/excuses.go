package sim

import (
	"slices"
	"sync"
	"time"
)

// Excuses says when a session may be lost or moved by the contract: because its pod was not a living, reachable one lately, the
// store has lost data, or an operator has moved the user.
type Excuses struct {
	Window time.Duration // how long an excuse counts, without outages
	Strict bool          // nothing but a move by hand is an excuse

	mu       sync.Mutex
	impaired map[int32][]*span
	outages  []*span
	losses   []time.Time
	byHand   map[string]time.Time
}

// Window returns how long an excuse counts: a session is verified within two ttl, and one whose link is gone is judged some six seconds
// later, by the next report.
func Window(ttl time.Duration) time.Duration { return 3*ttl + 6*time.Second }

// span is a time in which something was at fault.
type span struct{ from, to time.Time } // to is zero while it lasts

func (e *Excuses) begin(add func(s *span)) (end func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := &span{from: time.Now()}
	add(s)
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		s.to = time.Now()
	}
}

// Impair notes that a pod is impaired until the function is called.
func (e *Excuses) Impair(pod int32) (well func()) {
	return e.begin(func(s *span) {
		if e.impaired == nil {
			e.impaired = make(map[int32][]*span)
		}
		e.impaired[pod] = append(e.impaired[pod], s)
	})
}

// Outage notes that all pods are silenced until the function is called. It is no excuse, but others count for longer.
func (e *Excuses) Outage() (over func()) {
	return e.begin(func(s *span) { e.outages = append(e.outages, s) })
}

// LostData notes that the store has lost data.
func (e *Excuses) LostData() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.losses = append(e.losses, time.Now())
}

// MovedByHand notes that an operator moves the user now.
func (e *Excuses) MovedByHand(uid string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.byHand == nil {
		e.byHand = make(map[string]time.Time)
	}
	e.byHand[uid] = time.Now()
}

// counts reports whether what ended at a time still is an excuse. The caller must hold mu.
func (e *Excuses) counts(at time.Time, window time.Duration) bool {
	if at.IsZero() {
		return true // It lasts.
	}
	for _, o := range e.outages { // In the order of their begins.
		if o.from.After(at.Add(window)) || !o.to.IsZero() && o.to.Before(at) {
			continue
		}
		if o.to.IsZero() {
			return true
		}
		at = o.to
	}
	return time.Since(at) <= window
}

// Excused reports whether the pod may have lost the user lately.
func (e *Excuses) Excused(pod int32, uid string) bool {
	return e.PodExcused(pod) || e.HandExcused(uid, e.Window)
}

// PodExcused is Excused for any user.
func (e *Excuses) PodExcused(pod int32) bool { return e.Impaired(pod) || e.Lossy() }

// Impaired reports whether the pod was impaired lately.
func (e *Excuses) Impaired(pod int32) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.Strict {
		return false
	}
	for _, s := range e.impaired[pod] {
		if e.counts(s.to, e.Window) {
			return true
		}
	}
	return false
}

// Silenced reports whether a pod that asks podlink gets no answer, or got none until a moment ago, and its lease may still hold,
// because all of that has begun no longer ago than the lease lasts.
func (e *Excuses) Silenced(pod int32, lease, moment time.Duration) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range slices.Concat(e.outages, e.impaired[pod]) {
		if (s.to.IsZero() || time.Since(s.to) <= moment) && time.Since(s.from) <= lease+moment {
			return true
		}
	}
	return false
}

// Lossy reports whether sessions may be lost because the store has lost data lately.
func (e *Excuses) Lossy() bool { return !e.Strict && e.Restoring() }

// Restoring reports whether the store has lost data lately, so that links may not be restored yet.
func (e *Excuses) Restoring() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, at := range e.losses {
		if e.counts(at, e.Window) {
			return true
		}
	}
	return false
}

// MovedSince reports whether an operator has moved the user since its session began. The move takes effect a moment after it is noted, or
// after the end of the outage that holds it up.
func (e *Excuses) MovedSince(uid string, began time.Time) bool {
	const moment = time.Second
	return e.HandExcused(uid, time.Since(began)+moment)
}

// HandExcused reports whether an operator has moved the user in that time.
func (e *Excuses) HandExcused(uid string, lately time.Duration) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	at, ok := e.byHand[uid]
	return ok && e.counts(at, lately)
}
