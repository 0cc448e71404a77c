package biz

import (
	"context"
	"errors"
	"time"
)

const (
	// maxFlights is the number of calls that flush at the same time. A server that hangs so holds up its own parts only.
	maxFlights = 4
	// maxFlight is about how many changes and updates are in one call.
	maxFlight = 8 * maxPart
)

// flusher moves changes from the queue to the store. All of it belongs to the goroutine of Run; only its calls run apart.
type flusher struct {
	*Feed
	lanes   map[flushPlace]*lane
	changes int    // in all feeds' lanes
	updates int    // in all indexes' lanes
	queued  queued // as last observed

	flights  int
	retrying bool // a flight has parts that have failed before
	landed   chan flight

	unsettled unsettled
	answers   chan answer
}

// queued is what is not flushed.
type queued struct {
	changes int
	oldest  time.Time
}

// flight is a call of FeedRepo.Flush.
type flight struct {
	lanes []*lane
	parts []FlushPart
	sizes []int
	items int
	retry bool
	took  time.Duration
	errs  []error
}

func newFlusher(f *Feed) *flusher {
	return &flusher{
		Feed: f, lanes: make(map[flushPlace]*lane), landed: make(chan flight, maxFlights),
		unsettled: newUnsettled(), answers: make(chan answer, 1),
	}
}

// run flushes until ctx ends. Its calls end with work.
func (f *flusher) run(ctx, work context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f.take()
			f.settle(work)
		case <-f.queue.full:
			f.take()
		case done := <-f.landed:
			f.land(done)
		case read := <-f.answers:
			f.answered(read)
		}
		f.launch(work)
	}
}

// drain flushes until nothing is left, and reports whether it got there before work has ended. All calls have ended then.
func (f *flusher) drain(work context.Context) bool {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		f.take()
		f.launch(work)
		idle := f.flights == 0 && !f.unsettled.reading
		if idle && (len(f.lanes) == 0 || work.Err() != nil) {
			return len(f.lanes) == 0
		}
		select {
		case done := <-f.landed:
			f.land(done)
		case read := <-f.answers:
			f.answered(read)
		case <-tick.C:
		}
	}
}

// take takes over what is in the queue.
func (f *flusher) take() {
	t := f.queue.take()
	if t.dropped > 0 {
		f.drop(t.dropped)
		f.queue.declared(t.dropped)
	}
	for _, service := range t.services {
		f.lane(flushPlace{service, NoPod}).register = true
	}
	for _, c := range t.changes {
		f.distribute(c)
	}
	f.queue.recycle(t.changes)
}

// drop declares a gap for changes that can't be kept.
func (f *flusher) drop(changes int) {
	f.gaps.want(GapDropped)
	f.observer.Dropped(changes)
}

// distribute puts a change into the lanes of its places.
func (f *flusher) distribute(c Change) {
	service := c.Link.Key.service()
	feed := f.lane(flushPlace{service, NoPod})
	feed.changes, feed.noted = append(feed.changes, c), append(feed.noted, c.Time)
	f.changes++
	if !f.index {
		return
	}
	for _, step := range stepsOf(c) {
		f.update(service, step, c.Time)
	}
	if c.Kind == Uncertain && c.Link.Exists() && !f.unsettled.note(c) {
		f.gaps.want(GapDropped) // Its entry is in the index, and nobody settles it soon.
	}
}

// update puts a step into the lane of its index.
func (f *flusher) update(service ServiceKey, step indexStep, noted time.Time) {
	index := f.lane(flushPlace{service, step.pod})
	index.updates, index.noted = append(index.updates, step.update), append(index.noted, noted)
	f.updates++
}

// lane returns the lane to the place.
func (f *flusher) lane(to flushPlace) *lane {
	l := f.lanes[to]
	if l == nil {
		l = newLane(to)
		f.lanes[to] = l
	}
	return l
}

// launch sends what may be sent now. What has failed before goes in a call apart from the rest: its server may answer late.
func (f *flusher) launch(work context.Context) {
	defer f.keep()
	if work.Err() != nil {
		return
	}
	now := time.Now()
	for f.flights < maxFlights {
		next := f.next(now, false)
		if len(next.parts) == 0 {
			break
		}
		f.send(work, next)
	}
	if f.flights < maxFlights && !f.retrying {
		if next := f.next(now, true); len(next.parts) > 0 {
			f.retrying = true
			f.send(work, next)
		}
	}
}

// next returns a call with the parts that may be sent now.
func (f *flusher) next(now time.Time, retry bool) flight {
	next := flight{retry: retry}
	for _, l := range f.lanes {
		if l.sending || (l.failures > 0) != retry || now.Before(l.retry) {
			continue
		}
		part, n := l.part()
		l.sending = true
		next.lanes, next.parts, next.sizes = append(next.lanes, l), append(next.parts, part), append(next.sizes, n)
		if next.items += n; next.items >= maxFlight {
			break
		}
	}
	return next
}

// send starts a call.
func (f *flusher) send(work context.Context, next flight) {
	f.flights++
	go func() {
		ctx, cancel := context.WithTimeout(work, maxCall)
		defer cancel()
		start := time.Now()
		next.errs = f.repo.Flush(ctx, next.parts)
		next.took = time.Since(start)
		f.landed <- next
	}()
}

// land applies the results of a call.
func (f *flusher) land(done flight) {
	f.flights--
	if done.retry {
		f.retrying = false
	}
	now := time.Now()
	changes, oldest, passed := 0, now, false
	for i, l := range done.lanes {
		l.sending = false
		n, err := done.sizes[i], done.errs[i]
		refused := errors.Is(err, ErrStoreDataCorrupt) // The place has foreign data: no repetition changes that.
		if err != nil && !refused {
			l.fail(now)
			continue
		}
		switch {
		case refused && n > 0:
			f.drop(n)
		case !refused:
			passed = true
			if n > 0 && l.noted[0].Before(oldest) {
				oldest = l.noted[0]
			}
			changes += len(done.parts[i].Changes)
		}
		f.pass(l, n)
	}
	if passed {
		f.observer.Flushed(changes, now.Sub(oldest), done.took)
	}
}

// pass removes the first n of the lane.
func (f *flusher) pass(l *lane, n int) {
	if l.place.pod == NoPod {
		f.changes -= n
	} else {
		f.updates -= n
	}
	if l.pass(n); l.empty() {
		delete(f.lanes, l.place)
	}
}

// keep says to the queue what is not flushed.
func (f *flusher) keep() {
	var oldest time.Time
	for _, l := range f.lanes {
		if len(l.noted) > 0 && (oldest.IsZero() || l.noted[0].Before(oldest)) {
			oldest = l.noted[0]
		}
	}
	changes, oldest := f.queue.keep(max(f.changes, f.updates), oldest)
	if now := (queued{changes, oldest}); now != f.queued {
		f.queued = now
		f.observer.Queued(changes, oldest)
	}
}
