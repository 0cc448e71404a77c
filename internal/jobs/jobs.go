// Package jobs carries out the jobs that callers have asked for: it relocates, releases, removes and verifies many links in the
// background.
//
// Two things to know before changing anything here. One process runs a job, under a lease, and another takes it over when that one
// dies; for a moment both may run it, so every step is a compare-and-set on the epoch of a link, and a step done twice does nothing.
// And a job never gives up on a store that does not answer: it waits, says so, and goes on.
package jobs

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"podlink/internal/biz"
)

const (
	// lookEvery is the time between two looks for jobs that nobody runs.
	lookEvery = time.Second
	// maxRunning is how many jobs a process runs at once.
	maxRunning = 4
	// maxTries is how many jobs a process tries to take in one look.
	maxTries = 64
)

// Stores are what jobs work on.
type Stores struct {
	Jobs      biz.JobRepo
	Index     biz.IndexRepo
	Feed      biz.FeedRepo   // for repairs of the index
	Keys      biz.KeyScanner // for Verify
	Links     biz.LinkRepo   // it must note what it changes, so that the index follows
	Moves     Mover
	Pods      *biz.PodViews
	Workloads biz.WorkloadRepo
	Complete  func() bool // false while this process has changes that the index lacks
}

// Mover moves links. biz.LinkUsecase implements it.
type Mover interface {
	Relocate(ctx context.Context, key biz.ServiceKey, from biz.PodID, uids []string) ([]biz.ComputedResult, error)
}

// Options are the settings of a Runner.
type Options struct {
	Rate     int      // links a second of one job at most
	Observer Observer // nil: none
}

// Observer receives what happens to jobs, for metrics and the log. Its methods must not block.
type Observer interface {
	// Taken is called when this process begins to run a job.
	Taken(job biz.Job)
	// Left is called when this process no longer runs the job. The cause of a reasonError is for the log only. A state that is not final
	// means that another process goes on with the job.
	Left(job biz.Job, cause error)
	// Stepped is called with the outcome of some links.
	Stepped(kind biz.JobKind, done, skipped, failed int)
}

// NopObserver is an Observer that ignores all events. Embed it to implement only some of the methods.
type NopObserver struct{}

// Taken implements Observer.
func (NopObserver) Taken(biz.Job) {}

// Left implements Observer.
func (NopObserver) Left(biz.Job, error) {}

// Stepped implements Observer.
func (NopObserver) Stepped(biz.JobKind, int, int, int) {}

// Runner runs jobs.
type Runner struct {
	Stores
	rate     int
	observer Observer

	mu      sync.Mutex
	running map[biz.JobKey]bool
}

// New returns a runner on the stores.
func New(stores Stores, o Options) *Runner {
	r := &Runner{Stores: stores, rate: o.Rate, observer: o.Observer, running: make(map[biz.JobKey]bool)}
	if r.observer == nil {
		r.observer = NopObserver{}
	}
	return r
}

// Run looks for jobs and runs them until ctx ends. It returns when all of them have stopped; other processes go on with them.
func (r *Runner) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		for _, key := range r.waiting(ctx) {
			if !r.begin(key) {
				continue
			}
			job, lease, err := r.take(ctx, key)
			if err != nil {
				r.end(key)
				continue
			}
			running.Go(func() {
				defer r.end(key)
				r.carryOut(ctx, job, lease)
			})
		}
		if pause(ctx, lookEvery) != nil {
			return nil
		}
	}
}

// waiting returns jobs that have not ended: the oldest, or if there are many some of them, so that each has its turn.
func (r *Runner) waiting(ctx context.Context) []biz.JobKey {
	ctx, cancel := context.WithTimeout(ctx, biz.JobLeaseTTL)
	defer cancel()
	keys, err := r.Jobs.Unfinished(ctx)
	if err != nil {
		return nil // The next look finds them.
	}
	if len(keys) > maxTries {
		rand.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] }) //nolint:gosec // It is no secret.
		keys = keys[:maxTries]
	}
	return keys
}

// take takes the lease of a job.
func (r *Runner) take(ctx context.Context, key biz.JobKey) (biz.Job, held, error) {
	ctx, cancel := context.WithTimeout(ctx, biz.JobLeaseTTL)
	defer cancel()
	asked := time.Now()
	job, lease, err := r.Jobs.Take(ctx, key)
	return job, held{lease, asked.Add(biz.JobLeaseTTL)}, err
}

// begin reports whether the job may be run here: it is not, and there is room.
func (r *Runner) begin(key biz.JobKey) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running[key] || len(r.running) >= maxRunning {
		return false
	}
	r.running[key] = true
	return true
}

func (r *Runner) end(key biz.JobKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, key)
}

// pause waits for that long, and returns the cause if ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// reasonError is why a job can't go on, for those who have asked for it.
type reasonError string

// Error implements error.
func (f reasonError) Error() string { return string(f) }

// errCancelled is why a job ends that was cancelled.
var errCancelled = errors.New("the job was cancelled")
