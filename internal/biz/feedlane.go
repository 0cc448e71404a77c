package biz

import "time"

const (
	// firstRetry is the pause after a part's first failure. It doubles with each failure, up to maxRetry.
	firstRetry = flushEvery
	maxRetry   = 500 * time.Millisecond
)

// flushPlace is where a part of a flush goes: the feed of a service, or the index of one of its pods.
type flushPlace struct {
	service ServiceKey
	pod     PodID // NoPod: the feed
}

// lane holds what is to be flushed to one place, in its order: a part that fails stays in front of what is noted later.
type lane struct {
	place    flushPlace
	changes  []Change      // of a feed
	updates  []IndexUpdate // of an index
	noted    []time.Time   // when each change was noted, or the change of each update
	register bool          // the service is to be registered, even if there are no changes

	sending  bool
	failures int       // in a row
	retry    time.Time // no part is sent before
}

// newLane returns a lane with room for what a flush often brings: to grow for each of many pods costs more than all else here.
func newLane(to flushPlace) *lane {
	const feed, index = 64, 8
	if to.pod == NoPod {
		return &lane{place: to, changes: make([]Change, 0, feed), noted: make([]time.Time, 0, feed)}
	}
	return &lane{place: to, updates: make([]IndexUpdate, 0, index), noted: make([]time.Time, 0, index)}
}

// part returns what is to be sent next, and how many changes or updates it has.
func (l *lane) part() (FlushPart, int) {
	n := min(len(l.noted), maxPart)
	if l.place.pod == NoPod {
		return FlushPart{Service: l.place.service, Changes: l.changes[:n:n]}, n
	}
	return FlushPart{Service: l.place.service, Pod: l.place.pod, Updates: l.updates[:n:n]}, n
}

// pass removes the first n, which were sent.
func (l *lane) pass(n int) {
	l.noted, l.register, l.failures = l.noted[n:], false, 0
	if l.place.pod == NoPod {
		l.changes = l.changes[n:]
	} else {
		l.updates = l.updates[n:]
	}
}

// fail postpones the next attempt.
func (l *lane) fail(now time.Time) {
	l.retry = now.Add(min(firstRetry<<min(l.failures, 10), maxRetry))
	l.failures++
}

func (l *lane) empty() bool { return len(l.noted) == 0 && !l.register }

// indexStep is an update of the index of a pod, as a change of a link asks for it.
type indexStep struct {
	pod    PodID
	update IndexUpdate
}

// stepsOf returns the updates that a change asks for. An uncertain removal asks for none: the entry that there is stays true or is
// found to be stale when it is read.
func stepsOf(c Change) []indexStep {
	uid := c.Link.Key.UID
	switch c.Kind {
	case Uncertain:
		if !c.Link.Exists() {
			return nil
		}
		return []indexStep{{c.Link.Pod, IndexUpdate{AddUncertain, IndexEntry{UID: uid, Uncertain: true, Noted: c.Time}}}}
	case Removed:
		if c.Previous == NoPod {
			return nil
		}
		return []indexStep{{c.Previous, removalOf(IndexEntry{UID: uid, Epoch: c.Link.Epoch})}}
	case Moved:
		before := IndexEntry{UID: uid, Epoch: c.Link.Epoch - 1}
		return []indexStep{{c.Link.Pod, addOf(c.Link, c.Time)}, {c.Previous, removalOf(before)}}
	default:
		return []indexStep{{c.Link.Pod, addOf(c.Link, c.Time)}}
	}
}
