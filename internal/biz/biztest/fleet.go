package biztest

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
)

// testFleet tests what podlink processes tell each other: who writes, what was covered, and who has a lease. These are the same for
// all namespaces.
func testFleet(t *testing.T, s suite) {
	s.test(t, "writers", func(e *env) {
		e.requireFleet()
		one, other := rand.Text(), rand.Text()
		beat := func(feed biz.FeedRepo, writer string) map[string]int64 {
			counters, err := feed.Beat(e.Context(), writer)
			require.NoError(e, err)
			return counters
		}
		require.EqualValues(e, 1, beat(e.Feed, one)[one], "a new one is registered")
		require.EqualValues(e, 2, beat(e.Feed, one)[one])
		counters := beat(e.views[len(e.views)-1].Feed, other)
		require.EqualValues(e, 2, counters[one], "everyone sees everyone")
		require.EqualValues(e, 1, counters[other])

		require.NoError(e, e.Feed.Leave(e.Context(), one, 1))
		require.Contains(e, beat(e.Feed, other), one, "it has raised its counter since")
		require.NoError(e, e.Feed.Leave(e.Context(), one, 2))
		require.NotContains(e, beat(e.Feed, other), one)
		require.NoError(e, e.Feed.Leave(e.Context(), one, 2), "it has left already")
		require.EqualValues(e, 1, beat(e.Feed, one)[one], "it was taken for dead, and begins again")
		require.NoError(e, e.Feed.Leave(e.Context(), one, 0))
		require.NotContains(e, beat(e.Feed, other), one)
		require.NoError(e, e.Feed.Leave(e.Context(), other, 0))
	})

	s.test(t, "gaps are covered up to those that there are", func(e *env) {
		e.requireFleet()
		require.NoError(e, e.Feed.Gap(e.Context(), biz.GapStore))
		gaps, covered, err := e.Index.Completeness(e.Context())
		require.NoError(e, err)
		require.GreaterOrEqual(e, gaps, int64(2), "this one, and the time before the first census")
		require.Less(e, covered, gaps)
		require.NoError(e, e.Index.Cover(e.Context(), gaps-1))
		require.NoError(e, e.Index.Cover(e.Context(), 1))
		_, covered, err = e.Index.Completeness(e.Context())
		require.NoError(e, err)
		require.GreaterOrEqual(e, covered, gaps-1, "never less than before")
		require.NoError(e, e.Index.Cover(e.Context(), gaps+1_000_000))
		gaps, covered, err = e.Index.Completeness(e.Context())
		require.NoError(e, err)
		require.LessOrEqual(e, covered, gaps, "never more than there are")
	})

	s.test(t, "leases", func(e *env) {
		e.requireFleet()
		name, other := "lease-"+rand.Text(), e.views[len(e.views)-1].Index
		lease := func(index biz.IndexRepo, holder string, ttl time.Duration) bool {
			held, err := index.Lease(e.Context(), name, holder, ttl)
			require.NoError(e, err)
			return held
		}
		require.True(e, lease(e.Index, "one", time.Minute))
		require.False(e, lease(other, "two", time.Minute), "another has it")
		require.True(e, lease(e.Index, "one", time.Minute), "it is renewed")
		require.NoError(e, other.Release(e.Context(), name, "two"))
		require.False(e, lease(other, "two", time.Minute), "only the holder releases it")
		require.NoError(e, e.Index.Release(e.Context(), name, "one"))
		require.NoError(e, e.Index.Release(e.Context(), name, "one"))
		require.True(e, lease(other, "two", time.Second))
		require.Eventually(e, func() bool { return lease(e.Index, "one", time.Minute) }, time.Minute, 50*time.Millisecond, "it expires")
		require.NoError(e, e.Index.Release(e.Context(), name, "one"))
	})
}
