package api

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
	redistest "podlink/test/kit/redis"
)

// TestProblemsAreLoggedAndCounted: an item that fails is in the log with the trace of its request and its cause, and is counted,
// though the request succeeds. The line has no uid.
func TestProblemsAreLoggedAndCounted(t *testing.T) {
	server := redistest.Start(t)
	a := startApp(t, onRedis(server))
	require.NoError(t, server.Client(t).Set(t.Context(), "podlink:link:ns:secret-uid", "text", 0).Err())
	for _, over := range transports {
		for rpc, request := range map[string]string{
			"BatchSetLinkedPod":     `{"namespace":"ns","service":"svc","items":[{"uid":"secret-uid","podId":1},{"uid":"u2","podId":1}]}`,
			"BatchRemoveLinkedPod":  `{"namespace":"ns","service":"svc","items":[{"uid":"secret-uid"},{"uid":"u2"}]}`,
			"BatchComputeLinkedPod": `{"namespace":"ns","service":"svc","items":[{"uid":"secret-uid"},{"uid":"u2"}]}`,
			"BatchVerifyLinkedPod":  `{"namespace":"ns","service":"svc","podId":1,"items":[{"uid":"secret-uid"},{"uid":"u2"}]}`,
			"BatchGetLinkedPod":     `{"namespace":"ns","service":"svc","uids":["secret-uid","u2"]}`,
		} {
			got := a.must(t, over, rpc, request)
			require.True(t, got.ok(), "%s: %+v", rpc, got)
			require.Equal(t, v1.ErrorReason_STORE_DATA_CORRUPT.String(), itemProblem(got.into).GetReason(), rpc)
			require.NotContains(t, itemProblem(got.into).GetMessage(), "WRONGTYPE")
			require.Eventually(t, func() bool { return a.logLine(got.trace) != nil }, 10*time.Second, time.Millisecond, rpc)
			line := a.logLine(got.trace)
			require.Equal(t, "an item of the request failed", line["msg"])
			require.Contains(t, line["operation"], rpc)
			require.NotEmpty(t, line["cause"])
		}
	}
	require.NotContains(t, a.log.String(), "secret-uid")
	families := a.scrape(t)
	for _, method := range []string{
		"BatchSetLinkedPod", "BatchRemoveLinkedPod", "BatchComputeLinkedPod", "BatchVerifyLinkedPod", "BatchGetLinkedPod",
	} {
		metric := metricWith(families["podlink_batch_problems_total"],
			"operation", v1.Operation(rpcs[method]), "reason", v1.ErrorReason_STORE_DATA_CORRUPT.String())
		require.EqualValues(t, 2, metric.GetCounter().GetValue(), method)
	}
	for _, kind := range []string{"links", "computes", "sets", "removals", "checks"} {
		require.EqualValues(t, 2, metricWith(families["podlink_batch_entries"], "kind", kind).GetHistogram().GetSampleCount(), kind)
	}
}
