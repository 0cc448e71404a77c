package biztest

import (
	"testing"
	"time"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

// testLimits tests what bounds the pods of a service, and what the store's id depends on.
func testLimits(t *testing.T, s suite) {
	report := func(e *env, pods biz.PodRepo, pod biz.PodID) error {
		_, err := pods.Set(e.Context(), e.pods(), biz.Report{Pod: pod, State: "up", TTL: 600, Capacity: biz.NoCapacity})
		return err
	}
	requireLimit := func(e *env, err error) {
		e.Helper()
		var limit *biz.LimitError
		require.ErrorAs(e, err, &limit)
		require.Equal(e, "limits.max_pods", limit.Limit)
	}
	s.test(t, "pods that are not dead", func(e *env) {
		pods := e.Configured(PodSettings{MaxPods: 3, ForgetAfter: time.Hour})
		for pod := range biz.PodID(3) {
			require.NoError(e, report(e, pods, pod))
		}
		for range 2 {
			e.requireUnchanged(func() { requireLimit(e, report(e, pods, 3)) })
		}
		require.NoError(e, report(e, pods, 0), "one that is stored")
		for e.get(2).Liveness != biz.Dead {
			e.pass(200 * time.Second)
			require.NoError(e, report(e, pods, 0))
			require.NoError(e, report(e, pods, 1))
		}
		require.NoError(e, report(e, pods, 3))
		requireLimit(e, report(e, pods, 2))
		_, err := pods.Remove(e.Context(), e.pods(), 0)
		require.NoError(e, err)
		require.NoError(e, report(e, pods, 2))
		requireLimit(e, report(e, pods, 0))
	})
	s.test(t, "dead pods", func(e *env) {
		pods := e.Configured(PodSettings{MaxPods: 2, ForgetAfter: 1000 * time.Hour})
		next := biz.PodID(0)
		die := func() {
			e.Helper()
			require.NoError(e, report(e, pods, next))
			for range 10 {
				e.pass(200 * time.Second)
				require.NoError(e, report(e, pods, witness))
			}
			require.Equal(e, biz.Dead, e.get(next).Liveness)
			next++
		}
		die()
		die()
		e.cordon(0, biz.DenyNew, biz.Forever)
		for next < 31 {
			die()
		}
		list, err := pods.List(e.Context(), e.pods())
		require.NoError(e, err)
		require.Len(e, list, 32)
		die()
		list, err = pods.List(e.Context(), e.pods())
		require.NoError(e, err)
		require.Len(e, list, 32)
		require.EqualValues(e, 0, list[0].Pod, "it is cordoned")
		require.EqualValues(e, 2, list[1].Pod, "pod 1 was dead longest")
	})
	s.test(t, "forgetting", func(e *env) {
		pods := e.Configured(PodSettings{MaxPods: 100, ForgetAfter: 100 * time.Hour})
		p := e.process("p")
		p.begin(0)
		for pod := range biz.PodID(30) {
			require.NoError(e, report(e, pods, 100+pod))
		}
		e.cordon(110, biz.DenyNew, biz.Forever)
		e.cordon(111, biz.DenyNew, 60)
		live := func(times int) {
			for range times {
				e.pass(200 * time.Second)
				require.NoError(e, report(e, pods, witness))
			}
		}
		live(20)
		list, err := pods.List(e.Context(), e.pods())
		require.NoError(e, err)
		require.Len(e, list, 32)
		e.pass(90 * time.Hour)
		live(10)
		require.NoError(e, report(e, pods, 99))
		e.pass(10 * time.Hour)
		before, _ := pods.List(e.Context(), e.pods())
		require.Len(e, before, 33)
		require.NoError(e, report(e, pods, witness))
		list, err = pods.List(e.Context(), e.pods())
		require.NoError(e, err)
		require.Len(e, list, 23, "at most ten per report")
		live(10)
		e.reserve(biz.NoPod) // Lifts the lapsed cordon of pod 111.
		live(10)
		list, err = pods.List(e.Context(), e.pods())
		require.NoError(e, err)
		ids := []biz.PodID{}
		for _, pod := range list {
			ids = append(ids, pod.Pod)
		}
		require.Equal(e, []biz.PodID{99, 110, witness}, ids)
		p.begin(0)
	})
	s.test(t, "many pods are listed in pages", func(e *env) {
		const many = 600
		for pod := range biz.PodID(many) {
			e.report(biz.Report{Pod: pod * 3, State: "up", Load: int32(pod), TTL: 600})
		}
		e.hear(600, 10) // Some are buried.
		for pod := range biz.PodID(550) {
			e.report(biz.Report{Pod: pod*3 + 1, State: "up", TTL: 600})
		}
		list, err := e.Pods.List(e.Context(), e.pods())
		require.NoError(e, err)
		require.Len(e, list, many+551)
		for i, pod := range list[1:] {
			require.Greater(e, pod.Pod, list[i].Pod)
		}
	})
	s.test(t, "the store's id", func(e *env) {
		id := func(primaries string) string {
			result, err := e.Configured(PodSettings{MaxPods: 9, ForgetAfter: time.Hour, Primaries: primaries}).
				Set(e.Context(), e.pods(), biz.Report{Pod: 1, State: "up", TTL: 30, Capacity: biz.NoCapacity})
			require.NoError(e, err)
			require.NotEmpty(e, result.StoreID)
			return result.StoreID
		}
		first := id("a,b")
		for _, known := range []string{"a,b", "b", "", "a"} {
			require.Equal(e, first, id(known))
		}
		second := id("b,c")
		require.NotEqual(e, first, second)
		for _, known := range []string{"a,b", "c", ""} {
			require.Equal(e, second, id(known))
		}
		for n := range 64 {
			third := id("d" + string(rune('0'+n)))
			require.NotEqual(e, second, third)
			second = third
		}
		require.NotEqual(e, second, id("a"), "the last 64 are kept")
		_, err := e.Pods.Remove(e.Context(), e.pods(), 1)
		require.NoError(e, err)
		require.Equal(e, id("a"), id(""), "it outlives the pods")
	})
	s.test(t, "the first report makes the store's id, whatever is known", func(e *env) {
		unknown := e.Configured(PodSettings{MaxPods: 9, ForgetAfter: time.Hour})
		one, err := unknown.Set(e.Context(), e.pods(), biz.Report{Pod: 1, State: "up", TTL: 30, Capacity: biz.NoCapacity})
		require.NoError(e, err)
		two, err := unknown.Set(e.Context(), e.pods(), biz.Report{Pod: 2, State: "up", TTL: 30, Capacity: biz.NoCapacity})
		require.NoError(e, err)
		require.NotEmpty(e, one.StoreID)
		require.Equal(e, one.StoreID, two.StoreID)
	})
}
