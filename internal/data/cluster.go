package data

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// stateInterval is how old the driver's view of a cluster may get. Its default of a minute is how long a failover would
// go unnoticed.
const stateInterval = time.Second

// cluster is the driver's client for a Redis Cluster, and what that keeps to itself: the clients of the single nodes.
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
		// The driver looks at the cluster anew only where a node answers that it is no longer in charge, and a dead node
		// does not answer.
		node.AddHook(dialHook{failed: c.ReloadState})
	})
	return c
}

// redirected returns the node to which Redis sends a command on that it has not carried out, and whether it has to be
// told ASKING first; nil when err is not such an answer.
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
		// A new one. The driver meets it by a read of its own, maybe under another spelling of its address.
		_ = c.HGet(ctx, key, "").Err()
		if node = c.node(addr); node == nil && moved {
			node, _ = c.MasterForKey(ctx, key)
		}
	}
	return node, asking
}

// node returns the client of a node that the driver has met, nil without one.
func (c *cluster) node(addr string) *redis.Client {
	node, _ := c.nodes.Load(addr)
	client, _ := node.(*redis.Client)
	return client
}
