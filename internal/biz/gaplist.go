package biz

import (
	"context"
	"sync"
	"time"
)

const (
	// gapEvery is the shortest time between two gaps of a reason: one covers all that was lost before it. A link is in complete lists
	// 10 s after it was made, so a gap that is noticed within 6 s is declared in time.
	gapEvery = 3 * time.Second
	// firstGapRetry is the pause after the first failure to declare a gap. It doubles up to gapEvery.
	firstGapRetry = 100 * time.Millisecond
)

// gapList holds the gaps that this process has to declare.
type gapList struct {
	changed chan struct{} // receives when there is another one

	mu    sync.Mutex
	gaps  map[GapReason]*gap // each that was ever asked for
	wants int                // of all gaps that are not declared
}

// gap is a gap to declare.
type gap struct {
	wants    int // how often it was asked for since it was declared; 0: it is declared
	due      time.Time
	failures int // in a row
}

func (g *gapList) init() {
	g.changed = make(chan struct{}, 1)
	g.gaps = make(map[GapReason]*gap)
}

// want asks for a gap that covers what was lost until now.
func (g *gapList) want(reason GapReason) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gaps[reason] == nil {
		g.gaps[reason] = new(gap)
	}
	g.gaps[reason].wants++
	g.wants++
	signal(g.changed)
}

// pending reports whether there is a gap that is not declared.
func (g *gapList) pending() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.wants > 0
}

// next returns a gap that is to be declared now, and how often it was asked for. If there is none, it returns the time until one is, 0
// if none is pending.
func (g *gapList) next(now time.Time) (reason GapReason, wants int, wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for r, one := range g.gaps {
		switch until := one.due.Sub(now); {
		case one.wants == 0:
		case until <= 0:
			return r, one.wants, 0
		case wait == 0 || until < wait:
			wait = until
		}
	}
	return "", 0, wait
}

// written notes the result of declaring a gap. What was asked for in the meantime needs another one.
func (g *gapList) written(reason GapReason, wants int, err error, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	one := g.gaps[reason]
	if err != nil {
		one.due = now.Add(min(firstGapRetry<<min(one.failures, 10), gapEvery))
		one.failures++
		return
	}
	one.wants -= wants
	one.due, one.failures = now.Add(gapEvery), 0
	g.wants -= wants
}

// hurry makes all gaps due.
func (g *gapList) hurry() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, one := range g.gaps {
		one.due = time.Time{}
	}
}

// declare declares the gaps until ctx ends, and takes the dead out of the writers. Its calls end with work.
func (f *Feed) declare(ctx, work context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.gaps.changed:
		case <-timer.C:
		}
		_, wait := f.declareDue(work)
		f.writers.bury(work)
		if wait > 0 {
			timer.Reset(wait)
		}
	}
}

// declareDue declares the gaps that are due. It returns false if one failed, and the time until the next one is due, 0 if there is none.
func (f *Feed) declareDue(work context.Context) (ok bool, wait time.Duration) {
	for ok = true; ; {
		reason, wants, until := f.gaps.next(time.Now())
		if reason == "" {
			return ok, until
		}
		dead := f.writers.dead(false) // The gap covers their changes, if it is for the dead.
		ctx, cancel := context.WithTimeout(work, maxCall)
		err := f.repo.Gap(ctx, reason)
		cancel()
		f.gaps.written(reason, wants, err, time.Now())
		if err != nil {
			ok = false
			continue
		}
		if reason == GapWriterDied {
			f.writers.died(dead)
		}
		f.observer.GapWritten(reason)
	}
}

// declareLast declares what is pending, and reports whether nothing is left.
func (f *Feed) declareLast(work context.Context) bool {
	f.gaps.hurry()
	ok, _ := f.declareDue(work)
	return ok && f.nothingLost()
}
