package telemetry

import (
	"sync"
	"time"
)

// Repeats holds back lines that say the same again and again: of each kind one is written at once, and then one in
// an interval, which tells how many there were. So a store that is down shows at once, and does not fill the disk.
type Repeats struct {
	interval time.Duration

	mu     sync.Mutex
	kinds  map[string]*repeat
	closed bool
}

// repeat is what has come of a kind since its last line.
type repeat struct {
	count int
	write func(count int) // the last of them
	timer *time.Timer
}

// NewRepeats returns a Repeats of that interval; with none, 0, it holds nothing back.
func NewRepeats(interval time.Duration) *Repeats {
	return &Repeats{interval: interval, kinds: make(map[string]*repeat), closed: interval <= 0}
}

// Do calls write(1) at once when the last line of the kind is an interval old. Otherwise it calls it at the end of
// that interval, for the last of its kind only, with the number of them. There must be few kinds: each is remembered while it
// goes on.
func (r *Repeats) Do(kind string, write func(count int)) {
	if r.hold(kind, write) {
		return
	}
	write(1)
}

// hold returns false for the first of a kind.
func (r *Repeats) hold(kind string, write func(count int)) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	held, repeated := r.kinds[kind]
	if repeated {
		held.count++
		held.write = write
		return true
	}
	r.kinds[kind] = &repeat{timer: time.AfterFunc(r.interval, func() { r.next(kind) })}
	return false
}

// next ends an interval, and begins another one if there was something to hold back.
func (r *Repeats) next(kind string) {
	r.mu.Lock()
	held, ok := r.kinds[kind]
	if !ok { // Close was faster.
		r.mu.Unlock()
		return
	}
	count, write := held.count, held.write
	if count == 0 {
		delete(r.kinds, kind)
	} else {
		held.count, held.write = 0, nil
		held.timer.Reset(r.interval)
	}
	r.mu.Unlock()
	if count > 0 {
		write(count)
	}
}

// Close writes what is held back. From then on nothing is held back any more.
func (r *Repeats) Close() {
	r.mu.Lock()
	kinds := r.kinds
	r.kinds, r.closed = nil, true
	r.mu.Unlock()
	for _, held := range kinds {
		held.timer.Stop()
		if held.count > 0 {
			held.write(held.count)
		}
	}
}
