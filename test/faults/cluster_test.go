//go:build faults

package faults

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// TestCluster kills the primaries of a cluster in turn. Keys of the other primaries must stay available.
func TestCluster(t *testing.T) {
	const nodeTimeout = 1500 * time.Millisecond
	cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 3, Replicas: 1, Args: []string{
		"--cluster-node-timeout", "1500", "--cluster-replica-validity-factor", "0", "--appendonly", "yes",
		"--cluster-require-full-coverage", "no", // Else the loss of one primary makes all keys unavailable.
	}})
	quick, safe, outages := losePrimaries(t, redundant{
		env: podlinktest.OnRedis("cluster", cluster.Addrs()...),
		kill: func(round int) (*redistest.Server, func(string) bool) {
			primaries := cluster.Primaries()
			primary := primaries[round%len(primaries)]
			owned := cluster.Owned(primary)
			primary.Kill()
			return primary, owned
		},
		repair: func(killed *redistest.Server) {
			killed.Restart()
			cluster.WaitHealthy()
		},
	})
	others := untouched(quick, outages)
	requireRedundancy(t, quick, safe, outages, nodeTimeout+5*time.Second)
	others.publish(t)
	require.Zero(t, others.Operations-others.Acknowledged, "mutations of keys of other primaries")
}

// untouched reports the mutations of other primaries' keys during the outages.
func untouched(r *run, outages []outage) *Report {
	report := &Report{Name: r.report.Name + ", keys of other primaries", Faults: len(outages), wantOperations: 1000}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range outages {
		success := o.from
		for _, c := range r.calls {
			if c.begin < o.from || c.end > o.to || c.kind == compute || o.owned(linkKey(quickPrefix, c.uid)) {
				continue // A compute also needs the key of the service's pods.
			}
			report.Operations++
			report.Late = max(report.Late, c.end-c.begin-serverTimeout)
			switch c.outcome {
			case acknowledged:
				report.Acknowledged++
				report.Unavailable = max(report.Unavailable, c.end-success)
				success = c.end
			case refused:
				report.Refused++
			case unknown:
				report.Unknown++
			case wrong:
			}
		}
	}
	return report
}
