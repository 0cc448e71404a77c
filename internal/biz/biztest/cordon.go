package biztest

import (
	"testing"
	"time"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

func (e *env) cordon(pod biz.PodID, cordon biz.Routing, ttl biz.TTL) biz.Pod {
	e.Helper()
	got, err := e.Pods.Cordon(e.Context(), e.pods(), pod, cordon, ttl)
	require.NoError(e, err)
	return got
}

func testCordon(t *testing.T, s suite) {
	const forever = biz.Forever
	s.test(t, "a pod that has never reported", func(e *env) {
		_, err := e.Pods.Cordon(e.Context(), e.pods(), 1, biz.DenyNew, forever)
		require.ErrorIs(e, err, biz.ErrPodNotFound)
		e.reportReady(2)
		_, err = e.Pods.Cordon(e.Context(), e.pods(), 1, biz.DenyNew, forever)
		require.ErrorIs(e, err, biz.ErrPodNotFound)
	})
	for reported := biz.Ready; reported <= biz.Shutdown; reported++ {
		for cordon := biz.Ready; cordon <= biz.Shutdown; cordon++ {
			name := string(rune('0'+reported)) + " and " + string(rune('0'+cordon))
			s.test(t, "the stricter of the two applies/"+name, func(e *env) {
				before := e.report(biz.Report{Pod: 1, State: "up", Routing: reported, TTL: 30})
				before.Cordon = cordon
				require.Equal(e, before, e.cordon(1, cordon, forever))
				require.Equal(e, before, e.get(1))
				effective := max(reported, cordon)
				require.Equal(e, effective, before.Effective())
				want := map[biz.Routing]biz.ReserveOutcome{
					biz.Ready: biz.Reserved, biz.DenyNew: biz.NoPodAvailable, biz.Shutdown: biz.NoPodAvailable,
				}
				require.Equal(e, want[effective], e.reserve(biz.NoPod).Outcome)
				linked := biz.LinkedPodUsable
				if effective == biz.Shutdown {
					linked = biz.NoPodAvailable
				}
				require.Equal(e, linked, e.reserve(1).Outcome)
			})
		}
	}
	s.test(t, "it survives reports, and READY lifts it", func(e *env) {
		e.reportReady(1)
		e.cordon(1, biz.DenyNew, forever)
		for range 2 {
			require.Equal(e, biz.DenyNew, e.report(biz.Report{Pod: 1, State: "up", TTL: 30}).Cordon)
			require.Equal(e, biz.NoPodAvailable, e.reserve(biz.NoPod).Outcome)
		}
		e.cordon(1, biz.Ready, forever)
		require.EqualValues(e, 1, e.reserved())
		require.Equal(e, biz.Ready, e.get(1).Cordon)
	})
	s.test(t, "it survives the death of the pod", func(e *env) {
		e.report(biz.Report{Pod: 1, State: "up", TTL: 600})
		e.cordon(1, biz.Shutdown, forever)
		e.hear(600, 5)
		require.Equal(e, biz.Dead, e.get(1).Liveness)
		require.Equal(e, biz.Shutdown, e.get(1).Cordon)
		require.Equal(e, biz.Shutdown, e.report(biz.Report{Pod: 1, State: "up", TTL: 600}).Cordon)
	})
	s.test(t, "a dead pod", func(e *env) {
		e.report(biz.Report{Pod: 1, State: "up", TTL: 600})
		e.hear(600, 5)
		require.Equal(e, biz.DenyNew, e.cordon(1, biz.DenyNew, 60).Cordon)
		require.Equal(e, biz.DenyNew, e.get(1).Cordon)
		require.Equal(e, biz.DenyNew, e.report(biz.Report{Pod: 1, State: "up", TTL: 600}).Cordon)
	})
	s.test(t, "Remove forgets it", func(e *env) {
		e.reportReady(1)
		e.cordon(1, biz.DenyNew, 60)
		_, err := e.Pods.Remove(e.Context(), e.pods(), 1)
		require.NoError(e, err)
		e.reportReady(1)
		require.EqualValues(e, 1, e.reserved())
	})
	for name, ttl := range map[string]biz.TTL{"the report never expires": forever, "the report expires": 36000} {
		s.test(t, "it lifts itself/"+name, func(e *env) {
			e.report(biz.Report{Pod: 1, State: "up", TTL: ttl})
			e.report(biz.Report{Pod: 2, State: "up", Load: 5, TTL: ttl})
			e.reserved()
			pod := e.cordon(1, biz.DenyNew, 2000)
			require.InDelta(e, time.Now().Add(2000*time.Second).UnixMilli(), pod.CordonUntilMs, float64(clockSlack.Milliseconds()))
			e.pass(1000 * time.Second)
			require.EqualValues(e, 2, e.reserved())
			require.Equal(e, biz.DenyNew, e.get(1).Cordon)
			e.pass(1000 * time.Second)
			require.Equal(e, biz.Ready, e.get(1).Cordon)
			given := e.get(1).Given
			if ttl != forever { // Otherwise it is halved every minute.
				require.EqualValues(e, 1, given, "the count remains")
			}
			require.EqualValues(e, 1, e.reserved())
			require.EqualValues(e, given+1, e.get(1).Given)
			require.Zero(e, e.get(1).CordonUntilMs)
		})
	}
	s.test(t, "it lifts itself for a standing link", func(e *env) {
		e.reportReady(1, 2)
		e.cordon(1, biz.Shutdown, 20)
		e.cordon(2, biz.DenyNew, forever)
		require.Equal(e, biz.NoPodAvailable, e.reserve(1).Outcome)
		e.pass(20 * time.Second)
		require.Equal(e, biz.LinkedPodUsable, e.reserve(1).Outcome)
	})
	s.test(t, "it is replaced", func(e *env) {
		e.reportReady(1)
		e.cordon(1, biz.Shutdown, 20)
		e.cordon(1, biz.DenyNew, forever)
		e.pass(time.Hour)
		require.Equal(e, biz.DenyNew, e.get(1).Cordon)
		e.cordon(1, biz.Shutdown, 20)
		e.cordon(1, biz.DenyNew, 600)
		e.pass(300 * time.Second)
		require.Equal(e, biz.NoPodAvailable, e.reserve(biz.NoPod).Outcome)
		e.pass(300 * time.Second)
		require.EqualValues(e, 1, e.reserved())
	})
}
