package data

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"podlink/internal/biz"
	"podlink/internal/biz/biztest"
)

// reports is a service that has reported: its pods, dead ones included, and what was heard.
type reports struct {
	pods    map[biz.PodID]*report
	fences  map[biz.PodID]biz.Generation // of removed pods
	hearing biztest.Hearing
	now     int64 // the store's time of the last report, or later
}

// report is a report of a pod, with its reservations and its cordon.
type report struct{ biz.Pod }

// modelReservation is a reservation that may be released.
type modelReservation struct {
	service biz.ServiceKey
	biz.Reservation
}

// maxReservations is the number of reservations that a model keeps for Release.
const maxReservations = 4

// The generators for calls on pods: small loads, so that there are ties; pods that sort differently as numbers and as texts;
// and TTLs that don't expire by themselves during the test.
var (
	someReportingService = rapid.SampledFrom([]string{"chat", "game", "game", "game"})
	someReporter         = rapid.SampledFrom([]biz.PodID{2, 2, 10, 10, math.MaxInt32})
	someState            = rapid.SampledFrom([]string{"up", "x", "0 0 0", " two  words ", "läuft 🚀", strings.Repeat("s", 1024)})
	someLoad             = rapid.SampledFrom([]int32{0, 0, 0, 1, 1, 2, math.MaxInt32})
	someRouting          = rapid.SampledFrom([]biz.Routing{biz.Ready, biz.Ready, biz.Ready, biz.DenyNew, biz.Shutdown})
	someReportTTL        = rapid.SampledFrom([]biz.TTL{biz.Forever, 1000, 1000, 2000, math.MaxInt32 / 1000})
	someCapacity         = rapid.SampledFrom([]int32{biz.NoCapacity, biz.NoCapacity, biz.NoCapacity, 0, 1, 3})
	someLabels           = rapid.SampledFrom([]map[string]string{nil, nil, {"a": "1"}, {"a": "2"}, {"a": "1", "b": "x y"}})
	someSelector         = rapid.SampledFrom([]map[string]string{nil, nil, nil, {"a": "1"}, {"b": "x y"}, {"a": "3"}})
	somePause            = rapid.SampledFrom([]time.Duration{
		317 * time.Second, 417 * time.Second, 1217 * time.Second, 4*time.Hour + 17*time.Second,
	}) // Their sums are not equal to a TTL. None is negative: a pod that a choice has found silent waits for its next report.
)

func (m *model) someService(t *rapid.T) biz.ServiceKey {
	return m.service(someReportingService.Draw(t, "service"))
}

// find returns the report of a pod, nil if there is none.
func (m *model) find(key biz.ServiceKey, pod biz.PodID) *report {
	if s := m.services[key]; s != nil {
		return s.pods[pod]
	}
	return nil
}

// pod returns the pod as replies contain it, nil for none. Tests last too short for a report to expire meanwhile.
func (s *reports) pod(id biz.PodID) *biz.Pod {
	if s == nil || s.pods[id] == nil {
		return nil
	}
	pod := s.pods[id].Pod
	pod.Liveness = s.hearing.Liveness(pod.TTL, pod.HeartbeatMs, pod.HeardMs, s.now)
	if s.buried(pod) {
		pod.Given = 0
	}
	return &pod
}

// buried reports whether the pod may be out of the way: its reservations are lost then.
func (s *reports) buried(pod biz.Pod) bool {
	return pod.TTL != biz.Forever && s.hearing.Heard-pod.HeardMs > 3000*int64(pod.TTL)
}

func (m *model) podSteps() steps {
	return steps{
		calls: map[string]func(*rapid.T){
			"Pods.Set":          m.setState,
			"Pods.Remove":       m.removeState,
			"Pods.Cordon":       m.cordon,
			"Pods.Reserve":      m.reserve,
			"Pods.Release":      m.release,
			"Pods.BatchReserve": m.batchReserve,
			"Pods.BatchRelease": m.batchRelease,
		},
		time: map[string]func(*rapid.T){"time passes": m.pass},
		reads: map[string]func(*rapid.T){
			"Pods.Get":  m.getState,
			"Pods.List": m.listStates,
			"Pods.View": m.viewStates,
		},
	}
}

// setState reports as a client that names no process, or as a process that knows the stored generation, or an old one.
func (m *model) setState(t *rapid.T) {
	key := m.someService(t)
	sent := biz.Report{
		Pod: someReporter.Draw(t, "pod"), State: someState.Draw(t, "state"), Load: someLoad.Draw(t, "load"),
		Routing: someRouting.Draw(t, "routing"), TTL: someReportTTL.Draw(t, "ttl"), Capacity: someCapacity.Draw(t, "capacity"),
		Labels: someLabels.Draw(t, "labels"),
	}
	before := m.find(key, sent.Pod)
	fence := biz.Generation(0)
	if s := m.services[key]; s != nil {
		fence = s.fences[sent.Pod]
	}
	generation, wantErr, applied := fence, false, true
	if before != nil {
		generation = before.Generation
	}
	switch rapid.SampledFrom([]string{"plain", "plain", "first", "next", "old"}).Draw(t, "process") {
	case "plain":
		if before != nil && before.Instance != "" {
			validity := int64(90_000)
			if before.TTL != biz.Forever {
				validity = 3000 * int64(before.TTL)
			}
			applied = m.services[key].now > before.HeartbeatMs+validity
		}
	case "first":
		m.processes++
		sent.Instance, sent.Sequence, sent.Supersedes = fmt.Sprint("process-", m.processes), 1, generation
	case "next":
		if before == nil || before.Instance == "" {
			t.Skip("no process reports")
		}
		sent.Instance, sent.Sequence, sent.Generation = before.Instance, before.Sequence+1, generation
	case "old":
		if generation == 0 {
			t.Skip("no process has reported")
		}
		sent.Instance, sent.Sequence, sent.Generation, wantErr = "old", math.MaxInt32, generation-1, true
	}
	result, err := m.repos.Pods.Set(context.Background(), key, sent)
	if wantErr {
		agree(t, "Pods.Set: an old process", true, errors.As(err, new(*biz.SupersededError)))
		return
	}
	succeeds(t, "Pods.Set", err)
	agree(t, "Pods.Set: applied", applied, result.Applied)
	if !applied {
		agree(t, "Pods.Set: late", *m.services[key].pod(sent.Pod), result.Pod)
		return
	}
	agree(t, "Pods.Set: the previous report", m.services[key].pod(sent.Pod), result.Previous)
	m.stored(t, key, sent, generation, before, result.Pod)
}

// stored adds a report that was stored.
func (m *model) stored(t *rapid.T, key biz.ServiceKey, sent biz.Report, generation biz.Generation, before *report, got biz.Pod) {
	agree(t, "Pods.Set: the heartbeat is now", true, nearNow(time.UnixMilli(got.HeartbeatMs)))
	if m.services[key] == nil {
		m.services[key] = &reports{pods: make(map[biz.PodID]*report), fences: make(map[biz.PodID]biz.Generation)}
	}
	s := m.services[key]
	s.hearing.Advance(sent.TTL, got.HeartbeatMs)
	s.now = got.HeartbeatMs
	want := biz.Pod{Report: sent, Liveness: biz.Live, HeartbeatMs: got.HeartbeatMs, HeardMs: s.hearing.Heard}
	want.Supersedes, want.Generation = 0, generation
	if sent.Supersedes != 0 || sent.Instance != "" && sent.Generation == 0 {
		agree(t, "Pods.Set: the generation grows", true, got.Generation > generation)
		want.Generation = got.Generation
	}
	if before != nil {
		want.Cordon = before.Cordon
	}
	agree(t, "Pods.Set", want, got)
	s.pods[sent.Pod] = &report{Pod: want}
	delete(s.fences, sent.Pod)
}

func (m *model) removeState(t *rapid.T) {
	key, pod := m.someService(t), someReporter.Draw(t, "pod")
	previous, err := m.repos.Pods.Remove(context.Background(), key, pod)
	succeeds(t, "Pods.Remove", err)
	agree(t, "Pods.Remove", m.services[key].pod(pod), previous)
	if previous != nil {
		m.services[key].fences[pod] = previous.Generation
		delete(m.services[key].pods, pod)
	}
}

func (m *model) cordon(t *rapid.T) {
	key, pod, cordon := m.someService(t), someReporter.Draw(t, "pod"), someRouting.Draw(t, "cordon")
	got, err := m.repos.Pods.Cordon(context.Background(), key, pod, cordon, biz.Forever)
	r := m.find(key, pod)
	if r == nil {
		agree(t, "Pods.Cordon of none", biz.ErrPodNotFound, err)
		return
	}
	succeeds(t, "Pods.Cordon", err)
	r.Cordon = cordon
	agree(t, "Pods.Cordon", *m.services[key].pod(pod), got)
}

func (m *model) reserve(t *rapid.T) {
	key := m.someService(t)
	request := m.someRequest(t, someSelector.Draw(t, "selector"))
	want := m.choose(key, request)
	got, err := m.repos.Pods.Reserve(context.Background(), key, request)
	succeeds(t, "Pods.Reserve", err)
	agree(t, "Pods.Reserve", want, got)
	m.reserved(key, got)
}

// someRequest draws a reservation.
func (*model) someRequest(t *rapid.T, selector map[string]string) biz.ReserveRequest {
	request := biz.ReserveRequest{
		Linked:   rapid.OneOf(rapid.Just(biz.NoPod), rapid.Just(biz.NoPod), someReporter).Draw(t, "linked"),
		Avoid:    rapid.SliceOfN(someReporter, 0, 1).Draw(t, "avoid"),
		Selector: selector,
	}
	if request.Linked != biz.NoPod {
		request.Leave = rapid.Bool().Draw(t, "leave")
		request.DoubtOver = rapid.Bool().Draw(t, "doubt over")
	}
	return request
}

// reserved adds a reservation, if it is one.
func (m *model) reserved(key biz.ServiceKey, reservation biz.Reservation) {
	if reservation.Outcome != biz.Reserved {
		return
	}
	m.find(key, reservation.Pod).Given++
	m.reservations = append(m.reservations, modelReservation{key, reservation})
	m.reservations = m.reservations[max(0, len(m.reservations)-maxReservations):]
}

// released takes a reservation back, unless the pod has reported since.
func (m *model) released(key biz.ServiceKey, reservation biz.Reservation) {
	r := m.find(key, reservation.Pod)
	if r != nil && r.HeartbeatMs == reservation.HeartbeatMs && r.Given > 0 {
		r.Given--
	}
}

// choose returns the result that Reserve must have.
func (m *model) choose(key biz.ServiceKey, request biz.ReserveRequest) biz.Reservation {
	s := m.services[key]
	if s == nil {
		return biz.Reservation{Outcome: biz.NeverReported}
	}
	usable, doubtful := false, false
	if linked := s.pod(request.Linked); linked != nil {
		doubtful = linked.Liveness == biz.InDoubt
		usable = linked.Liveness != biz.Dead && linked.Effective() != biz.Shutdown
		usable = usable && (!doubtful || !request.DoubtOver || !s.ageless())
	}
	if usable && !request.Leave {
		return biz.Reservation{Outcome: biz.LinkedPodUsable}
	}
	var best *biz.Pod
	for id := range s.pods {
		pod := s.pod(id)
		if takesNew(*pod) && allowed(*pod, request) && (best == nil || better(*pod, *best)) {
			best = pod
		}
	}
	switch {
	case best != nil:
		return biz.Reservation{Outcome: biz.Reserved, Pod: best.Pod, HeartbeatMs: best.HeartbeatMs}
	case usable || doubtful:
		return biz.Reservation{Outcome: biz.LinkedPodUsable}
	default:
		return biz.Reservation{Outcome: biz.NoPodAvailable}
	}
}

// ageless reports whether a READY pod never expires.
func (s *reports) ageless() bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(s.pods)), func(r *report) bool {
		return r.TTL == biz.Forever && r.Effective() == biz.Ready
	})
}

func takesNew(pod biz.Pod) bool {
	burden := int64(pod.Load) + pod.Given
	return pod.Liveness == biz.Live && pod.Effective() == biz.Ready && (pod.Capacity == biz.NoCapacity || burden < int64(pod.Capacity))
}

func allowed(pod biz.Pod, request biz.ReserveRequest) bool {
	for name, value := range request.Selector {
		if has, ok := pod.Labels[name]; !ok || has != value {
			return false
		}
	}
	return !slices.Contains(request.Avoid, pod.Pod) && (!request.Leave || request.Linked != pod.Pod)
}

// better reports whether a gets the next link rather than b.
func better(a, b biz.Pod) bool {
	load, other := int64(a.Load)+a.Given, int64(b.Load)+b.Given
	return load < other || load == other && a.Pod < b.Pod
}

// release releases a reservation, possibly for a second time, or one that was never made.
func (m *model) release(t *rapid.T) {
	invented := biz.Reservation{Outcome: biz.Reserved, Pod: someReporter.Draw(t, "pod"), HeartbeatMs: 1}
	reservations := append(slices.Clone(m.reservations), modelReservation{m.someService(t), invented})
	one := reservations[rapid.IntRange(0, len(reservations)-1).Draw(t, "reservation")]
	succeeds(t, "Pods.Release", m.repos.Pods.Release(context.Background(), one.service, one.Reservation))
	m.released(one.service, one.Reservation)
}

// pass sets the store's clock forward, as far as a service can see.
func (m *model) pass(t *rapid.T) {
	key, d := m.someService(t), somePause.Draw(t, "time")
	s := m.services[key]
	if s == nil {
		t.Skip("the service has not reported")
	}
	for _, r := range s.pods {
		if r.TTL == biz.Forever && r.Given > 0 {
			t.Skip("reservations would be halved")
		}
	}
	succeeds(t, "Pass", m.repos.Pass(context.Background(), key, d))
	for _, r := range s.pods {
		r.HeartbeatMs -= d.Milliseconds()
	}
	s.hearing.Last -= d.Milliseconds()
	for i := range m.reservations {
		if m.reservations[i].service == key {
			m.reservations[i].HeartbeatMs -= d.Milliseconds()
		}
	}
}

func (m *model) getState(t *rapid.T) {
	key, pod := m.someService(t), someReporter.Draw(t, "pod")
	got, err := m.repos.Pods.Get(context.Background(), key, pod)
	want := m.services[key].pod(pod)
	if want == nil {
		agree(t, "Pods.Get of none", biz.ErrPodNotFound, err)
		return
	}
	succeeds(t, "Pods.Get", err)
	agree(t, "Pods.Get", *want, got)
}

func (m *model) listStates(t *rapid.T) {
	key := m.someService(t)
	got, err := m.repos.Pods.List(context.Background(), key)
	succeeds(t, "Pods.List", err)
	agree(t, "Pods.List", m.all(key), got)
}

// all returns the pods of a service, sorted.
func (m *model) all(key biz.ServiceKey) []biz.Pod {
	pods := []biz.Pod{}
	if s := m.services[key]; s != nil {
		for _, id := range slices.Sorted(maps.Keys(s.pods)) {
			pods = append(pods, *s.pod(id))
		}
	}
	return pods
}

// viewStates compares the view with the pods that are not dead for certain.
func (m *model) viewStates(t *rapid.T) {
	key := m.someService(t)
	got, err := m.repos.Pods.View(context.Background(), key)
	succeeds(t, "Pods.View", err)
	s := m.services[key]
	if s == nil {
		agree(t, "Pods.View of none", biz.PodsView{}, got)
		return
	}
	got.Judge(s.now)
	want := slices.DeleteFunc(m.all(key), func(pod biz.Pod) bool { return s.buried(pod) })
	agree(t, "Pods.View", len(want), len(got.Pods))
	for i := range want {
		agree(t, "Pods.View", want[i], got.Pods[i])
	}
	agree(t, "Pods.View: hearing", s.hearing.Hearing, got.Hearing)
}
