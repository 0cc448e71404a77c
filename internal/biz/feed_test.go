package biz

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// feedEvents is a FeedObserver that records the events.
type feedEvents struct {
	mu      sync.Mutex
	flushed int
	oldest  time.Duration
	dropped int
	gaps    []GapReason
	queued  int
	since   time.Time
}

func (e *feedEvents) Flushed(changes int, oldest, _ time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.flushed += changes
	e.oldest = max(e.oldest, oldest)
}

func (e *feedEvents) Dropped(changes int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dropped += changes
}

func (e *feedEvents) GapWritten(reason GapReason) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gaps = append(e.gaps, reason)
}

func (e *feedEvents) Queued(changes int, oldest time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.queued, e.since = changes, oldest
}

// uidsOf returns the uids of the changes.
func uidsOf(changes []Change) []string {
	uids := make([]string, len(changes))
	for i, c := range changes {
		uids[i] = c.Link.Key.UID
	}
	return uids
}

// TestStepsOf: what a change does to the index.
func TestStepsOf(t *testing.T) {
	noted := time.Unix(1000, 0)
	change := func(kind ChangeKind, pod PodID, ttl TTL, epoch Epoch, previous PodID) Change {
		return Change{Kind: kind, Link: Link{Key: room.link("ann"), Pod: pod, TTL: ttl, Epoch: epoch}, Previous: previous, Time: noted}
	}
	entry := func(epoch Epoch, expires time.Time) IndexEntry {
		return IndexEntry{UID: "ann", Epoch: epoch, Expires: expires}
	}
	never := time.Time{}
	for name, row := range map[string]struct {
		change Change
		want   []indexStep
	}{
		"linked":    {change(Linked, 2, Forever, 7, NoPod), []indexStep{{2, IndexUpdate{AddEntry, entry(7, never)}}}},
		"persisted": {change(Persisted, 2, Forever, 7, 2), []indexStep{{2, IndexUpdate{AddEntry, entry(7, never)}}}},
		"expiring":  {change(Expiring, 2, 60, 7, 2), []indexStep{{2, IndexUpdate{AddEntry, entry(7, noted.Add(time.Minute))}}}},
		"moved": {change(Moved, 3, Forever, 8, 2), []indexStep{
			{3, IndexUpdate{AddEntry, entry(8, never)}}, {2, IndexUpdate{RemoveEntry, entry(7, never)}},
		}},
		"removed": {change(Removed, NoPod, Gone, 8, 3), []indexStep{{3, IndexUpdate{RemoveEntry, entry(8, never)}}}},
		"perhaps linked": {change(Uncertain, 4, Forever, 0, NoPod), []indexStep{
			{4, IndexUpdate{AddUncertain, IndexEntry{UID: "ann", Uncertain: true, Noted: noted}}},
		}},
		"perhaps removed": {change(Uncertain, NoPod, Gone, 0, 4), nil},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, row.want, stepsOf(row.change)) })
	}
}

// TestFlush: the changes of 20 ms are one part for the feed and one for each pod, in one call.
func TestFlush(t *testing.T) {
	events := new(feedEvents)
	withFeed(t, FeedOptions{Index: true, Observer: events}, func(t feedCase) {
		before := time.Now()
		t.note(Linked, "ann", 2, 1, NoPod)
		t.note(Linked, "bob", 3, 2, NoPod)
		t.note(Moved, "ann", 3, 3, 2)
		time.Sleep(flushEvery)
		synctest.Wait()
		require.Len(t, t.store.flushes, 1)
		require.Len(t, t.store.flushes[0], 3, "the feed and two pods")
		noted := t.store.noted(room)
		require.Equal(t, []string{"ann", "bob", "ann"}, uidsOf(noted))
		require.Equal(t, before, noted[0].Time)
		_, stale := t.store.entry(2, "ann")
		require.False(t, stale)
		entry, _ := t.store.entry(3, "ann")
		require.Equal(t, IndexEntry{UID: "ann", Epoch: 3}, entry)
		require.Equal(t, 3, events.flushed)
		require.LessOrEqual(t, events.oldest, flushEvery)
		require.Zero(t, events.queued)
		require.Zero(t, events.since)
		require.True(t, t.feed.Complete())
	})
}

// TestFlushOfMany: as many as a part holds are flushed at once, before the time has come.
func TestFlushOfMany(t *testing.T) {
	withFeed(t, FeedOptions{Index: true}, func(t feedCase) {
		for i := range maxPart {
			t.note(Linked, fmt.Sprint("user", i), 2, Epoch(i+1), NoPod)
		}
		synctest.Wait()
		require.Len(t, t.store.noted(room), maxPart)
		for i := range 3*maxPart + 1 {
			t.note(Linked, fmt.Sprint("other", i), 2, Epoch(i+1), NoPod)
		}
		time.Sleep(flushEvery)
		synctest.Wait()
		require.Len(t, t.store.noted(room), 4*maxPart+1)
		for _, parts := range t.store.flushes {
			for _, part := range parts {
				require.LessOrEqual(t, max(len(part.Changes), len(part.Updates)), maxPart)
			}
		}
	})
}

// TestFlushWithoutIndex: only the feed is written, and an unknown outcome is left to those who watch.
func TestFlushWithoutIndex(t *testing.T) {
	withFeed(t, FeedOptions{}, func(t feedCase) {
		t.note(Linked, "ann", 2, 1, NoPod)
		t.note(Uncertain, "ann", 3, 0, NoPod)
		time.Sleep(5 * time.Second)
		require.Len(t, t.store.noted(room), 2)
		require.Empty(t, t.store.indexes)
		require.Zero(t, t.links.reads)
	})
}

// TestFailedPartsKeepTheirOrder: what fails is repeated before what is noted later, and holds up no other place.
func TestFailedPartsKeepTheirOrder(t *testing.T) {
	for name, fate := range map[string]flushFate{
		"refused": {err: errStoreAway}, "the reply is lost": {err: ErrOutcomeUnknown, done: true}, "full": {err: ErrStoreFull},
	} {
		t.Run(name, func(t *testing.T) {
			withFeed(t, FeedOptions{Index: true}, func(t feedCase) {
				var away atomic.Bool
				away.Store(true)
				t.store.locked(func() {
					t.store.onFlush = func(_ context.Context, part FlushPart) flushFate {
						if part.Pod == 2 && part.Updates != nil && away.Load() {
							return fate
						}
						return carriedOut
					}
				})
				t.note(Linked, "ann", 2, 1, NoPod)
				time.Sleep(time.Second)
				t.note(Removed, "ann", NoPod, 1, 2)
				t.note(Linked, "bob", 3, 2, NoPod)
				time.Sleep(time.Second)
				require.Len(t, t.store.noted(room), 3, "the feed is at another place")
				_, found := t.store.entry(3, "bob")
				require.True(t, found, "another pod")
				require.True(t, t.feed.Complete(), "it is not long")
				time.Sleep(3 * time.Second)
				require.False(t, t.feed.Complete())
				away.Store(false)
				time.Sleep(maxRetry + beatEvery)
				_, found = t.store.entry(2, "ann")
				require.False(t, found)
				require.True(t, t.feed.Complete())
				require.Empty(t, t.store.declared(), "nothing was lost")
			})
		})
	}
}

// TestAHangingServerHoldsUpNoOther: the parts of other servers go on.
func TestAHangingServerHoldsUpNoOther(t *testing.T) {
	withFeed(t, FeedOptions{Index: true}, func(t feedCase) {
		t.store.locked(func() {
			t.store.onFlush = func(ctx context.Context, part FlushPart) flushFate {
				if part.Updates != nil && part.Pod == 2 {
					<-ctx.Done()
					return flushFate{err: ErrOutcomeUnknown}
				}
				return carriedOut
			}
		})
		t.note(Linked, "ann", 2, 1, NoPod)
		time.Sleep(time.Minute)
		late := 0
		for i := range 1000 {
			t.note(Linked, "bob", 3, Epoch(i+2), NoPod)
			time.Sleep(2 * flushEvery)
			synctest.Wait()
			if entry, _ := t.store.entry(3, "bob"); entry.Epoch != Epoch(i+2) {
				late++
			}
		}
		require.Zero(t, late)
	})
}

// TestFullQueue: what can't be kept is dropped, without blocking anyone, and a gap says so.
func TestFullQueue(t *testing.T) {
	events := new(feedEvents)
	withFeed(t, FeedOptions{Index: true, Observer: events}, func(t feedCase) {
		var away atomic.Bool
		away.Store(true)
		t.store.locked(func() {
			t.store.onFlush = func(context.Context, FlushPart) flushFate {
				if away.Load() {
					return flushFate{err: errStoreAway}
				}
				return carriedOut
			}
			t.store.onGap = func(context.Context) error {
				if away.Load() {
					return errStoreAway
				}
				return nil
			}
		})
		for i := range maxNoted + 100 {
			t.note(Linked, fmt.Sprint("user", i), 2, Epoch(i+1), NoPod)
			if i%1000 == 0 {
				time.Sleep(flushEvery)
			}
		}
		time.Sleep(flushEvery)
		synctest.Wait()
		require.Equal(t, 100, events.dropped)
		require.Equal(t, maxNoted, events.queued)
		require.False(t, t.feed.Complete(), "a gap is to be declared")
		require.Empty(t, t.store.declared())
		away.Store(false)
		time.Sleep(10 * time.Second)
		require.Equal(t, []GapReason{GapDropped}, t.store.declared(), "one gap covers what was dropped before it")
		require.Equal(t, t.store.declared(), events.gaps)
		require.Len(t, t.store.noted(room), maxNoted)
		require.Zero(t, events.queued)
		require.True(t, t.feed.Complete())
	})
}

// TestForeignData: a place that podlink did not write takes nothing; what was for it is dropped, and the others go on.
func TestForeignData(t *testing.T) {
	withFeed(t, FeedOptions{Index: true}, func(t feedCase) {
		t.store.locked(func() {
			t.store.onFlush = func(_ context.Context, part FlushPart) flushFate {
				if part.Updates != nil {
					return flushFate{err: fmt.Errorf("index: %w", ErrStoreDataCorrupt)}
				}
				return carriedOut
			}
		})
		t.note(Linked, "ann", 2, 1, NoPod)
		time.Sleep(10 * time.Second)
		require.Len(t, t.store.noted(room), 1)
		require.Equal(t, []GapReason{GapDropped}, t.store.declared())
		require.True(t, t.feed.Complete(), "nothing is to be repeated")
	})
}

// TestGaps: each is repeated until it is written, and not more often than needed.
func TestGaps(t *testing.T) {
	withFeed(t, FeedOptions{}, func(t feedCase) {
		var tries int
		t.store.locked(func() {
			t.store.onGap = func(context.Context) error {
				if tries++; tries < 10 {
					return ErrOutcomeUnknown
				}
				return nil
			}
		})
		t.feed.gaps.want(GapDropped)
		t.feed.gaps.want(GapDropped)
		time.Sleep(15 * time.Second)
		require.False(t, t.feed.Complete())
		time.Sleep(15 * time.Second)
		require.Equal(t, []GapReason{GapDropped}, t.store.declared())
		require.True(t, t.feed.Complete())
		begin := time.Now()
		for time.Since(begin) < 30*time.Second {
			t.feed.gaps.want(GapDropped)
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(gapEvery)
		require.InDelta(t, 1+30/gapEvery.Seconds(), len(t.store.declared()), 2)
		require.True(t, t.feed.Complete())
	})
}

// TestStop: the end flushes what is noted and leaves the writers, or it leaves a writer whose death the others notice.
func TestStop(t *testing.T) {
	for name, row := range map[string]struct {
		options FeedOptions
		broken  string // what fails: flush, gap
		gap     bool   // a gap is pending
		leaves  bool
		gaps    []GapReason
	}{
		"all is well":               {options: FeedOptions{Index: true}, leaves: true},
		"a gap is pending":          {options: FeedOptions{Index: true}, gap: true, leaves: true, gaps: []GapReason{GapDropped}},
		"the store is away":         {options: FeedOptions{Index: true}, broken: "flush"},
		"the gap can't be declared": {options: FeedOptions{Index: true}, broken: "gap", gap: true},
		"without the index":         {leaves: true, gaps: []GapReason{GapDropped}},
	} {
		t.Run(name, func(t *testing.T) {
			withFeed(t, row.options, func(t feedCase) {
				t.store.locked(func() {
					t.store.onFlush = func(context.Context, FlushPart) flushFate {
						if row.broken == "flush" {
							return flushFate{err: errStoreAway}
						}
						return carriedOut
					}
					t.store.onGap = func(context.Context) error {
						if row.broken == "gap" {
							return errStoreAway
						}
						return nil
					}
				})
				t.note(Linked, "ann", 2, 1, NoPod)
				if row.gap {
					t.feed.gaps.want(GapDropped)
				}
				begin := time.Now()
				t.stop()
				require.LessOrEqual(t, time.Since(begin), maxDrain)
				require.Equal(t, row.leaves, len(t.store.writers) == 0)
				require.Equal(t, row.gaps, slices.Clone(t.store.gaps))
				if row.broken != "flush" {
					require.Len(t, t.store.noted(room), 1)
				}
			})
		})
	}
}

// TestStopWithAHangingStore: the calls in flight end.
func TestStopWithAHangingStore(t *testing.T) {
	withFeed(t, FeedOptions{Index: true}, func(t feedCase) {
		t.store.locked(func() {
			t.store.onFlush = func(ctx context.Context, _ FlushPart) flushFate {
				<-ctx.Done()
				return flushFate{err: ErrOutcomeUnknown}
			}
			t.store.onBeat = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
			t.store.onGap = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		})
		t.note(Uncertain, "ann", 2, 0, NoPod)
		t.feed.gaps.want(GapStore)
		time.Sleep(5 * time.Second)
		begin := time.Now()
		t.stop()
		require.LessOrEqual(t, time.Since(begin), maxDrain)
		require.NotEmpty(t, t.store.writers)
	})
}

// TestNoteServices: a service is registered by its pods' reports, but not with each.
func TestNoteServices(t *testing.T) {
	withFeed(t, FeedOptions{Index: true}, func(t feedCase) {
		repo := &fakePods{pods: map[PodID]Pod{}}
		pods := NoteServices(repo, t.feed)
		report := func(key ServiceKey) {
			_, _ = pods.Set(t.Context(), key, Report{Pod: 0, State: "up", TTL: 10})
		}
		for range 29 {
			report(room)
			time.Sleep(time.Second)
		}
		require.True(t, t.store.services[room])
		require.Len(t, t.store.flushes, 1)
		require.Equal(t, []FlushPart{{Service: room}}, t.store.flushes[0])
		time.Sleep(time.Second)
		report(room)
		time.Sleep(time.Second)
		require.Len(t, t.store.flushes, 2)

		other := ServiceKey{"game", "hall"}
		repo.fail(ErrStoreUnavailable)
		report(other)
		time.Sleep(time.Second)
		require.False(t, t.store.services[other], "the report was not stored")
	})
}
