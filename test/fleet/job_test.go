//go:build fleet

package fleet

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
)

// jobTimeout bounds how long a job may take on a busy machine, and logEvery is how often one that lasts is logged.
const jobTimeout, logEvery = 20 * time.Minute, 15 * time.Second

// create asks for a job of the namespace.
func (f *fleet) create(request *v1.CreateJobRequest) (id string) {
	f.Helper()
	request.Namespace = namespace
	request.RequestId = request.GetReason() // So that a repeated call makes no second job.
	f.call(func(ctx context.Context) error {
		reply, err := v1.NewFleetServiceClient(f.conn()).CreateJob(ctx, request)
		id = reply.GetJob().GetId()
		return err
	})
	return id
}

// await waits until the job is as far, and returns it.
func (f *fleet) await(id string, far func(*v1.Job) bool) *v1.Job {
	f.Helper()
	logged := time.Now()
	for deadline := time.Now().Add(jobTimeout); ; time.Sleep(50 * time.Millisecond) {
		var job *v1.Job
		f.call(func(ctx context.Context) error {
			reply, err := v1.NewFleetServiceClient(f.conn()).GetJob(ctx, &v1.GetJobRequest{Namespace: namespace, Job: id})
			job = reply.GetJob()
			return err
		})
		if far(job) {
			return job
		}
		if time.Since(logged) > logEvery {
			f.Log(job)
			logged = time.Now()
		}
		require.True(f, time.Now().Before(deadline), "%s", job)
	}
}

// done waits until the job has ended, which must be well.
func (f *fleet) done(id string) *v1.Job {
	f.Helper()
	job := f.await(id, func(job *v1.Job) bool { return job.GetEndTime() != nil })
	require.Equal(f, v1.Job_DONE, job.GetState(), "%s", job)
	return job
}

// duration is how long a job took, by Redis' clock.
func duration(job *v1.Job) time.Duration {
	return job.GetEndTime().AsTime().Sub(job.GetStartTime().AsTime())
}
