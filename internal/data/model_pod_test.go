package data

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"pgregory.net/rapid"

	"podlink/internal/biz"
)

// reports are the reports of a service that has reported.
type reports map[biz.PodID]*report

// report is the report of a pod, and the number of reservations since.
type report struct {
	biz.Pod
	given int64
}

// modelReservation is a reservation that may be released.
type modelReservation struct {
	service biz.ServiceKey
	biz.Reservation
}

// maxReservations is the number of reservations that a model keeps for Release.
const maxReservations = 4

// The generators for calls on pods: small loads, so that there are ties; pods that sort differently as numbers and as texts;
// and TTLs that don't expire during the test.
var (
	someReportingService = rapid.SampledFrom([]string{"chat", "game", "game", "game"})
	someReporter         = rapid.SampledFrom([]biz.PodID{2, 2, 10, 10, math.MaxInt32})
	someState            = rapid.SampledFrom([]string{"up", "x", "0 0 0", " two  words ", "läuft 🚀", strings.Repeat("s", 1024)})
	someLoad             = rapid.SampledFrom([]int32{0, 0, 0, 1, 1, 2, math.MaxInt32})
	someRouting          = rapid.SampledFrom([]biz.Routing{biz.Ready, biz.Ready, biz.Ready, biz.DenyNew, biz.Shutdown})
	someReportTTL        = rapid.SampledFrom([]biz.TTL{biz.Forever, biz.Forever, 1000, math.MaxInt32 / 1000})
)

func (m *model) someService(t *rapid.T) biz.ServiceKey {
	return m.service(someReportingService.Draw(t, "service"))
}

// find returns the report of a pod, nil if there is none.
func (m *model) find(key biz.ServiceKey, pod biz.PodID) *report { return m.services[key][pod] }

// pod returns the pod as replies contain it; nil stays nil.
func (r *report) pod() *biz.Pod {
	if r == nil {
		return nil
	}
	pod := r.Pod
	return &pod
}

func (m *model) podSteps() steps {
	return steps{
		calls: map[string]func(*rapid.T){
			"Pods.Set":     m.setState,
			"Pods.Remove":  m.removeState,
			"Pods.Reserve": m.reserve,
			"Pods.Release": m.release,
		},
		time: map[string]func(*rapid.T){"a report expires": m.age},
		reads: map[string]func(*rapid.T){
			"Pods.Get":        m.getState,
			"Pods.List":       m.listStates,
			"links given out": m.countGiven,
		},
	}
}

func (m *model) setState(t *rapid.T) {
	key := m.someService(t)
	want := biz.Pod{
		Report: biz.Report{
			Pod: someReporter.Draw(t, "pod"), State: someState.Draw(t, "state"), Load: someLoad.Draw(t, "load"),
			Routing: someRouting.Draw(t, "routing"), TTL: someReportTTL.Draw(t, "ttl"), Capacity: biz.NoCapacity,
		},
		Liveness: biz.Live,
	}
	result, err := m.repos.Pods.Set(context.Background(), key, want.Report)
	succeeds(t, "Pods.Set", err)
	got, previous := result.Pod, result.Previous
	want.HeartbeatMs = got.HeartbeatMs
	agree(t, "Pods.Set: the heartbeat is now", true, nearNow(time.UnixMilli(got.HeartbeatMs)))
	agree(t, "Pods.Set", want, got)
	agree(t, "Pods.Set: the previous report", m.find(key, want.Pod).pod(), previous)
	if m.services[key] == nil {
		m.services[key] = make(reports)
	}
	m.services[key][want.Pod] = &report{Pod: want}
}

func (m *model) removeState(t *rapid.T) {
	key, pod := m.someService(t), someReporter.Draw(t, "pod")
	previous, err := m.repos.Pods.Remove(context.Background(), key, pod)
	succeeds(t, "Pods.Remove", err)
	agree(t, "Pods.Remove", m.find(key, pod).pod(), previous)
	delete(m.services[key], pod)
}

func (m *model) reserve(t *rapid.T) {
	key := m.someService(t)
	linked := rapid.OneOf(rapid.Just(biz.NoPod), rapid.Just(biz.NoPod), someReporter).Draw(t, "linked")
	want := m.choose(key, linked)
	got, err := m.repos.Pods.Reserve(context.Background(), key, biz.ReserveRequest{Linked: linked})
	succeeds(t, "Pods.Reserve", err)
	agree(t, "Pods.Reserve", want, got)
	if got.Outcome == biz.Reserved {
		m.find(key, got.Pod).given++
		m.reservations = append(m.reservations, modelReservation{key, got})
		m.reservations = m.reservations[max(0, len(m.reservations)-maxReservations):]
	}
}

// choose returns the result that Reserve must have.
func (m *model) choose(key biz.ServiceKey, linked biz.PodID) biz.Reservation {
	if r := m.find(key, linked); r != nil && r.Liveness == biz.Live && r.Routing != biz.Shutdown {
		return biz.Reservation{Outcome: biz.LinkedPodUsable}
	}
	if m.services[key] == nil {
		return biz.Reservation{Outcome: biz.NeverReported}
	}
	var best *report
	for _, r := range m.services[key] {
		if r.Liveness == biz.Live && r.Routing == biz.Ready && (best == nil || r.better(best)) {
			best = r
		}
	}
	if best == nil {
		return biz.Reservation{Outcome: biz.NoPodAvailable}
	}
	return biz.Reservation{Outcome: biz.Reserved, Pod: best.Report.Pod, HeartbeatMs: best.HeartbeatMs}
}

// better reports whether r gets the next link rather than than.
func (r *report) better(than *report) bool {
	load, other := int64(r.Load)+r.given, int64(than.Load)+than.given
	return load < other || load == other && r.Report.Pod < than.Report.Pod
}

// release releases a reservation, possibly for a second time, or one that was never made.
func (m *model) release(t *rapid.T) {
	invented := biz.Reservation{Outcome: biz.Reserved, Pod: someReporter.Draw(t, "pod"), HeartbeatMs: 1}
	reservations := append(slices.Clone(m.reservations), modelReservation{m.someService(t), invented})
	one := reservations[rapid.IntRange(0, len(reservations)-1).Draw(t, "reservation")]
	succeeds(t, "Pods.Release", m.repos.Pods.Release(context.Background(), one.service, one.Reservation))
	r := m.find(one.service, one.Pod)
	if r != nil && r.HeartbeatMs == one.HeartbeatMs && r.given > 0 {
		r.given--
	}
}

// age moves a report far enough into the past that it has expired, unless it never expires.
func (m *model) age(t *rapid.T) {
	key, pod := m.someService(t), someReporter.Draw(t, "pod")
	r := m.find(key, pod)
	if r == nil {
		t.Skip("there is no report")
	}
	r.HeartbeatMs -= int64(max(r.TTL, 0))*1000 + clockTolerance.Milliseconds()
	if r.TTL != biz.Forever {
		r.Liveness = biz.Dead
	}
	field := strings.Join([]string{
		strconv.Itoa(int(r.Load)), strconv.FormatInt(r.given, 10), strconv.Itoa(int(r.Routing)), strconv.Itoa(int(r.TTL)),
		strconv.FormatInt(r.HeartbeatMs, 10), r.State,
	}, " ")
	err := m.store.client.HSet(context.Background(), m.store.keys.service(key), strconv.Itoa(int(pod)), field).Err()
	succeeds(t, "HSET", err)
}

func (m *model) getState(t *rapid.T) {
	key, pod := m.someService(t), someReporter.Draw(t, "pod")
	got, err := m.repos.Pods.Get(context.Background(), key, pod)
	want := m.find(key, pod)
	if want == nil {
		agree(t, "Pods.Get of none", biz.ErrPodNotFound, err)
		return
	}
	succeeds(t, "Pods.Get", err)
	agree(t, "Pods.Get", want.Pod, got)
}

func (m *model) listStates(t *rapid.T) {
	key := m.someService(t)
	want := []biz.Pod{}
	for _, r := range m.services[key] {
		want = append(want, r.Pod)
	}
	slices.SortFunc(want, func(a, b biz.Pod) int { return int(a.Pod) - int(b.Pod) })
	got, err := m.repos.Pods.List(context.Background(), key)
	succeeds(t, "Pods.List", err)
	agree(t, "Pods.List", want, got)
}

// countGiven checks the reservation count in the store: in replies, a wrong count shows late.
func (m *model) countGiven(t *rapid.T) {
	key, pod := m.someService(t), someReporter.Draw(t, "pod")
	r := m.find(key, pod)
	if r == nil {
		return
	}
	field, err := m.store.client.HGet(context.Background(), m.store.keys.service(key), strconv.Itoa(int(pod))).Result()
	succeeds(t, "HGET", err)
	agree(t, "links given out", strconv.FormatInt(r.given, 10), strings.SplitN(field, " ", 3)[1])
}
