//go:build faults

package faults

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	redistest "podlink/test/kit/redis"
)

// TestVariantRetries: builds that retry mutations are found, by the callers' answers and by the servers' counts.
func TestVariantRetries(t *testing.T) {
	byDriver, byPodlink := variant(t, driverRetries), variant(t, podlinkRetries)
	t.Run("linearizability", func(t *testing.T) {
		_, found := linearizability(t, byDriver, lostReplies)
		require.NotNil(t, found)
	})
	for mode, repeating := range map[string]string{
		"standalone": byDriver, "sentinel": byDriver, "cluster": byPodlink,
	} {
		t.Run("executions/"+mode, func(t *testing.T) {
			_, more := countExecutions(t, repeating, mode, false)
			require.Positive(t, more)
		})
	}
}

// TestVariantLimits: a build whose calls outlive their deadline and whose mutations leak goroutines is found by a pause of
// Redis.
func TestVariantLimits(t *testing.T) {
	report, _ := linearizability(t, variant(t, ignoresDeadline), disturbance{
		faults: 1,
		inject: func(_ *testing.T, r *run, redis *redistest.Server, _ *redistest.Proxy) {
			redis.Pause()
			time.Sleep(2 * time.Second)
			redis.Resume()
			r.injected(1)
		},
	})
	found := strings.Join(report.Violations, "\n")
	require.Contains(t, found, "longer than podlink's timeout")
	require.Contains(t, found, "podlink 0 did not return to its baseline")
	require.Contains(t, found, "podlink 1 did not return to its baseline")
}

// TestVariantScripts: a faulty script is found without an injected fault.
func TestVariantScripts(t *testing.T) {
	for _, name := range []string{staleEpoch, overwrites} {
		t.Run(name, func(t *testing.T) {
			_, found := linearizability(t, variant(t, name), undisturbed)
			require.NotNil(t, found)
		})
	}
}
