package redis

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// fastFailover makes a cluster detect a failure within a second.
var fastFailover = []string{"--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0"}

func clientOfCluster(t *testing.T, cluster *Cluster) *redis.ClusterClient {
	t.Helper()
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs(), DisableIdentity: true})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestCluster(t *testing.T) {
	t.Parallel()
	for _, primaries := range []int{1, 3} {
		cluster := StartCluster(t, ClusterOptions{Primaries: primaries})
		require.Len(t, cluster.Addrs(), primaries)
		require.Equal(t, cluster.Nodes(), cluster.Primaries())
		for _, node := range cluster.Nodes() {
			info := node.Client(t).ClusterInfo(context.Background()).Val()
			require.Contains(t, info, "cluster_state:ok")
			require.Contains(t, info, "cluster_slots_ok:16384")
			require.Nil(t, cluster.ReplicaOf(node))
		}
	}
}

func TestSlot(t *testing.T) {
	t.Parallel()
	client := StartCluster(t, ClusterOptions{Primaries: 1}).Nodes()[0].Client(t)
	for _, key := range []string{
		"", "a", "podlink:link:game:alice", "Straße", "{tag}", "x{tag}y", "x{}y", "x{", "x{tag", "x}tag{", "{a}{b}",
		"{{a}}", "\x00\xff",
	} {
		require.EqualValues(t, client.ClusterKeySlot(context.Background(), key).Val(), Slot(key), "%q", key)
	}
}

func TestClusterFailover(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	cluster := StartCluster(t, ClusterOptions{Primaries: 3, Replicas: 1, Args: fastFailover})
	require.Len(t, cluster.Nodes(), 6)
	client := clientOfCluster(t, cluster)
	require.NoError(t, client.Set(ctx, "key", "value", 0).Err())

	killed := cluster.Owner("key")
	owned := cluster.Owned(killed)
	require.True(t, owned("key"))
	require.False(t, owned("abc"))
	replica := cluster.ReplicaOf(killed)
	require.NotNil(t, replica)
	require.NotContains(t, cluster.Primaries(), replica)
	require.EqualValues(t, 1, killed.Client(t).Wait(ctx, 1, 5*time.Second).Val())

	killed.Kill()
	require.Eventually(t, func() bool { return cluster.Owner("key") == replica }, 10*time.Second, poll)
	require.False(t, cluster.healthy(), "a replica is missing")
	killed.Restart()
	cluster.WaitHealthy()
	require.Same(t, killed, cluster.ReplicaOf(replica))
	require.Contains(t, cluster.Primaries(), replica)
	require.NotContains(t, cluster.Primaries(), killed)
	require.Equal(t, "value", replica.Client(t).Get(ctx, "key").Val())
}

func TestClusterMovesSlots(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	const keys = 3*moveBatch + 1
	cluster := StartCluster(t, ClusterOptions{Primaries: 3})
	client := clientOfCluster(t, cluster)
	for i := range keys {
		require.NoError(t, client.Set(ctx, fmt.Sprintf("{tag}%d", i), i, 0).Err())
	}
	from := cluster.Owner("{tag}")
	to := cluster.Nodes()[0]
	if from == to {
		to = cluster.Nodes()[1]
	}
	for range 2 {
		cluster.MoveSlot(Slot("{tag}"), from, to)
		require.Same(t, to, cluster.Owner("{tag}"))
		require.EqualValues(t, keys, to.Client(t).DBSize(ctx).Val())
		require.EqualValues(t, 0, from.Client(t).DBSize(ctx).Val())
		cluster.WaitHealthy()
		from, to = to, from
	}
	for i := range keys {
		require.Equal(t, strconv.Itoa(i), client.Get(ctx, fmt.Sprintf("{tag}%d", i)).Val())
	}
}

func TestClusterBehindProxies(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	cluster := StartCluster(t, ClusterOptions{Primaries: 2, Replicas: 1, Proxied: true})
	client := clientOfCluster(t, cluster)
	require.Len(t, cluster.Proxies(), 4)
	lost := func() int {
		total := 0
		for _, proxy := range cluster.Proxies() {
			total += proxy.Lost()
		}
		return total
	}
	require.NoError(t, client.Eval(ctx, count, []string{"key"}).Err())
	for _, proxy := range cluster.Proxies() {
		proxy.LoseReplies(1)
	}
	for _, key := range []string{"a", "b", "c", "d"} { // Slots of both nodes; the driver retries.
		require.NoError(t, client.Eval(ctx, count, []string{key}).Err())
	}
	require.Equal(t, 2, lost(), "one per primary: the client connects through the proxies")
}
