package rdb

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// stateInterval is the maximum age of the driver's view of a cluster. With the driver's default, a failover could go
// unnoticed for a minute.
const stateInterval = time.Second

// cluster is the driver's client for a Redis Cluster, plus the clients of its nodes, which the driver doesn't expose.
type cluster struct {
	*redis.ClusterClient
	endpoints endpoints
	nodes     sync.Map // host:port -> *redis.Client
}

func newCluster(options *redis.ClusterOptions, conns *conns) *cluster {
	options.ClusterStateReloadInterval = stateInterval
	options.OnConnect = func(context.Context, *redis.Conn) error {
		conns.established()
		return nil
	}
	// Routing policies serve multi-node commands only, and call COMMAND, which a narrow ACL denies.
	options.DisableRoutingPolicies = true
	c := &cluster{endpoints: newEndpoints(options.Addrs)}
	options.NewClient = c.endpoints.newNode
	c.ClusterClient = redis.NewClusterClient(options)
	c.OnNewNode(func(node *redis.Client) {
		c.nodes.Store(node.Options().Addr, node)
		// The driver reloads the cluster's state only after a MOVED reply, and a dead node doesn't send one.
		node.AddHook(dialHook{failed: c.ReloadState})
	})
	return c
}

// redirected returns the target node of a MOVED or ASK reply, and whether ASKING must precede the command. It returns nil
// if err is not a redirection. A redirected command was not executed.
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
		// A new node. A read makes the driver connect to it, maybe under another spelling of its address.
		_ = c.HGet(ctx, key, "").Err()
		if node = c.node(addr); node == nil && moved {
			node, _ = c.MasterForKey(ctx, key)
		}
	}
	return node, asking
}

// node returns the client of a node that the driver already knows, else nil.
func (c *cluster) node(addr string) *redis.Client {
	node, _ := c.nodes.Load(c.endpoints.complete(addr))
	client, _ := node.(*redis.Client)
	return client
}
