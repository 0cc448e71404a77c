//go:build faults

package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	v1 "podlink/api/podlink/v1"
)

const (
	listedService = "listed"
	listedPods    = 5
	listedUsers   = 20_000
	// mutators is how many calls are made at a time, and mutationRate how many links they change a second, if the machine can.
	mutators     = 16
	mutationRate = 5000
	// mutationBatch is the size of the batches: one in 20 calls is one, so that they make most of the changes.
	mutationBatch = 50
	// mutationsLast bounds a load that nobody ends.
	mutationsLast = time.Minute
	// briefly is for how many seconds temporary links stand.
	briefly = 1
)

// changing is a load of mutations of the links of one service: computed, set and removed ones, with and without an end, in calls of one
// and in batches.
type changing struct {
	roster  *roster
	running sync.WaitGroup
	ctx     context.Context //nolint:containedctx // It ends with the load.
	cancel  context.CancelFunc

	begin                          time.Time
	acknowledged, refused, unknown atomic.Int64
}

// mutate starts a load through the podlinks of the roster.
func mutate(t testing.TB, r *roster) *changing {
	t.Helper()
	m := &changing{roster: r, begin: time.Now()}
	m.ctx, m.cancel = context.WithTimeout(context.Background(), mutationsLast)
	for range mutators {
		m.running.Go(m.run)
	}
	t.Cleanup(m.stop)
	return m
}

// stop ends the load, and returns when every call was answered.
func (m *changing) stop() {
	m.cancel()
	m.running.Wait()
}

// end stops the load, and adds its calls to the report.
func (m *changing) end(t testing.TB, report *Report) {
	t.Helper()
	m.stop()
	acknowledged, refused, unknown := int(m.acknowledged.Load()), int(m.refused.Load()), int(m.unknown.Load())
	report.Acknowledged += acknowledged
	report.Refused += refused
	report.Unknown += unknown
	report.Operations += acknowledged + refused + unknown
	t.Logf("%.0f mutations a second were acknowledged", float64(acknowledged)/time.Since(m.begin).Seconds())
}

// run makes one call after the other, at its part of the rate.
func (m *changing) run() {
	due := time.Now()
	for m.ctx.Err() == nil {
		n := 1
		if conn := m.roster.any(); rand.IntN(20) == 0 {
			n = mutationBatch
			m.batch(conn)
		} else {
			m.count(perform(conn, randomMutation()).outcome, 1)
		}
		due = due.Add(time.Duration(n) * time.Second * mutators / mutationRate)
		if late := time.Since(due); late > time.Second {
			due = time.Now() // What a fault has held up is not made up for.
		}
		time.Sleep(time.Until(due))
	}
}

func (m *changing) count(o outcome, n int) {
	switch o {
	case acknowledged:
		m.acknowledged.Add(int64(n))
	case refused:
		m.refused.Add(int64(n))
	case unknown, wrong: // Nothing is known when the connection breaks.
		m.unknown.Add(int64(n))
	}
}

// listedUID returns the uid of one of the users.
func listedUID(user int) string { return fmt.Sprintf("user:%d", user) }

// randomMutation returns a mutation of one link.
func randomMutation() operation {
	op := operation{
		uid: listedUID(rand.IntN(listedUsers)), service: listedService, pod: rand.Int32N(listedPods), seconds: forever, expected: noEpoch,
	}
	switch rand.IntN(8) {
	case 0, 1:
		op.kind = compute
	case 2:
		op.kind, op.seconds = compute, briefly
	case 3, 4:
		op.kind = set
	case 5:
		op.kind, op.seconds = set, briefly
	case 6:
		op.kind, op.seconds = remove, 0
	default:
		op.kind, op.seconds = remove, briefly
	}
	return op
}

// batch changes the links of random users in one call.
func (m *changing) batch(conn *grpc.ClientConn) {
	uids := make([]string, mutationBatch)
	first := rand.IntN(listedUsers)
	for i := range uids {
		uids[i] = listedUID((first + i) % listedUsers)
	}
	problems, err := changeAll(conn, []kind{compute, set, set, remove}[rand.IntN(4)], rand.Int32N(listedPods), uids)
	if err != nil {
		m.count(outcomeOf(set, kerrors.FromError(err).Reason), len(uids))
		return
	}
	m.count(acknowledged, len(uids)-len(problems))
	for _, reason := range problems {
		m.count(outcomeOf(set, reason), 1)
	}
}

// changeAll computes, sets or removes links in one batch, and returns the reason of each that failed.
func changeAll(conn *grpc.ClientConn, k kind, pod int32, uids []string) (problems []string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	links := v1.NewLinkServiceClient(conn)
	note := func(p *v1.Problem) {
		if p != nil {
			problems = append(problems, p.GetReason())
		}
	}
	switch k {
	case compute:
		request := &v1.BatchComputeLinkedPodRequest{Namespace: namespace, Service: listedService}
		for _, uid := range uids {
			request.Items = append(request.Items, &v1.BatchComputeLinkedPodRequest_Item{Uid: uid})
		}
		var reply *v1.BatchComputeLinkedPodReply
		reply, err = links.BatchComputeLinkedPod(ctx, request)
		for _, r := range reply.GetResults() {
			note(r.GetProblem())
		}
	case remove:
		request := &v1.BatchRemoveLinkedPodRequest{Namespace: namespace, Service: listedService}
		for _, uid := range uids {
			request.Items = append(request.Items, &v1.BatchRemoveLinkedPodRequest_Item{Uid: uid})
		}
		var reply *v1.BatchRemoveLinkedPodReply
		reply, err = links.BatchRemoveLinkedPod(ctx, request)
		for _, r := range reply.GetResults() {
			note(r.GetProblem())
		}
	default:
		request := &v1.BatchSetLinkedPodRequest{Namespace: namespace, Service: listedService}
		for _, uid := range uids {
			request.Items = append(request.Items, &v1.BatchSetLinkedPodRequest_Item{Uid: uid, PodId: &pod})
		}
		var reply *v1.BatchSetLinkedPodReply
		reply, err = links.BatchSetLinkedPod(ctx, request)
		for _, r := range reply.GetResults() {
			note(r.GetProblem())
		}
	}
	return problems, err
}

// mustChange is changeAll, repeated until nothing has failed: a busy machine is no fault.
func mustChange(t testing.TB, conn *grpc.ClientConn, k kind, pod int32, uids []string) {
	t.Helper()
	for deadline := time.Now().Add(readTimeout); ; time.Sleep(20 * time.Millisecond) {
		problems, err := changeAll(conn, k, pod, uids)
		if err == nil && len(problems) == 0 {
			return
		}
		require.True(t, time.Now().Before(deadline), "%d of %d changes failed: %v", len(problems), len(uids), err)
	}
}

// reportPods lets the service's pods report, so that links to them can be computed.
func reportPods(t testing.TB, conn *grpc.ClientConn) {
	t.Helper()
	for pod := range int32(listedPods) {
		ttl := int32(forever)
		require.Eventually(t, func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
			defer cancel()
			_, err := v1.NewStateServiceClient(conn).SetServiceState(ctx, &v1.SetServiceStateRequest{
				Namespace: namespace, Service: listedService, PodId: &pod, State: "up", TtlSeconds: &ttl,
			})
			return err == nil
		}, readTimeout, 50*time.Millisecond)
	}
}
