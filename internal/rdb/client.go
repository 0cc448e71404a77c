package rdb

import (
	"context"
	"errors"
	"net"

	"github.com/redis/go-redis/v9"
)

// client is the driver's client, and picks the server for a call.
type client struct {
	driver  redis.UniversalClient
	conns   *conns
	cluster *cluster      // nil unless the mode is Cluster
	single  *redis.Client // nil in mode Cluster

	embedded bool // the in-process store
}

func newClient(o Options) *client {
	conns := newConns(o)
	universal := o.driver()
	universal.Dialer = conns.dialer(o)
	switch o.Mode {
	case Sentinel:
		return newSingle(redis.NewFailoverClient(universal.Failover()), o, conns)
	case Cluster:
		c := newCluster(universal.Cluster(), conns)
		return &client{driver: c, conns: conns, cluster: c}
	default:
		return newSingle(redis.NewClient(universal.Simple()), o, conns)
	}
}

func newSingle(single *redis.Client, o Options, conns *conns) *client {
	single.AddHook(dialHook{})
	// Not in the options that the client was made from: the driver's clients of the sentinels would have it as well.
	if !o.Embedded { // It has no replicas and no INFO.
		single.Options().OnConnect = conns.verify
	}
	return &client{driver: single, conns: conns, single: single, embedded: o.Embedded}
}

// primary returns the client of the primary that owns the key.
func (c *client) primary(ctx context.Context, key string) (*redis.Client, error) {
	if c.cluster == nil {
		return c.single, nil
	}
	return c.cluster.MasterForKey(ctx, key)
}

// eachPrimary calls do for every primary: the only server, or each primary of a cluster.
func (c *client) eachPrimary(ctx context.Context, do func(context.Context, *redis.Client) error) error {
	if c.cluster == nil {
		return do(ctx, c.single)
	}
	return c.cluster.ForEachMaster(ctx, do)
}

// dialHook turns every failed dial into an error that noConnection recognizes. Without it the driver returns a sentinel's
// reply as the reply to the command, and "unknown primary" looks like "no such link".
type dialHook struct{ failed func(context.Context) } // called on a failed dial; may be nil

// dialsServer is the key of a context in which a server of data is dialled, not a sentinel.
type dialsServer struct{}

// DialHook implements redis.Hook.
func (h dialHook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(context.WithValue(ctx, dialsServer{}, true), network, addr)
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
