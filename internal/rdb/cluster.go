package rdb

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// stateInterval is the maximum age of the driver's view of a cluster. The driver's default of a minute is how long a
// failover would go unnoticed.
const stateInterval = time.Second

// cluster is the driver's client for a Redis Cluster, plus the clients of the single nodes, which the driver hides.
type cluster struct {
	*redis.ClusterClient
	nodes sync.Map // host:port -> *redis.Client
}

func newCluster(options *redis.ClusterOptions) *cluster {
	options.ClusterStateReloadInterval = stateInterval
	// Routing policies are for commands that go to many nodes, and ask for COMMAND, which a narrow ACL denies.
	options.DisableRoutingPolicies = true
	c := &cluster{ClusterClient: redis.NewClusterClient(options)}
	c.OnNewNode(func(node *redis.Client) {
		c.nodes.Store(node.Options().Addr, node)
		// The driver reloads the cluster's state only when a node answers that it lost the slot, and a dead node
		// doesn't answer.
		node.AddHook(dialHook{failed: c.ReloadState})
	})
	return c
}

// redirected returns the node that Redis redirects a command to which it has not executed, and whether ASKING must
// precede it. It returns nil when err is no redirection.
func (c *cluster) redirected(ctx context.Context, err error, key string) (node *redis.Client, asking bool) {
	addr, moved := redis.IsMovedError(err)
	if !moved {
		addr, asking = redis.IsAskError(err)
	}
	if moved || asking || redis.IsReadOnlyError(err) {
		c.ReloadState(ctx)
	}
	if !moved && !asking {
		return nil, false
	}
	if node = c.node(addr); node == nil {
		// A new node. A read makes the driver connect to it, perhaps under another spelling of its address.
		_ = c.HGet(ctx, key, "").Err()
		if node = c.node(addr); node == nil && moved {
			node, _ = c.MasterForKey(ctx, key)
		}
	}
	return node, asking
}

// node returns the client of a node that the driver has connected to, nil without one.
func (c *cluster) node(addr string) *redis.Client {
	node, _ := c.nodes.Load(addr)
	client, _ := node.(*redis.Client)
	return client
}
