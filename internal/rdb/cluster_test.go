package rdb

import (
	"context"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	redistest "podlink/test/kit/redis"
)

// TestUnknownEndpoints: a cluster that doesn't say the hosts of its nodes is reached at the host of the configured node, with
// the ports that it says; also after a slot has moved.
func TestUnknownEndpoints(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"unknown endpoint": {"--cluster-preferred-endpoint-type", "unknown-endpoint"},
		"unknown hostname": {"--cluster-preferred-endpoint-type", "hostname"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 3, Args: args})
			o := clusterOptions(cluster)
			o.Addrs = o.Addrs[:1]
			db := Open(o, counterTest)
			t.Cleanup(db.Close)
			require.Eventually(t, func() bool { return db.Health.Check(context.Background()) == nil }, 10*time.Second, 10*time.Millisecond)
			const keys = 30
			increment := func(want string) {
				t.Helper()
				for i := range keys {
					key := "counter" + strconv.Itoa(i)
					reply, err := db.Runner.Run(t.Context(), increment, key)
					require.NoError(t, err)
					require.Equal(t, []any{"DONE", want}, reply.Values)
					reply, err = db.Runner.Run(t.Context(), show, key)
					require.NoError(t, err)
					require.Equal(t, []any{"SHOWN", want}, reply.Values)
				}
			}
			increment("1")
			from, to := cluster.Owner("counter0"), cluster.Nodes()[0]
			if to == from {
				to = cluster.Nodes()[1]
			}
			cluster.MoveSlot(redistest.Slot("counter0"), from, to) // podlink learns it from MOVED.
			increment("2")
			known := 0
			db.client.cluster.nodes.Range(func(addr, _ any) bool {
				host, _, err := net.SplitHostPort(addr.(string))
				require.NoError(t, err)
				require.Equal(t, "127.0.0.1", host)
				known++
				return true
			})
			require.Equal(t, 3, known)
		})
	}
}
