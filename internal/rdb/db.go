package rdb

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
	metrics := newMetrics(test.Scripts)
	client := newClient(o)
	coalescers := newCoalescers(o, test.Scripts, client.conns, metrics.batchSizes)
	primaries, warnings := newPrimaries(o.Embedded), newWarnings(o.Logger)
	runner := &Runner{
		client: client, metrics: metrics, replication: coalescers.replication, coalescers: coalescers, primaries: primaries,
	}
	tester := selfTester{SelfTest: test, client: client, runner: runner, options: o, warnings: warnings}
	runner.gate = newGate(tester.run, tester.Layout.verify(client.driver))
	health := newHealth(o, client, runner.gate, primaries, warnings)
	metrics.addGauges(client.driver, runner.coalescers, health)
	return &DB{Runner: runner, Health: health, Metrics: metrics, client: client}
}

// Close closes the connections.
func (db *DB) Close() { _ = db.client.driver.Close() }
