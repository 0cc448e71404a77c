//go:build faults

package faults

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
	"podlink/test/kit/variants"
)

// TestBatchesAreBounded: no round trip carries so many expensive calls that the others of its kind wait for it. A build
// without the bound is found.
func TestBatchesAreBounded(t *testing.T) {
	require.Zero(t, oversized(t, binary))
	require.Positive(t, oversized(t, variants.Build(t, variants.Unbounded)))
}

// oversized queues many reports with long states while Redis is paused, and returns how many round trips carried more of
// them than Redis executes in a few milliseconds.
func oversized(t *testing.T, binary string) (batches float64) {
	t.Helper()
	const (
		calls = 2000
		bound = 256 // a bucket of the histogram: a report with such a state costs more than a sixteenth of a millisecond
	)
	redis := redistest.Start(t)
	p := start(t, binary, 1, append(podlinktest.OnRedis("standalone", redis.Addr()),
		"PODLINK_SERVER_GRPC_TIMEOUT=30s", "PODLINK_SERVER_HTTP_TIMEOUT=30s", "PODLINK_DATA_REDIS_READ_TIMEOUT=20s",
		"PODLINK_SERVER_GRPC_MAX_STREAMS=4000")...)[0]
	states := v1.NewStateServiceClient(p.Conn(t))
	redis.Pause()
	var calling sync.WaitGroup
	failed := make(chan error, calls)
	for i := range calls {
		calling.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_, err := states.SetServiceState(ctx, &v1.SetServiceStateRequest{
				Namespace: namespace, Service: fmt.Sprintf("s%d", i), PodId: proto.Int32(0), State: strings.Repeat("x", 1024),
			})
			if err != nil {
				failed <- err
			}
		})
	}
	require.Eventually(t, func() bool { return p.Metric(t, "podlink_store_waiting_calls") > 4*bound }, 20*time.Second, 10*time.Millisecond)
	redis.Resume()
	calling.Wait()
	close(failed)
	require.NoError(t, <-failed)
	const histogram = "podlink_store_batch_commands"
	values := p.Metrics(t, histogram+"_count", fmt.Sprintf(`%s_bucket{le="%d"}`, histogram, bound))
	return values[0] - values[1]
}
