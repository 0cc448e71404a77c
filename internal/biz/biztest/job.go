package biztest

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"podlink/internal/biz"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// aJob is a job with a value in each field.
func (e *env) aJob() biz.Job {
	return biz.Job{
		Key: biz.JobKey{Namespace: e.namespace, ID: strings.ToLower(rand.Text())},
		Spec: biz.JobSpec{
			Kind: biz.Relocate, Service: service, Pod: 3, Rate: 100, DryRun: true, Reason: `a "reason": µ <&>`, Grace: 60, Keep: 5, Below: 7,
			Repair: true,
		},
		CreatedBy: "token:ops",
	}
}

// someProgress is a progress with a value in each field.
var someProgress = biz.JobProgress{
	Seen: 9, Done: 5, Skipped: 3, Failed: 1,
	Faults: biz.JobFaults{
		EntriesWithoutLink: 1, LinksWithoutEntry: 2, LinksWithoutPod: 3, ForeignFields: 4, KeysWithoutExpiry: 5,
	},
	Note: "waits", Error: "none", Cursor: "links 1:2:3",
}

// createJob creates a job. It ends with the test, so that it does not count for the limit.
func (e *env) createJob(jobs biz.JobRepo, job biz.Job) biz.Job {
	e.Helper()
	created, err := jobs.Create(e.Context(), job)
	require.NoError(e, err)
	e.Cleanup(func() {
		ctx, cancel := endOf()
		defer cancel()
		_, _ = e.Jobs.Cancel(ctx, job.Key)
		if _, lease, err := e.Jobs.Take(ctx, job.Key); err == nil {
			_, _ = e.Jobs.Save(ctx, job.Key, lease, biz.JobDone, biz.JobProgress{})
		}
	})
	return created
}

func testJobs(t *testing.T, s suite) {
	s.test(t, "Create/stores what was asked for, once", func(e *env) {
		job := e.aJob()
		var created biz.Job
		when := during(func() { created = e.createJob(e.Jobs, job) })
		require.GreaterOrEqual(e, created.CreateMs, when.start.Add(-clockSlack).UnixMilli())
		require.LessOrEqual(e, created.CreateMs, when.end.Add(clockSlack).UnixMilli())
		want := job
		want.State, want.CreateMs, created.NowMs = biz.JobPending, created.CreateMs, 0
		require.Equal(e, want, created)
		other := job
		other.CreatedBy, other.Spec = "token:other", biz.JobSpec{Kind: biz.Verify, Pod: biz.NoPod}
		again, err := e.views[len(e.views)-1].Jobs.Create(e.Context(), other)
		require.NoError(e, err)
		again.NowMs = 0
		require.Equal(e, want, again, "the first one stays")
		got, err := e.Jobs.Get(e.Context(), job.Key)
		require.NoError(e, err)
		require.Equal(e, want, got)
	})
	s.test(t, "a job that was never created", func(e *env) {
		key := e.aJob().Key
		_, err := e.Jobs.Get(e.Context(), key)
		require.ErrorIs(e, err, biz.ErrJobNotFound)
		_, err = e.Jobs.Cancel(e.Context(), key)
		require.ErrorIs(e, err, biz.ErrJobNotFound)
		_, _, err = e.Jobs.Take(e.Context(), key)
		require.ErrorIs(e, err, biz.ErrJobNotFound)
		_, err = e.Jobs.Save(e.Context(), key, 1, biz.JobRunning, biz.JobProgress{})
		require.ErrorIs(e, err, biz.ErrLeaseLost)
	})
	s.test(t, "Unfinished/has the jobs that have not ended, the oldest first", func(e *env) {
		var keys []biz.JobKey
		for range 3 {
			keys = append(keys, e.createJob(e.Jobs, e.aJob()).Key)
			tick()
		}
		require.Equal(e, keys, e.unfinished())
		_, lease, err := e.Jobs.Take(e.Context(), keys[1])
		require.NoError(e, err)
		require.Equal(e, keys, e.unfinished(), "it runs")
		_, err = e.Jobs.Save(e.Context(), keys[1], lease, biz.JobDone, biz.JobProgress{})
		require.NoError(e, err)
		_, err = e.Jobs.Cancel(e.Context(), keys[0])
		require.NoError(e, err)
		require.Equal(e, keys[2:], e.unfinished())
	})
	s.test(t, "Take/gives the lease to one process, until it ends", func(e *env) {
		created := e.createJob(e.Jobs, e.aJob())
		other := e.views[len(e.views)-1].Jobs
		job, lease, err := e.Jobs.Take(e.Context(), created.Key)
		require.NoError(e, err)
		require.Equal(e, biz.JobRunning, job.State)
		require.Equal(e, created.Spec, job.Spec)
		require.GreaterOrEqual(e, job.StartMs, job.CreateMs)
		require.GreaterOrEqual(e, job.NowMs, job.StartMs)
		_, _, err = other.Take(e.Context(), created.Key)
		require.ErrorIs(e, err, biz.ErrJobTaken)

		_, err = e.Jobs.Save(e.Context(), created.Key, lease, biz.JobPending, someProgress)
		require.NoError(e, err, "it hands the job over")
		again, later, err := other.Take(e.Context(), created.Key)
		require.NoError(e, err)
		require.Greater(e, later, lease)
		require.Equal(e, someProgress, again.Progress)
		require.Equal(e, biz.JobRunning, again.State)
		require.Equal(e, job.StartMs, again.StartMs, "it has begun once")
		_, err = e.Jobs.Save(e.Context(), created.Key, lease, biz.JobRunning, biz.JobProgress{Done: 99})
		require.ErrorIs(e, err, biz.ErrLeaseLost)
		got, err := e.Jobs.Get(e.Context(), created.Key)
		require.NoError(e, err)
		require.Equal(e, someProgress, got.Progress, "nothing has changed")

		deadline := time.Now().Add(time.Minute)
		for {
			tookOver, last, err := e.Jobs.Take(e.Context(), created.Key)
			if err == nil {
				require.Greater(e, last, later, "without a Save the lease ends by itself")
				require.GreaterOrEqual(e, tookOver.NowMs-again.NowMs, biz.JobLeaseTTL.Milliseconds()-1)
				break
			}
			require.ErrorIs(e, err, biz.ErrJobTaken)
			require.True(e, time.Now().Before(deadline))
			time.Sleep(200 * time.Millisecond)
		}
	})
	s.test(t, "Take/of concurrent calls one gets the lease", func(e *env) {
		key := e.createJob(e.Jobs, e.aJob()).Key
		var got atomic.Int32
		var calls sync.WaitGroup
		for i := range 8 {
			calls.Go(func() {
				_, _, err := e.views[i%len(e.views)].Jobs.Take(e.Context(), key)
				if err == nil {
					got.Add(1)
				} else {
					assert.ErrorIs(e, err, biz.ErrJobTaken)
				}
			})
		}
		calls.Wait()
		require.EqualValues(e, 1, got.Load())
	})
	for _, state := range []biz.JobState{biz.JobDone, biz.JobFailed, biz.JobCancelled} {
		s.test(t, "Save/an end is final/"+string(state), func(e *env) {
			key := e.createJob(e.Jobs, e.aJob()).Key
			_, lease, err := e.Jobs.Take(e.Context(), key)
			require.NoError(e, err)
			_, err = e.Jobs.Save(e.Context(), key, lease, state, someProgress)
			require.NoError(e, err)
			ended, err := e.Jobs.Get(e.Context(), key)
			require.NoError(e, err)
			require.Equal(e, state, ended.State)
			require.GreaterOrEqual(e, ended.EndMs, ended.StartMs)
			require.Equal(e, someProgress, ended.Progress)
			_, err = e.Jobs.Save(e.Context(), key, lease, biz.JobRunning, biz.JobProgress{})
			require.ErrorIs(e, err, biz.ErrLeaseLost)
			_, _, err = e.Jobs.Take(e.Context(), key)
			require.ErrorIs(e, err, biz.ErrJobNotFound)
			cancelled, err := e.Jobs.Cancel(e.Context(), key)
			require.NoError(e, err)
			cancelled.NowMs = 0
			require.Equal(e, ended, cancelled)
		})
	}
	s.test(t, "Cancel/tells the process that runs the job", func(e *env) {
		key := e.createJob(e.Jobs, e.aJob()).Key
		_, lease, err := e.Jobs.Take(e.Context(), key)
		require.NoError(e, err)
		cancel, err := e.Jobs.Save(e.Context(), key, lease, biz.JobRunning, someProgress)
		require.NoError(e, err)
		require.False(e, cancel)
		job, err := e.views[len(e.views)-1].Jobs.Cancel(e.Context(), key)
		require.NoError(e, err)
		require.Equal(e, biz.JobRunning, job.State)
		require.Zero(e, job.EndMs)
		cancel, err = e.Jobs.Save(e.Context(), key, lease, biz.JobRunning, someProgress)
		require.NoError(e, err)
		require.True(e, cancel)
	})
	s.test(t, "List/the latest first, by pages, in its namespace", func(e *env) {
		var want []biz.JobKey
		for range 5 {
			want = append([]biz.JobKey{e.createJob(e.Jobs, e.aJob()).Key}, want...)
			tick()
		}
		other := e.aJob()
		other.Key.Namespace += "2"
		e.createJob(e.Jobs, other)
		for _, n := range []int{1, 2, 5, 10} {
			var got []biz.JobKey
			for after := ""; ; {
				page, err := e.Jobs.List(e.Context(), e.namespace, after, n)
				require.NoError(e, err)
				require.LessOrEqual(e, len(page), n)
				if len(page) == 0 {
					break
				}
				for _, job := range page {
					got = append(got, job.Key)
					after = job.At
				}
			}
			require.Equal(e, want, got, fmt.Sprint("pages of ", n))
		}
	})
}

// unfinished returns the unfinished jobs of the test's namespace.
func (e *env) unfinished() (keys []biz.JobKey) {
	e.Helper()
	all, err := e.Jobs.Unfinished(e.Context())
	require.NoError(e, err)
	for _, key := range all {
		if key.Namespace == e.namespace {
			keys = append(keys, key)
		}
	}
	return keys
}

// endOf returns a context for the end of a test, after that of the test.
func endOf() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 10*time.Second)
}
