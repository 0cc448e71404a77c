package biz

import (
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// doubtfulPod is a READY pod with a ttl of a second whose report may be missing because it could not report.
func doubtfulPod(id PodID) Pod {
	pod := podOf(id, Ready)
	pod.TTL, pod.HeartbeatMs, pod.HeardMs = 1, 1, -1001
	return pod
}

// withDoubt is withViews with pod 5 in doubt beside the given pods.
func withDoubt(t *testing.T, others []Pod, test func(t *testing.T, views *PodViews, repo *fakePods)) {
	t.Helper()
	withViews(t, func(t *testing.T, views *PodViews, repo *fakePods) {
		clear(repo.pods)
		for _, pod := range append(others, doubtfulPod(5)) {
			repo.put(pod)
		}
		test(t, views, repo)
	})
}

// requireOver requires whether the doubt about pod 5 is over at the view that is not older than a second.
func (v *PodViews) requireOver(t *testing.T, want bool, what string) {
	t.Helper()
	entry := v.find(t.Context(), room, 5)
	require.Equal(t, InDoubt, entry.pod.Liveness, what)
	require.Equal(t, want, entry.doubtOver, what)
	require.Equal(t, !want, entry.usable(), what)
}

// TestDoubtEndsBesideAPodThatNeverExpires: after ten minutes of reads each second, which need no computes.
func TestDoubtEndsBesideAPodThatNeverExpires(t *testing.T) {
	withDoubt(t, []Pod{podOf(0, Ready)}, func(t *testing.T, views *PodViews, repo *fakePods) {
		views.requireOver(t, false, "the first read")
		time.Sleep(maxDoubt - 5*time.Second)
		views.requireOver(t, false, "less than ten minutes")
		require.Greater(t, repo.reads.Load(), int32(500), "the service is read without computes")
		time.Sleep(10 * time.Second)
		views.requireOver(t, true, "ten minutes")
		synctest.Wait()
		reads := repo.reads.Load()
		time.Sleep(time.Minute)
		require.Equal(t, reads, repo.reads.Load(), "there is nothing left to wait for")
		views.requireOver(t, true, "the same report, later")

		repo.put(podOf(5, Ready))
		time.Sleep(maxViewAge)
		require.True(t, views.usable(t.Context(), 5), "it has reported")
		again := doubtfulPod(5)
		again.HeartbeatMs++
		repo.put(again)
		time.Sleep(maxViewAge)
		views.requireOver(t, false, "another report")
	})
}

func TestDoubtDoesNotEnd(t *testing.T) {
	expiring := podOf(0, Ready)
	expiring.TTL = 600
	for name, others := range map[string][]Pod{
		"alone":                     nil,
		"beside a pod that expires": {expiring},
		"beside a draining pod that never expires": {podOf(0, DenyNew)},
	} {
		t.Run(name, func(t *testing.T) {
			withDoubt(t, others, func(t *testing.T, views *PodViews, _ *fakePods) {
				for range 12 {
					views.requireOver(t, false, "each minute")
					time.Sleep(time.Minute)
				}
			})
		})
	}
}

// TestDoubtCountsFromTheLastGap: a store that can't be read starts the ten minutes from the beginning.
func TestDoubtCountsFromTheLastGap(t *testing.T) {
	withDoubt(t, []Pod{podOf(0, Ready)}, func(t *testing.T, views *PodViews, repo *fakePods) {
		views.requireOver(t, false, "the first read")
		time.Sleep(maxDoubt - 5*time.Second)
		repo.fail(errors.New("down"))
		time.Sleep(5 * time.Second)
		repo.fail(nil)
		time.Sleep(maxViewAge) // A read in flight may still fail.
		views.requireOver(t, false, "the first read after a gap")
		time.Sleep(maxDoubt - 5*time.Second)
		views.requireOver(t, false, "less than ten minutes since the gap")
		time.Sleep(10 * time.Second)
		views.requireOver(t, true, "ten minutes since the gap")
	})
}

// TestDoubtIsForgottenWithTheReport: a pod that reports now and then is never in doubt for long.
func TestDoubtIsForgottenWithTheReport(t *testing.T) {
	withDoubt(t, []Pod{podOf(0, Ready)}, func(t *testing.T, views *PodViews, repo *fakePods) {
		for range 5 {
			views.requireOver(t, false, "a new report")
			time.Sleep(maxDoubt - time.Minute)
			pod := doubtfulPod(5)
			pod.HeartbeatMs = time.Now().UnixMilli()
			repo.put(pod)
			time.Sleep(maxViewAge)
		}
	})
}

// TestStopEndsTheReads: those of a service that is followed, and those that are due.
func TestStopEndsTheReads(t *testing.T) {
	withDoubt(t, nil, func(t *testing.T, views *PodViews, repo *fakePods) {
		views.requireOver(t, false, "the first read")
		time.Sleep(time.Minute)
		require.Greater(t, repo.reads.Load(), int32(40), "it is followed")
		_, err := views.Set(t.Context(), ServiceKey{"game", "other"}, Report{Pod: 0, State: "up", TTL: 10})
		require.NoError(t, err)
		views.Stop()
		time.Sleep(maxViewAge)
		reads := repo.reads.Load()
		time.Sleep(time.Minute)
		require.Equal(t, reads, repo.reads.Load())
	})
}

func TestFollowedServicesAreBounded(t *testing.T) {
	withDoubt(t, nil, func(t *testing.T, views *PodViews, repo *fakePods) {
		const services = 3 * maxFollowed
		for i := range services {
			views.find(t.Context(), ServiceKey{"game", strconv.Itoa(i)}, 5)
		}
		time.Sleep(maxViewAge)
		before := repo.reads.Load()
		time.Sleep(10 * maxViewAge)
		require.LessOrEqual(t, repo.reads.Load()-before, int32(11*maxFollowed))
		require.Greater(t, repo.reads.Load()-before, int32(8*maxFollowed))
	})
}

// TestTheStoresClockIsEstimated: from the last report of the service, so that a lapsed cordon is lifted late, never early.
func TestTheStoresClockIsEstimated(t *testing.T) {
	withViews(t, func(t *testing.T, views *PodViews, repo *fakePods) {
		const last = 1_000_000
		cordoned := podOf(0, Ready)
		cordoned.Cordon, cordoned.CordonUntilMs, cordoned.HeartbeatMs = Shutdown, last+10_000, last
		brief := podOf(6, Ready)
		brief.TTL, brief.HeartbeatMs = 5, last
		repo.put(cordoned)
		repo.put(brief)
		repo.hearing.Last = last

		require.False(t, views.usable(t.Context(), 0))
		require.Equal(t, Live, views.find(t.Context(), room, 6).pod.Liveness)
		time.Sleep(8 * time.Second)
		require.False(t, views.usable(t.Context(), 0))
		require.Equal(t, InDoubt, views.find(t.Context(), room, 6).pod.Liveness)
		require.True(t, views.usable(t.Context(), 6), "in doubt, and not dead: no other pod was heard")
		time.Sleep(3 * time.Second)
		require.True(t, views.usable(t.Context(), 0))

		repo.mu.Lock()
		repo.hearing.Last = last - 3_600_000 // The store's clock was set back.
		repo.mu.Unlock()
		time.Sleep(maxViewAge)
		require.False(t, views.usable(t.Context(), 0))
	})
}
