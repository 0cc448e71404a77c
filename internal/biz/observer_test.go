package biz

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// podRecorder is an Observer that records the events of pods.
type podRecorder struct {
	NopObserver
	reported []PodID
	removed  []PodID
	reads    int
	pods     int
	asOf     time.Time
}

func (s *podRecorder) PodReported(_ ServiceKey, pod Pod) { s.reported = append(s.reported, pod.Pod) }

func (s *podRecorder) PodRemoved(_ ServiceKey, pod PodID) { s.removed = append(s.removed, pod) }

func (s *podRecorder) PodsRead(_ ServiceKey, pods []Pod, asOf time.Time) {
	s.reads++
	s.pods, s.asOf = len(pods), asOf
}

// TestPodsAreObserved: the observer gets every executed report and removal, confirmed by replicas or not, and every
// successful read.
func TestPodsAreObserved(t *testing.T) {
	withViews(t, func(t *testing.T, views *PodViews, repo *fakePods) {
		seen := new(podRecorder)
		views.observer = seen
		change := func(err error, id PodID) {
			repo.fail(err)
			_, got := views.Set(t.Context(), room, Report{Pod: id, State: "up", TTL: Forever})
			require.ErrorIs(t, got, err)
			_, got = views.Remove(t.Context(), room, id)
			require.ErrorIs(t, got, err)
		}
		change(nil, 10)
		change(&UnconfirmedError{Cause: context.DeadlineExceeded}, 11)
		change(ErrOutcomeUnknown, 12)
		change(ErrStoreUnavailable, 13)
		require.Equal(t, []PodID{10, 11}, seen.reported)
		require.Equal(t, []PodID{10, 11}, seen.removed)

		views.usable(t.Context(), 0)
		synctest.Wait()
		require.Zero(t, seen.reads, "a failed read is not reported as an empty service")
		repo.fail(nil)
		start := time.Now()
		views.usable(t.Context(), 0)
		views.usable(t.Context(), 0)
		synctest.Wait()
		require.Equal(t, 1, seen.reads)
		require.Equal(t, 4, seen.pods)
		require.Equal(t, start, seen.asOf, "the time before the read")
	})
}

// TestComputeReadsNoPodsForTheObserver: a compute without a usable pod costs one call of the store, and no extra read.
func TestComputeReadsNoPodsForTheObserver(t *testing.T) {
	withViews(t, func(t *testing.T, views *PodViews, repo *fakePods) {
		links := NewLinkUsecase(noLinks{}, views, Limits{}, NopObserver{})
		_, err := links.Compute(t.Context(), LinkKey{"game", "alice", "room"}, ComputeRequest{TTL: Forever})
		require.ErrorIs(t, err, ErrNoAvailablePod)
		synctest.Wait()
		require.Zero(t, repo.reads.Load())
	})
}

// noLinks is a repo without links.
type noLinks struct{ LinkRepo }

func (noLinks) Get(_ context.Context, key LinkKey) (Link, error) { return NoLink(key), nil }

func (l *fakePods) Reserve(_ context.Context, _ ServiceKey, request ReserveRequest) (Reservation, error) {
	l.reserved = append(l.reserved, request)
	return Reservation{Outcome: NoPodAvailable}, nil
}
