//go:build fleet

package fleet

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

const (
	// relocateRate is the rate of the relocations; with fewer links than a million one takes as long. relocateTarget is how long one
	// without a fault may take.
	relocateRate, relocateTarget = 20_000, 20 * time.Second
	// runTimeout bounds how long a job that is to be run may be without a podlink: the lease of one that was killed has to end.
	runTimeout = 2 * time.Minute
)

// relocation moves the links of a pod, while podlinks are killed.
type relocation struct {
	*fleet
	pod   int32
	kills []float64 // of the links that have moved at each
}

func (f *fleet) relocation(pod int32) *relocation { return &relocation{fleet: f, pod: pod} }

// requireMoved checks that the job moves each link of the pod once, evenly to the others, and changes no other.
func (r *relocation) requireMoved() {
	r.Helper()
	before, last, links := r.stored(), r.lastOfFeed(), r.entries(r.pod)
	name := "relocate"
	if len(r.kills) > 0 {
		name = "relocate-killed"
	}
	id := r.create(&v1.CreateJobRequest{
		Kind: v1.Job_RELOCATE, Service: service, PodId: proto.Int32(r.pod), Rate: min(relocateRate, r.perPod()/5), Reason: name,
	})
	for _, moved := range r.kills {
		r.kill(id, int64((1-moved)*float64(links)))
	}
	var empty time.Time
	r.await(id, func(job *v1.Job) bool {
		if empty.IsZero() && r.entries(r.pod) == 0 {
			empty = time.Now()
		}
		return job.GetEndTime() != nil
	})
	job := r.done(id)
	target := ""
	if len(r.kills) == 0 {
		target = relocateTarget.String()
		require.LessOrEqual(r, job.GetDone(), links, "a link was moved twice")
	}
	if !empty.IsZero() {
		measured.took("", empty.Sub(job.GetStartTime().AsTime()), "%s of %d links: until its index is empty", name, links)
	}
	measured.took(target, duration(job), "%s of %d links: until the job has ended", name, links)
	r.requireOutcome(before, r.stored(), name)
	for uid, moves := range r.moves(last) {
		if moves != 1 {
			require.Fail(r, "moved more than once", "%s: %d times", uid, moves)
		}
	}
}

// kill kills the podlink that runs the job, once only so many links are left.
func (r *relocation) kill(id string, left int64) {
	r.Helper()
	r.await(id, func(*v1.Job) bool { return r.entries(r.pod) <= left })
	runs := -1
	for deadline := time.Now().Add(runTimeout); runs < 0; time.Sleep(10 * time.Millisecond) {
		runs = slices.IndexFunc(r.podlinks, func(p *podlink) bool { return p.Metric(r, "podlink_jobs_running") > 0 })
		require.True(r, time.Now().Before(deadline), "nobody runs the job")
	}
	r.podlinks[runs].Kill()
	r.podlinks = slices.Delete(r.podlinks, runs, runs+1)
	left = r.entries(r.pod)
	require.Positive(r, left, "the fault must come in the middle")
	measured.add("", strconv.FormatInt(left, 10), "kill -9 of the podlink that relocates: links that are left")
}

// requireOutcome compares the links with those before.
func (r *relocation) requireOutcome(before, after map[string]link, name string) {
	r.Helper()
	require.Equal(r, len(before), len(after), "links are lost")
	on, links := make(map[int32]int), 0
	for uid, was := range before {
		is, found := after[uid]
		switch {
		case !found:
			require.Fail(r, "a link is lost", uid)
		case was.pod != r.pod && is != was:
			require.Fail(r, "another pod's link has changed", "%s: %v, now %v", uid, was, is)
		case was.pod == r.pod && (is.pod == r.pod || is.epoch <= was.epoch || is.claim != 0):
			require.Fail(r, "not moved", "%s: %v, now %v", uid, was, is)
		case was.pod == r.pod:
			on[is.pod]++
			links++
		}
	}
	takers := make(map[int32]bool) // the pods that take new links
	for _, was := range before {
		takers[was.pod] = was.pod != r.pod
	}
	delete(takers, r.pod)
	even := float64(links) / float64(len(takers))
	least, most := links, 0
	for pod := range takers {
		least, most = min(least, on[pod]), max(most, on[pod])
	}
	require.Len(r, on, len(takers), "%v", on)
	measured.add("", fmt.Sprintf("%d, %d, %.0f", least, most, even), "%s: fewest and most links that a pod got, and even", name)
	require.InDelta(r, even, least, even/10, "%v", on)
	require.InDelta(r, even, most, even/10, "%v", on)
	r.awaitComplete()
	r.requireListed(after, false)
}
