package rdb

import (
	"math"
)

// DB is a connection to Redis. Repositories only need its Runner.
type DB struct {
	Runner  *Runner
	Health  *Health
	Metrics *Metrics

	client *client
}

// Open returns a DB that is ready once it has passed the self-test. Open sends nothing; Health reports an unreachable
// Redis.
func Open(o Options, test SelfTest) *DB {
	limit := math.MaxInt
	if o.Coalesce {
		limit = maxInFlight
	}
	metrics := newMetrics(test.Scripts)
	client := newClient(o)
	runner := &Runner{
		client:      client,
		metrics:     metrics,
		replication: replication{replicas: o.WaitReplicas, timeout: o.WaitTimeout},
		coalescers:  &coalescers{limit: limit, batchSizes: metrics.batchSizes},
	}
	runner.coalescers.replication = runner.replication
	runner.gate = newGate(selfTester{SelfTest: test, client: client, runner: runner}.run)
	health := newHealth(o, client, runner.gate)
	metrics.addGauges(client.driver, runner.coalescers, health)
	return &DB{Runner: runner, Health: health, Metrics: metrics, client: client}
}

// Close closes the connections.
func (db *DB) Close() { _ = db.client.driver.Close() }
