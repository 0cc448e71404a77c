package client

import (
	"context"
	"sync"
	"time"

	v1 "podlink/api/podlink/v1"
)

// lease is what podlink's answers to the pod's reports say about this process: until when podlink takes the pod for live, and
// as which process of the pod. The reporter writes it; sessions and guard read it.
type lease struct {
	ttl time.Duration

	mu        sync.Mutex
	current   leaseState
	confirmed time.Time // when the last report that its replicas confirmed was begun; zero: none
	changed   chan struct{}
}

// leaseState is a lease at one moment.
type leaseState struct {
	// until is when the lease ends, by this process's clock. Before that podlink moves no user of the pod by itself. Zero: no
	// report was stored yet.
	until time.Time
	// generation is this process's among those of the pod; 0: podlink has not given it one yet.
	generation int64
	// superseded says that another process has taken over the pod, for good.
	superseded bool
	// storeID changes when the store may have lost links. It is from a report that was begun at storeIDAsOf.
	storeID     string
	storeIDAsOf time.Time
	// lapses counts how often the lease had ended when it was renewed: podlink may have moved users meanwhile.
	lapses int
	// cordon is what an operator has ordered for the pod; READY: nothing.
	cordon v1.Routing
}

// holds reports whether podlink certainly takes this process for the live pod.
func (s leaseState) holds() bool { return !s.superseded && time.Now().Before(s.until) }

// renewal is podlink's answer to a report that it has stored.
type renewal struct {
	begun       time.Time // when the report was begun: its answer is not older
	generation  int64     // 0: the answer does not say
	storeID     string
	cordon      v1.Routing
	unconfirmed bool // too few replicas have confirmed it: a failover may lose it
}

func newLease(ttl time.Duration) *lease {
	return &lease{ttl: ttl, changed: make(chan struct{})}
}

// state returns the lease as it is now, and a channel that is closed when it changes. The mere passing of its end closes
// nothing.
func (l *lease) state() (leaseState, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current, l.changed
}

// renew takes in podlink's answer to a report. It reports whether the lease had ended before.
//
// An unconfirmed report renews it to at most one TTL beyond the end that the last confirmed one gave it: that is how far a
// failover can set podlink's knowledge back.
func (l *lease) renew(r renewal) (lapsed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current.superseded {
		return false
	}
	until := r.begun.Add(l.ttl)
	switch bound := l.confirmed.Add(2 * l.ttl); {
	case !r.unconfirmed:
		l.confirmed = r.begun
	case !l.confirmed.IsZero() && until.After(bound):
		until = bound
	}
	now := &l.current
	// A report that leaves the lease ended, as one that nobody confirms for long, or whose answer comes late, is no lapse yet.
	lapsed = !now.until.IsZero() && time.Now().After(now.until) && until.After(time.Now())
	if lapsed {
		now.lapses++
	}
	if until.After(now.until) {
		now.until = until
	}
	if r.generation != 0 {
		now.generation = r.generation
	}
	if !r.unconfirmed && r.begun.After(now.storeIDAsOf) { // The error of an unconfirmed report says neither.
		now.storeID, now.storeIDAsOf, now.cordon = r.storeID, r.begun, r.cordon
	}
	l.announce()
	return lapsed
}

// supersede ends the lease for good: another process has taken over the pod.
func (l *lease) supersede() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current.superseded = true
	l.announce()
}

func (l *lease) announce() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// wait returns the first state that is right. It returns ctx's error if ctx ends before.
func (l *lease) wait(ctx context.Context, right func(leaseState) bool) (leaseState, error) {
	for {
		state, changed := l.state()
		if right(state) {
			return state, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return state, ctx.Err()
		}
	}
}
