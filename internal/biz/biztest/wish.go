package biztest

import (
	"fmt"
	"testing"
	"time"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

// ask reserves with wishes.
func (e *env) ask(request biz.ReserveRequest) biz.Reservation {
	e.Helper()
	reservation, err := e.Pods.Reserve(e.Context(), e.pods(), request)
	require.NoError(e, err)
	return reservation
}

// choose returns the pod that is reserved with the wishes, NoPod if there is none.
func (e *env) choose(request biz.ReserveRequest) biz.PodID {
	e.Helper()
	reservation := e.ask(request)
	if reservation.Outcome != biz.Reserved {
		require.Equal(e, biz.NoPodAvailable, reservation.Outcome)
		return biz.NoPod
	}
	return reservation.Pod
}

// store stores a report as it is.
func (e *env) store(report biz.Report) biz.Pod {
	e.Helper()
	report.State = "up"
	result, err := e.Pods.Set(e.Context(), e.pods(), report)
	require.NoError(e, err)
	return result.Pod
}

func newLink() biz.ReserveRequest { return biz.ReserveRequest{Linked: biz.NoPod} }

func testWishes(t *testing.T, s suite) {
	const forever = biz.Forever
	s.test(t, "capacity", func(e *env) {
		for _, ttl := range []biz.TTL{forever, 600} {
			e.store(biz.Report{Pod: 1, Load: 2, TTL: ttl, Capacity: 4})
			e.store(biz.Report{Pod: 2, Load: 9, TTL: ttl, Capacity: 10})
			var last biz.Reservation
			for _, want := range []biz.PodID{1, 1, 2} {
				last = e.ask(newLink())
				require.Equal(e, want, last.Pod)
			}
			require.Equal(e, biz.NoPod, e.choose(newLink()))
			require.Equal(e, biz.LinkedPodUsable, e.reserve(1).Outcome, "a standing link is not judged by it")
			require.EqualValues(e, 2, e.get(1).Given)
			require.NoError(e, e.Pods.Release(e.Context(), e.pods(), last))
			require.EqualValues(e, 2, e.choose(newLink()))
			require.Equal(e, biz.NoPod, e.choose(newLink()))
		}
		e.store(biz.Report{Pod: 1, TTL: forever, Capacity: 0})
		e.store(biz.Report{Pod: 2, TTL: forever, Capacity: 1})
		require.EqualValues(e, 2, e.choose(newLink()))
		require.Equal(e, biz.NoPod, e.choose(newLink()))
		e.store(biz.Report{Pod: 1, TTL: forever, Capacity: biz.NoCapacity})
		require.EqualValues(e, 1, e.choose(newLink()))
	})
	s.test(t, "selector", func(e *env) {
		eu, us := map[string]string{"zone": "eu", "kind": "fast"}, map[string]string{"zone": "us", "kind": "fast"}
		e.store(biz.Report{Pod: 0, TTL: forever, Capacity: biz.NoCapacity})
		e.store(biz.Report{Pod: 1, TTL: forever, Load: 5, Capacity: biz.NoCapacity, Labels: eu})
		e.store(biz.Report{Pod: 2, TTL: forever, Load: 5, Capacity: 7, Labels: us})
		e.store(biz.Report{Pod: 3, TTL: forever, Load: 6, Capacity: biz.NoCapacity, Labels: eu})
		with := func(labels map[string]string) biz.ReserveRequest {
			return biz.ReserveRequest{Linked: biz.NoPod, Selector: labels}
		}
		require.EqualValues(e, 0, e.choose(newLink()))
		require.EqualValues(e, 1, e.choose(with(map[string]string{"zone": "eu"})))
		require.EqualValues(e, 1, e.choose(with(eu)))
		require.EqualValues(e, 3, e.choose(with(eu)))
		fast := with(map[string]string{"kind": "fast"})
		for _, want := range []biz.PodID{2, 2, 1, 3, 1} { // 2 is full then.
			require.Equal(e, want, e.choose(fast))
		}
		for name, none := range map[string]map[string]string{
			"another value": {"zone": "asia"}, "part of a value": {"zone": "e"}, "part of a name": {"one": "eu"},
			"one of two": {"zone": "eu", "kind": "slow"}, "no such label": {"x": ""},
		} {
			require.Equal(e, biz.NoPod, e.choose(with(none)), name)
		}
		require.Equal(e, biz.LinkedPodUsable, e.ask(biz.ReserveRequest{Linked: 0, Selector: eu}).Outcome)
		e.cordon(1, biz.DenyNew, forever)
		require.EqualValues(e, 3, e.choose(with(eu)))
		e.store(biz.Report{Pod: 3, TTL: forever, Capacity: biz.NoCapacity, Labels: us})
		require.Equal(e, biz.NoPod, e.choose(with(eu)))
		e.cordon(1, biz.Ready, forever)
		require.EqualValues(e, 1, e.choose(with(eu)))
		_, err := e.Pods.Remove(e.Context(), e.pods(), 1)
		require.NoError(e, err)
		require.Equal(e, biz.NoPod, e.choose(with(eu)))
		require.EqualValues(e, 3, e.choose(with(us)))
	})
	for name, value := range freeFormTexts {
		s.test(t, "labels are returned as they were sent/"+name, func(e *env) {
			labels := map[string]string{"a": value, "b.c_d-e": "", "z": "&=%"}
			e.store(biz.Report{Pod: 1, TTL: forever, Capacity: 5, Labels: labels, Address: "[::1]:80"})
			require.Equal(e, labels, e.get(1).Labels)
			require.Equal(e, "[::1]:80", e.get(1).Address)
			require.EqualValues(e, 1, e.choose(biz.ReserveRequest{Linked: biz.NoPod, Selector: labels}))
			require.Equal(e, biz.NoPod, e.choose(biz.ReserveRequest{Linked: biz.NoPod, Selector: map[string]string{"z": ""}}))
		})
	}
	s.test(t, "64 sets of labels", func(e *env) {
		set := func(n int) map[string]string { return map[string]string{"n": fmt.Sprint(n)} }
		report := func(pod, labels int) error {
			_, err := e.Pods.Set(e.Context(), e.pods(), biz.Report{
				Pod: biz.PodID(pod), State: "up", TTL: 600, Capacity: biz.NoCapacity, Labels: set(labels),
			})
			return err
		}
		for n := range 64 {
			require.NoError(e, report(n, n))
		}
		require.NoError(e, report(64, 5), "a known set")
		e.requireUnchanged(func() {
			var limit *biz.LimitError
			require.ErrorAs(e, report(65, 64), &limit)
			require.Equal(e, "label_sets", limit.Limit)
			require.ErrorAs(e, report(64, 64), new(*biz.LimitError))
		})
		require.NoError(e, report(0, 64), "its set becomes free")
		require.EqualValues(e, 0, e.choose(biz.ReserveRequest{Linked: biz.NoPod, Selector: set(64)}))
		require.Equal(e, biz.NoPod, e.choose(biz.ReserveRequest{Linked: biz.NoPod, Selector: set(0)}))
		_, err := e.Pods.Remove(e.Context(), e.pods(), 1)
		require.NoError(e, err)
		require.NoError(e, report(65, 65), "a removed pod leaves its set")
		e.hear(600, 5)
		require.NoError(e, report(66, 66), "so does one that is dead for certain")
		require.NoError(e, report(2, 67))
	})
	s.test(t, "avoid", func(e *env) {
		e.reportReady(0, 1, 2)
		avoiding := func(pods ...biz.PodID) biz.ReserveRequest { return biz.ReserveRequest{Linked: biz.NoPod, Avoid: pods} }
		require.EqualValues(e, 1, e.choose(avoiding(0)))
		require.EqualValues(e, 2, e.choose(avoiding(0, 1)))
		require.Equal(e, biz.NoPod, e.choose(avoiding(0, 1, 2)))
		require.EqualValues(e, 0, e.choose(avoiding(10, 20, 12, 22)))
		require.Equal(e, biz.LinkedPodUsable, e.ask(biz.ReserveRequest{Linked: 0, Avoid: []biz.PodID{0}}).Outcome)
		require.EqualValues(e, 0, e.choose(newLink()), "each has one")
	})
	s.test(t, "leave", func(e *env) {
		leaving := biz.ReserveRequest{Linked: 0, Leave: true}
		e.reportReady(0)
		require.Equal(e, biz.LinkedPodUsable, e.ask(leaving).Outcome, "no other pod is usable")
		e.report(biz.Report{Pod: 1, State: "up", Load: 100, TTL: forever})
		require.EqualValues(e, 1, e.choose(leaving))
		leaving.Avoid = []biz.PodID{1}
		require.Equal(e, biz.LinkedPodUsable, e.ask(leaving).Outcome)
		e.report(biz.Report{Pod: 0, State: "up", Routing: biz.Shutdown, TTL: forever})
		require.Equal(e, biz.NoPodAvailable, e.ask(leaving).Outcome)
	})
	s.test(t, "doubt ends where a live pod never ages", func(e *env) {
		e.report(biz.Report{Pod: 0, State: "up", TTL: 1})
		e.pass(time.Minute)
		over := biz.ReserveRequest{Linked: 0, DoubtOver: true}
		require.Equal(e, biz.LinkedPodUsable, e.ask(over).Outcome)
		e.report(biz.Report{Pod: 1, State: "up", Routing: biz.DenyNew, TTL: forever})
		require.Equal(e, biz.InDoubt, e.get(0).Liveness)
		require.Equal(e, biz.LinkedPodUsable, e.ask(over).Outcome, "it is not READY")
		e.pass(time.Minute)
		e.reportReady(1)
		require.Equal(e, biz.LinkedPodUsable, e.reserve(0).Outcome)
		require.EqualValues(e, 1, e.choose(over))
		e.store(biz.Report{Pod: 1, TTL: forever, Capacity: 0})
		require.Equal(e, biz.LinkedPodUsable, e.ask(over).Outcome, "no pod is usable, so the link stays")
	})
	s.test(t, "a pod in doubt keeps its links, whatever it reported, while no other is usable", func(e *env) {
		e.report(biz.Report{Pod: 0, State: "up", Routing: biz.Shutdown, TTL: 1})
		e.pass(time.Minute)
		require.Equal(e, biz.LinkedPodUsable, e.reserve(0).Outcome)
		e.reportReady(1)
		require.EqualValues(e, 1, e.choose(biz.ReserveRequest{Linked: 0}))
	})
	s.test(t, "known", func(e *env) {
		knowing := func(pod biz.PodID) biz.ReserveRequest {
			return biz.ReserveRequest{Linked: biz.NoPod, Known: &biz.KnownLink{Pod: pod, Epoch: 7}}
		}
		require.Equal(e, biz.NeverReported, e.ask(knowing(2)).Outcome)
		report := func(pod biz.PodID, load int32, routing biz.Routing) biz.Pod {
			return e.store(biz.Report{Pod: pod, Load: load, Routing: routing, TTL: 2000, Capacity: 50})
		}
		report(0, 0, biz.Ready)
		require.Equal(e, biz.Reservation{Outcome: biz.Restored, Pod: 2}, e.ask(knowing(2)), "it has not reported yet")
		require.NoError(e, e.Pods.Release(e.Context(), e.pods(), biz.Reservation{Outcome: biz.Restored, Pod: 2}))
		another := biz.ReserveRequest{Linked: 2, Known: &biz.KnownLink{Pod: 2, Epoch: 7}}
		require.Equal(e, biz.LinkedPodUsable, e.ask(another).Outcome, "another caller keeps what was put back")
		require.EqualValues(e, 0, e.choose(biz.ReserveRequest{Linked: 2}), "it does not know the link")
		full := report(2, 50, biz.Ready)
		restored := e.ask(knowing(2))
		require.Equal(e, biz.Reservation{Outcome: biz.Restored, Pod: 2, HeartbeatMs: full.HeartbeatMs}, restored)
		require.EqualValues(e, 1, e.get(2).Given)
		require.NoError(e, e.Pods.Release(e.Context(), e.pods(), restored))
		require.Zero(e, e.get(2).Given)
		report(2, 0, biz.DenyNew)
		require.Equal(e, biz.Reserved, e.ask(knowing(2)).Outcome, "it takes no new links")
		report(2, 0, biz.Ready)
		_, err := e.Pods.Remove(e.Context(), e.pods(), 2)
		require.NoError(e, err)

		e.pass(3900 * time.Second)
		report(3, 10, biz.Ready)
		require.Equal(e, biz.Reservation{Outcome: biz.Restored, Pod: 4}, e.ask(knowing(4)))
		require.Equal(e, biz.Restored, e.ask(knowing(3)).Outcome)
		require.NotEqual(e, biz.Restored, e.ask(knowing(0)).Outcome, "it is silent")
		e.pass(100 * time.Second)
		report(3, 10, biz.Ready)
		report(0, 0, biz.Ready)
		for _, pod := range []biz.PodID{3, 4} {
			require.EqualValues(e, 0, e.choose(knowing(pod)), "the loss was too long ago")
		}
		require.Equal(e, biz.LinkedPodUsable, e.ask(biz.ReserveRequest{Linked: 0, Known: &biz.KnownLink{Pod: 3}}).Outcome)
	})
	s.test(t, "a report that never expires", func(e *env) {
		e.reportReady(0)
		for range 1000 {
			e.reserved()
		}
		require.EqualValues(e, 1000, e.get(0).Given)
		e.pass(10 * time.Minute)
		e.reportReady(1)
		given := make(map[biz.PodID]int)
		for range 300 {
			given[e.reserved()]++
		}
		require.InDelta(e, 150, given[0], 2, "1000 links were given out long ago")
		e.pass(time.Minute)
		e.reserved()
		require.InDelta(e, given[0]/2, e.get(0).Given, 2)
		e.pass(24 * time.Hour)
		e.reserved()
		require.LessOrEqual(e, e.get(0).Given+e.get(1).Given, int64(1))
	})
	s.test(t, "many silent pods", func(e *env) {
		for pod := range biz.PodID(200) {
			e.report(biz.Report{Pod: pod, State: "up", TTL: 1})
		}
		e.pass(time.Minute)
		require.Equal(e, biz.NoPodAvailable, e.reserve(biz.NoPod).Outcome)
		e.report(biz.Report{Pod: 200, State: "up", Load: 5, TTL: 600})
		require.EqualValues(e, 200, e.reserved())
		e.report(biz.Report{Pod: 7, State: "up", Load: 1, TTL: 600})
		require.EqualValues(e, 7, e.reserved())
	})
}
