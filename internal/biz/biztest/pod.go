package biztest

import (
	"math"
	"strings"
	"testing"
	"time"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

func testPods(t *testing.T, s suite) {
	for name, report := range map[string]biz.Report{
		"minimum":   {Pod: 0, State: "x", TTL: 1},
		"maximum":   {Pod: math.MaxInt32, State: "x", Load: math.MaxInt32, Routing: biz.Shutdown, TTL: math.MaxInt32},
		"no expiry": {Pod: 1, State: "x", TTL: biz.Forever},
		"READY":     {Pod: 1, State: "x", Load: 17, Routing: biz.Ready, TTL: 30},
		"DENY_NEW":  {Pod: 1, State: "x", Load: 17, Routing: biz.DenyNew, TTL: 30},
		"SHUTDOWN":  {Pod: 1, State: "x", Load: 17, Routing: biz.Shutdown, TTL: 30},
	} {
		s.test(t, "a report is returned as it was sent/"+name, func(e *env) { e.roundTrip(report) })
	}
	for name, state := range freeFormTexts {
		s.test(t, "a state is returned as it was sent/"+name, func(e *env) {
			e.roundTrip(biz.Report{Pod: 1, State: state, Load: 2, Routing: biz.DenyNew, TTL: 30})
		})
	}

	s.test(t, "Set/the previous report", func(e *env) {
		first, err := e.Pods.Set(e.Context(), e.pods(), biz.Report{Pod: 1, State: "one", Load: 5, TTL: 30, Capacity: biz.NoCapacity})
		require.NoError(e, err)
		require.Nil(e, first.Previous)
		tick()
		report := biz.Report{Pod: 1, State: "two", Routing: biz.DenyNew, TTL: biz.Forever, Capacity: biz.NoCapacity}
		second, err := e.Pods.Set(e.Context(), e.pods(), report)
		require.NoError(e, err)
		require.Equal(e, &first.Pod, second.Previous)
		require.Greater(e, second.Pod.HeartbeatMs, first.Pod.HeartbeatMs)
		got, err := e.Pods.Get(e.Context(), e.pods(), 1)
		require.NoError(e, err)
		require.Equal(e, second.Pod, got)
	})
	s.test(t, "Set/the heartbeat is the store's clock in ms", func(e *env) {
		var pod biz.Pod
		when := during(func() { pod = e.report(biz.Report{Pod: 1, State: "up", TTL: 30}) })
		require.GreaterOrEqual(e, pod.HeartbeatMs, when.start.Add(-clockSlack).UnixMilli())
		require.LessOrEqual(e, pod.HeartbeatMs, when.end.Add(clockSlack).UnixMilli())
	})

	s.test(t, "Get/a pod that has never reported", func(e *env) {
		_, err := e.Pods.Get(e.Context(), e.pods(), 1)
		require.ErrorIs(e, err, biz.ErrPodNotFound)
		e.reportReady(0, 2, 10, 11)
		_, err = e.Pods.Get(e.Context(), e.pods(), 1)
		require.ErrorIs(e, err, biz.ErrPodNotFound)
	})

	s.test(t, "List/sorted by pod, dead ones included", func(e *env) {
		ids := []biz.PodID{10, 9, 2, 0, 100, 1, math.MaxInt32, 33}
		e.reportReady(ids...)
		deadPod(e, 7)
		pods, err := e.Pods.List(e.Context(), e.pods())
		require.NoError(e, err)
		var got, live []biz.PodID
		for _, pod := range pods {
			got = append(got, pod.Pod)
			if pod.Liveness == biz.Live {
				live = append(live, pod.Pod)
			}
		}
		require.Equal(e, []biz.PodID{0, 1, 2, 7, 9, 10, 33, 100, math.MaxInt32}, got)
		require.Equal(e, []biz.PodID{0, 1, 2, 9, 10, 33, 100, math.MaxInt32}, live)

		pods, err = biz.NewPodUsecase(biz.NewPodViews(e.Pods, biz.NopObserver{}), 30).List(e.Context(), e.pods(), true)
		require.NoError(e, err)
		require.Len(e, pods, len(live), "the use-case lists only live pods with liveOnly")
	})
	s.test(t, "List/no report", func(e *env) {
		pods, err := e.Pods.List(e.Context(), e.pods())
		require.NoError(e, err)
		require.Empty(e, pods)
		removedPod(e, 1)
		pods, err = e.Pods.List(e.Context(), e.pods())
		require.NoError(e, err)
		require.Empty(e, pods)
	})

	s.test(t, "a report is valid for its ttl", func(e *env) {
		const lifetime = 2 * time.Second
		began := during(func() { e.report(biz.Report{Pod: 1, State: "up", TTL: 2}) })
		for {
			var pod biz.Pod
			var err error
			now := during(func() { pod, err = e.Pods.Get(e.Context(), e.pods(), 1) })
			require.NoError(e, err)
			if pod.Liveness == biz.Live {
				require.False(e, now.surelyAfter(began, lifetime), "still live after its ttl")
			} else {
				require.Equal(e, biz.InDoubt, pod.Liveness, "no other pod reports")
				require.False(e, now.surelyBefore(began, lifetime), "in doubt before its ttl is over")
			}
			if now.surelyAfter(began, lifetime) {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		before, err := e.Pods.Get(e.Context(), e.pods(), 1)
		require.NoError(e, err)
		require.EqualValues(e, 2, before.TTL, "the report is unchanged")
		result, err := e.Pods.Set(e.Context(), e.pods(), biz.Report{Pod: 1, State: "up", TTL: 2, Capacity: biz.NoCapacity})
		require.NoError(e, err)
		require.Equal(e, biz.Live, result.Pod.Liveness, "a new report makes it live")
		require.Equal(e, &before, result.Previous, "the previous report was not live")
	})
	s.test(t, "a report with ttl -1 never expires", func(e *env) {
		e.reportReady(1)
		time.Sleep(2500 * time.Millisecond)
		pod, err := e.Pods.Get(e.Context(), e.pods(), 1)
		require.NoError(e, err)
		require.Equal(e, biz.Live, pod.Liveness)
	})

	s.test(t, "Remove", func(e *env) {
		pod := e.report(biz.Report{Pod: 1, State: "up", Load: 4, TTL: 30})
		e.reportReady(10)
		previous, err := e.Pods.Remove(e.Context(), e.pods(), 1)
		require.NoError(e, err)
		require.Equal(e, &pod, previous)
		_, err = e.Pods.Get(e.Context(), e.pods(), 1)
		require.ErrorIs(e, err, biz.ErrPodNotFound)
		previous, err = e.Pods.Remove(e.Context(), e.pods(), 1)
		require.NoError(e, err)
		require.Nil(e, previous)
		result, err := e.Pods.Set(e.Context(), e.pods(), biz.Report{Pod: 1, State: "up", TTL: 30, Capacity: biz.NoCapacity})
		require.NoError(e, err)
		require.Nil(e, result.Previous, "the first report after a removal has no previous one")
	})

	s.test(t, "services and namespaces are separate", func(e *env) {
		e.reportReady(1)
		neighbours := []biz.ServiceKey{
			{Namespace: e.namespace, Service: "game2"},
			{Namespace: e.namespace, Service: "gam"},
			{Namespace: e.namespace + "2", Service: service},
			{Namespace: e.namespace + ".game", Service: service},
		}
		for _, key := range neighbours {
			pods, err := e.Pods.List(e.Context(), key)
			require.NoError(e, err)
			require.Empty(e, pods)
			reservation, err := e.Pods.Reserve(e.Context(), key, biz.ReserveRequest{Linked: biz.NoPod})
			require.NoError(e, err)
			require.Equal(e, biz.NeverReported, reservation.Outcome)
			_, err = e.Pods.Set(e.Context(), key, biz.Report{Pod: 1, State: "other", TTL: 30, Capacity: biz.NoCapacity})
			require.NoError(e, err)
		}
		pod, err := e.Pods.Get(e.Context(), e.pods(), 1)
		require.NoError(e, err)
		require.Equal(e, "up", pod.State)
	})
}

// freeFormTexts are texts that a store with careless parsing would corrupt.
var freeFormTexts = map[string]string{
	"spaces":           "  two  words ",
	"leading digits":   "42 players 7",
	"like a report":    "0 0 0 30 1700000000000 up",
	"a number":         "007",
	"a negative one":   "-1",
	"large number":     "9007199254740993",
	"float":            "1e400",
	"unicode":          "готов 🙂 é",
	"quotes":           `{"state": "up", 'n': [1, 2]}`,
	"percent":          "%s %d %1",
	"backslash":        `\n\0\\`,
	"redis protocol":   "$-1 *3 +OK :1",
	"longest":          strings.Repeat("s", 1024),
	"longest emoji":    strings.Repeat("🙂", 256),
	"words of podlink": "reported",
	"false":            "false",
}

// roundTrip stores a report and checks that every read returns it unchanged.
func (e *env) roundTrip(report biz.Report) {
	e.Helper()
	pod := e.report(report)
	report.Capacity = biz.NoCapacity
	require.Equal(e, biz.Pod{Report: report, Liveness: biz.Live, HeartbeatMs: pod.HeartbeatMs, HeardMs: pod.HeardMs}, pod)
	got, err := e.Pods.Get(e.Context(), e.pods(), report.Pod)
	require.NoError(e, err)
	require.Equal(e, pod, e.ignoreAge(got))
	list, err := e.Pods.List(e.Context(), e.pods())
	require.NoError(e, err)
	require.Len(e, list, 1)
	require.Equal(e, pod, e.ignoreAge(list[0]))
	previous, err := e.Pods.Remove(e.Context(), e.pods(), report.Pod)
	require.NoError(e, err)
	require.NotNil(e, previous)
	require.Equal(e, pod, e.ignoreAge(*previous))
}

// ignoreAge marks a pod with a TTL of one second as live: its report may have expired during a slow test.
func (e *env) ignoreAge(pod biz.Pod) biz.Pod {
	if pod.TTL == 1 {
		pod.Liveness = biz.Live
	}
	return pod
}
