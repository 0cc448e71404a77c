package biztest

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
)

// requireFleet skips a test of the feeds and the index on a store that has none.
func (e *env) requireFleet() {
	e.Helper()
	if e.Feed == nil {
		e.Skip("the store has neither feeds nor an index")
	}
}

// flush carries out the parts.
func (e *env) flush(feed biz.FeedRepo, parts ...biz.FlushPart) {
	e.Helper()
	failures := feed.Flush(e.Context(), parts)
	require.Len(e, failures, len(parts))
	for _, err := range failures {
		require.NoError(e, err)
	}
}

// end returns the end of the default service's feed.
func (e *env) end() biz.FeedPosition {
	e.Helper()
	page, err := e.Feed.ReadFeed(e.Context(), e.pods(), "", 10)
	require.NoError(e, err)
	require.Empty(e, page.Entries)
	require.False(e, page.Trimmed)
	require.NotEmpty(e, page.Next)
	return page.Next
}

// after returns all changes after the position, entry by entry, in pages of n entries. Gaps, which other tests write, are left out.
func (e *env) after(at biz.FeedPosition, n int) [][]biz.Change {
	e.Helper()
	var found [][]biz.Change
	for {
		page, err := e.Feed.ReadFeed(e.Context(), e.pods(), at, n)
		require.NoError(e, err)
		require.False(e, page.Trimmed)
		require.LessOrEqual(e, len(page.Entries), n)
		if len(page.Entries) == 0 {
			require.Equal(e, at, page.Next)
			return found
		}
		require.Equal(e, page.Entries[len(page.Entries)-1].At, page.Next)
		for _, entry := range page.Entries {
			require.NotEqual(e, at, entry.At)
			at = entry.At
			if entry.Gap == "" {
				found = append(found, entry.Changes)
			}
		}
	}
}

// linked returns a change that links a user to a pod.
func (e *env) linked(uid string, epoch biz.Epoch) biz.Change {
	return biz.Change{
		Kind: biz.Linked, Previous: biz.NoPod, Time: time.UnixMilli(1_700_000_000_000),
		Link: biz.Link{Key: e.keyOf(uid, service), Pod: 1, TTL: biz.Forever, Epoch: epoch},
	}
}

// feedChanges are changes of every kind, with the uids and the names that are hard to keep apart.
func (e *env) feedChanges() []biz.Change {
	at := time.UnixMilli(1_700_000_000_123)
	link := func(uid string, pod biz.PodID, ttl biz.TTL, epoch biz.Epoch, claim biz.Generation) biz.Link {
		return biz.Link{Key: e.keyOf(uid, service), Pod: pod, TTL: ttl, Epoch: epoch, Claim: claim}
	}
	removed := biz.NoLink(e.keyOf("- - -", service))
	removed.Epoch = 1_700_000_000_000_000
	unknown := link("", biz.NoPod, biz.Gone, 0, 0)
	unknown.Key.UID = " "
	return []biz.Change{
		{Kind: biz.Linked, Link: link("user-1", 0, biz.Forever, 1, 7), Previous: biz.NoPod, Time: at},
		{Kind: biz.Moved, Link: link("a b  c", 2147483647, 600, biz.MaxEpoch, 1<<52-1), Previous: 3, Time: at, By: "system:a b%c\n-"},
		{Kind: biz.Persisted, Link: link("🙂\u2028%0A", 1, biz.Forever, 5, 0), Previous: 1, Time: at, By: "-"},
		{Kind: biz.Expiring, Link: link("L 1 2 3", 1, 2147483647, 5, 0), Previous: 1, Time: at, By: "pod-1"},
		{Kind: biz.Removed, Link: removed, Previous: 4, Time: at},
		{Kind: biz.Uncertain, Link: unknown, Previous: biz.NoPod, Time: at},
	}
}

func testFeed(t *testing.T, s suite) {
	s.test(t, "a flush is an entry with its changes", func(e *env) {
		e.requireFleet()
		begin, changes := e.end(), e.feedChanges()
		e.flush(e.Feed, biz.FlushPart{Service: e.pods(), Changes: changes})
		require.Equal(e, [][]biz.Change{changes}, e.after(begin, 10))
		require.NotEqual(e, begin, e.end())
		require.Empty(e, e.after(e.end(), 10))
	})

	s.test(t, "pages in the order of the flushes", func(e *env) {
		e.requireFleet()
		begin := e.end()
		var want [][]biz.Change
		for i := range 7 {
			changes := []biz.Change{e.linked("user-"+strconv.Itoa(i), 1), e.linked("other-"+strconv.Itoa(i), 2)}
			want = append(want, changes)
			e.flush(e.views[i%len(e.views)].Feed, biz.FlushPart{Service: e.pods(), Changes: changes})
		}
		for _, n := range []int{1, 2, 3, 100} {
			require.Equal(e, want, e.after(begin, n), "pages of %d", n)
		}
	})

	s.test(t, "services have their feeds", func(e *env) {
		e.requireFleet()
		begin, other := e.end(), biz.ServiceKey{Namespace: e.namespace, Service: "chat"}
		e.flush(e.Feed,
			biz.FlushPart{Service: e.pods(), Changes: []biz.Change{e.linked("user-1", 1)}},
			biz.FlushPart{Service: other, Changes: []biz.Change{e.linked("user-2", 1)}},
		)
		require.Equal(e, [][]biz.Change{{e.linked("user-1", 1)}}, e.after(begin, 10))
	})

	s.test(t, "writers at once", func(e *env) {
		e.requireFleet()
		const writers, flushes = 8, 20
		begin := e.end()
		var calls sync.WaitGroup
		for writer := range writers {
			calls.Go(func() {
				feed := e.views[writer%len(e.views)].Feed
				for i := range flushes {
					e.flush(feed, biz.FlushPart{
						Service: e.pods(), Changes: []biz.Change{e.linked("user-"+strconv.Itoa(writer), biz.Epoch(i+1))},
					})
				}
			})
		}
		calls.Wait()
		last := make(map[string]biz.Epoch)
		for _, changes := range e.after(begin, 7) {
			link := changes[0].Link
			require.Equal(e, last[link.Key.UID]+1, link.Epoch, "each once, and those of a writer in order")
			last[link.Key.UID] = link.Epoch
		}
		require.Len(e, last, writers)
		for _, epoch := range last {
			require.EqualValues(e, flushes, epoch)
		}
	})

	s.test(t, "a gap is in the feed of every known service", func(e *env) {
		e.requireFleet()
		begin := e.end()
		e.flush(e.Feed, biz.FlushPart{Service: e.pods()})
		before, _, err := e.Index.Completeness(e.Context())
		require.NoError(e, err)
		require.NoError(e, e.Feed.Gap(e.Context(), biz.GapDropped))
		gaps, _, err := e.views[len(e.views)-1].Index.Completeness(e.Context())
		require.NoError(e, err)
		require.Greater(e, gaps, before)
		page, err := e.Feed.ReadFeed(e.Context(), e.pods(), begin, 100)
		require.NoError(e, err)
		require.NotEmpty(e, page.Entries)
		require.Equal(e, biz.GapDropped, page.Entries[0].Gap)
		require.Empty(e, page.Entries[0].Changes)
	})

	s.test(t, "positions that no feed has", func(e *env) {
		e.requireFleet()
		for _, position := range []biz.FeedPosition{
			"x", "-", "1", "1-", "-1", "1-x", "+", "$", "0-0 ", "01-1", "1-1-1", "1-18446744073709551615", "9999999999999999999-0", "(1-1",
		} {
			_, err := e.Feed.ReadFeed(e.Context(), e.pods(), position, 10)
			var invalid *biz.InvalidArgumentError
			require.ErrorAs(e, err, &invalid, "%q", position)
			require.Equal(e, "resume_token", invalid.Field)
		}
	})
}
