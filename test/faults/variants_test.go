//go:build faults

package faults

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	redistest "podlink/test/kit/redis"
	"podlink/test/kit/variants"
)

// TestVariantRetries: builds that retry mutations are found, by the callers' answers and by the servers' counts.
func TestVariantRetries(t *testing.T) {
	byDriver, byPodlink := variants.Build(t, variants.DriverRetries), variants.Build(t, variants.PodlinkRetries)
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
	report, _ := linearizability(t, variants.Build(t, variants.IgnoresDeadline), disturbance{
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
	for _, name := range []string{variants.StaleEpoch, variants.Overwrites} {
		t.Run(name, func(t *testing.T) {
			_, found := linearizability(t, variants.Build(t, name), undisturbed)
			require.NotNil(t, found)
		})
	}
}

// TestVariantRotations: builds that take a broken file, or let a token in that was revoked, are found.
func TestVariantRotations(t *testing.T) {
	variants.RequireFound(t, map[string]variants.Finder{
		variants.BrokenFiles:   {Test: "TestRotation", Text: "Should be empty"},
		variants.RevokedTokens: {Test: "TestRotationOfIdentities", Text: "An error is expected"},
	})
}
