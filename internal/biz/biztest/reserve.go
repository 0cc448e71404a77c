package biztest

import (
	"testing"
	"time"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

func (e *env) reserve(linked biz.PodID) biz.Reservation {
	e.Helper()
	reservation, err := e.Pods.Reserve(e.Context(), e.pods(), biz.ReserveRequest{Linked: linked})
	require.NoError(e, err)
	return reservation
}

// reserved reserves a pod for a new link and returns it.
func (e *env) reserved() biz.PodID {
	e.Helper()
	reservation := e.reserve(biz.NoPod)
	require.Equal(e, biz.Reserved, reservation.Outcome)
	return reservation.Pod
}

func testReserve(t *testing.T, s suite) {
	const forever = biz.Forever
	report := func(routing biz.Routing, ttl biz.TTL) func(e *env, pod biz.PodID) {
		return func(e *env, pod biz.PodID) { e.report(biz.Report{Pod: pod, State: "up", Routing: routing, TTL: ttl}) }
	}
	nothing := func(*env, biz.PodID) {}
	up, drains, down := report(biz.Ready, forever), report(biz.DenyNew, forever), report(biz.Shutdown, forever)
	for name, row := range map[string]struct {
		linked, free func(e *env, pod biz.PodID) // stores the reports of otherPod, which is linked, and of requestedPod
		current      biz.PodID
		want         biz.ReserveOutcome
	}{
		"no link/nothing reported":                      {nothing, nothing, biz.NoPod, biz.NeverReported},
		"no link/a READY pod":                           {nothing, up, biz.NoPod, biz.Reserved},
		"no link/only DENY_NEW":                         {nothing, drains, biz.NoPod, biz.NoPodAvailable},
		"no link/only SHUTDOWN":                         {nothing, down, biz.NoPod, biz.NoPodAvailable},
		"no link/only dead":                             {nothing, deadPod, biz.NoPod, biz.NoPodAvailable},
		"no link/the last pod was removed":              {nothing, removedPod, biz.NoPod, biz.NoPodAvailable},
		"no link/both were removed":                     {removedPod, removedPod, biz.NoPod, biz.NoPodAvailable},
		"a link/nothing reported":                       {nothing, nothing, otherPod, biz.NeverReported},
		"a link/READY":                                  {up, up, otherPod, biz.LinkedPodUsable},
		"a link/READY, for a while":                     {report(biz.Ready, 600), up, otherPod, biz.LinkedPodUsable},
		"a link/DENY_NEW":                               {drains, up, otherPod, biz.LinkedPodUsable},
		"a link/DENY_NEW, alone":                        {drains, nothing, otherPod, biz.LinkedPodUsable},
		"a link/SHUTDOWN":                               {down, up, otherPod, biz.Reserved},
		"a link/SHUTDOWN, alone":                        {down, nothing, otherPod, biz.NoPodAvailable},
		"a link/dead":                                   {deadPod, up, otherPod, biz.Reserved},
		"a link/dead, alone":                            {deadPod, nothing, otherPod, biz.NoPodAvailable},
		"a link/its pod has never reported, others did": {nothing, up, otherPod, biz.Reserved},
		"a link/its pod was removed":                    {removedPod, up, otherPod, biz.Reserved},
		"a link/its pod was removed as the last one":    {removedPod, nothing, otherPod, biz.NoPodAvailable},
	} {
		s.test(t, "outcome/"+name, func(e *env) {
			row.linked(e, otherPod)
			row.free(e, requestedPod)
			reservation := e.reserve(row.current)
			require.Equal(e, row.want, reservation.Outcome)
			if row.want != biz.Reserved {
				require.Equal(e, biz.Reservation{Outcome: row.want}, reservation)
				return
			}
			pod, err := e.Pods.Get(e.Context(), e.pods(), requestedPod)
			require.NoError(e, err)
			require.Equal(e, biz.Reservation{Outcome: biz.Reserved, Pod: requestedPod, HeartbeatMs: pod.HeartbeatMs}, reservation)
		})
	}

	s.test(t, "an existing link reserves nothing", func(e *env) {
		e.reportReady(0, 1)
		for range 5 {
			require.Equal(e, biz.LinkedPodUsable, e.reserve(0).Outcome)
		}
		require.EqualValues(e, 0, e.reserved())
	})
	s.test(t, "90 reservations over 3 equal pods", func(e *env) {
		e.reportReady(0, 1, 2)
		given := make(map[biz.PodID]int)
		for range 90 {
			given[e.reserved()]++
		}
		require.Equal(e, map[biz.PodID]int{0: 30, 1: 30, 2: 30}, given)
	})
	s.test(t, "ties go to the lowest pod", func(e *env) {
		e.reportReady(100, 20, 3, 11)
		for _, want := range []biz.PodID{3, 11, 20, 100, 3, 11, 20, 100} {
			require.Equal(e, want, e.reserved())
		}
	})
	s.test(t, "load counts as much as reservations", func(e *env) {
		for pod, load := range []int32{3, 0, 5} {
			e.report(biz.Report{Pod: biz.PodID(pod), State: "up", Load: load, TTL: forever})
		}
		for _, want := range []biz.PodID{1, 1, 1, 0, 1, 0, 1, 0, 1, 2} {
			require.Equal(e, want, e.reserved())
		}
	})
	s.test(t, "pods that accept no new links get none", func(e *env) {
		e.report(biz.Report{Pod: 0, State: "up", Routing: biz.DenyNew, TTL: forever})
		e.report(biz.Report{Pod: 1, State: "up", Routing: biz.Shutdown, TTL: forever})
		deadPod(e, 2)
		e.report(biz.Report{Pod: 3, State: "up", Load: 1 << 30, TTL: forever})
		for range 3 {
			require.EqualValues(e, 3, e.reserved())
		}
	})
	s.test(t, "a report resets the count of its pod", func(e *env) {
		e.reportReady(0, 1)
		for _, want := range []biz.PodID{0, 1, 0, 1} {
			require.Equal(e, want, e.reserved())
		}
		e.reportReady(1)
		for _, want := range []biz.PodID{1, 1, 0, 1} {
			require.Equal(e, want, e.reserved())
		}
	})

	s.test(t, "Release undoes a reservation", func(e *env) {
		e.reportReady(0, 1)
		first := e.reserve(biz.NoPod)
		require.EqualValues(e, 0, first.Pod)
		require.NoError(e, e.Pods.Release(e.Context(), e.pods(), first))
		require.EqualValues(e, 0, e.reserved())
		require.EqualValues(e, 1, e.reserved())
	})
	s.test(t, "Release after a new report changes nothing", func(e *env) {
		e.reportReady(0, 1)
		first := e.reserve(biz.NoPod)
		tick()
		e.reportReady(0)
		require.EqualValues(e, 0, e.reserved())
		require.NoError(e, e.Pods.Release(e.Context(), e.pods(), first))
		require.EqualValues(e, 1, e.reserved(), "pod 0 has one reservation since its report")
	})
	s.test(t, "Release of a removed pod", func(e *env) {
		e.reportReady(0)
		first := e.reserve(biz.NoPod)
		_, err := e.Pods.Remove(e.Context(), e.pods(), 0)
		require.NoError(e, err)
		require.NoError(e, e.Pods.Release(e.Context(), e.pods(), first))
		_, err = e.Pods.Get(e.Context(), e.pods(), 0)
		require.ErrorIs(e, err, biz.ErrPodNotFound)
		require.Equal(e, biz.NoPodAvailable, e.reserve(biz.NoPod).Outcome)
	})
	s.test(t, "Release never makes the count negative", func(e *env) {
		e.reportReady(0, 1)
		first := e.reserve(biz.NoPod)
		for range 3 {
			require.NoError(e, e.Pods.Release(e.Context(), e.pods(), first))
		}
		for _, want := range []biz.PodID{0, 1, 0, 1} {
			require.Equal(e, want, e.reserved())
		}
	})
	s.test(t, "reservations don't change the report", func(e *env) {
		pod := e.report(biz.Report{Pod: 0, State: "a b", Load: 3, TTL: forever})
		e.reserved()
		pod.Given = 1
		require.Equal(e, pod, e.get(0))
	})
	s.test(t, "a dead pod gets no reservations", func(e *env) {
		began := during(func() { e.report(biz.Report{Pod: 0, State: "up", TTL: 1}) })
		e.report(biz.Report{Pod: 1, State: "up", Load: 100, TTL: forever})
		began.sleepPast(time.Second)
		require.EqualValues(e, 1, e.reserved())
	})
}
