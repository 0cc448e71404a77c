//go:build faults

package faults

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

const (
	// primariesLost is how often a scenario kills a primary.
	primariesLost = 10
	// Key prefixes of the scenario's two podlinks.
	quickPrefix, safePrefix = "quick", "safe"
)

// redundant is a Redis deployment that survives the loss of a primary.
type redundant struct {
	env []string // makes podlink use it
	// kill kills a primary. owned reports whether the primary owned a key.
	kill func(round int) (killed *redistest.Server, owned func(key string) bool)
	// repair restarts the killed server, and returns when the next primary may be killed.
	repair func(killed *redistest.Server)
}

// outage is the time from the loss of a primary to its repair. Its times are since the start of the load.
type outage struct {
	from, to time.Duration
	took     time.Duration // until the first mutation of a key of the primary
	owned    func(key string) bool
}

// losePrimaries kills primaries while two podlinks serve loads. The quick one acknowledges a write once the primary has it,
// and shows how long writes are unavailable. The safe one waits for a replica, and shows whether writes are lost even so.
func losePrimaries(t *testing.T, d redundant) (quick, safe *run, outages []outage) {
	t.Helper()
	quick = beginLosses(t, slices.Concat(d.env, []string{"PODLINK_DATA_REDIS_PREFIX=" + quickPrefix}))
	safe = beginLosses(t, slices.Concat(d.env, []string{
		"PODLINK_DATA_REDIS_PREFIX=" + safePrefix, "PODLINK_DATA_REDIS_WAIT_REPLICAS=1",
	}))
	for round := range primariesLost {
		time.Sleep(500 * time.Millisecond)
		killed, owned := d.kill(round)
		at := time.Now()
		took := quick.recovered(t, at, readTimeout, func(uid string) bool { return owned(linkKey(quickPrefix, uid)) })
		d.repair(killed)
		repaired := time.Now()
		safe.recovered(t, repaired, readTimeout, func(uid string) bool { return owned(linkKey(safePrefix, uid)) })
		quick.injected(round + 1)
		safe.injected(round + 1)
		outages = append(outages, outage{
			from: at.Sub(quick.started), to: repaired.Sub(quick.started), took: took, owned: owned,
		})
		t.Logf("primary %d: first mutation after %s, repaired after %s; lost so far: %d, with wait_replicas: %d",
			round+1, took.Round(time.Millisecond), repaired.Sub(at).Round(time.Millisecond),
			quick.workload.(*losses).ledger.check(t, quick.conns[0]),
			safe.workload.(*losses).ledger.check(t, safe.conns[0]))
	}
	return quick, safe, outages
}

// beginLosses starts a podlink and a load that detects lost writes.
func beginLosses(t *testing.T, env []string) *run {
	t.Helper()
	const clients = 8
	podlinks := start(t, binary, 1, env...)
	return load{
		podlinks: podlinks, workload: newLosses(t, podlinks[0], clients), clients: clients,
		operations: 10_000, faults: primariesLost, pause: 5 * time.Millisecond,
	}.begin(t)
}

// linkKey returns the key of a uid's links.
func linkKey(prefix, uid string) string { return prefix + ":link:" + namespace + ":" + uid }

// endLosses ends the load, counts the lost writes and publishes the report.
func endLosses(t *testing.T, r *run, name string) *Report {
	t.Helper()
	report := r.workload.(*losses).end(t, r)
	report.Name += ", " + name
	report.publish(t)
	return report
}

// requireRedundancy asserts that the results of losePrimaries hold the guarantees, with the first mutation after each loss
// within timeout.
func requireRedundancy(t *testing.T, quick, safe *run, outages []outage, timeout time.Duration) {
	t.Helper()
	quickReport, safeReport := endLosses(t, quick, "wait_replicas 0"), endLosses(t, safe, "wait_replicas 1")
	for i, o := range outages {
		require.LessOrEqual(t, o.took, timeout, "the first mutation after loss %d", i+1)
	}
	require.Empty(t, quickReport.Violations)
	require.Empty(t, safeReport.Violations)
	require.Zero(t, safeReport.Lost)
}

// TestSentinel kills the primary of a Sentinel deployment, then the promoted one, and so on.
func TestSentinel(t *testing.T) {
	const downAfter = 1500 * time.Millisecond
	set := redistest.StartSentinel(t, redistest.SentinelOptions{
		DownAfter: downAfter, Password: "data", SentinelPassword: "watch", Args: []string{"--appendonly", "yes"},
	})
	quick, safe, outages := losePrimaries(t, redundant{
		env: append(podlinktest.OnRedis("sentinel", set.Addrs()...), "PODLINK_DATA_REDIS_MASTER_NAME="+set.MasterName(),
			"PODLINK_DATA_REDIS_PASSWORD=data", "PODLINK_DATA_REDIS_SENTINEL_PASSWORD=watch"),
		kill: func(int) (*redistest.Server, func(string) bool) {
			return set.KillPrimary(), func(string) bool { return true }
		},
		repair: func(killed *redistest.Server) {
			set.WaitNewPrimary(killed)
			killed.Restart()
			set.WaitHealthy()
		},
	})
	requireRedundancy(t, quick, safe, outages, downAfter+3*time.Second)
}
