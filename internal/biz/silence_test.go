package biz

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// hearingPods is a fakePods that stores the time of each report as the store does.
type hearingPods struct{ *fakePods }

func (l hearingPods) Set(_ context.Context, _ ServiceKey, report Report) (ReportResult, error) {
	now := time.Now().UnixMilli()
	pod := Pod{Report: report, Liveness: Live, HeartbeatMs: now}
	l.put(pod)
	l.mu.Lock()
	l.hearing.Last = now
	l.mu.Unlock()
	return ReportResult{Applied: true, Pod: pod}, l.failure()
}

// withReports runs the test in a synctest bubble, with views of a service without pods, and a report of pod 0 with a ttl of 10 s.
func withReports(t *testing.T, test func(t *testing.T, views *PodViews, repo hearingPods, report func() error)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		repo := hearingPods{&fakePods{pods: map[PodID]Pod{}}}
		views := NewPodViews(repo, NopObserver{})
		defer func() {
			views.Stop()
			time.Sleep(2 * maxViewAge) // A read in flight ends.
		}()
		test(t, views, repo, func() error {
			_, err := views.Set(t.Context(), room, Report{Pod: 0, State: "up", TTL: 10})
			return err
		})
	})
}

// requireReads requires how often the service is read in the period.
func (l hearingPods) requireReads(t *testing.T, period time.Duration, least, most int32, what string) {
	t.Helper()
	before := l.reads.Load()
	time.Sleep(period)
	reads := l.reads.Load() - before
	require.GreaterOrEqual(t, reads, least, what)
	require.LessOrEqual(t, reads, most, what)
}

// TestASilentServiceIsFollowed: each second for ten minutes, then every 20 s, and until it reports or its pods are removed.
func TestASilentServiceIsFollowed(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, views *PodViews, repo hearingPods, report func() error){
		"until it reports": func(t *testing.T, _ *PodViews, repo hearingPods, report func() error) {
			t.Helper()
			require.NoError(t, report())
			repo.requireReads(t, 10*time.Second, 0, 1, "it has reported")
		},
		"until it is removed": func(t *testing.T, views *PodViews, repo hearingPods, _ func() error) {
			t.Helper()
			_, err := views.Remove(t.Context(), room, 0)
			require.NoError(t, err)
			time.Sleep(silentReadInterval)
			repo.requireReads(t, time.Minute, 0, 0, "it has no pods")
		},
	} {
		t.Run(name, func(t *testing.T) {
			withReports(t, func(t *testing.T, views *PodViews, repo hearingPods, report func() error) {
				for range 5 {
					require.NoError(t, report())
					repo.requireReads(t, 3*time.Second, 0, 0, "it reports")
				}
				time.Sleep(10 * time.Second)
				repo.requireReads(t, 9*time.Minute, 520, 545, "it is silent")
				time.Sleep(2 * time.Minute)
				repo.requireReads(t, time.Hour, 170, 190, "it is silent for long")
				end(t, views, repo, report)
			})
		})
	}
}

// TestASilentServiceIsFollowedThroughAFailure: a store that can't be read for a while does not end it.
func TestASilentServiceIsFollowedThroughAFailure(t *testing.T) {
	withReports(t, func(t *testing.T, _ *PodViews, repo hearingPods, report func() error) {
		require.NoError(t, report())
		repo.fail(errors.New("down"))
		time.Sleep(5 * time.Minute)
		repo.fail(nil)
		time.Sleep(time.Second)
		repo.requireReads(t, 9*time.Minute, 520, 545, "it is silent")
	})
}

// TestALostReplyDoesNotHideASilentService: the last report is in the store, later than this process knows.
func TestALostReplyDoesNotHideASilentService(t *testing.T) {
	withReports(t, func(t *testing.T, _ *PodViews, repo hearingPods, report func() error) {
		require.NoError(t, report())
		time.Sleep(3 * time.Second)
		repo.fail(ErrOutcomeUnknown)
		require.Error(t, report())
		repo.fail(nil)
		time.Sleep(22 * time.Second)
		repo.requireReads(t, 9*time.Minute, 520, 545, "it is silent")
	})
}

// TestPodsWithDifferentTTL: the last report is that of a pod that leaves, and the others are silent only much later.
func TestPodsWithDifferentTTL(t *testing.T) {
	withReports(t, func(t *testing.T, views *PodViews, repo hearingPods, _ func() error) {
		for _, report := range []Report{
			{Pod: 0, State: "up", TTL: 60}, {Pod: 1, State: "up", TTL: 30}, {Pod: 2, State: "down", TTL: 4, Routing: Shutdown},
		} {
			_, err := views.Set(t.Context(), room, report)
			require.NoError(t, err)
		}
		repo.requireReads(t, 30*time.Second, 1, 2, "nothing is in doubt")
		time.Sleep(2 * time.Second)
		repo.requireReads(t, 9*time.Minute, 520, 545, "it is silent")
	})
}

// TestReportsElsewhereEndTheReads: of a service whose pods now report to another process.
func TestReportsElsewhereEndTheReads(t *testing.T) {
	withReports(t, func(t *testing.T, _ *PodViews, repo hearingPods, report func() error) {
		require.NoError(t, report())
		for range 100 {
			time.Sleep(3 * time.Second)
			_, err := repo.Set(t.Context(), room, Report{Pod: 0, State: "up", TTL: 10})
			require.NoError(t, err)
		}
		require.EqualValues(t, 2, repo.reads.Load(), "one to see a later report, and one to see that they go on")
	})
}
