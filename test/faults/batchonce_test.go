//go:build faults

package faults

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
	"podlink/test/kit/variants"
)

// batchExecutions loses replies to batches of mutations, and returns how many scripts the servers executed beyond one per item
// that was done or whose outcome is unknown.
func batchExecutions(t *testing.T, binary string) (more, unknown int) {
	t.Helper()
	d := deployments["standalone"](t)
	p := start(t, binary, 1, d.env...)[0]
	links := v1.NewLinkServiceClient(p.Conn(t))
	counted, done := d.executions(t), 0
	for round := range 20 {
		const items = 500
		request := &v1.BatchSetLinkedPodRequest{Namespace: namespace, Service: "chat"}
		for i := range items {
			request.Items = append(request.Items, &v1.BatchSetLinkedPodRequest_Item{Uid: fmt.Sprintf("u%d-%d", round, i), PodId: new(int32)})
		}
		d.loseEvery(t, 200)
		ctx, cancel := context.WithTimeout(t.Context(), clientTimeout)
		reply, err := links.BatchSetLinkedPod(ctx, request)
		cancel()
		d.loseEvery(t, 0)
		require.NoError(t, err)
		require.Len(t, reply.GetResults(), items)
		for _, result := range reply.GetResults() {
			switch reason := result.GetProblem().GetReason(); reason {
			case "":
				done++
			case v1.ErrorReason_OUTCOME_UNKNOWN.String():
				unknown++
			default:
				require.Equal(t, v1.ErrorReason_STORE_UNAVAILABLE.String(), reason, "not executed")
			}
		}
	}
	return counted() - done - unknown, unknown
}

// TestAtMostOneExecutionInABatch: an item whose reply is lost is not sent again, and its problem is OUTCOME_UNKNOWN.
func TestAtMostOneExecutionInABatch(t *testing.T) {
	more, unknown := batchExecutions(t, binary)
	require.Positive(t, unknown)
	require.LessOrEqual(t, more, 0)
}

// TestVariantBatchRetries: a build that sends such an item again is found.
func TestVariantBatchRetries(t *testing.T) {
	more, _ := batchExecutions(t, variants.Build(t, variants.BatchRetries))
	require.Positive(t, more)
}
