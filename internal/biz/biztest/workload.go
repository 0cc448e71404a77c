package biztest

import (
	"sync"
	"sync/atomic"
	"testing"

	"podlink/internal/biz"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func testWorkloads(t *testing.T, s suite) {
	for name, state := range freeFormTexts {
		s.test(t, "a state is returned as it was sent/"+name, func(e *env) {
			stored := e.workload(e.pods(), state)
			got, err := e.Workloads.Get(e.Context(), e.pods())
			require.NoError(e, err)
			require.Equal(e, stored, got)
		})
	}
	s.test(t, "Set/replaces the state", func(e *env) {
		first := e.workload(e.pods(), "starting")
		tick()
		second := e.workload(e.pods(), "up")
		require.Greater(e, second.UpdateMs, first.UpdateMs)
		got, err := e.Workloads.Get(e.Context(), e.pods())
		require.NoError(e, err)
		require.Equal(e, second, got)
	})
	s.test(t, "Get/never set", func(e *env) {
		_, err := e.Workloads.Get(e.Context(), e.pods())
		require.ErrorIs(e, err, biz.ErrWorkloadNotFound)
		e.reportReady(1)
		_, err = e.Workloads.Get(e.Context(), e.pods())
		require.ErrorIs(e, err, biz.ErrWorkloadNotFound, "pods are no workload")
	})
	s.test(t, "BatchGet/in order, without those never set", func(e *env) {
		var want []biz.Workload
		for _, service := range []string{"z", "a", "game"} {
			want = append(want, e.workload(biz.ServiceKey{Namespace: e.namespace, Service: service}, "up "+service))
		}
		got, err := e.Workloads.BatchGet(e.Context(), e.namespace, []string{"none", "z", "a", "g", "game", "game2"})
		require.NoError(e, err)
		require.Equal(e, want, got)
		got, err = e.Workloads.BatchGet(e.Context(), e.namespace, []string{"none", "other"})
		require.NoError(e, err)
		require.Empty(e, got)
	})
	s.test(t, "Remove/answers what it removed, once", func(e *env) {
		stored := e.workload(e.pods(), "up")
		other := e.workload(biz.ServiceKey{Namespace: e.namespace, Service: service + "2"}, "other")
		removed, err := e.Workloads.Remove(e.Context(), e.pods())
		require.NoError(e, err)
		require.Equal(e, &stored, removed)
		_, err = e.Workloads.Get(e.Context(), e.pods())
		require.ErrorIs(e, err, biz.ErrWorkloadNotFound)
		removed, err = e.Workloads.Remove(e.Context(), e.pods())
		require.NoError(e, err)
		require.Nil(e, removed)
		rest, err := e.Workloads.BatchGet(e.Context(), e.namespace, []string{service, service + "2"})
		require.NoError(e, err)
		require.Equal(e, []biz.Workload{other}, rest)
		e.workload(e.pods(), "up again")
	})
	s.test(t, "Remove/of concurrent calls one finds it", func(e *env) {
		stored := e.workload(e.pods(), "up")
		var found atomic.Int32
		var calls sync.WaitGroup
		for range 8 {
			calls.Go(func() {
				removed, err := e.Workloads.Remove(e.Context(), e.pods())
				assert.NoError(e, err)
				if removed != nil {
					assert.Equal(e, stored, *removed)
					found.Add(1)
				}
			})
		}
		calls.Wait()
		require.EqualValues(e, 1, found.Load())
	})
	s.test(t, "services and namespaces are separate", func(e *env) {
		stored := e.workload(e.pods(), "up")
		e.workload(biz.ServiceKey{Namespace: e.namespace + "2", Service: service}, "other")
		e.workload(biz.ServiceKey{Namespace: e.namespace, Service: service + "2"}, "other")
		got, err := e.Workloads.Get(e.Context(), e.pods())
		require.NoError(e, err)
		require.Equal(e, stored, got)
		_, err = e.Workloads.Get(e.Context(), biz.ServiceKey{Namespace: e.namespace + "3", Service: service})
		require.ErrorIs(e, err, biz.ErrWorkloadNotFound)
	})
}

// workload sets the state and checks the result.
func (e *env) workload(key biz.ServiceKey, state string) biz.Workload {
	e.Helper()
	var workload biz.Workload
	var err error
	when := during(func() { workload, err = e.Workloads.Set(e.Context(), key, state) })
	require.NoError(e, err)
	require.Equal(e, biz.Workload{Key: key, State: state, UpdateMs: workload.UpdateMs}, workload)
	require.GreaterOrEqual(e, workload.UpdateMs, when.start.Add(-clockSlack).UnixMilli())
	require.LessOrEqual(e, workload.UpdateMs, when.end.Add(clockSlack).UnixMilli())
	return workload
}
