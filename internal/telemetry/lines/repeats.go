package lines

import (
	"math"
	"sync"
	"time"
)

// Repeats collapses repeated log lines. Of each kind, the first line is written at once; later ones are collapsed into one line
// per interval, with their count. So an outage is visible at once and does not fill the disk.
type Repeats struct {
	interval time.Duration

	mu     sync.Mutex
	kinds  map[string]*repeat
	closed bool
}

// repeat is the pending line of a kind.
type repeat struct {
	count int             // of lines since the last one written
	write func(count int) // of the latest one
	timer *time.Timer
}

// NewRepeats returns a Repeats with that interval. With 0 nothing is collapsed.
func NewRepeats(interval time.Duration) *Repeats {
	return &Repeats{interval: interval, kinds: make(map[string]*repeat), closed: interval <= 0}
}

// Do calls write(1) at once if no line of the kind was written in the last interval. Otherwise, at the end of the interval, the
// latest write is called with the number of calls. Kinds must be few: each is kept in memory while it repeats.
func (r *Repeats) Do(kind string, write func(count int)) { r.TryDo(math.MaxInt, kind, write) }

// TryDo is Do for kinds that callers choose. When limit kinds are kept, it does nothing for another one and returns false.
func (r *Repeats) TryDo(limit int, kind string, write func(count int)) bool {
	first, ok := r.collapse(limit, kind, write)
	if first {
		write(1)
	}
	return ok
}

// collapse defers the line, unless it is the first of its kind, which is to be written at once.
func (r *Repeats) collapse(limit int, kind string, write func(count int)) (first, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return true, true
	}
	pending, known := r.kinds[kind]
	switch {
	case known:
		pending.count++
		pending.write = write
		return false, true
	case len(r.kinds) >= limit:
		return false, false
	}
	r.kinds[kind] = &repeat{timer: time.AfterFunc(r.interval, func() { r.next(kind) })}
	return true, true
}

// next ends an interval: it writes the pending line and starts another interval, or forgets the kind if nothing is pending.
func (r *Repeats) next(kind string) {
	r.mu.Lock()
	pending, ok := r.kinds[kind]
	if !ok { // Closed.
		r.mu.Unlock()
		return
	}
	count, write := pending.count, pending.write
	if count == 0 {
		delete(r.kinds, kind)
	} else {
		pending.count, pending.write = 0, nil
		pending.timer.Reset(r.interval)
	}
	r.mu.Unlock()
	if count > 0 {
		write(count)
	}
}

// Close writes all pending lines. Later lines are not collapsed.
func (r *Repeats) Close() {
	r.mu.Lock()
	kinds := r.kinds
	r.kinds, r.closed = nil, true
	r.mu.Unlock()
	for _, pending := range kinds {
		pending.timer.Stop()
		if pending.count > 0 {
			pending.write(pending.count)
		}
	}
}
