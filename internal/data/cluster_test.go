package data

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	"podlink/test/kit/proc"
	redistest "podlink/test/kit/redis"
)

// TestNewNode: calls succeed when a slot moves to a node that podlink doesn't know yet.
func TestNewNode(t *testing.T) {
	for name, with := range map[string][]option{
		"without replicas":   nil,
		"with wait_replicas": {confirmedBy(1, 400*time.Millisecond)},
	} {
		t.Run(name, func(t *testing.T) {
			c := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 1})
			store := openStore(t, append(with, onCluster(c.Addrs()))...)
			repos := reposOf(store)
			expect := func(err error) {
				t.Helper()
				require.True(t, err == nil || with != nil && isUnconfirmed(err), "%v", err)
			}
			expect(second(repos.Links.Set(t.Context(), populated.link(), 1, biz.Forever, biz.SetTerms{})))

			added := joinCluster(t, c)
			key := store.keys.links("ns", populated.uid)
			c.MoveSlot(redistest.Slot(key), c.Nodes()[0], added)
			expect(second(repos.Links.Set(t.Context(), populated.link(), 2, biz.Forever, biz.SetTerms{})))
			link, err := repos.Links.Get(t.Context(), populated.link())
			require.NoError(t, err)
			require.EqualValues(t, 2, link.Pod)
			require.EqualValues(t, 1, added.Client(t).Exists(t.Context(), key).Val(), "it is on the new node")
		})
	}
}

// joinCluster starts a node without slots and adds it to the cluster.
func joinCluster(t *testing.T, c *redistest.Cluster) *redistest.Server {
	t.Helper()
	bus := proc.FreePorts(t, 1)[0]
	added := redistest.Start(t, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus))
	host, port, err := net.SplitHostPort(added.Addr())
	require.NoError(t, err)
	first := c.Nodes()[0].Client(t)
	require.NoError(t, first.Do(t.Context(), "CLUSTER", "MEET", host, port, bus).Err())
	client := added.Client(t)
	require.Eventually(t, func() bool {
		seen, view := client.ClusterNodes(t.Context()).Val(), first.ClusterNodes(t.Context()).Val()
		return strings.Count(seen, "\n") == 2 && strings.Count(view, "\n") == 2 && !strings.Contains(seen+view, "handshake") &&
			strings.Contains(client.ClusterInfo(t.Context()).Val(), "cluster_state:ok")
	}, 10*time.Second, 20*time.Millisecond, "the nodes know each other, and the new one is part of the cluster")
	return added
}
