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

// fakePods is an in-memory PodRepo whose View takes readTime.
type fakePods struct {
	PodRepo

	mu       sync.Mutex
	pods     map[PodID]Pod
	hearing  Hearing
	err      error
	reads    atomic.Int32
	reserved []ReserveRequest
}

const readTime = 50 * time.Millisecond

func (l *fakePods) View(ctx context.Context, _ ServiceKey) (PodsView, error) {
	l.reads.Add(1)
	l.mu.Lock()
	view := PodsView{Hearing: l.hearing}
	for _, pod := range l.pods {
		view.Pods = append(view.Pods, pod)
	}
	err := l.err
	l.mu.Unlock()
	select {
	case <-time.After(readTime):
	case <-ctx.Done():
		return PodsView{}, ctx.Err()
	}
	return view, err
}

func (l *fakePods) Set(_ context.Context, _ ServiceKey, report Report) (ReportResult, error) {
	pod := Pod{Report: report, Liveness: Live, HeartbeatMs: 1}
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

func podOf(id PodID, routing Routing) Pod {
	return Pod{Report: Report{Pod: id, State: "up", Routing: routing, TTL: Forever, Capacity: NoCapacity}}
}

// deadPod is READY, and silent although the service is heard.
func deadPod(id PodID) Pod {
	pod := podOf(id, Ready)
	pod.TTL, pod.HeardMs = 1, -3001
	return pod
}

// usable reports whether the view has the pod as usable for an existing link.
func (v *PodViews) usable(ctx context.Context, pod PodID) bool {
	return v.find(ctx, room, pod).usable()
}

// withViews runs the test in a synctest bubble, with views of four pods: 0 READY, 1 DENY_NEW, 2 SHUTDOWN, 3 READY but dead.
func withViews(t *testing.T, test func(t *testing.T, views *PodViews, repo *fakePods)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		repo := &fakePods{pods: map[PodID]Pod{
			0: podOf(0, Ready), 1: podOf(1, DenyNew), 2: podOf(2, Shutdown), 3: deadPod(3),
		}}
		views := NewPodViews(repo, NopObserver{})
		defer func() {
			views.Stop()
			time.Sleep(2 * maxViewAge) // A read in flight ends.
		}()
		test(t, views, repo)
	})
}

func TestPodViewsKnowTheUsablePods(t *testing.T) {
	withViews(t, func(t *testing.T, views *PodViews, _ *fakePods) {
		for pod, want := range map[PodID]bool{0: true, 1: true, 2: false, 3: false, 4: false} {
			require.Equal(t, want, views.usable(t.Context(), pod), "pod %d", pod)
		}
	})
}

func TestPodViewsReadOnceASecond(t *testing.T) {
	withViews(t, func(t *testing.T, views *PodViews, repo *fakePods) {
		askAll := func() {
			var asking sync.WaitGroup
			for range 50 {
				asking.Go(func() { require.True(t, views.usable(t.Context(), 0)) })
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
		require.True(t, views.usable(t.Context(), 0))
		_, err := views.Set(t.Context(), room, Report{Pod: 0, State: "down", Routing: Shutdown, TTL: Forever})
		require.NoError(t, err)
		require.False(t, views.usable(t.Context(), 0), "a report of this process")
		_, err = views.Set(t.Context(), room, Report{Pod: 7, State: "up", TTL: Forever})
		require.NoError(t, err)
		require.True(t, views.usable(t.Context(), 7), "a new pod")
		require.EqualValues(t, 1, repo.reads.Load(), "a report causes no read")
		_, err = views.Remove(t.Context(), room, 7)
		require.NoError(t, err)
		require.False(t, views.usable(t.Context(), 7), "a removed pod")

		repo.put(podOf(1, Shutdown))
		require.True(t, views.usable(t.Context(), 1), "another process's report is not seen yet")
		time.Sleep(maxViewAge)
		require.False(t, views.usable(t.Context(), 1))
	})
}

func TestPodViewsAreInvalidated(t *testing.T) {
	withViews(t, func(t *testing.T, views *PodViews, repo *fakePods) {
		go views.usable(t.Context(), 0)
		time.Sleep(readTime / 2)
		_, err := views.Set(t.Context(), room, Report{Pod: 0, State: "down", Routing: Shutdown, TTL: Forever})
		require.NoError(t, err)
		time.Sleep(readTime)
		require.False(t, views.usable(t.Context(), 0), "the read may have missed the report")

		repo.fail(ErrOutcomeUnknown)
		_, err = views.Set(t.Context(), room, Report{Pod: 1, State: "down", Routing: Shutdown, TTL: Forever})
		require.Error(t, err)
		repo.fail(nil)
		require.False(t, views.usable(t.Context(), 1), "a report whose reply was lost may have been stored")
	})
}

func TestPodViewsWithAFailingStore(t *testing.T) {
	withViews(t, func(t *testing.T, views *PodViews, repo *fakePods) {
		repo.fail(errors.New("down"))
		require.False(t, views.usable(t.Context(), 0), "the store has to decide")
		repo.fail(nil)
		require.True(t, views.usable(t.Context(), 0), "a failure is not cached")

		views.invalidate(room)
		ctx, cancel := context.WithTimeout(t.Context(), readTime/2)
		defer cancel()
		start := time.Now()
		require.False(t, views.usable(ctx, 0))
		require.Equal(t, readTime/2, time.Since(start), "the call ends at its deadline")
		require.True(t, views.usable(t.Context(), 0), "the read outlives its first caller")
	})
}

func TestPodViewsAreBounded(t *testing.T) {
	withViews(t, func(t *testing.T, views *PodViews, _ *fakePods) {
		var asking sync.WaitGroup
		for i := range maxViews + 1 {
			asking.Go(func() { views.find(t.Context(), ServiceKey{"game", strconv.Itoa(i)}, 0) })
		}
		asking.Wait()
		views.mu.Lock()
		defer views.mu.Unlock()
		require.LessOrEqual(t, len(views.services), maxViews)
		require.NotEmpty(t, views.services)
	})
}
