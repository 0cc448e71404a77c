package biztest

import (
	"math/rand/v2"
	"testing"
	"time"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

// witness is a pod that only makes the service heard. It takes no links.
const witness biz.PodID = 777_777

// pass lets time pass by the store's clock, for the default service.
func (e *env) pass(d time.Duration) {
	e.Helper()
	require.NoError(e, e.Pass(e.Context(), e.pods(), d))
}

// hear lets some ttls pass in which the witness reports three times per ttl. Tests use long ttls, compared with which the
// time that they take does not count.
func (e *env) hear(ttl biz.TTL, ttls int) {
	e.Helper()
	for range 3 * ttls {
		e.pass(time.Duration(ttl) * time.Second / 3)
		e.report(biz.Report{Pod: witness, State: "witness", Routing: biz.Shutdown, TTL: ttl})
	}
}

// silence lets a pod die: others report, and it does not. Nothing of the others remains.
func (e *env) silence(pod biz.PodID, ttl biz.TTL) {
	e.Helper()
	for e.get(pod).Liveness != biz.Dead {
		e.hear(ttl, 1)
	}
	_, err := e.Pods.Remove(e.Context(), e.pods(), witness)
	require.NoError(e, err)
}

func (e *env) get(pod biz.PodID) biz.Pod {
	e.Helper()
	got, err := e.Pods.Get(e.Context(), e.pods(), pod)
	require.NoError(e, err)
	return got
}

// Hearing follows the reports of a service by the reference, Advance.
type Hearing struct {
	biz.Hearing
	reported bool
}

// Advance adds a stored report with the ttl, at the time now.
func (h *Hearing) Advance(ttl biz.TTL, nowMs int64) {
	var before *biz.Hearing
	if h.reported {
		before = &h.Hearing
	}
	h.Hearing, h.reported = Advance(before, nowMs, ttl), true
}

func testLiveness(t *testing.T, s suite) {
	s.test(t, "a silent service loses no pod", func(e *env) {
		for _, away := range []time.Duration{400 * time.Second, 2 * time.Hour, 240 * time.Hour} {
			for pod := range biz.PodID(3) {
				e.report(biz.Report{Pod: pod, State: "up", TTL: 300})
			}
			e.pass(away)
			// Pod 0 is the first to report again.
			e.report(biz.Report{Pod: 0, State: "up", TTL: 300})
			for pod := range biz.PodID(3) {
				require.Equal(e, biz.LinkedPodUsable, e.reserve(pod).Outcome, "pod %d after %s", pod, away)
			}
			require.Equal(e, biz.Live, e.get(0).Liveness)
			require.Equal(e, biz.InDoubt, e.get(1).Liveness)
		}
	})
	s.test(t, "a silent service loses no pod, with a short ttl that has gone and a long one", func(e *env) {
		e.report(biz.Report{Pod: 1, State: "up", TTL: 300})
		e.report(biz.Report{Pod: 2, State: "up", TTL: 360_000})
		e.report(biz.Report{Pod: 3, State: "up", TTL: 100})
		_, err := e.Pods.Remove(e.Context(), e.pods(), 3)
		require.NoError(e, err)
		for range 10 {
			e.pass(29 * time.Second)
			e.report(biz.Report{Pod: 1, State: "up", TTL: 300})
		}
		e.pass(40 * time.Second)
		e.report(biz.Report{Pod: 2, State: "up", TTL: 360_000})
		e.pass(1000 * time.Second)
		e.report(biz.Report{Pod: 2, State: "up", TTL: 360_000})
		require.Equal(e, biz.InDoubt, e.get(1).Liveness)
		require.Equal(e, biz.LinkedPodUsable, e.reserve(1).Outcome)
	})
	s.test(t, "a pod that is alone is never dead", func(e *env) {
		e.report(biz.Report{Pod: 0, State: "up", TTL: 1})
		e.pass(time.Hour)
		require.Equal(e, biz.InDoubt, e.get(0).Liveness)
		require.Equal(e, biz.LinkedPodUsable, e.reserve(0).Outcome)
		require.Equal(e, biz.NoPodAvailable, e.reserve(biz.NoPod).Outcome)
	})
	s.test(t, "a silent pod among others is dead after its ttl", func(e *env) {
		e.report(biz.Report{Pod: 0, State: "up", TTL: 600})
		for _, want := range []biz.Liveness{biz.Live, biz.Live, biz.Dead, biz.Dead} {
			e.pass(250 * time.Second)
			e.report(biz.Report{Pod: 1, State: "up", TTL: 600})
			require.Equal(e, want, e.get(0).Liveness)
		}
	})
	s.test(t, "after an outage, a pod is dead after its ttl", func(e *env) {
		e.report(biz.Report{Pod: 0, State: "up", TTL: 600})
		e.pass(time.Hour)
		for _, want := range []biz.Liveness{biz.InDoubt, biz.InDoubt, biz.InDoubt, biz.Dead} {
			e.report(biz.Report{Pod: 1, State: "up", TTL: 600})
			require.Equal(e, want, e.get(0).Liveness)
			e.pass(250 * time.Second)
		}
	})
	s.test(t, "the store's clock jumps", func(e *env) {
		for _, jump := range []time.Duration{time.Hour, -time.Hour, 2 * time.Hour, -time.Hour} {
			for pod := range biz.PodID(3) {
				e.report(biz.Report{Pod: pod, State: "up", TTL: 3})
			}
			e.pass(jump)
			e.report(biz.Report{Pod: 2, State: "up", TTL: 3})
			for pod := range biz.PodID(3) {
				require.Equal(e, biz.LinkedPodUsable, e.reserve(pod).Outcome, "pod %d after a jump of %s", pod, jump)
			}
		}
	})
	s.test(t, "a dead pod that reports again is live", func(e *env) {
		deadPod(e, 1)
		e.report(biz.Report{Pod: 1, State: "up", TTL: 1})
		require.EqualValues(e, 1, e.reserved())
	})
	for seed := range uint64(8) {
		s.test(t, "the reference/"+string(rune('0'+seed)), func(e *env) { e.followReference(rand.New(rand.NewPCG(seed, 1))) })
	}
}

// followReference makes reports at random, and compares the hearing of the service with the reference.
func (e *env) followReference(random *rand.Rand) {
	var want Hearing
	reports := make(map[biz.PodID]biz.Pod)
	for range 60 {
		if random.IntN(4) > 0 {
			gap := time.Duration(random.Int64N(int64(10 * time.Second)))
			switch random.IntN(8) {
			case 0:
				gap = -gap
			case 1:
				gap *= 100
			}
			e.pass(gap)
			want.Last -= gap.Milliseconds()
			for id, pod := range reports {
				pod.HeartbeatMs -= gap.Milliseconds()
				reports[id] = pod
			}
		}
		id := biz.PodID(random.IntN(4))
		ttls := []biz.TTL{1, 2, 5, 15, biz.Forever}
		pod := e.report(biz.Report{Pod: id, State: "up", TTL: ttls[random.IntN(len(ttls))]})
		want.Advance(pod.TTL, pod.HeartbeatMs)
		require.Equal(e, want.Heard, pod.HeardMs)
		reports[id] = pod

		view := e.podsView()
		require.Equal(e, want.Hearing, view.Hearing)
		now := pod.HeartbeatMs
		view.Judge(now)
		for _, got := range view.Pods {
			stored := reports[got.Pod]
			require.Equal(e, want.Liveness(stored.TTL, stored.HeartbeatMs, stored.HeardMs, now), got.Liveness)
		}
		list, err := e.Pods.List(e.Context(), e.pods())
		require.NoError(e, err)
		require.Len(e, list, len(reports))
		for _, got := range list {
			stored := reports[got.Pod]
			require.Equal(e, stored.HeardMs, got.HeardMs)
			if want.Liveness(stored.TTL, stored.HeartbeatMs, stored.HeardMs, now) == biz.Dead {
				require.Equal(e, biz.Dead, got.Liveness)
				require.NotEqual(e, biz.LinkedPodUsable, e.reserve(got.Pod).Outcome)
			} else if got.Routing == biz.Ready {
				require.Equal(e, biz.LinkedPodUsable, e.reserve(got.Pod).Outcome)
			}
		}
		for _, pod := range list {
			if pod.HeardMs+3*max(int64(pod.TTL), 0)*1000 < want.Heard && pod.TTL != biz.Forever {
				require.NotContains(e, podsOf(view), pod.Pod, "a plain view has no pod that is dead for certain")
			}
		}
	}
}

func podsOf(view biz.PodsView) []biz.PodID {
	ids := []biz.PodID{}
	for _, pod := range view.Pods {
		ids = append(ids, pod.Pod)
	}
	return ids
}

func (e *env) podsView() biz.PodsView {
	e.Helper()
	view, err := e.Pods.View(e.Context(), e.pods())
	require.NoError(e, err)
	return view
}
