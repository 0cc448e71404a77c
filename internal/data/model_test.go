package data

import (
	"context"
	"maps"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"podlink/internal/biz"
	"podlink/internal/biz/biztest"
	redistest "podlink/test/kit/redis"
)

// operationsVariable is the environment variable with the minimum number of operations of TestModel per store. If it is
// unset, rapid's flags decide.
const operationsVariable = "PODLINK_TEST_MODEL_OPERATIONS"

// TestModel makes random calls of every repo and compares every result with a model: the Lua scripts against plain Go.
func TestModel(t *testing.T) {
	target := 0
	if text := os.Getenv(operationsVariable); text != "" {
		var err error
		target, err = strconv.Atoi(text)
		require.NoError(t, err, operationsVariable)
	}
	for name, start := range map[string]func(t *testing.T) option{
		"embedded": func(*testing.T) option { return embeddedStore },
		"redis":    func(t *testing.T) option { return onServer(redistest.Start(t).Addr()) },
		"cluster": func(t *testing.T) option {
			return onCluster(redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 3}).Addrs())
		},
	} {
		// Not in parallel: the generators are shared, and rapid's are not safe for concurrent use.
		t.Run(name, func(t *testing.T) {
			store, runs, operations, begin := openStore(t, start(t), withLongTimeouts), 0, 0, time.Now()
			for done := false; !done; done = operations >= target {
				rapid.Check(t, func(rt *rapid.T) {
					runs++
					m := newModel(store, "ns-"+strconv.Itoa(runs))
					rt.Repeat(m.actions(rt, &operations))
				})
			}
			t.Logf("%s: %d operations in %d runs, %s", name, operations, runs, time.Since(begin).Round(time.Second))
		})
	}
}

// model is the expected content of one namespace of the store: plain maps, and the contract's rules in plain Go. It takes
// times of the store's clock from the replies, and checks that they are plausible.
type model struct {
	store     *testStore
	repos     biztest.Repos
	namespace string
	before    time.Time // a time before the current call

	links        map[biz.LinkKey]storedLink  // the live ones
	epochs       map[biz.LinkKey]biz.Epoch   // the greatest so far
	services     map[biz.ServiceKey]*reports // that have reported
	processes    int                         // that have reported
	reservations []modelReservation          // the latest ones
	workloads    map[biz.ServiceKey]biz.Workload
}

func newModel(store *testStore, namespace string) *model {
	return &model{
		store: store, repos: reposOf(store), namespace: namespace, before: time.Now(),
		links: make(map[biz.LinkKey]storedLink), epochs: make(map[biz.LinkKey]biz.Epoch),
		services:  make(map[biz.ServiceKey]*reports),
		workloads: make(map[biz.ServiceKey]biz.Workload),
	}
}

// steps are the actions of a run by name: calls, which count as operations, effects of time, and reads.
type steps struct{ calls, time, reads map[string]func(*rapid.T) }

// actions draws the steps of a run: those of links, of pods, or all of them. A run with one kind has more conflicts. Each
// step is followed by a read.
func (m *model) actions(t *rapid.T, operations *int) map[string]func(*rapid.T) {
	links, pods, workloads := m.linkSteps(), m.podSteps(), m.workloadSteps()
	focus := map[string][]steps{"links": {links}, "pods": {pods}, "everything": {links, pods, workloads}}
	all, reads := make(map[string]func(*rapid.T)), make(map[string]func(*rapid.T))
	for _, some := range focus[rapid.SampledFrom(sorted(focus)).Draw(t, "focus")] {
		for name, call := range some.calls {
			all[name] = func(t *rapid.T) {
				call(t)
				*operations++
			}
		}
		maps.Copy(all, some.time)
		maps.Copy(reads, some.reads)
	}
	read := rapid.SampledFrom(sorted(reads))
	all[""] = func(t *rapid.T) {
		reads[read.Draw(t, "read")](t)
		m.before = time.Now()
	}
	return all
}

// agree fails the test if a result differs from the model's. The failure text contains no value of a clock, because rapid
// compares the texts to find a shorter run with the same failure.
func agree(t *rapid.T, what string, want, got any) {
	if !assert.ObjectsAreEqual(want, got) {
		t.Logf("%s: the model says %+v, the store %+v", what, want, got)
		t.Fatalf("%s: the store and the model disagree", what)
	}
}

// succeeds fails the test on an error.
func succeeds(t *rapid.T, what string, err error) {
	if err != nil {
		t.Logf("%s: %v", what, err)
		t.Fatalf("%s: the store and the model disagree: an error", what)
	}
}

// clockTolerance is the maximum difference between the clocks of the store and the test, which run on one machine.
const clockTolerance = time.Minute

// nearNow reports whether a time of the store's clock is about now.
func nearNow(at time.Time) bool { return time.Since(at).Abs() <= clockTolerance }

// The generator for workloads.
var someWorkload = rapid.SampledFrom([]string{"chat", "game", "lobby"})

func (m *model) service(name string) biz.ServiceKey {
	return biz.ServiceKey{Namespace: m.namespace, Service: name}
}

func (m *model) workloadSteps() steps {
	return steps{
		calls: map[string]func(*rapid.T){"Workloads.Set": m.setWorkload, "Workloads.Remove": m.removeWorkload},
		reads: map[string]func(*rapid.T){"Workloads.Get": m.getWorkload, "Workloads.BatchGet": m.batchGetWorkloads},
	}
}

func (m *model) setWorkload(t *rapid.T) {
	key, state := m.service(someWorkload.Draw(t, "service")), someState.Draw(t, "state")
	got, err := m.repos.Workloads.Set(context.Background(), key, state)
	succeeds(t, "Workloads.Set", err)
	agree(t, "Workloads.Set: the time is now", true, nearNow(time.UnixMilli(got.UpdateMs)))
	want := biz.Workload{Key: key, State: state, UpdateMs: got.UpdateMs}
	agree(t, "Workloads.Set", want, got)
	m.workloads[key] = want
}

func (m *model) removeWorkload(t *rapid.T) {
	key := m.service(someWorkload.Draw(t, "service"))
	got, err := m.repos.Workloads.Remove(context.Background(), key)
	succeeds(t, "Workloads.Remove", err)
	var want *biz.Workload
	if workload, ok := m.workloads[key]; ok {
		want = &workload
	}
	agree(t, "Workloads.Remove", want, got)
	delete(m.workloads, key)
}

func (m *model) getWorkload(t *rapid.T) {
	key := m.service(someWorkload.Draw(t, "service"))
	got, err := m.repos.Workloads.Get(context.Background(), key)
	want, ok := m.workloads[key]
	if !ok {
		agree(t, "Workloads.Get of none", biz.ErrWorkloadNotFound, err)
		return
	}
	succeeds(t, "Workloads.Get", err)
	agree(t, "Workloads.Get", want, got)
}

func (m *model) batchGetWorkloads(t *rapid.T) {
	names := rapid.SliceOfNDistinct(someWorkload, 1, 3, rapid.ID[string]).Draw(t, "services")
	want := []biz.Workload{}
	for _, name := range names {
		if workload, ok := m.workloads[m.service(name)]; ok {
			want = append(want, workload)
		}
	}
	got, err := m.repos.Workloads.BatchGet(context.Background(), m.namespace, names)
	succeeds(t, "Workloads.BatchGet", err)
	agree(t, "Workloads.BatchGet", want, got)
}
