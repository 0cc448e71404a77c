package biz

import (
	"context"
	"errors"
	"hash/fnv"
	"time"
)

const (
	// sweepInterval is the time between the begins of two walks over the index.
	sweepInterval = 5 * time.Minute
	// sweepPage is how many entries a sweep reads at a time.
	sweepPage = 500
	// maxUncertain is how long an entry is uncertain before the sweep settles it. The process that has noted it does so earlier if it
	// lives.
	maxUncertain = time.Minute
	// settleAfter is how long after the store has answered a link is read again to settle what is uncertain: a mutation that was still
	// in flight has arrived by then, or never will.
	settleAfter = time.Second
)

// Sweep removes from the index what is stale and what no list has found: it goes over the whole index every five minutes, and
// verifies the entries whose links should have expired, and each entry once in a longer time. One process does it, under a lease.
type Sweep struct {
	index    IndexRepo
	feed     FeedRepo
	links    LinkRepo
	rate     int
	every    time.Duration
	interval time.Duration
	holder   string
	observer FleetObserver
}

// SweepOptions are the settings of a Sweep.
type SweepOptions struct {
	Rate     int           // entries a second
	Every    time.Duration // in which each entry is verified once
	Holder   string        // names this process
	Observer FleetObserver
}

// NewSweep returns the sweep on the repos.
func NewSweep(index IndexRepo, feed FeedRepo, links LinkRepo, o SweepOptions) *Sweep {
	return &Sweep{
		index: index, feed: feed, links: links,
		rate: o.Rate, every: o.Every, interval: min(sweepInterval, o.Every), holder: o.Holder, observer: o.Observer,
	}
}

// Run sweeps, whenever no other process does, until ctx ends.
func (s *Sweep) Run(ctx context.Context) error {
	// Until when entries were verified that were due: at least until the walk before the last one of the process that swept when this
	// one last heard of it. So nothing is left out when the processes end, or the store is away.
	swept := time.Now().Add(-2 * s.interval)
	for ctx.Err() == nil {
		taken, err := withLease(ctx, s.index, "sweep", s.holder, func(ctx context.Context) { swept = s.repeat(ctx, swept) })
		if err == nil && !taken {
			swept = time.Now().Add(-2 * s.interval)
		}
		_ = pause(ctx, leaseTTL)
	}
	return nil
}

// repeat walks until ctx ends, and returns until when it has swept. A walk verifies what has become due since the last one that
// succeeded.
func (s *Sweep) repeat(ctx context.Context, swept time.Time) time.Time {
	for {
		walk := sweepWalk{Sweep: s, pace: newPace(s.rate), since: swept, began: time.Now()}
		if walk.run(ctx) == nil {
			swept = walk.began
		}
		if pause(ctx, max(s.interval-time.Since(walk.began), leaseRenewal)) != nil {
			return swept
		}
	}
}

// sweepWalk is one walk over the index.
type sweepWalk struct {
	*Sweep
	pace         *pace
	since, began time.Time
}

// run goes over the indexes of all pods. One that podlink did not write is left.
func (w *sweepWalk) run(ctx context.Context) error {
	services, err := w.index.Services(ctx, "")
	if err != nil {
		return err
	}
	for _, key := range services {
		pods, err := w.index.IndexedPods(ctx, key)
		if err != nil && !errors.Is(err, ErrStoreDataCorrupt) {
			return err
		}
		for _, pod := range pods {
			if pod.Entries == 0 {
				continue
			}
			if err := w.sweepPod(ctx, key, pod.Pod); err != nil && !errors.Is(err, ErrStoreDataCorrupt) {
				return err
			}
		}
	}
	return nil
}

// sweepPod goes over the index of a pod.
func (w *sweepWalk) sweepPod(ctx context.Context, key ServiceKey, pod PodID) error {
	for token := ""; ; {
		entries, next, err := w.index.Entries(ctx, key, pod, token, sweepPage)
		if err != nil {
			return err
		}
		var due []IndexEntry
		for _, entry := range entries {
			if w.due(entry) {
				due = append(due, entry)
			}
		}
		if err := w.verify(ctx, key, pod, due); err != nil {
			return err
		}
		if err := w.pace.wait(ctx, len(entries)); err != nil || next == "" {
			return err
		}
		token = next
	}
}

// due reports whether to verify the entry now. Its turn comes at a time of each period that depends on its uid only, so that it
// comes whoever sweeps.
func (w *sweepWalk) due(entry IndexEntry) bool {
	switch {
	case entry.Uncertain:
		return w.began.Sub(entry.Noted) >= maxUncertain
	case w.lapsed(entry), w.began.Sub(w.since) >= w.every:
		return true
	}
	uid := fnv.New64a()
	_, _ = uid.Write([]byte(entry.UID))
	turn := int64(uid.Sum64() % uint64(w.every))
	sinceTurn := (w.began.UnixNano() - turn) % int64(w.every)
	return sinceTurn < int64(w.began.Sub(w.since))
}

// lapsed reports whether the link of the entry should have expired.
func (w *sweepWalk) lapsed(entry IndexEntry) bool {
	return !entry.Expires.IsZero() && !w.began.Before(entry.Expires)
}

// verify reads the links of the entries, and corrects the index. What can't be read waits for the next time.
func (w *sweepWalk) verify(ctx context.Context, key ServiceKey, pod PodID, due []IndexEntry) error {
	results, err := readEntries(ctx, w.links, key, due)
	if err != nil {
		return err
	}
	updates, stale, now := indexUpdates{}, 0, time.Now()
	var uncertain []IndexEntry
	for _, entry := range due {
		link, err := results[entry.UID].Link, results[entry.UID].Err
		switch {
		case err != nil:
		case entry.Uncertain:
			uncertain = append(uncertain, entry)
		case link.Pod != pod:
			updates.add(key, pod, removalOf(entry))
			stale++
		case link.Epoch != entry.Epoch || link.Persistent() != entry.Expires.IsZero() || w.lapsed(entry):
			updates.add(key, pod, addOf(link, now))
		}
	}
	if err := updates.flush(ctx, w.feed); err != nil {
		return err
	}
	if len(due) > 0 {
		w.observer.Swept(len(due), stale)
	}
	return w.settle(ctx, key, pod, uncertain)
}

// settle ends the uncertainty about links that the store has just answered for: it reads them once more, later, and indexes what is
// there. The doubt is dropped last, so that no failure leaves the link out.
func (w *sweepWalk) settle(ctx context.Context, key ServiceKey, pod PodID, uncertain []IndexEntry) error {
	if len(uncertain) == 0 {
		return nil
	}
	if err := pause(ctx, settleAfter); err != nil {
		return err
	}
	results, err := readEntries(ctx, w.links, key, uncertain)
	if err != nil {
		return err
	}
	adds, drops, now := indexUpdates{}, indexUpdates{}, time.Now()
	for _, entry := range uncertain {
		result := results[entry.UID]
		if result.Err != nil {
			continue
		}
		if result.Link.Exists() {
			adds.add(key, result.Link.Pod, addOf(result.Link, now))
		}
		drops.add(key, pod, IndexUpdate{Op: DropUncertain, Entry: entry})
	}
	if err := adds.flush(ctx, w.feed); err != nil {
		return err
	}
	return drops.flush(ctx, w.feed)
}
