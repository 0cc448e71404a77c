//go:build faults

package faults

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
	"podlink/test/kit/variants"
)

const (
	jobService = "jobs"
	jobUsers   = 6000
	jobRate    = 1000
	// jobTimeout bounds how long a job may take on a busy machine, takeovers included.
	jobTimeout = 3 * time.Minute
)

// relocation is a job that empties pod 0 of three, and the podlinks that may run it.
type relocation struct {
	*testing.T
	podlinks []*podlinktest.Process
	conns    map[*podlinktest.Process]*grpc.ClientConn
	job      string
	report   *Report
}

// newRelocation starts two podlinks of the binary and the job, once pod 0 has all users.
func newRelocation(t *testing.T, binary string) *relocation {
	t.Helper()
	server := redistest.Start(t)
	r := &relocation{
		T: t, conns: make(map[*podlinktest.Process]*grpc.ClientConn),
		podlinks: start(t, binary, 2, podlinktest.OnRedis("standalone", server.Addr())...),
		report:   &Report{Name: t.Name(), wantOperations: jobUsers, wantFaults: 1},
	}
	for _, p := range r.podlinks {
		r.conns[p] = p.Conn(t)
	}
	ctx, conn := t.Context(), r.conns[r.podlinks[0]]
	for pod := range int32(3) {
		_, err := v1.NewStateServiceClient(conn).SetServiceState(ctx, &v1.SetServiceStateRequest{
			Namespace: namespace, Service: jobService, PodId: &pod, State: "up", TtlSeconds: proto.Int32(forever),
		})
		require.NoError(t, err)
	}
	for from := 0; from < jobUsers; from += 1000 {
		request := &v1.BatchSetLinkedPodRequest{Namespace: namespace, Service: jobService}
		for i := range 1000 {
			request.Items = append(request.Items, &v1.BatchSetLinkedPodRequest_Item{Uid: fleetUID(from + i), PodId: proto.Int32(0)})
		}
		_, err := v1.NewLinkServiceClient(conn).BatchSetLinkedPod(ctx, request)
		require.NoError(t, err)
	}
	created, err := v1.NewFleetServiceClient(conn).CreateJob(ctx, &v1.CreateJobRequest{
		Namespace: namespace, Service: jobService, PodId: proto.Int32(0), Kind: v1.Job_RELOCATE, Rate: jobRate,
	})
	require.NoError(t, err)
	r.job = created.GetJob().GetId()
	return r
}

// read returns the job, as a podlink has it.
func (r *relocation) read(p *podlinktest.Process) *v1.Job {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	reply, err := v1.NewFleetServiceClient(r.conns[p]).GetJob(ctx, &v1.GetJobRequest{Namespace: namespace, Job: r.job})
	require.NoError(r, err)
	return reply.GetJob()
}

// runs reports whether the podlink runs the job.
func (r *relocation) runs(p *podlinktest.Process) bool {
	r.Helper()
	return p.Metric(r, "podlink_jobs_running") > 0
}

// await waits until the job is as far, and returns it. That both podlinks run it meanwhile is a violation.
func (r *relocation) await(p *podlinktest.Process, far func(*v1.Job) bool) *v1.Job {
	r.Helper()
	for deadline := time.Now().Add(jobTimeout); ; time.Sleep(50 * time.Millisecond) {
		job := r.read(p)
		if len(r.report.Violations) == 0 && len(r.podlinks) > 1 && r.runs(r.podlinks[0]) && r.runs(r.podlinks[1]) {
			r.report.violated("two podlinks run the job")
		}
		if far(job) || len(r.report.Violations) > 0 {
			return job
		}
		require.True(r, time.Now().Before(deadline), "%s", job)
	}
}

// interrupted waits until the job is in its middle, and returns the podlink that runs it, and the other one.
func (r *relocation) interrupted() (runs, other *podlinktest.Process) {
	r.Helper()
	r.await(r.podlinks[0], func(job *v1.Job) bool { return job.GetDone() > jobUsers/4 })
	require.Empty(r, r.report.Violations)
	runs, other = r.podlinks[0], r.podlinks[1]
	if !r.runs(runs) {
		runs, other = other, runs
	}
	job := r.read(other)
	require.Equal(r, v1.Job_RUNNING, job.GetState())
	require.Less(r, job.GetDone(), int64(jobUsers), "the fault must come in the middle")
	return runs, other
}

// requireMoved checks the links when the job has ended: none is lost, none is left behind, and the other pods have as many each.
func (r *relocation) requireMoved(p *podlinktest.Process, job *v1.Job) {
	r.Helper()
	require.Equal(r, v1.Job_DONE, job.GetState(), "%s", job)
	if n := job.GetDone(); n > jobUsers || n < jobUsers-3*jobRate { // What was done after the last progress was saved is not counted.
		r.report.violated("the job says that it has moved %d of %d users", n, jobUsers)
	}
	on := make(map[int32]int)
	for from := 0; from < jobUsers; from += 1000 {
		request := &v1.BatchGetLinkedPodRequest{Namespace: namespace, Service: jobService}
		for i := range 1000 {
			request.Uids = append(request.Uids, fleetUID(from+i))
		}
		reply, err := v1.NewLinkServiceClient(r.conns[p]).BatchGetLinkedPod(r.Context(), request)
		require.NoError(r, err)
		for _, pod := range reply.GetPods() {
			on[pod.GetPodId()] += len(pod.GetUids())
		}
		on[noPod] += len(reply.GetUnlinkedUids())
	}
	r.report.Operations, r.report.Acknowledged = jobUsers, on[1]+on[2]
	r.report.Lost = on[noPod]
	if on[1]+on[2] != jobUsers {
		r.report.violated("users by pod: %v, none of pods 1 and 2 only", on)
	}
	if difference := on[1] - on[2]; difference > jobUsers/10 || -difference > jobUsers/10 {
		r.report.violated("users by pod: %v, which is not even", on)
	}
}

// TestJobSurvivesItsPodlink: the podlink that runs a job is killed, or stands still for longer than the lease, in the middle of it. The
// other one ends the job; every user is moved, to the other pods evenly.
func TestJobSurvivesItsPodlink(t *testing.T) {
	for name, fault := range map[string]func(r *relocation, p *podlinktest.Process) (over func()){
		"kill -9": func(r *relocation, p *podlinktest.Process) func() {
			p.Kill()
			r.podlinks = nil // So that nobody asks it whether it runs the job.
			return func() {}
		},
		"SIGSTOP for longer than the lease": func(r *relocation, p *podlinktest.Process) func() {
			require.NoError(r, p.Freeze())
			podlinks := r.podlinks
			r.podlinks = nil
			return func() {
				require.NoError(r, p.Resume())
				require.Eventually(r, func() bool { return !r.runs(p) }, readTimeout, 50*time.Millisecond, "a podlink goes on without the lease")
				r.podlinks = podlinks
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelocation(t, binary)
			runs, other := r.interrupted()
			began, before := time.Now(), r.read(other).GetDone()
			over := fault(r, runs)
			r.report.Faults++
			r.await(other, func(job *v1.Job) bool { return job.GetDone() > before || job.GetState() == v1.Job_DONE })
			r.report.Recovery = time.Since(began)
			over()
			job := r.await(other, func(job *v1.Job) bool { return job.GetState() == v1.Job_DONE })
			r.requireMoved(other, job)
			time.Sleep(3 * time.Second)
			if later := r.read(other); !proto.Equal(job, later) {
				r.report.violated("the job has changed after its end: %s", fmt.Sprint(later))
			}
			r.report.publish(t)
			require.Empty(t, r.report.Violations)
		})
	}
}

// TestOnePodlinkRunsAJob, from its start to its end.
func TestOnePodlinkRunsAJob(t *testing.T) {
	r := newRelocation(t, binary)
	r.report.wantFaults = 0
	job := r.await(r.podlinks[0], func(job *v1.Job) bool { return job.GetState() == v1.Job_DONE })
	require.Empty(t, r.report.Violations)
	r.requireMoved(r.podlinks[0], job)
	r.report.publish(t)
	require.Empty(t, r.report.Violations)
}

// TestVariantJobs: a build in which every podlink gets the lease of a job is found.
func TestVariantJobs(t *testing.T) {
	variants.RequireFound(t, map[string]variants.Finder{
		variants.LeaseForAll: {Test: "TestOnePodlinkRunsAJob", Text: "two podlinks run the job"},
	})
}
