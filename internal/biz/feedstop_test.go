package biz

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

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
				require.LessOrEqual(t, time.Since(begin), maxDrain+flushEvery)
				require.Equal(t, row.leaves, len(t.store.registered()) == 0)
				require.Equal(t, row.gaps, t.store.declared())
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
		passTime(5 * time.Second)
		begin := time.Now()
		t.stop()
		require.LessOrEqual(t, time.Since(begin), maxDrain+flushEvery)
		require.NotEmpty(t, t.store.registered())
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
			passTime(time.Second)
		}
		require.True(t, t.store.knows(room))
		require.Len(t, t.store.calls(), 1)
		require.Equal(t, []FlushPart{{Service: room}}, t.store.calls()[0])
		passTime(time.Second)
		report(room)
		passTime(time.Second)
		require.Len(t, t.store.calls(), 2)

		other := ServiceKey{"game", "hall"}
		repo.fail(ErrStoreUnavailable)
		report(other)
		passTime(time.Second)
		require.False(t, t.store.knows(other), "the report was not stored")
	})
}
