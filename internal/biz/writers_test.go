package biz

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// beats returns the counter of the only writer.
func (t feedCase) beats() int64 {
	writers := t.store.registered()
	require.Len(t, writers, 1)
	for _, counter := range writers {
		return counter
	}
	return 0
}

// TestBeats: one each second, at once after the start.
func TestBeats(t *testing.T) {
	withFeed(t, FeedOptions{Index: true}, func(t feedCase) {
		require.EqualValues(t, 1, t.beats())
		passTime(10500 * time.Millisecond)
		require.EqualValues(t, 11, t.beats())
	})
}

// TestNoBeatsWithOldChanges: a process that can't flush does not say that it is well.
func TestNoBeatsWithOldChanges(t *testing.T) {
	withFeed(t, FeedOptions{Index: true}, func(t feedCase) {
		var away atomic.Bool
		away.Store(true)
		t.store.locked(func() {
			t.store.onFlush = func(_ context.Context, part FlushPart) flushFate {
				if away.Load() && part.Updates != nil {
					return flushFate{err: errStoreAway}
				}
				return carriedOut
			}
		})
		links := NoteChanges(t.links, t.feed)
		passTime(500 * time.Millisecond)
		t.note(Linked, "ann", 2, 1, NoPod)
		passTime(20 * time.Second)
		require.EqualValues(t, 5, t.beats(), "those of the first 4 s")
		require.Empty(t, t.store.declared())

		_, err := links.Set(t.Context(), room.link("bob"), 3, Forever, SetTerms{})
		require.NoError(t, err)
		require.EqualValues(t, 5, t.beats(), "a mutation does not say so either")
		passTime(time.Second)
		require.Equal(t, []GapReason{GapWriterDied}, t.store.declared())

		away.Store(false)
		passTime(2 * time.Second)
		before := t.beats()
		require.Greater(t, before, int64(5))
		require.True(t, t.feed.Complete())
	})
}

// TestDeaths: a writer has died when its counter stands still for 5 s in which this process could beat.
func TestDeaths(t *testing.T) {
	for name, row := range map[string]struct {
		events func(t feedCase) // from the first sighting of the other writer on
		dead   bool
	}{
		"it stands still for less":  {func(feedCase) { passTime(4500 * time.Millisecond) }, false},
		"it stands still":           {func(feedCase) { passTime(5500 * time.Millisecond) }, true},
		"it goes on, but slowly":    {func(t feedCase) { t.otherBeats(10, 4*time.Second) }, false},
		"it goes on":                {func(t feedCase) { t.otherBeats(30, time.Second) }, false},
		"the store is away for all": {func(t feedCase) { t.away(time.Minute); passTime(3500 * time.Millisecond) }, false},
		"the store comes and goes":  {func(t feedCase) { t.away(3 * time.Second); t.away(3 * time.Second) }, false},
		"it does not come back":     {func(t feedCase) { t.away(time.Minute); passTime(6 * time.Second) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			withFeed(t, FeedOptions{Index: true}, func(t feedCase) {
				t.store.locked(func() { t.store.writers["other"] = 7 })
				passTime(beatEvery + time.Millisecond)
				row.events(t)
				synctest.Wait()
				_, there := t.store.registered()["other"]
				require.Equal(t, row.dead, !there)
				want := []GapReason(nil)
				if row.dead {
					want = []GapReason{GapWriterDied}
				}
				require.Equal(t, want, t.store.declared())
			})
		})
	}
}

// otherBeats raises the other writer's counter so many times.
func (t feedCase) otherBeats(times int, every time.Duration) {
	for range times {
		passTime(every)
		t.store.locked(func() { t.store.writers["other"]++ })
	}
}

// away lets all beats fail for a while, and then one succeed.
func (t feedCase) away(lasts time.Duration) {
	t.store.locked(func() { t.store.onBeat = func(context.Context, string) error { return errStoreAway } })
	passTime(lasts)
	t.store.locked(func() { t.store.onBeat = nil })
	passTime(beatEvery)
}

// TestTheDeadAreBuriedAfterTheGap: whoever can't be taken out of the writers needs no second gap, and one that beats again lives.
func TestTheDeadAreBuriedAfterTheGap(t *testing.T) {
	withFeed(t, FeedOptions{Index: true}, func(t feedCase) {
		var noGap, noLeave atomic.Bool
		noGap.Store(true)
		noLeave.Store(true)
		fails := func(on *atomic.Bool) error {
			if on.Load() {
				return ErrOutcomeUnknown
			}
			return nil
		}
		t.store.locked(func() {
			t.store.writers["other"] = 7
			t.store.onGap = func(context.Context) error { return fails(&noGap) }
			t.store.onLeave = func() error { return fails(&noLeave) }
		})
		passTime(10 * time.Second)
		require.False(t, t.feed.Complete(), "a gap is to be declared")
		require.Contains(t, t.store.registered(), "other")
		noGap.Store(false)
		passTime(10 * time.Second)
		require.Equal(t, []GapReason{GapWriterDied}, t.store.declared())
		require.Contains(t, t.store.registered(), "other")
		t.store.locked(func() { t.store.writers["other"]++ })
		passTime(2 * time.Second)
		noLeave.Store(false)
		passTime(2 * time.Second)
		require.Contains(t, t.store.registered(), "other", "it lives")
		passTime(3 * time.Second)
		require.NotContains(t, t.store.registered(), "other")
		require.Len(t, t.store.declared(), 2)
	})
}

// TestOneObserverDeclares: of several processes that notice a death.
func TestOneObserverDeclares(t *testing.T) {
	withFeed(t, FeedOptions{Index: true}, func(t feedCase) {
		for range 4 {
			passTime(beatEvery / 7)
			defer runFeed(t.T, NewFeed(t.store, t.links, FeedOptions{Index: true}))()
		}
		t.store.locked(func() { t.store.writers["other"] = 7 })
		passTime(20 * time.Second)
		require.Len(t, t.store.registered(), 5)
		require.Equal(t, []GapReason{GapWriterDied}, t.store.declared())
	})
}

// TestAStoreThatChanged: it may have lost changes.
func TestAStoreThatChanged(t *testing.T) {
	withFeed(t, FeedOptions{Index: true}, func(t feedCase) {
		for _, row := range []struct {
			identity string
			gaps     int
		}{{"store 1", 0}, {"", 0}, {"store 1", 0}, {"store 2", 1}, {"", 1}, {"store 3", 2}} {
			t.store.locked(func() { t.store.identity = row.identity })
			passTime(gapEvery + beatEvery)
			require.Len(t, t.store.declared(), row.gaps, row)
		}
		require.Equal(t, []GapReason{GapStore, GapStore}, t.store.declared())
	})
}

// TestAWriterWithoutIndex: while there is one, no index is complete.
func TestAWriterWithoutIndex(t *testing.T) {
	withFeed(t, FeedOptions{Index: true}, func(t feedCase) {
		require.True(t, t.feed.Complete())
		stop := runFeed(t.T, NewFeed(t.store, t.links, FeedOptions{}))
		passTime(2 * beatEvery)
		require.False(t, t.feed.Complete())
		stop()
		require.Equal(t, []GapReason{GapDropped}, t.store.declared(), "before it leaves")
		passTime(2 * beatEvery)
		require.True(t, t.feed.Complete())
		for writer := range t.store.registered() {
			require.False(t, strings.HasSuffix(writer, withoutIndex))
		}
	})
}

// TestMutationsAnnounceThemselves: one that comes long after the last beat beats first, and goes on without if that fails, with a gap.
func TestMutationsAnnounceThemselves(t *testing.T) {
	hang := func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
	refuse := func(context.Context, string) error { return errStoreAway }
	for name, row := range map[string]struct {
		pause  time.Duration // since the last beat
		beat   func(context.Context, string) error
		takes  time.Duration
		beats  int
		unsaid bool // the gap is to be declared
	}{
		"soon after a beat":     {pause: 3 * time.Second},
		"long after it":         {pause: 5 * time.Second, beats: 1},
		"the store hangs":       {pause: 5 * time.Second, beat: hang, takes: maxAnnounce, unsaid: true},
		"the store is away":     {pause: 5 * time.Second, beat: refuse, unsaid: true},
		"soon, and it is away":  {pause: 3 * time.Second, beat: refuse},
		"soon, and it does not": {pause: 3 * time.Second, beat: hang},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, links := newFeedStore(), newFeedLinks()
				feed := NewFeed(store, links, FeedOptions{Index: true})
				feed.writers.beatAlone(t.Context())
				passTime(row.pause) // Run is frozen.
				store.onBeat = row.beat
				before, begin := store.beats, time.Now()
				_, err := NoteChanges(links, feed).Set(t.Context(), room.link("ann"), 2, Forever, SetTerms{})
				require.NoError(t, err)
				require.Equal(t, row.takes, time.Since(begin))
				require.Equal(t, row.beats, store.beats-before)
				require.Equal(t, row.unsaid, feed.gaps.pending())
			})
		})
	}
}

// TestOneAnnouncementASecond: concurrent mutations share a beat, and a failed one is not repeated at once.
func TestOneAnnouncementASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFeedStore()
		feed := NewFeed(store, newFeedLinks(), FeedOptions{Index: true})
		var tries atomic.Int32
		store.onBeat = func(ctx context.Context, _ string) error {
			tries.Add(1)
			select {
			case <-time.After(20 * time.Millisecond):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		for range 100 {
			go func() { require.True(t, feed.writers.announce(t.Context())) }()
		}
		passTime(time.Second)
		require.EqualValues(t, 1, tries.Load())

		passTime(5 * time.Second)
		store.onBeat = func(ctx context.Context, _ string) error {
			tries.Add(1)
			<-ctx.Done()
			return ctx.Err()
		}
		for range 100 {
			go func() { require.False(t, feed.writers.announce(t.Context())) }()
		}
		passTime(900 * time.Millisecond)
		begin := time.Now()
		require.False(t, feed.writers.announce(t.Context()))
		require.Zero(t, time.Since(begin))
		require.EqualValues(t, 2, tries.Load())
		passTime(200 * time.Millisecond)
		require.False(t, feed.writers.announce(t.Context()))
		require.EqualValues(t, 3, tries.Load())
	})
}

// TestAMutationAfterTheEnd: it puts the process back among the writers, so that the others notice that nobody flushes it.
func TestAMutationAfterTheEnd(t *testing.T) {
	withFeed(t, FeedOptions{Index: true}, func(t feedCase) {
		t.stop()
		require.Empty(t, t.store.registered())
		_, err := NoteChanges(t.links, t.feed).Set(t.Context(), room.link("ann"), 2, Forever, SetTerms{})
		require.NoError(t, err)
		require.Len(t, t.store.registered(), 1)
		other := NewFeed(t.store, t.links, FeedOptions{Index: true})
		defer runFeed(t.T, other)()
		passTime(8 * time.Second)
		require.Equal(t, []GapReason{GapWriterDied}, t.store.declared())
	})
}

// TestLostStore: a store that loses its data without failing over is noticed by the own counter. One that another process has taken out
// of the writers, or that has left, has lost nothing.
func TestLostStore(t *testing.T) {
	lose := func(t feedCase) { t.store.locked(func() { clear(t.store.writers) }) }
	for name, row := range map[string]struct {
		events func(t feedCase)
		lost   bool
	}{
		"it goes on":             {func(feedCase) {}, false},
		"it loses its data":      {lose, true},
		"it goes back":           {func(t feedCase) { t.store.locked(func() { t.store.writers[t.feed.writers.id] -= 2 }) }, true},
		"it was away for longer": {func(t feedCase) { t.away(10 * time.Second); lose(t); passTime(time.Second) }, true},
		"another one takes it out": {func(t feedCase) {
			t.store.locked(func() { t.store.onBeat = func(context.Context, string) error { return errStoreAway } })
			passTime(6 * time.Second)
			lose(t)
			t.store.locked(func() { t.store.onBeat = nil })
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			withFeed(t, FeedOptions{Index: true}, func(t feedCase) {
				passTime(3500 * time.Millisecond)
				row.events(t)
				passTime(5 * time.Second)
				want := []GapReason(nil)
				if row.lost {
					want = []GapReason{GapStore}
				}
				require.Equal(t, want, t.store.declared())
				require.True(t, t.feed.Complete())
			})
		})
	}
}
