package biz

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// beatEvery is the time between the beats of a process, and the longest one that a beat counts for the death of others.
	beatEvery = time.Second
	// maxBeatAge is how long after a beat a mutation needs no other one. It is shorter than maxSilence, so that the others don't
	// count this process as dead while it makes changes.
	maxBeatAge = 4 * time.Second
	// maxSilence is how long the counter of a writer stands still until it has died.
	maxSilence = 5 * time.Second
	// maxAnnounce is how long a mutation waits for a beat.
	maxAnnounce = 50 * time.Millisecond
	// withoutIndex ends the name of a writer that does not maintain the index.
	withoutIndex = "-noindex"
	// neverHeard is the time of the last beat if there was none.
	neverHeard = -1 << 62
)

// writers is this process among those that write changes: it says that it lives, so that others notice when it has died and may
// have lost changes, and it notices that of the others.
type writers struct {
	repo  FeedRepo
	gaps  *gapList
	id    string
	late  func() bool // a change is unflushed for so long that it counts as lost
	start time.Time
	heard atomic.Int64 // when the last successful beat was sent: ns since start

	mu      sync.Mutex
	beating chan struct{} // closed when the beat in flight has ended; nil: there is none
	tried   time.Time     // when the last beat was sent
	last    time.Time     // when the last successful beat was sent
	own     int64         // the counter after the last beat; 0: there was none since the start, or since this process has left
	others  map[string]sighting
	partial bool // one of them does not maintain the index
	store   string
}

// sighting is what the beats of this process have found out about another writer.
type sighting struct {
	counter int64
	silence time.Duration // in which this process beat, and the counter stood still
	found   bool          // it has died, and the gap is asked for
	died    bool          // the gap is declared
}

func newWriters(repo FeedRepo, gaps *gapList, id string, late func() bool) *writers {
	w := &writers{repo: repo, gaps: gaps, id: id, late: late, start: time.Now()}
	w.heard.Store(neverHeard)
	return w
}

// run beats until ctx ends. Its calls end with work.
func (w *writers) run(ctx, work context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		w.checkStore()
		w.beatAlone(work)
		if w.findDead() {
			w.gaps.want(GapWriterDied)
		}
		signal(w.gaps.changed) // Whoever could not be taken out of the writers is tried again.
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// recent reports whether the others know that this process lives.
func (w *writers) recent() bool {
	return time.Since(w.start)-time.Duration(w.heard.Load()) <= maxBeatAge
}

// announce is called before each mutation, and beats if the last beat is too old. It returns false if the others may count this
// process as dead: its mutation then needs a gap.
func (w *writers) announce(ctx context.Context) bool {
	if w.recent() {
		return true
	}
	if w.late() {
		return false
	}
	ended, mine := w.begin(beatEvery)
	switch {
	case mine:
		w.beat(context.WithoutCancel(ctx), maxAnnounce, ended) // Others may wait for it.
	case ended != nil:
		limit := time.NewTimer(maxAnnounce)
		defer limit.Stop()
		select {
		case <-ended:
		case <-limit.C:
		case <-ctx.Done():
		}
	}
	return w.recent()
}

// begin returns what is closed when the beat in flight has ended, and whether the caller is to make that beat. It returns nil if the
// last beat was tried so short a time ago.
func (w *writers) begin(pause time.Duration) (ended chan struct{}, mine bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if w.beating != nil || now.Sub(w.tried) < pause {
		return w.beating, false
	}
	w.beating, w.tried = make(chan struct{}), now
	return w.beating, true
}

// beat raises the counter of this process, and sees those of the others. The caller has begun the beat.
func (w *writers) beat(ctx context.Context, timeout time.Duration, ended chan struct{}) {
	defer func() {
		w.mu.Lock()
		w.beating = nil
		w.mu.Unlock()
		close(ended)
	}()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	sent := time.Now()
	if counters, err := w.repo.Beat(ctx, w.id); err == nil {
		w.heard.Store(int64(sent.Sub(w.start)))
		w.sight(counters, sent)
	}
}

// beatAlone makes a beat, unless a change is unflushed for so long that it counts as lost, or another beat is in flight.
func (w *writers) beatAlone(ctx context.Context) {
	if w.late() {
		return
	}
	if ended, mine := w.begin(0); mine {
		w.beat(ctx, beatEvery, ended)
	}
}

// sight compares the counters with those of the beat before. A time without own beats counts as one beat: the store may have been
// away for all. If the own counter has not grown, the store has lost data without having failed over, as by FLUSHALL.
func (w *writers) sight(counters map[string]int64, sent time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	since := sent.Sub(w.last)
	passed := min(since, beatEvery)
	if counters[w.id] <= w.own && since < maxSilence { // Nobody has counted this process as dead.
		w.gaps.want(GapStore)
	}
	w.last, w.own = sent, counters[w.id]
	w.partial = false
	others := make(map[string]sighting, len(counters))
	for id, counter := range counters {
		if id == w.id {
			continue
		}
		w.partial = w.partial || strings.HasSuffix(id, withoutIndex)
		other, known := w.others[id]
		if known && other.counter == counter {
			other.silence += passed
		} else {
			other = sighting{counter: counter}
		}
		others[id] = other
	}
	w.others = others
}

// indexless reports whether one of the other writers does not maintain the index.
func (w *writers) indexless() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.partial
}

// findDead reports whether there are writers that have died, and that it has not found before.
func (w *writers) findDead() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	any := false
	for id, other := range w.others {
		if other.silence >= maxSilence && !other.found {
			any, other.found = true, true
			w.others[id] = other
		}
	}
	return any
}

// dead returns the counters of the writers that have died, and whose gap is declared or not.
func (w *writers) dead(declared bool) map[string]int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	found := make(map[string]int64)
	for id, other := range w.others {
		if other.found && other.died == declared {
			found[id] = other.counter
		}
	}
	return found
}

// died notes that the gap is declared for the writers with these counters.
func (w *writers) died(dead map[string]int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, counter := range dead {
		if other, known := w.others[id]; known && other.counter == counter {
			other.died = true
			w.others[id] = other
		}
	}
}

// bury takes those out of the writers for which the gap is declared.
func (w *writers) bury(work context.Context) {
	for id, counter := range w.dead(true) {
		ctx, cancel := context.WithTimeout(work, beatEvery)
		err := w.repo.Leave(ctx, id, counter)
		cancel()
		if err == nil {
			w.mu.Lock()
			delete(w.others, id)
			w.mu.Unlock()
		}
	}
}

// leave takes this process out of the writers. A mutation after that beats first, and so puts it back.
func (w *writers) leave(work context.Context) {
	w.heard.Store(neverHeard)
	w.mu.Lock()
	w.tried, w.own = time.Time{}, 0
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(work, beatEvery)
	defer cancel()
	_ = w.repo.Leave(ctx, w.id, 0) // If it fails, the others count this process as dead, and declare a gap too many.
}

// checkStore asks for a gap if the store has lost data.
func (w *writers) checkStore() {
	store := w.repo.Store()
	w.mu.Lock()
	defer w.mu.Unlock()
	if store == "" || store == w.store {
		return
	}
	if w.store != "" {
		w.gaps.want(GapStore)
	}
	w.store = store
}
