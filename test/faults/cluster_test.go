//go:build faults

package faults

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// TestCluster loses the primaries of a cluster in turn. Meanwhile the keys of the other primaries go on.
func TestCluster(t *testing.T) {
	const nodeTimeout = 1500 * time.Millisecond
	cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 3, Replicas: 1, Args: []string{
		"--cluster-node-timeout", "1500", "--cluster-replica-validity-factor", "0", "--appendonly", "yes",
		"--cluster-require-full-coverage", "no", // Else no key can be used while one primary is lost.
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
	require.Zero(t, others.Operations-others.Acknowledged, "of keys whose primary was not lost")
}

// untouched reports the mutations of keys whose primary was not lost, while another one was.
func untouched(r *run, outages []outage) *Report {
	report := &Report{Name: r.report.Name + ", keys of other primaries", Faults: len(outages), wantOperations: 1000}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range outages {
		success := o.from
		for _, c := range r.calls {
			if c.begin < o.from || c.end > o.to || c.kind == compute || o.owned(linkKey(quickPrefix, c.uid)) {
				continue // A compute needs the key of the service's pods as well.
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
