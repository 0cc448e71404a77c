package rdb

import (
	"context"
	"errors"
	"net"

	"github.com/redis/go-redis/v9"
)

// client is the driver's client, plus the choice of the server that takes a call.
type client struct {
	driver  redis.UniversalClient
	cluster *cluster      // nil unless the mode is Cluster
	single  *redis.Client // nil if it is
}

func newClient(o Options) *client {
	universal := o.driver()
	switch o.Mode {
	case Sentinel:
		return newSingle(redis.NewFailoverClient(universal.Failover()))
	case Cluster:
		c := newCluster(universal.Cluster())
		return &client{driver: c, cluster: c}
	default:
		return newSingle(redis.NewClient(universal.Simple()))
	}
}

func newSingle(single *redis.Client) *client {
	single.AddHook(dialHook{})
	return &client{driver: single, single: single}
}

// primary returns the client of the server that takes writes of the key.
func (c *client) primary(ctx context.Context, key string) (*redis.Client, error) {
	if c.cluster == nil {
		return c.single, nil
	}
	return c.cluster.MasterForKey(ctx, key)
}

// eachPrimary calls do with every server that takes writes: the only one, or each primary of a cluster.
func (c *client) eachPrimary(ctx context.Context, do func(context.Context, *redis.Client) error) error {
	if c.cluster == nil {
		return do(ctx, c.single)
	}
	return c.cluster.ForEachMaster(ctx, do)
}

// dialHook turns every failure to connect into one that noConnection recognises. Without it the driver passes on what a
// sentinel answered as if it were the reply to the command, and "I don't know this primary" looks like "no such link".
type dialHook struct{ failed func(context.Context) } // called on a failure, if not nil

// DialHook implements redis.Hook.
func (h dialHook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(ctx, network, addr)
		if err == nil {
			return conn, nil
		}
		if h.failed != nil && !errors.Is(err, context.Canceled) {
			h.failed(ctx)
		}
		return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New(err.Error())}
	}
}

// ProcessHook implements redis.Hook.
func (dialHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

// ProcessPipelineHook implements redis.Hook.
func (dialHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
