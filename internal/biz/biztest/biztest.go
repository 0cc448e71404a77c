// Package biztest is the conformance suite for implementations of biz' repos: it tests what the docs and the contract
// promise, on any store.
//
// Two things to know before adding a test. A test takes its expectations from the contract, never from the observed
// replies of a store. And no test depends on the speed of the machine: a time is only compared with the earliest and the
// latest moment (span) at which it may have started. Tests that wait run in parallel; use a high -parallel.
package biztest

import (
	"context"
	"crypto/rand"
	"math"
	"sync"
	"testing"
	"time"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

// Repos are the repos of one podlink process on a store.
type Repos struct {
	Links     biz.LinkRepo
	Pods      biz.PodRepo
	Workloads biz.WorkloadRepo
	Feed      biz.FeedRepo // nil, as Index: the store has neither feeds nor an index
	Index     biz.IndexRepo
	Jobs      biz.JobRepo

	// Configured returns the pods of the same store as a podlink with other settings sees them.
	Configured func(PodSettings) biz.PodRepo
	// Pass lets time pass for the pods of a service, by the store's clock; less than 0: it is set back.
	Pass func(ctx context.Context, key biz.ServiceKey, d time.Duration) error
}

// PodSettings are settings of a podlink.
type PodSettings struct {
	MaxPods     int
	ForgetAfter time.Duration
	Primaries   string // ids of the store's primaries, separated by commas
}

// Run runs the suite on the store that open returns. open is called once per test and may return the same store each time,
// because every test has its own namespace. processes return the same store as seen by other podlink processes; they take
// part in the concurrency tests.
func Run(t *testing.T, open func(t *testing.T) Repos, processes ...func(t *testing.T) Repos) {
	calls := []group{
		{"Semantics", testSemantics},
		{"Epoch", testEpoch},
		{"ExpectedEpoch", testExpectedEpoch},
		{"Claim", testClaim},
		{"AboveEpoch", testAboveEpoch},
		{"Own", testOwn},
		{"Compute", testCompute},
		{"Reserve", testReserve},
		{"Wishes", testWishes},
		{"Concurrency", testConcurrency},
	}
	others := []group{
		{"Batches", testBatches},
		{"Expiry", testExpiry},
		{"Mixed", testMixed},
		{"Links", testLinks},
		{"Pods", testPods},
		{"Liveness", testLiveness},
		{"Instances", testInstances},
		{"Cordon", testCordon},
		{"Limits", testLimits},
		{"Workloads", testWorkloads},
		{"Feed", testFeed},
		{"Index", testIndex},
		{"Fleet", testFleet},
		{"Jobs", testJobs},
	}
	runAll(t, suite{open: open, others: processes}, append(others, calls...))
	// What holds for a call holds for an item of a batch. One after the other, because together they would overload the store.
	t.Run("Batched", func(t *testing.T) { runAll(t, suite{open: open, others: processes, batched: true}, calls) })
}

// group is a group of tests.
type group struct {
	name  string
	tests func(t *testing.T, s suite)
}

// runAll runs the groups in parallel, and waits for them.
func runAll(t *testing.T, s suite, groups []group) {
	t.Run("All", func(t *testing.T) {
		for _, group := range groups {
			t.Run(group.name, func(t *testing.T) {
				t.Parallel()
				group.tests(t, s)
			})
		}
	})
}

// suite creates an env for each test.
type suite struct {
	open    func(t *testing.T) Repos
	others  []func(t *testing.T) Repos
	batched bool // every call is a batch of one
}

// test runs one test in parallel with the others.
func (s suite) test(t *testing.T, name string, run func(e *env)) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		views := []Repos{s.open(t)}
		for _, open := range s.others {
			views = append(views, open(t))
		}
		for i := range views {
			if s.batched {
				views[i].Links, views[i].Pods = batchedLinks{views[i].Links}, batchedPods{views[i].Pods}
			}
		}
		run(&env{T: t, Repos: views[0], views: views, namespace: "ns-" + rand.Text()})
	})
}

// env is the environment of one test: a store, and its own namespace in it.
type env struct {
	*testing.T
	Repos
	views     []Repos // Repos, and those of the other processes
	namespace string
}

// service is the default service of the tests.
const service = "game"

// key is the default link of the tests.
func (e *env) key() biz.LinkKey { return e.keyOf("user-1", service) }

func (e *env) keyOf(uid, service string) biz.LinkKey {
	return biz.LinkKey{Namespace: e.namespace, UID: uid, Service: service}
}

// pods returns the key of the default service.
func (e *env) pods() biz.ServiceKey { return biz.ServiceKey{Namespace: e.namespace, Service: service} }

// computer is the part of biz.LinkUsecase that takes several steps.
type computer interface {
	Compute(ctx context.Context, key biz.LinkKey, request biz.ComputeRequest) (biz.Computed, error)
}

// links returns the use-case on the repos.
func (e *env) links() computer { return e.linksOf(e.Repos) }

func (e *env) linksOf(r Repos) computer {
	links := e.usecaseOf(r)
	if _, batched := r.Links.(batchedLinks); batched {
		return batchedComputer{links}
	}
	return links
}

func (e *env) usecaseOf(r Repos) *biz.LinkUsecase {
	views := biz.NewPodViews(r.Pods, biz.NopObserver{})
	e.Cleanup(views.Stop)
	return biz.NewLinkUsecase(r.Links, views, biz.Limits{MaxBatch: 1000}, biz.NopObserver{})
}

// set links the key and returns the link.
func (e *env) set(key biz.LinkKey, pod biz.PodID, ttl biz.TTL) biz.Link {
	e.Helper()
	change, err := e.Links.Set(e.Context(), key, pod, ttl, biz.SetTerms{})
	require.NoError(e, err)
	require.True(e, change.Applied)
	e.requireSameLink(biz.Link{Key: key, Pod: pod, TTL: ttl, Epoch: change.Link.Epoch}, change.Link)
	require.Positive(e, change.Link.Epoch)
	return change.Link
}

// report stores a report of a pod of the default service.
func (e *env) report(report biz.Report) biz.Pod {
	e.Helper()
	report.Capacity = biz.NoCapacity
	result, err := e.Pods.Set(e.Context(), e.pods(), report)
	require.NoError(e, err)
	return result.Pod
}

// reportReady stores equal READY reports of the pods.
func (e *env) reportReady(pods ...biz.PodID) {
	e.Helper()
	for _, pod := range pods {
		e.report(biz.Report{Pod: pod, State: "up", TTL: biz.Forever})
	}
}

// requireSameLink compares two links; the TTL of got may have decreased since want was stored.
func (e *env) requireSameLink(want, got biz.Link) {
	e.Helper()
	e.requireTTL(want.TTL, got.TTL)
	want.TTL, got.TTL = 0, 0
	require.Equal(e, want, got)
}

// ttlTolerance is the maximum decrease of a TTL between two steps of a test, in seconds.
const ttlTolerance = 30

func (e *env) requireTTL(want, got biz.TTL) {
	e.Helper()
	if want < 1 {
		require.Equal(e, want, got, "ttl")
		return
	}
	require.LessOrEqual(e, got, want, "ttl")
	require.GreaterOrEqual(e, got, max(want-ttlTolerance, 1), "ttl")
}

// requireLink checks that every read returns the link.
func (e *env) requireLink(want biz.Link) {
	e.Helper()
	key := want.Key
	got, err := e.Links.Get(e.Context(), key)
	require.NoError(e, err)
	e.requireSameLink(want, got)

	batch, err := e.Links.BatchGet(e.Context(), key.Namespace, key.Service, []string{key.UID})
	require.NoError(e, err)
	require.Len(e, batch, 1)
	require.NoError(e, batch[0].Err)
	e.requireSameLink(want, batch[0].Link)

	persistent := want
	if !want.Persistent() {
		persistent = biz.NoLink(key)
	}
	got, err = e.Links.GetIfPersist(e.Context(), key)
	require.NoError(e, err)
	e.requireSameLink(persistent, got)

	listed := biz.NoLink(key)
	list, err := e.Links.List(e.Context(), key.Namespace, key.UID)
	require.NoError(e, err)
	for _, link := range list {
		if link.Key == key {
			listed = link
		}
	}
	e.requireSameLink(want, listed)
}

// requireNoLink checks that no read finds a link.
func (e *env) requireNoLink(key biz.LinkKey) {
	e.Helper()
	e.requireLink(biz.NoLink(key))
}

// tick waits for the next tick of the store's clock, which may count in ms.
func tick() { time.Sleep(2 * time.Millisecond) }

// margin is the tolerance between the clocks of the test and the store, which may count in ms.
const margin = 10 * time.Millisecond

// span is the time during which an action of a test ran: the store executed it at some moment between start and end.
type span struct{ start, end time.Time }

// during runs do and returns its span.
func during(do func()) span {
	start := time.Now()
	do()
	return span{start, time.Now()}
}

// surelyBefore and surelyAfter report whether all of s was certainly less, or more, than d after the action of began.
func (s span) surelyBefore(began span, d time.Duration) bool {
	return s.end.Before(began.start.Add(d - margin))
}

func (s span) surelyAfter(began span, d time.Duration) bool {
	return s.start.After(began.end.Add(d + margin))
}

// sleepPast waits until d has certainly passed since the action of s.
func (s span) sleepPast(d time.Duration) { time.Sleep(time.Until(s.end.Add(d + 2*margin))) }

// secondsLeft returns the bounds of what is left, during s, of a TTL d that started in began; in seconds, rounded up.
func (s span) secondsLeft(began span, d time.Duration) (least, most biz.TTL) {
	ceil := func(left time.Duration) biz.TTL { return biz.TTL(math.Ceil(max(left, 1).Seconds())) }
	return ceil(began.start.Add(d - margin).Sub(s.end)), ceil(began.end.Add(d + margin).Sub(s.start))
}

// concurrency is the number of callers in the concurrency tests.
const concurrency = 100

// race calls do from as many goroutines at once and returns the results.
func race[T any](callers int, do func(i int) T) []T {
	results := make([]T, callers)
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	ready.Add(callers)
	for i := range callers {
		done.Go(func() {
			ready.Done()
			<-start
			results[i] = do(i)
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
	return results
}
