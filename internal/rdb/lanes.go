package rdb

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// coalescers holds the lanes of every server. A lane is the coalescers of one kind of key: calls of different kinds share
// no round trip, because one expensive script would delay all calls of its batch and of those queued behind it.
type coalescers struct {
	kinds       []string // the kinds of keys; calls on another kind use the lane of the first
	limit       int      // max in-flight round trips of a lane before its calls are queued
	batch       int      // max commands per round trip
	conns       *conns
	replication replication // applies to the confirmed coalescers only
	batchSizes  prometheus.Observer
	servers     sync.Map // *redis.Client -> []lane, one for each kind
}

// lane is the coalescers of one kind of key at one server: reads must not share a round trip with mutations that wait for
// replicas, and single calls must not wait for the items of batch requests that are queued before them.
type lane struct{ plain, confirmed, bulk, bulkConfirmed *coalescer }

// newCoalescers returns the coalescers for the options, with a lane for each kind of key of the scripts.
func newCoalescers(o Options, scripts []*Script, conns *conns, batchSizes prometheus.Observer) *coalescers {
	c := &coalescers{
		limit: maxInFlight, batch: maxBatch, conns: conns, batchSizes: batchSizes,
		replication: replication{replicas: o.WaitReplicas, timeout: o.WaitTimeout},
	}
	if !o.Coalesce {
		// Every call has its own round trip. No kind of key may take all connections: the others would wait for them.
		c.limit, c.batch = max(1, o.PoolSize*3/4), 1
	}
	known := make(map[string]bool)
	for _, script := range scripts {
		if !known[script.KeyKind] {
			known[script.KeyKind] = true
			c.kinds = append(c.kinds, script.KeyKind)
		}
	}
	return c
}

// to returns the server's coalescer for single commands on keys of the kind: the one for commands that replicas must confirm, or
// the one for all others.
func (c *coalescers) to(node *redis.Client, kind string, confirmed bool) *coalescer {
	of := c.lane(node, kind)
	if confirmed && c.replication.replicas > 0 {
		return of.confirmed
	}
	return of.plain
}

// bulkTo is like to, for the items of batch requests.
func (c *coalescers) bulkTo(node *redis.Client, kind string, confirmed bool) *coalescer {
	of := c.lane(node, kind)
	if confirmed && c.replication.replicas > 0 {
		return of.bulkConfirmed
	}
	return of.bulk
}

// lane returns the lane of the kind to the server.
func (c *coalescers) lane(node *redis.Client, kind string) *lane {
	server, ok := c.servers.Load(node)
	if !ok {
		server, _ = c.servers.LoadOrStore(node, c.lanes(node))
	}
	lanes := server.([]lane)
	for i, name := range c.kinds {
		if name == kind {
			return &lanes[i]
		}
	}
	return &lanes[0]
}

// lanes returns new lanes to a server. The items of a batch request share round trips whatever the options.
func (c *coalescers) lanes(node *redis.Client) []lane {
	single := func(confirmedBy replication) *coalescer {
		return &coalescer{
			client: node, conns: c.conns, replication: confirmedBy, limit: c.limit, batch: c.batch, cost: maxBatchCost,
			batchSizes: c.batchSizes,
		}
	}
	bulk := func(confirmedBy replication) *coalescer {
		return &coalescer{
			client: node, conns: c.conns, replication: confirmedBy, limit: maxInFlight, batch: maxBatch, cost: maxBulkCost,
			batchSizes: c.batchSizes,
		}
	}
	lanes := make([]lane, max(1, len(c.kinds)))
	for i := range lanes {
		lanes[i] = lane{
			plain: single(replication{}), confirmed: single(c.replication),
			bulk: bulk(replication{}), bulkConfirmed: bulk(c.replication),
		}
	}
	return lanes
}

// load returns the number of queued calls and of in-flight round trips over all servers.
func (c *coalescers) load() (queuedCalls, inFlight int) {
	c.servers.Range(func(_, server any) bool {
		for _, of := range server.([]lane) {
			for _, one := range []*coalescer{of.plain, of.confirmed, of.bulk, of.bulkConfirmed} {
				one.mu.Lock()
				queuedCalls += len(one.queue)
				inFlight += one.inFlight
				one.mu.Unlock()
			}
		}
		return true
	})
	return queuedCalls, inFlight
}
