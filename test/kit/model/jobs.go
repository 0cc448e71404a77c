package model

import (
	"context"
	"fmt"
	"slices"

	"podlink/internal/biz"
)

// jobRepo implements biz.JobRepo.
type jobRepo struct{ *Podlink }

// Jobs returns the repo of the jobs.
func (p *Podlink) Jobs() biz.JobRepo { return jobRepo{p} }

// storedJob is a job in the store.
type storedJob struct {
	biz.Job
	lease    biz.JobLease
	expiryMs int64 // of the lease
	cancel   bool
}

// position returns the place of a job in lists.
func (j *storedJob) position() string { return fmt.Sprintf("%013d-%s", j.CreateMs, j.Key.ID) }

// Create implements biz.JobRepo.
func (r jobRepo) Create(ctx context.Context, job biz.Job) (created biz.Job, _ error) {
	var failure error
	err := r.call(ctx, true, func() {
		stored := r.store.jobs[job.Key]
		if stored == nil && r.unfinished() >= r.MaxJobs {
			failure = &biz.LimitError{Limit: "limits.max_jobs"}
			return
		}
		if stored == nil {
			stored = &storedJob{Job: biz.Job{
				Key: job.Key, Spec: job.Spec, CreatedBy: job.CreatedBy, State: biz.JobPending, CreateMs: r.store.micros() / 1000,
			}}
			r.store.jobs[job.Key] = stored
		}
		created = stored.Job
	})
	return answered(created, err, failure)
}

func answered(job biz.Job, errs ...error) (biz.Job, error) {
	for _, err := range errs {
		if err != nil {
			return biz.Job{}, err
		}
	}
	return job, nil
}

func (r jobRepo) unfinished() (n int) {
	for _, job := range r.store.jobs {
		if !job.State.Ended() {
			n++
		}
	}
	return n
}

// Get implements biz.JobRepo.
func (r jobRepo) Get(ctx context.Context, key biz.JobKey) (job biz.Job, _ error) {
	failure := biz.ErrJobNotFound
	err := r.call(ctx, false, func() {
		if stored := r.store.jobs[key]; stored != nil {
			job, failure = stored.Job, nil
		}
	})
	return answered(job, err, failure)
}

// List implements biz.JobRepo.
func (r jobRepo) List(ctx context.Context, namespace, after string, n int) (listed []biz.ListedJob, _ error) {
	err := r.call(ctx, false, func() {
		for _, job := range r.store.jobs {
			if at := job.position(); job.Key.Namespace == namespace && (after == "" || at < after) {
				listed = append(listed, biz.ListedJob{Job: job.Job, At: at})
			}
		}
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(listed, func(a, b biz.ListedJob) int {
		if a.At > b.At {
			return -1
		}
		return 1
	})
	return listed[:min(n, len(listed))], nil
}

// Cancel implements biz.JobRepo.
func (r jobRepo) Cancel(ctx context.Context, key biz.JobKey) (job biz.Job, _ error) {
	failure := biz.ErrJobNotFound
	err := r.call(ctx, true, func() {
		stored := r.store.jobs[key]
		if stored == nil {
			return
		}
		if stored.State == biz.JobPending {
			stored.State, stored.EndMs = biz.JobCancelled, r.store.micros()/1000
		}
		stored.cancel = stored.State == biz.JobRunning
		job, failure = stored.Job, nil
	})
	return answered(job, err, failure)
}

// Unfinished implements biz.JobRepo.
func (r jobRepo) Unfinished(ctx context.Context) (keys []biz.JobKey, _ error) {
	err := r.call(ctx, false, func() {
		var jobs []*storedJob
		for _, job := range r.store.jobs {
			if !job.State.Ended() {
				jobs = append(jobs, job)
			}
		}
		slices.SortFunc(jobs, func(a, b *storedJob) int { return int(a.CreateMs - b.CreateMs) })
		for _, job := range jobs {
			keys = append(keys, job.Key)
		}
	})
	if err != nil {
		return nil, err
	}
	return keys, nil
}

// Take implements biz.JobRepo.
func (r jobRepo) Take(ctx context.Context, key biz.JobKey) (job biz.Job, lease biz.JobLease, _ error) {
	failure := biz.ErrJobNotFound
	err := r.call(ctx, true, func() {
		now := r.store.micros()
		stored := r.store.jobs[key]
		switch {
		case stored == nil || stored.State.Ended():
			return
		case stored.expiryMs > now/1000 && !r.LeaseForAll:
			failure = biz.ErrJobTaken
			return
		}
		failure = nil
		if stored.State == biz.JobPending {
			stored.State, stored.StartMs = biz.JobRunning, now/1000
		}
		if !r.LeaseForAll {
			stored.lease = max(stored.lease+1, biz.JobLease(now))
		}
		stored.expiryMs = now/1000 + biz.JobLeaseTTL.Milliseconds()
		job, lease = stored.Job, stored.lease
		job.NowMs = now / 1000
	})
	job, err = answered(job, err, failure)
	return job, lease, err
}

// Save implements biz.JobRepo.
func (r jobRepo) Save(
	ctx context.Context, key biz.JobKey, lease biz.JobLease, state biz.JobState, progress biz.JobProgress,
) (cancel bool, _ error) {
	failure := biz.ErrLeaseLost
	err := r.call(ctx, true, func() {
		stored := r.store.jobs[key]
		if stored == nil || stored.State.Ended() || stored.lease != lease {
			return
		}
		failure, cancel = nil, stored.cancel
		now := r.store.micros() / 1000
		stored.Progress = progress
		switch {
		case state.Ended():
			stored.State, stored.EndMs = state, now
		case state == biz.JobPending:
			stored.expiryMs = 0
		default:
			stored.expiryMs = now + biz.JobLeaseTTL.Milliseconds()
		}
	})
	_, err = answered(biz.Job{}, err, failure)
	return cancel && err == nil, err
}
