package jobs_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"podlink/internal/biz"
	"podlink/internal/jobs"
	"podlink/test/kit/model"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var game = biz.ServiceKey{Namespace: "ns", Service: "game"}

// fleet is a store with links, and the podlinks that run jobs on it.
type fleet struct {
	*testing.T
	store *model.Store
	links biz.LinkRepo
	pods  biz.PodRepo
	jobs  biz.JobRepo
}

// process is a podlink process. It can be stopped, as by SIGSTOP, and go on.
type process struct {
	jobs.NopObserver
	*gate
	podlink *model.Podlink
	cancel  context.CancelFunc
	ended   chan struct{}

	mu    sync.Mutex
	taken []biz.JobKey
	left  []error
}

// inBubble runs the test in virtual time. A call of the store takes a millisecond.
func inBubble(t *testing.T, test func(f *fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := model.NewStore()
		podlink := store.Podlink()
		f := &fleet{T: t, store: store, links: podlink.Links(), pods: podlink.Pods(), jobs: podlink.Jobs()}
		for pod := range biz.PodID(4) {
			f.report(game, pod)
		}
		store.SetLatency(func() time.Duration { return time.Millisecond })
		test(f)
	})
}

// report reports a pod that never expires.
func (f *fleet) report(key biz.ServiceKey, pod biz.PodID) {
	f.Helper()
	_, err := f.pods.Set(f.Context(), key, biz.Report{Pod: pod, State: "up", TTL: biz.Forever, Capacity: biz.NoCapacity})
	require.NoError(f, err)
}

// options change a process before it starts.
type options struct {
	rate    int
	stores  func(*jobs.Stores)
	podlink func(*model.Podlink)
}

// start starts a podlink process, which ends with the test.
func (f *fleet) start(o options) *process {
	f.Helper()
	podlink := f.store.Podlink()
	if o.podlink != nil {
		o.podlink(podlink)
	}
	p := &process{gate: newGate(), podlink: podlink, ended: make(chan struct{})}
	views := biz.NewPodViews(podlink.Pods(), biz.NopObserver{})
	links := gatedLinks{podlink.Links(), p.gate}
	stores := jobs.Stores{
		Jobs: gatedJobs{podlink.Jobs(), p.gate}, Index: podlink.Index(), Keys: podlink, Links: links, Pods: views, Workloads: podlink.Workloads(),
		Moves:    biz.NewLinkUsecase(links, views, biz.Limits{MaxBatch: 1000}, biz.NopObserver{}),
		Complete: func() bool { return true },
	}
	if o.stores != nil {
		o.stores(&stores)
	}
	if o.rate == 0 {
		o.rate = 20_000
	}
	runner := jobs.New(stores, jobs.Options{Rate: o.rate, Observer: p})
	ctx, cancel := context.WithCancel(f.Context())
	p.cancel = cancel
	go func() {
		defer close(p.ended)
		defer views.Stop()
		_ = runner.Run(ctx)
	}()
	f.Cleanup(p.stop)
	return p
}

// stop ends the process in order.
func (p *process) stop() {
	p.cancel()
	p.resume()
	<-p.ended
}

func (p *process) Taken(job biz.Job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken = append(p.taken, job.Key)
}

func (p *process) Left(_ biz.Job, cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = append(p.left, cause)
}

func (p *process) took() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.taken)
}

// gate holds the calls of a process that is stopped.
type gate struct {
	mu   sync.Mutex
	open chan struct{}
}

func newGate() *gate {
	g := &gate{open: make(chan struct{})}
	close(g.open)
	return g
}

func (g *gate) freeze() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

func (g *gate) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
	default:
		close(g.open)
	}
}

func (g *gate) pass() {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	<-open
}

// gatedLinks are the links of a process that can be stopped: before it sends a call.
type gatedLinks struct {
	biz.LinkRepo
	*gate
}

func (l gatedLinks) BatchGet(ctx context.Context, namespace, service string, uids []string) ([]biz.LinkResult, error) {
	l.pass()
	return l.LinkRepo.BatchGet(ctx, namespace, service, uids)
}

func (l gatedLinks) BatchSet(ctx context.Context, key biz.ServiceKey, items []biz.SetItem) []biz.ChangeResult {
	l.pass()
	return l.LinkRepo.BatchSet(context.WithoutCancel(ctx), key, items) // It was sent before the process was stopped.
}

func (l gatedLinks) BatchRemove(ctx context.Context, key biz.ServiceKey, items []biz.RemoveItem) []biz.ChangeResult {
	l.pass()
	return l.LinkRepo.BatchRemove(context.WithoutCancel(ctx), key, items)
}

// gatedJobs are the jobs of a process that can be stopped.
type gatedJobs struct {
	biz.JobRepo
	*gate
}

func (j gatedJobs) Take(ctx context.Context, key biz.JobKey) (biz.Job, biz.JobLease, error) {
	j.pass()
	return j.JobRepo.Take(ctx, key)
}

func (j gatedJobs) Save(
	ctx context.Context, key biz.JobKey, lease biz.JobLease, state biz.JobState, progress biz.JobProgress,
) (bool, error) {
	j.pass()
	return j.JobRepo.Save(ctx, key, lease, state, progress)
}

func keyOf(uid string) biz.LinkKey { return biz.LinkKey{Namespace: "ns", UID: uid, Service: "game"} }

func uidOf(i int) string { return fmt.Sprintf("user-%05d", i) }

// link links users from..to to a pod.
func (f *fleet) link(from, to int, pod biz.PodID, ttl biz.TTL, terms biz.SetTerms) {
	f.Helper()
	for i := from; i < to; i++ {
		_, err := f.links.Set(f.Context(), keyOf(uidOf(i)), pod, ttl, terms)
		require.NoError(f, err)
	}
}

// create creates a job of the service.
func (f *fleet) create(spec biz.JobSpec) biz.JobKey {
	f.Helper()
	key := biz.JobKey{Namespace: "ns", ID: fmt.Sprintf("job-%d", time.Now().UnixNano())}
	_, err := f.jobs.Create(f.Context(), biz.Job{Key: key, Spec: spec, CreatedBy: "test"})
	require.NoError(f, err)
	return key
}

func relocate(pod biz.PodID) biz.JobSpec {
	return biz.JobSpec{Kind: biz.Relocate, Service: "game", Pod: pod}
}

func (f *fleet) job(key biz.JobKey) biz.Job {
	f.Helper()
	job, err := f.jobs.Get(f.Context(), key)
	require.NoError(f, err)
	return job
}

// await waits until the job has ended, at most for a virtual hour.
func (f *fleet) await(key biz.JobKey) biz.Job {
	f.Helper()
	for range 3600 {
		if job := f.job(key); job.State.Ended() {
			return job
		}
		time.Sleep(time.Second)
	}
	f.Fatalf("the job has not ended: %+v", f.job(key))
	return biz.Job{}
}

// counts returns how many links each pod has.
func (f *fleet) counts() map[biz.PodID]int64 {
	f.Helper()
	pods, err := f.store.Podlink().Index().IndexedPods(f.Context(), game)
	require.NoError(f, err)
	counts := make(map[biz.PodID]int64)
	for _, pod := range pods {
		counts[pod.Pod] = pod.Entries
	}
	return counts
}

func watcher(do func(before, after biz.Link)) func(model.Change) {
	return func(c model.Change) { do(c.Before, c.After) }
}
