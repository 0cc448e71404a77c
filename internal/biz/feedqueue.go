package biz

import (
	"sync"
	"time"
)

const (
	// registerEvery is how often a service is registered at most, by the reports of its pods.
	registerEvery = 30 * time.Second
	// maxRegistered is the number of services whose registration is remembered.
	maxRegistered = 10_000
	// maxSpare is the largest buffer that is used a second time.
	maxSpare = 8 * maxPart
)

// changeQueue holds the changes between the requests and the flusher. Its bound counts what the flusher keeps, too.
type changeQueue struct {
	full chan struct{} // receives when so many wait that they are to be flushed at once

	mu         sync.Mutex
	waiting    []Change
	spare      []Change // an empty buffer, for the next flush
	dropped    int
	kept       int       // changes that the flusher has taken and not flushed
	oldest     time.Time // of the kept ones; zero: there are none
	services   []ServiceKey
	registered map[ServiceKey]time.Time
}

func (q *changeQueue) init() {
	q.full = make(chan struct{}, 1)
	q.registered = make(map[ServiceKey]time.Time)
}

// put adds the change, or drops it if too many are not flushed.
func (q *changeQueue) put(c Change) {
	q.mu.Lock()
	if len(q.waiting)+q.kept >= maxNoted {
		q.dropped++
		q.mu.Unlock()
		return
	}
	q.waiting = append(q.waiting, c)
	full := len(q.waiting) == maxPart
	q.mu.Unlock()
	if full {
		signal(q.full)
	}
}

// register asks for the registration of the service, unless that was asked for a moment ago.
func (q *changeQueue) register(key ServiceKey) {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if last, known := q.registered[key]; known && now.Sub(last) < registerEvery || len(q.services) >= maxRegistered {
		return
	}
	if len(q.registered) >= maxRegistered {
		clear(q.registered)
	}
	q.registered[key] = now
	q.services = append(q.services, key)
}

// taken is what the flusher takes from the queue.
type taken struct {
	changes  []Change
	services []ServiceKey // to be registered
	dropped  int
}

// take empties the queue. The flusher keeps what it takes, until it says what it keeps.
func (q *changeQueue) take() taken {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := taken{services: q.services, dropped: q.dropped}
	if len(q.waiting) > 0 {
		t.changes = q.waiting
		q.kept += len(q.waiting)
		if q.oldest.IsZero() {
			q.oldest = q.waiting[0].Time
		}
		q.waiting, q.spare = q.spare, nil
	}
	q.services = nil
	return t
}

// declared says that a gap will be declared for so many dropped changes. At no moment do neither the queue nor the gaps know of them.
func (q *changeQueue) declared(dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropped -= dropped
}

// recycle gives back the buffer of changes that were taken.
func (q *changeQueue) recycle(changes []Change) {
	if cap(changes) == 0 || cap(changes) > maxSpare {
		return
	}
	clear(changes)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.spare = changes[:0]
}

// keep says how many changes the flusher keeps, and when the oldest of them was noted. It returns how many are not flushed in all, and
// when the oldest of those was noted.
func (q *changeQueue) keep(n int, oldest time.Time) (int, time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.kept, q.oldest = n, oldest
	return len(q.waiting) + n, q.first()
}

// late reports whether a change is unflushed for too long.
func (q *changeQueue) late() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	oldest := q.first()
	return !oldest.IsZero() && time.Since(oldest) > maxUnflushed
}

// first returns when the oldest change that is not flushed was noted. The caller must hold mu.
func (q *changeQueue) first() time.Time {
	if q.oldest.IsZero() && len(q.waiting) > 0 {
		return q.waiting[0].Time
	}
	return q.oldest
}

func (q *changeQueue) hasDropped() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped > 0
}

// signal makes the channel, of size 1, receive at least once from now on.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
