//go:build bench

package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// manyPods is the number of pods that new users are spread over.
const manyPods = 100

// TestNewUsers compares how many new users per second get a pod, one call each and in batches.
func TestNewUsers(t *testing.T) {
	const perSecond, times, podlinkCPU, redisCPU, columns = 0, 1, 2, 3, 4
	redis := redistest.Start(t)
	a := &arena{
		redis:   redisPID(t, redis),
		podlink: newSide(t, "podlink", podlinktest.Start(t, binary, podlinktest.OnRedis("standalone", redis.Addr())...)),
	}
	states := v1.NewStateServiceClient(a.podlink.process.Conn(t))
	report := func() {
		for pod := range int32(manyPods) {
			_, err := states.SetServiceState(t.Context(), &v1.SetServiceStateRequest{
				Namespace: namespace, Service: service, PodId: proto.Int32(pod), State: "up", TtlSeconds: proto.Int32(3600),
			})
			require.NoError(t, err)
		}
	}
	table := &Table{
		ID: "new-users-grpc", Title: fmt.Sprintf("New users over gRPC, %d pods", manyPods),
		Note: "Users without a link who get a pod per second, and how many times as many as with a ComputeLinkedPod for each.",
	}
	crowds := []int{1, fewCallers, connections}
	for _, callers := range crowds {
		for _, column := range []string{"users/s", "times", "podlink's CPU per user, µs", "Redis' CPU per user, µs"} {
			table.Columns = append(table.Columns, fmt.Sprintf("%d connections: %s", callers, column))
		}
	}
	var made atomic.Int64
	sizes := []int{1, 10, 100}
	contenders := []contender{{a.podlink, func(ctx context.Context, caller int) error {
		reply, err := a.podlink.links[caller].ComputeLinkedPod(ctx, &v1.ComputeLinkedPodRequest{
			Namespace: namespace, Uid: user(int(made.Add(1))), Service: service,
		})
		return created(err, reply.GetOutcome())
	}}}
	for _, size := range sizes[1:] {
		contenders = append(contenders, contender{a.podlink, func(ctx context.Context, caller int) error {
			request := &v1.BatchComputeLinkedPodRequest{Namespace: namespace, Service: service}
			for range size {
				request.Items = append(request.Items, &v1.BatchComputeLinkedPodRequest_Item{Uid: user(int(made.Add(1)))})
			}
			reply, err := a.podlink.links[caller].BatchComputeLinkedPod(ctx, request)
			if err != nil {
				return err
			}
			for _, result := range reply.GetResults() {
				if err := created(nil, result.GetOutcome()); err != nil {
					return err
				}
			}
			return nil
		}})
	}
	for run := range runs {
		for group, callers := range crowds {
			progress(run, "new users, %d at once", callers)
			require.NoError(t, redis.Client(t).FlushDB(t.Context()).Err()) // The links of the last one would fill the memory.
			report()
			all := a.inTurns(t, callers, contenders...)
			for i, f := range all {
				row, size := "ComputeLinkedPod", float64(sizes[i])
				if i > 0 {
					row = fmt.Sprintf("BatchComputeLinkedPod of %d", sizes[i])
					table.add(row, group*columns+times, f.rate()*size/all[0].rate())
				}
				table.add(row, group*columns+perSecond, f.rate()*size)
				table.add(row, group*columns+podlinkCPU, f.perCall(f.cpu.server)/size)
				table.add(row, group*columns+redisCPU, f.perCall(f.cpu.redis)/size)
			}
		}
	}
	results.tables(table)
	results.target(Target{
		Measure: fmt.Sprintf("BatchComputeLinkedPod of 100 new users over gRPC, %d pods, %d connections: times the users of single calls",
			manyPods, connections),
		AtLeast: true, Limit: 3, Runs: table.row("BatchComputeLinkedPod of 100").Cells[2*columns+times],
	})
}

// created returns an error unless a link was made.
func created(err error, outcome v1.ComputeLinkedPodReply_Outcome) error {
	if err == nil && outcome != v1.ComputeLinkedPodReply_CREATED {
		err = fmt.Errorf("the outcome is %s", outcome)
	}
	return err
}
