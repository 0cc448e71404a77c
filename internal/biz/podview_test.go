package biz

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var room = ServiceKey{Namespace: "game", Service: "room"}

// fakePods is an in-memory PodRepo whose List takes readTime.
type fakePods struct {
	PodRepo

	mu    sync.Mutex
	pods  map[PodID]Pod
	err   error
	reads atomic.Int32
}

const readTime = 100 * time.Millisecond

func (l *fakePods) List(ctx context.Context, _ ServiceKey) ([]Pod, error) {
	l.reads.Add(1)
	l.mu.Lock()
	var pods []Pod
	for _, pod := range l.pods {
		pods = append(pods, pod)
	}
	err := l.err
	l.mu.Unlock()
	select {
	case <-time.After(readTime):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return pods, err
}

func (l *fakePods) Set(_ context.Context, _ ServiceKey, report Report) (ReportResult, error) {
	pod := Pod{Report: report, Liveness: Live}
	l.put(pod)
	return ReportResult{Applied: true, Pod: pod}, l.failure()
}

func (l *fakePods) Remove(_ context.Context, _ ServiceKey, pod PodID) (*Pod, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pods, pod)
	return nil, l.err
}

func (l *fakePods) put(pod Pod) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pods[pod.Pod] = pod
}

func (l *fakePods) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *fakePods) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

func liveness(live bool) Liveness {
	if live {
		return Live
	}
	return Dead
}

func podOf(id PodID, routing Routing, live bool) Pod {
	return Pod{Report: Report{Pod: id, State: "up", Routing: routing, TTL: Forever}, Liveness: liveness(live)}
}

// withViews runs the test in a synctest bubble, with views of four pods: 0 READY, 1 DENY_NEW, 2 SHUTDOWN, 3 READY but dead.
func withViews(t *testing.T, test func(t *testing.T, views *PodViews, repo *fakePods)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		repo := &fakePods{pods: map[PodID]Pod{
			0: podOf(0, Ready, true), 1: podOf(1, DenyNew, true), 2: podOf(2, Shutdown, true), 3: podOf(3, Ready, false),
		}}
		test(t, NewPodViews(repo, NopObserver{}), repo)
		time.Sleep(2 * maxViewAge) // A read in flight ends.
	})
}

func TestPodViewsKnowTheUsablePods(t *testing.T) {
	withViews(t, func(t *testing.T, views *PodViews, _ *fakePods) {
		for pod, want := range map[PodID]bool{0: true, 1: true, 2: false, 3: false, 4: false} {
			require.Equal(t, want, views.mayKeep(t.Context(), room, pod), "pod %d", pod)
		}
	})
}

func TestPodViewsReadOnceASecond(t *testing.T) {
	withViews(t, func(t *testing.T, views *PodViews, repo *fakePods) {
		askAll := func() {
			var asking sync.WaitGroup
			for range 50 {
				asking.Go(func() { require.True(t, views.mayKeep(t.Context(), room, 0)) })
			}
			asking.Wait()
		}
		askAll()
		askAll()
		require.EqualValues(t, 1, repo.reads.Load())
		time.Sleep(maxViewAge - readTime) // The age counts from before the read.
		askAll()
		require.EqualValues(t, 2, repo.reads.Load())
	})
}

func TestPodViewsSeeOwnReportsAtOnceAndOthersWithinASecond(t *testing.T) {
	withViews(t, func(t *testing.T, views *PodViews, repo *fakePods) {
		require.True(t, views.mayKeep(t.Context(), room, 0))
		_, err := views.Set(t.Context(), room, Report{Pod: 0, State: "down", Routing: Shutdown, TTL: Forever})
		require.NoError(t, err)
		require.False(t, views.mayKeep(t.Context(), room, 0), "a report of this process")
		_, err = views.Set(t.Context(), room, Report{Pod: 7, State: "up", TTL: Forever})
		require.NoError(t, err)
		require.True(t, views.mayKeep(t.Context(), room, 7), "a new pod")
		require.EqualValues(t, 1, repo.reads.Load(), "a report causes no read")
		_, err = views.Remove(t.Context(), room, 7)
		require.NoError(t, err)
		require.False(t, views.mayKeep(t.Context(), room, 7), "a removed pod")

		repo.put(podOf(1, Shutdown, true))
		require.True(t, views.mayKeep(t.Context(), room, 1), "another process's report is not seen yet")
		time.Sleep(maxViewAge)
		require.False(t, views.mayKeep(t.Context(), room, 1))
	})
}

func TestPodViewsAreInvalidated(t *testing.T) {
	withViews(t, func(t *testing.T, views *PodViews, repo *fakePods) {
		go views.mayKeep(t.Context(), room, 0)
		time.Sleep(readTime / 2)
		_, err := views.Set(t.Context(), room, Report{Pod: 0, State: "down", Routing: Shutdown, TTL: Forever})
		require.NoError(t, err)
		time.Sleep(readTime)
		require.False(t, views.mayKeep(t.Context(), room, 0), "the read may have missed the report")

		repo.fail(ErrOutcomeUnknown)
		_, err = views.Set(t.Context(), room, Report{Pod: 1, State: "down", Routing: Shutdown, TTL: Forever})
		require.Error(t, err)
		repo.fail(nil)
		require.False(t, views.mayKeep(t.Context(), room, 1), "a report whose reply was lost may have been stored")
	})
}

func TestPodViewsWithAFailingStore(t *testing.T) {
	withViews(t, func(t *testing.T, views *PodViews, repo *fakePods) {
		repo.fail(errors.New("down"))
		require.False(t, views.mayKeep(t.Context(), room, 0), "the store has to decide")
		repo.fail(nil)
		require.True(t, views.mayKeep(t.Context(), room, 0), "a failure is not cached")

		views.invalidate(room)
		ctx, cancel := context.WithTimeout(t.Context(), readTime/2)
		defer cancel()
		start := time.Now()
		require.False(t, views.mayKeep(ctx, room, 0))
		require.Equal(t, readTime/2, time.Since(start), "the call ends at its deadline")
		require.True(t, views.mayKeep(t.Context(), room, 0), "the read outlives its first caller")
	})
}

func TestPodViewsAreBounded(t *testing.T) {
	withViews(t, func(t *testing.T, views *PodViews, _ *fakePods) {
		var asking sync.WaitGroup
		for i := range maxViews + 1 {
			asking.Go(func() { views.mayKeep(t.Context(), ServiceKey{"game", strconv.Itoa(i)}, 0) })
		}
		asking.Wait()
		views.mu.Lock()
		defer views.mu.Unlock()
		require.LessOrEqual(t, len(views.views), maxViews)
		require.NotEmpty(t, views.views)
	})
}
