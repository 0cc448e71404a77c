package data

import (
	"context"
	"errors"
	"net"
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
		node.AddHook(dialFailures{c.ReloadState})
	})
	return c
}

// dialFailures is a hook that tells when a node can't be dialed: it may have failed over. The driver looks at the
// cluster anew only where a node answers that it is no longer in charge, and a dead node does not answer.
type dialFailures struct{ tell func(context.Context) }

// DialHook implements redis.Hook.
func (h dialFailures) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(ctx, network, addr)
		if err != nil && !errors.Is(err, context.Canceled) {
			h.tell(ctx)
		}
		return conn, err
	}
}

// ProcessHook implements redis.Hook.
func (dialFailures) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

// ProcessPipelineHook implements redis.Hook.
func (dialFailures) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// redirected returns the node to which Redis sends a command that it has not carried out, and whether it has to be told
// ASKING first; nil when err is not a redirection, or to a node that the driver has not met.
func (c *cluster) redirected(ctx context.Context, err error) (node *redis.Client, asking bool) {
	addr, moved := redis.IsMovedError(err)
	if !moved {
		if addr, asking = redis.IsAskError(err); !asking {
			return nil, false
		}
	}
	c.ReloadState(ctx)
	if known, ok := c.nodes.Load(addr); ok {
		return known.(*redis.Client), asking
	}
	return nil, false
}
