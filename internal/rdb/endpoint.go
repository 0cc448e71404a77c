package rdb

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// endpoints completes the addresses of a cluster's nodes: where the cluster doesn't say the host of a node (Redis' setting
// cluster-preferred-endpoint-type, such as behind a load balancer), it is the host at which the cluster is reached.
type endpoints struct{ host string }

// newEndpoints returns the endpoints of a cluster with these configured nodes.
func newEndpoints(addrs []string) endpoints {
	if len(addrs) == 0 {
		return endpoints{}
	}
	host, _, _ := net.SplitHostPort(addrs[0])
	return endpoints{host: host}
}

// complete returns the address with the host filled in, if it is unknown.
func (e endpoints) complete(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host != "" && host != "?" {
		return addr
	}
	return net.JoinHostPort(e.host, port)
}

// newNode returns the driver's client of a node.
func (e endpoints) newNode(o *redis.Options) *redis.Client {
	o.Addr = e.complete(o.Addr)
	node := redis.NewClient(o)
	host, _, _ := net.SplitHostPort(o.Addr)
	node.AddHook(slotsHook{endpoints{host: host}})
	return node
}

// slotsHook reads replies to CLUSTER SLOTS in the driver's place, which rejects one without hosts. It completes them with the
// host of the node that answers.
type slotsHook struct{ endpoints }

// DialHook implements redis.Hook.
func (slotsHook) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessPipelineHook implements redis.Hook.
func (slotsHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// ProcessHook implements redis.Hook.
func (h slotsHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		slots, ok := cmd.(*redis.ClusterSlotsCmd)
		if !ok {
			return next(ctx, cmd)
		}
		raw := redis.NewSliceCmd(ctx, slots.Args()...)
		err := next(ctx, raw)
		if err == nil {
			var value []redis.ClusterSlot
			value, err = h.slots(raw.Val())
			slots.SetVal(value)
		}
		slots.SetErr(err)
		return err
	}
}

// slots parses the reply to CLUSTER SLOTS: ranges of slots, each with its nodes.
func (h slotsHook) slots(reply []any) ([]redis.ClusterSlot, error) {
	slots := make([]redis.ClusterSlot, 0, len(reply))
	for _, entry := range reply {
		fields, _ := entry.([]any)
		if len(fields) < 2 {
			return nil, fmt.Errorf("reply to CLUSTER SLOTS: %v is not a range with nodes", entry)
		}
		start, isStart := fields[0].(int64)
		end, isEnd := fields[1].(int64)
		if !isStart || !isEnd {
			return nil, fmt.Errorf("reply to CLUSTER SLOTS: %v is not a range", fields[:2])
		}
		slot := redis.ClusterSlot{Start: int(start), End: int(end)}
		for _, field := range fields[2:] {
			node, err := h.node(field)
			if err != nil {
				return nil, err
			}
			slot.Nodes = append(slot.Nodes, node)
		}
		slots = append(slots, slot)
	}
	return slots, nil
}

// node parses a node: its host or nil, its port, and maybe its id and more.
func (h slotsHook) node(field any) (redis.ClusterNode, error) {
	parts, _ := field.([]any)
	if len(parts) < 2 {
		return redis.ClusterNode{}, fmt.Errorf("reply to CLUSTER SLOTS: %v is not a node", field)
	}
	host, _ := parts[0].(string)
	port, ok := parts[1].(int64)
	if !ok {
		return redis.ClusterNode{}, fmt.Errorf("reply to CLUSTER SLOTS: %v is not a port", parts[1])
	}
	node := redis.ClusterNode{Addr: h.complete(net.JoinHostPort(host, strconv.FormatInt(port, 10)))}
	if len(parts) > 2 {
		node.ID, _ = parts[2].(string)
	}
	return node, nil
}
