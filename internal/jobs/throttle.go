package jobs

import (
	"context"
	"time"
)

const (
	// maxPage is the maximum number of links of one step.
	maxPage = 512
	// window is the time over which latencies are averaged. The first one gives what the later ones are compared with.
	window = time.Second
	// slowdown is how many times the first latency is too slow.
	slowdown = 2
	// recoverySteps is how many windows it takes to go from nothing to the full rate.
	recoverySteps = 20
	// leastShare of the full rate remains, however slow the store is.
	leastShare = 1. / 64
)

// throttle spreads the steps of a job, and gives way when the store's latency rises: a job has time, callers have not.
type throttle struct {
	full, rate float64 // links a second
	due        time.Time

	began time.Time // of the window
	took  time.Duration
	pages int
	first time.Duration // the mean latency of a page in the first window; 0: it is not over
}

func newThrottle(rate int) *throttle {
	now := time.Now()
	return &throttle{full: float64(max(rate, 1)), rate: float64(max(rate, 1)), due: now, began: now}
}

// page returns how many links a step has: all steps the same, as their latencies are compared.
func (t *throttle) page() int { return int(min(maxPage, max(1, t.full/10))) }

// wait waits until n links may be worked on. What took longer is not caught up on.
func (t *throttle) wait(ctx context.Context, n int) error {
	if now := time.Now(); t.due.Before(now) {
		t.due = now
	}
	until := time.Until(t.due)
	t.due = t.due.Add(time.Duration(float64(n) / t.rate * float64(time.Second)))
	return pause(ctx, until)
}

// measure takes the latency of a step into account. Small ones say nothing about the store.
func (t *throttle) measure(n int, latency time.Duration) {
	if 2*n >= t.page() {
		t.took += latency
		t.pages++
	}
	if time.Since(t.began) < window || t.pages == 0 {
		return
	}
	mean := t.took / time.Duration(t.pages)
	t.began, t.took, t.pages = time.Now(), 0, 0
	switch {
	case t.first == 0:
		t.first = max(mean, 1)
	case mean > slowdown*t.first:
		t.rate = max(t.rate/2, t.full*leastShare)
	default:
		t.rate = min(t.rate+t.full/recoverySteps, t.full)
	}
}
