package redistest

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	slots = 16384
	// clusterLimit bounds how long the nodes may take to agree.
	clusterLimit = 30 * time.Second
)

// Cluster is a Redis Cluster of primaries without replicas.
type Cluster struct {
	nodes []*Server
}

// StartCluster starts that many primaries, which share all slots evenly, and waits until every node sees the whole
// cluster.
func StartCluster(tb testing.TB, nodes int) *Cluster {
	tb.Helper()
	cluster := &Cluster{}
	buses := make([]string, nodes)
	for i := range nodes {
		// By default the bus is on port + 10000, which may be none.
		buses[i] = strconv.Itoa(freePort(tb))
		cluster.nodes = append(cluster.nodes, Start(tb, "--cluster-enabled", "yes", "--cluster-port", buses[i]))
	}
	ctx, cancel := context.WithTimeout(context.Background(), clusterLimit)
	defer cancel()
	clients := make([]*redis.Client, nodes)
	for i, node := range cluster.nodes {
		clients[i] = node.Client(tb)
		from, to := i*slots/nodes, (i+1)*slots/nodes-1
		if err := clients[i].ClusterAddSlotsRange(ctx, from, to).Err(); err != nil {
			tb.Fatalf("node %d takes no slots: %v", i, err)
		}
		if i == 0 {
			continue
		}
		if err := clients[i].Do(ctx, "CLUSTER", "MEET", loopback, cluster.nodes[0].port, buses[0]).Err(); err != nil {
			tb.Fatalf("node %d does not meet the first: %v", i, err)
		}
	}
	for i, client := range clients {
		for !sees(ctx, client, nodes) {
			if ctx.Err() != nil {
				tb.Fatalf("node %d does not see a whole cluster within %s", i, clusterLimit)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return cluster
}

// sees tells whether the node knows that many nodes and an owner of every slot.
func sees(ctx context.Context, client *redis.Client, nodes int) bool {
	info, err := client.ClusterInfo(ctx).Result()
	return err == nil &&
		strings.Contains(info, "cluster_state:ok\r\n") &&
		strings.Contains(info, "cluster_known_nodes:"+strconv.Itoa(nodes)+"\r\n") &&
		strings.Contains(info, "cluster_slots_ok:"+strconv.Itoa(slots)+"\r\n")
}

// Addrs are the nodes' host:port.
func (c *Cluster) Addrs() []string {
	addrs := make([]string, len(c.nodes))
	for i, node := range c.nodes {
		addrs[i] = node.Addr()
	}
	return addrs
}

// Nodes are the cluster's servers, in the order of Addrs.
func (c *Cluster) Nodes() []*Server { return c.nodes }
