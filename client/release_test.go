package client

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
	"podlink/test/kit/inproc"
	"podlink/test/kit/logwatch"
	"podlink/test/kit/model"
)

// releasing is an agent of pod 2, and the podlink that it asks.
type releasing struct {
	*Agent

	store  *model.Store
	server *inproc.Server
	lines  *logwatch.Log
}

// startReleasing starts an agent in virtual time.
func startReleasing(t *testing.T, o AgentOptions) *releasing {
	t.Helper()
	f := newFleet(t)
	lines, pod := new(logwatch.Log), int32(2)
	o.PodOrdinal, o.Logger = &pod, log.NewStdLogger(lines)
	a, err := f.client.NewAgent(testNamespace, testService, o)
	require.NoError(t, err)
	run(t, a)
	return &releasing{Agent: a, store: f.store, server: f.server, lines: lines}
}

// jobs returns the jobs that podlink has.
func (r *releasing) jobs(t *testing.T) []biz.ListedJob {
	t.Helper()
	listed, err := r.store.Podlink().Jobs().List(t.Context(), testNamespace, "", 100)
	require.NoError(t, err)
	return listed
}

// asked returns how often podlink was asked for a job.
func (r *releasing) asked() int { return r.server.Calls(v1.FleetService_CreateJob_FullMethodName) }

func TestReleaseAfterTheStart(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		after   time.Duration
		none    time.Duration // until then there is no job
		created bool
	}{
		"by default": {0, 10*time.Minute - time.Second, true},
		"soon":       {time.Second, 900 * time.Millisecond, true},
		"never":      {-1, 30 * time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := startReleasing(t, AgentOptions{ReleaseAfter: row.after})
				time.Sleep(row.none)
				require.Empty(t, r.jobs(t))
				time.Sleep(3 * time.Second)
				if !row.created {
					require.Zero(t, r.asked())
					return
				}
				jobs := r.jobs(t)
				require.Len(t, jobs, 1)
				state, _ := r.lease.state()
				require.Positive(t, state.generation)
				require.Equal(t, biz.JobSpec{
					Kind: biz.Release, Service: testService, Pod: 2, Keep: 60, Below: biz.Generation(state.generation),
					Reason: "left by earlier processes of the pod",
				}, jobs[0].Spec)
				time.Sleep(30 * time.Minute)
				require.Equal(t, 1, r.asked(), "once for each process")
			})
		})
	}
}

// TestReleaseIsAskedForUntilPodlinkAnswers, and there is one job however many answers were lost.
func TestReleaseIsAskedForUntilPodlinkAnswers(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(*releasing) (over func()){
		"podlink is away": func(r *releasing) func() { r.server.Kill(); return r.server.Start },
		"answers are lost": func(r *releasing) func() {
			r.server.DropReplies(func(method string) bool { return method == v1.FleetService_CreateJob_FullMethodName })
			return func() { r.server.DropReplies(nil) }
		},
		"the store is away": func(r *releasing) func() { r.store.Kill(); return r.store.Restart },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := startReleasing(t, AgentOptions{ReleaseAfter: time.Minute})
				time.Sleep(30 * time.Second)
				over := fault(r)
				time.Sleep(10 * time.Minute)
				require.Equal(t, 1, strings.Count(r.lines.String(), "asking for the release of links"), "it is said once")
				over()
				time.Sleep(2 * time.Minute)
				require.Len(t, r.jobs(t), 1)
				asked := r.asked()
				time.Sleep(10 * time.Minute)
				require.Equal(t, asked, r.asked())
			})
		})
	}
}

// TestReleaseIsRefused: a podlink that refuses it is not asked again.
func TestReleaseIsRefused(t *testing.T) {
	for name, row := range map[string]struct {
		err     error
		refused bool
	}{
		"not permitted":           {ErrPermissionDenied, true},
		"malformed":               {ErrInvalidArgument, true},
		"without the index":       {v1.ErrorIndexDisabled("the index is disabled"), true},
		"without jobs":            {v1.ErrorNotFound("there is no such path"), true},
		"too many jobs":           {ErrLimitExceeded, false},
		"a token that is expired": {ErrUnauthenticated, false},
		"too many calls":          {ErrRateLimited, false},
		"away":                    {ErrUnavailable, false},
		"without its store":       {ErrStoreUnavailable, false},
		"a lost answer":           {ErrOutcomeUnknown, false},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, row.refused, refusesRelease(row.err)) })
	}
}

// TestReleaseEndsWithItsProcess: one that was superseded, that drains or has ended asks for nothing.
func TestReleaseEndsWithItsProcess(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, *releasing){
		"superseded": func(_ *testing.T, r *releasing) { r.lease.supersede() },
		"draining":   func(t *testing.T, r *releasing) { require.NoError(t, r.Drain(t.Context())) },
		"stopped":    func(t *testing.T, r *releasing) { require.NoError(t, r.Stop(t.Context())) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := startReleasing(t, AgentOptions{ReleaseAfter: 10 * time.Second})
				time.Sleep(5 * time.Second)
				end(t, r)
				time.Sleep(10 * time.Second)
				require.Zero(t, r.asked())
			})
		})
	}
}
