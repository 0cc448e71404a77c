package jobs

import (
	"context"
	"errors"
	"sync"
	"time"

	"podlink/internal/biz"
)

const (
	// renewEvery is the time between two renewals of a lease, which also save the progress.
	renewEvery = time.Second
	// retryAfter is the time after which a store is asked again that has not answered.
	retryAfter = time.Second
	// maxFarewell bounds the last save of a job.
	maxFarewell = 3 * time.Second
)

// held is a lease, and until when this process has it for certain: no other can take it before.
type held struct {
	lease biz.JobLease
	until time.Time
}

// run is a job that runs here.
type run struct {
	*Runner
	job      biz.Job
	service  biz.ServiceKey
	throttle *throttle

	mu       sync.Mutex
	lease    held
	progress biz.JobProgress
}

// carryOut runs a job until it has ended, is lost to another process, or ctx ends.
func (r *Runner) carryOut(ctx context.Context, job biz.Job, lease held) {
	rate := r.rate
	if asked := int(job.Spec.Rate); asked > 0 {
		rate = min(rate, asked)
	}
	j := &run{
		Runner: r, job: job, lease: lease, progress: job.Progress, throttle: newThrottle(rate),
		service: biz.ServiceKey{Namespace: job.Key.Namespace, Service: job.Spec.Service},
	}
	r.observer.Taken(job)
	work, stop := context.WithCancelCause(biz.WithActor(ctx, "job:"+job.Key.ID))
	var renewals sync.WaitGroup
	renewals.Go(func() { stop(j.renew(work)) })
	err := j.work(work)
	if cause := context.Cause(work); err != nil && cause != nil {
		err = cause
	}
	stop(nil)
	renewals.Wait()
	j.leave(ctx, err)
}

// work does what the job is for, from its cursor on.
func (j *run) work(ctx context.Context) error {
	switch j.job.Spec.Kind {
	case biz.Relocate:
		return j.relocate(ctx)
	case biz.Release:
		return j.release(ctx)
	case biz.RemoveAll:
		return j.remove(ctx)
	case biz.Verify:
		return j.verify(ctx)
	default:
		return reasonError("this podlink does not know this kind of job")
	}
}

// renew renews the lease until ctx ends, or the job is not to go on here: then it returns why.
func (j *run) renew(ctx context.Context) error {
	for {
		if err := pause(ctx, renewEvery); err != nil {
			return nil //nolint:nilerr // The job has ended, or podlink stops.
		}
		lease, progress := j.snapshot()
		asked := time.Now()
		call, cancel := context.WithDeadline(ctx, lease.until)
		cancelled, err := j.Jobs.Save(call, j.job.Key, lease.lease, biz.JobRunning, progress)
		cancel()
		switch {
		case err == nil && cancelled:
			return errCancelled
		case err == nil:
			j.renewed(asked.Add(biz.JobLeaseTTL))
		case errors.Is(err, biz.ErrLeaseLost), !j.holds():
			return biz.ErrLeaseLost
		}
	}
}

func (j *run) snapshot() (held, biz.JobProgress) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lease, j.progress
}

func (j *run) renewed(until time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lease.until = until
}

// holds reports whether no other process can have the job. A process that was stopped for a while must not go on without asking.
func (j *run) holds() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return time.Now().Before(j.lease.until)
}

// leave saves how the job has ended, or that another process may go on with it.
func (j *run) leave(ctx context.Context, err error) {
	var failed reasonError
	state := biz.JobRunning
	switch {
	case err == nil:
		state = biz.JobDone
	case errors.Is(err, errCancelled):
		state = biz.JobCancelled
	case errors.Is(err, biz.ErrLeaseLost), ctx.Err() != nil:
	case errors.As(err, &failed):
		state = biz.JobFailed
		j.note(func(p *biz.JobProgress) { p.Error = string(failed) })
	default:
		state = biz.JobFailed
		j.note(func(p *biz.JobProgress) { p.Error = "internal error; the log of podlink has the cause" })
	}
	lease, progress := j.snapshot()
	if state.Ended() {
		progress.Note, progress.Cursor = "", ""
	}
	j.job.State, j.job.Progress = state, progress
	if !errors.Is(err, biz.ErrLeaseLost) {
		j.farewell(ctx, lease, state, progress)
	}
	j.observer.Left(j.job, err)
}

// farewell saves a job for the last time here. If that fails, the lease ends by itself, and another process comes to the same end.
func (j *run) farewell(ctx context.Context, lease held, state biz.JobState, progress biz.JobProgress) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxFarewell)
	defer cancel()
	if state == biz.JobRunning {
		state = biz.JobPending // Another process can take it at once.
	}
	for {
		_, err := j.Jobs.Save(ctx, j.job.Key, lease.lease, state, progress)
		if err == nil || errors.Is(err, biz.ErrLeaseLost) || pause(ctx, retryAfter) != nil {
			return
		}
	}
}

// note changes the progress.
func (j *run) note(change func(*biz.JobProgress)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change(&j.progress)
}

// say tells those who watch the job what it waits for; "": nothing.
func (j *run) say(what string) {
	j.note(func(p *biz.JobProgress) { p.Note = what })
}

// count adds the outcome of some links.
func (j *run) count(c counts) {
	j.note(func(p *biz.JobProgress) {
		p.Seen += int64(c.done + c.skipped + c.failed)
		p.Done += int64(c.done)
		p.Skipped += int64(c.skipped)
		p.Failed += int64(c.failed)
	})
	j.observer.Stepped(j.job.Spec.Kind, c.done, c.skipped, c.failed)
}

// counts are the outcomes of the links of a page.
type counts struct{ done, skipped, failed int }

// noteStore is what a job says while the store does not answer.
const noteStore = "the store does not answer: the job goes on when it does"

// try calls do until the store has answered, ctx ends, or the lease is lost.
func (j *run) try(ctx context.Context, do func() error) error {
	for waited := false; ; waited = true {
		if !j.holds() {
			return biz.ErrLeaseLost
		}
		err := do()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !isSilence(err) {
			if waited {
				j.say("")
			}
			return err
		}
		j.say(noteStore)
		if err := pause(ctx, retryAfter); err != nil {
			return err
		}
	}
}

// isSilence reports whether a call has failed because the store does not answer, or refuses calls for now.
func isSilence(err error) bool {
	for _, silence := range []error{
		biz.ErrStoreUnavailable, biz.ErrOutcomeUnknown, biz.ErrDeadlineExceeded, biz.ErrStoreFull, biz.ErrCanceled,
	} {
		if errors.Is(err, silence) {
			return true
		}
	}
	return false
}
