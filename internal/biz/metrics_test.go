package biz

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// TestPodsAsSeen: the metrics follow the readings and the reports, and leave out what nobody asks for any more.
func TestPodsAsSeen(t *testing.T) {
	viewed(t, func(t *testing.T, views *PodViews, _ *listed) {
		metrics := NewMetrics(views)
		seen := func(live, draining, shutdown, dead, services int, age time.Duration) {
			t.Helper()
			want := fmt.Sprintf(`
				# HELP podlink_pod_services How many services those are.
				# TYPE podlink_pod_services gauge
				podlink_pod_services %d
				# HELP podlink_pod_view_age_seconds How old the oldest of those readings is.
				# TYPE podlink_pod_view_age_seconds gauge
				podlink_pod_view_age_seconds %g
				# HELP podlink_pods Pods of the services for which ComputeLinkedPod has met a standing link, or no pod, within the last minute, as last read.
				# TYPE podlink_pods gauge
				podlink_pods{state="dead"} %d
				podlink_pods{state="draining"} %d
				podlink_pods{state="live"} %d
				podlink_pods{state="shutdown"} %d
				`, services, age.Seconds(), dead, draining, live, shutdown)
			require.NoError(t, testutil.CollectAndCompare(metrics, strings.NewReader(want),
				"podlink_pods", "podlink_pod_services", "podlink_pod_view_age_seconds"))
		}
		seen(0, 0, 0, 0, 0, 0)
		views.mayKeep(t.Context(), room, 0)
		seen(1, 1, 1, 1, 1, readTime)

		_, _, err := views.Set(t.Context(), room, Report{Pod: 3, State: "back", TTL: Forever})
		require.NoError(t, err)
		seen(2, 1, 1, 0, 1, readTime)
		_, _, err = views.Set(t.Context(), room, Report{Pod: 4, State: "new", Routing: DenyNew, TTL: Forever})
		require.NoError(t, err)
		seen(2, 2, 1, 0, 1, readTime)

		time.Sleep(2 * time.Second)
		other := ServiceKey{Namespace: "game", Service: "chat"} // Its pods are the same here.
		views.mayKeep(t.Context(), other, 0)
		seen(4, 4, 2, 0, 2, 2*time.Second+2*readTime)
		_, err = views.Remove(t.Context(), other, 0)
		require.NoError(t, err)
		seen(2, 2, 1, 0, 1, 2*time.Second+2*readTime)
		time.Sleep(shownAge)
		seen(0, 0, 0, 0, 0, 0)
	})
}

// TestPodsThatNobodyIsLinkedToAreSeen: a service that turns away all its new users shows its pods too.
func TestPodsThatNobodyIsLinkedToAreSeen(t *testing.T) {
	viewed(t, func(t *testing.T, views *PodViews, repo *listed) {
		for range 3 {
			require.False(t, views.mayKeep(t.Context(), room, NoPod))
		}
		pods, services, _ := views.seen()
		require.Equal(t, 1, services)
		require.Equal(t, [statuses]int{podLive: 1, podDraining: 1, podShutdown: 1, podDead: 1}, pods)
		require.EqualValues(t, 1, repo.reads.Load())
	})
}

// TestFailedReadingIsNotSeen: what could not be read is not counted as no pod.
func TestFailedReadingIsNotSeen(t *testing.T) {
	viewed(t, func(t *testing.T, views *PodViews, repo *listed) {
		repo.fail(ErrStoreUnavailable)
		views.mayKeep(t.Context(), room, 0)
		pods, services, _ := views.seen()
		require.Zero(t, services)
		require.Zero(t, pods)
	})
}

// TestComputeOutcomes: everything that Compute may decide is counted as one thing, and is there from the start.
func TestComputeOutcomes(t *testing.T) {
	metrics := NewMetrics(NewPodViews(nil))
	require.Equal(t, len(computeOutcomes), testutil.CollectAndCount(metrics.computes))
	for want, row := range map[string]struct {
		outcome Outcome
		err     error
	}{
		"existing":         {Existing, nil},
		"created":          {Created, nil},
		"relinked":         {Relinked, nil},
		"no_available_pod": {0, fmt.Errorf("%w: room", ErrNoAvailablePod)},
		"contended":        {0, errContended},
		"failed":           {0, errors.New("anything")},
	} {
		_, decision := metrics.decide(t.Context(), LinkKey{})
		decision.end(row.outcome, row.err)
		require.InDelta(t, 1, testutil.ToFloat64(metrics.computes.WithLabelValues(want)), 0, want)
	}
	_, decision := metrics.decide(t.Context(), LinkKey{})
	decision.end(0, nil)
	require.InDelta(t, 2, testutil.ToFloat64(metrics.computes.WithLabelValues("failed")), 0, "a panic")
	require.ErrorIs(t, errContended, ErrStoreUnavailable)
}
