package biz_test

import (
	"container/heap"
	"math/rand/v2"

	"podlink/internal/biz"
	"podlink/internal/biz/biztest"
)

// rule judges a pod, as Hearing.Liveness does.
type rule func(h biz.Hearing, ttl biz.TTL, reportMs, heardMs, nowMs int64) biz.Liveness

// usersPerPod is how many users are linked to each pod at first.
const usersPerPod = 100

// world simulates a stateful service on a podlink: processes that report, and users whose pods are computed. Its time is in ms.
//
// All users are computed after every report, before another pod can report: the worst moment for a pod that is alive and
// has not reported yet. They are also computed at other times, and while no pod reaches podlink.
type world struct {
	rule   rule
	random *rand.Rand
	nowMs  int64
	skewMs int64 // how far the store's clock was put on
	events events

	hearing *biz.Hearing
	stored  map[biz.PodID]biz.Pod
	users   map[biz.PodID]int

	processes []*process
	away      bool    // no report arrives
	loss      float64 // share of the reports that don't arrive

	moved   int                 // users that were taken from a process that runs
	refused int                 // computes of users of a process that runs, without a usable pod
	found   map[biz.PodID]int64 // when the users of a pod that doesn't run were moved first
}

// process is the process behind an ordinal. It reports at a third of its ttl, and repeats a failed report after a pause.
type process struct {
	pod     biz.PodID
	ttl     biz.TTL
	everyMs int64
	retryMs int64
	away    bool // its reports don't arrive
	life    int  // counts starts and ends: the events of an earlier life are void
	running bool
}

func newWorld(seed uint64, judge rule) *world {
	w := &world{
		rule: judge, random: rand.New(rand.NewPCG(seed, 0)), nowMs: 1_700_000_000_000,
		stored: make(map[biz.PodID]biz.Pod), users: make(map[biz.PodID]int), found: make(map[biz.PodID]int64),
	}
	w.computeFromNowOn()
	return w
}

// start adds a pod with users. Its process reports at once, and then from a random moment on.
func (w *world) start(ttl biz.TTL, retryMs int64) *process {
	p := &process{pod: biz.PodID(len(w.processes)), ttl: ttl, everyMs: int64(ttl) * 1000 / 3, retryMs: retryMs}
	if ttl == biz.Forever {
		p.everyMs = 10_000
	}
	p.retryMs = min(retryMs, p.everyMs)
	w.processes = append(w.processes, p)
	w.users[p.pod] = usersPerPod
	w.store(p)
	w.run(p, w.random.Int64N(p.everyMs))
	return p
}

// run lets the process report after a delay, and from then on.
func (w *world) run(p *process, delayMs int64) {
	p.life++
	p.running = true
	w.reportAfter(p, delayMs)
}

// end ends the process.
func (*world) end(p *process) {
	p.life++
	p.running = false
}

func (w *world) reportAfter(p *process, delayMs int64) {
	life := p.life
	w.after(delayMs, func() {
		if p.life != life {
			return
		}
		if w.away || p.away || w.random.Float64() < w.loss {
			w.reportAfter(p, w.jitter(p.retryMs))
			return
		}
		w.store(p)
		w.compute()
		w.reportAfter(p, w.jitter(p.everyMs))
	})
}

// jitter returns the duration, up to 5 % less or more.
func (w *world) jitter(ms int64) int64 {
	return ms - ms/20 + w.random.Int64N(ms/10+1)
}

// clock returns the store's clock.
func (w *world) clock() int64 { return w.nowMs + w.skewMs }

func (w *world) store(p *process) {
	h := biztest.Advance(w.hearing, w.clock(), p.ttl)
	w.hearing = &h
	w.stored[p.pod] = biz.Pod{Report: biz.Report{Pod: p.pod, TTL: p.ttl}, HeartbeatMs: w.clock(), HeardMs: h.Heard}
}

func (w *world) judge(pod biz.PodID) biz.Liveness {
	stored := w.stored[pod]
	return w.rule(*w.hearing, stored.TTL, stored.HeartbeatMs, stored.HeardMs, w.clock())
}

// compute computes all users: those of dead pods are moved to the live pod with the fewest users.
func (w *world) compute() {
	for pod := range biz.PodID(len(w.processes)) {
		if w.users[pod] == 0 || w.judge(pod) != biz.Dead {
			continue
		}
		running := w.processes[pod].running
		best, any := w.best()
		switch {
		case any && running:
			w.moved += w.users[pod]
		case any:
			w.found[pod] = w.nowMs
		case running:
			w.refused += w.users[pod]
		}
		if any {
			w.users[best] += w.users[pod]
			w.users[pod] = 0
		}
	}
}

func (w *world) best() (best biz.PodID, any bool) {
	for pod := range biz.PodID(len(w.processes)) {
		if w.judge(pod) == biz.Live && (!any || w.users[pod] < w.users[best]) {
			best, any = pod, true
		}
	}
	return best, any
}

// computeFromNowOn computes the users every 50 to 150 ms.
func (w *world) computeFromNowOn() {
	w.after(50+w.random.Int64N(100), func() {
		w.compute()
		w.computeFromNowOn()
	})
}

// pass lets the time pass.
func (w *world) pass(ms int64) {
	until := w.nowMs + ms
	for len(w.events) > 0 && w.events[0].atMs <= until {
		next := heap.Pop(&w.events).(event)
		w.nowMs = next.atMs
		next.do()
	}
	w.nowMs = until
}

func (w *world) after(ms int64, do func()) {
	heap.Push(&w.events, event{w.nowMs + ms, do})
}

// between returns a random duration.
func (w *world) between(fromMs, toMs int64) int64 { return fromMs + w.random.Int64N(toMs-fromMs+1) }

// event is an entry of the queue of events.
type event struct {
	atMs int64
	do   func()
}

// events is the heap of the events to come.
type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].atMs < e[j].atMs }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}
