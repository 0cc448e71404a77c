package rdb

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	redistest "podlink/test/kit/redis"
)

// counters returns a step for each of n counters.
func counters(n int) []Step {
	steps := make([]Step, n)
	for i := range steps {
		steps[i] = Step{Script: increment, Key: fmt.Sprint("counter-", i)}
	}
	return steps
}

// classesOf returns how many of the replies have each class; those without an error have -1.
func classesOf(replies []Reply) map[Class]int {
	found := make(map[Class]int)
	for _, reply := range replies {
		class := Class(-1)
		if reply.Err != nil {
			class = ClassOf(reply.Err)
		}
		found[class]++
	}
	return found
}

const done = Class(-1)

// requireValues requires that the counters have the values.
func requireValues(t *testing.T, server *redistest.Server, keys int, want ...string) {
	t.Helper()
	client := server.Client(t)
	for i := range keys {
		require.Contains(t, want, client.Get(t.Context(), fmt.Sprint("counter-", i)).Val(), i)
	}
}

// TestRunEach: every step is executed once and has its own reply, also after the scripts were flushed, and with auto_pipeline
// off.
func TestRunEach(t *testing.T) {
	server := redistest.Start(t)
	for n, coalesce := range []bool{true, false} {
		db, _ := open(t, server, func(o *Options) { o.Coalesce = coalesce })
		steps := counters(1000)
		require.NoError(t, server.Client(t).ScriptFlush(t.Context()).Err())
		require.NoError(t, server.Client(t).Set(t.Context(), "counter-500", "text", 0).Err())
		before := redistest.StatsOf(t, server.Client(t), "evalsha").Calls
		replies := db.Runner.RunEach(t.Context(), steps)
		require.Len(t, replies, len(steps))
		for i, reply := range replies {
			if i == 500 {
				require.ErrorContains(t, reply.Err, "increment: ")
				continue
			}
			require.NoError(t, reply.Err)
			require.Equal(t, []any{"DONE", fmt.Sprint(n + 1)}, reply.Values)
		}
		require.Less(t, redistest.StatsOf(t, server.Client(t), "evalsha").Calls-before, 1000+2*maxTogether)
	}
	db, _ := open(t, server)
	require.Empty(t, db.Runner.RunEach(t.Context(), nil))
}

// TestRunEachSharesRoundTrips: the steps take few round trips, and none of them is long.
func TestRunEachSharesRoundTrips(t *testing.T) {
	server := redistest.Start(t)
	db, _ := open(t, server)
	require.NoError(t, db.Health.Check(t.Context()))
	reads := func() int {
		n, err := strconv.Atoi(redistest.InfoField(server.Client(t).Info(t.Context(), "stats").Val(), "total_reads_processed"))
		require.NoError(t, err)
		return n
	}
	before := reads()
	require.Equal(t, map[Class]int{done: 1000}, classesOf(db.Runner.RunEach(t.Context(), counters(1000))))
	require.Less(t, reads()-before, 100)
	requireValues(t, server, 1000, "1")
}

// TestRunEachLosesReplies: a step whose reply is lost is executed once, and its outcome is unknown; the others have theirs.
func TestRunEachLosesReplies(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.NewProxy(t, server.Addr())
	db, _ := open(t, server, func(o *Options) { o.Addrs = []string{proxy.Addr()} })
	require.NoError(t, db.Health.Check(t.Context()))
	proxy.LoseEvery(100)
	replies := db.Runner.RunEach(t.Context(), counters(1000))
	proxy.LoseEvery(0)
	classes := classesOf(replies)
	require.Positive(t, classes[done])
	require.Positive(t, classes[OutcomeUnknown])
	require.Equal(t, 1000, classes[done]+classes[OutcomeUnknown]+classes[Unavailable], "%v", classes)
	client := server.Client(t)
	for i, reply := range replies {
		value := client.Get(t.Context(), fmt.Sprint("counter-", i)).Val()
		switch {
		case reply.Err == nil:
			require.Equal(t, "1", value)
		case ClassOf(reply.Err) == OutcomeUnknown:
			require.Contains(t, []string{"", "1"}, value)
		default:
			require.Empty(t, value)
		}
	}
}

// TestRunEachWithoutAServer: steps that are not sent say so, and a server that does not answer holds a batch up once.
func TestRunEachWithoutAServer(t *testing.T) {
	server := redistest.Start(t)
	db, _ := open(t, server)
	require.NoError(t, db.Health.Check(t.Context()))
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, map[Class]int{Canceled: 300}, classesOf(db.Runner.RunEach(canceled, counters(300))))

	server.Pause()
	begin := time.Now()
	classes := classesOf(db.Runner.RunEach(t.Context(), counters(1000)))
	require.Less(t, time.Since(begin), 8*testOptions("").ReadTimeout, "not once for each part")
	server.Resume()
	require.Equal(t, 1000, classes[OutcomeUnknown]+classes[Unavailable], "%v", classes)
	require.GreaterOrEqual(t, classes[Unavailable], 1000-2*maxTogether)

	server.Kill()
	classes = classesOf(db.Runner.RunEach(t.Context(), counters(1000)))
	require.GreaterOrEqual(t, classes[Unavailable], 1000-maxTogether, "%v", classes)
	require.Equal(t, map[Class]int{Unavailable: 1000}, classesOf(db.Runner.RunEach(t.Context(), counters(1000))))
}

// TestRunEachClosesTheGate: once the ACL has stopped a step half-way, the steps that were not sent are refused.
func TestRunEachClosesTheGate(t *testing.T) {
	server := redistest.Start(t)
	db, _ := open(t, server)
	require.NoError(t, db.Health.Check(t.Context()))
	require.NoError(t, server.Client(t).Do(t.Context(), "ACL", "SETUSER", "default", "-incr").Err())
	classes := classesOf(db.Runner.RunEach(t.Context(), counters(1000)))
	require.Equal(t, map[Class]int{OutcomeUnknown: maxTogether, Unavailable: 1000 - maxTogether}, classes)
}

// TestRunEachWaitsForReplicas: a step that too few replicas have confirmed has a reply that says so.
func TestRunEachWaitsForReplicas(t *testing.T) {
	server := redistest.Start(t)
	db, _ := open(t, server, func(o *Options) { o.WaitReplicas, o.WaitTimeout = 1, 10*time.Millisecond })
	for _, reply := range db.Runner.RunEach(t.Context(), counters(200)) {
		require.NoError(t, reply.Err)
		require.ErrorContains(t, reply.Unconfirmed, "0 of 1 replicas")
	}
	requireValues(t, server, 200, "1")
}

// TestRunEachOnACluster: the steps go to the nodes of their keys; those of a node that is down fail alone.
func TestRunEachOnACluster(t *testing.T) {
	cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 3, Args: []string{"--cluster-require-full-coverage", "no"}})
	o := testOptions("")
	o.Mode, o.Addrs = Cluster, cluster.Addrs()
	db := Open(o, counterTest)
	t.Cleanup(db.Close)
	require.Equal(t, map[Class]int{done: 1000}, classesOf(db.Runner.RunEach(t.Context(), counters(1000))))
	dead := cluster.Nodes()[0]
	lost := cluster.Owned(dead)
	dead.Kill()
	for i, reply := range db.Runner.RunEach(t.Context(), counters(1000)) {
		if !lost(fmt.Sprint("counter-", i)) {
			require.NoError(t, reply.Err)
			require.Equal(t, "2", reply.Values[1])
		} else {
			require.Contains(t, []Class{Unavailable, OutcomeUnknown}, ClassOf(reply.Err))
		}
	}
}

// TestBulkDoesNotDelaySingleCalls: a single call does not wait behind the queued steps of batches.
func TestBulkDoesNotDelaySingleCalls(t *testing.T) {
	server := redistest.Start(t)
	db, _ := open(t, server)
	lanes := db.Runner.coalescers
	node := db.Runner.client.single
	require.NotSame(t, lanes.to(node, "counter", true), lanes.bulkTo(node, "counter", true))
	require.NotSame(t, lanes.to(node, "counter", false), lanes.bulkTo(node, "counter", false))
	require.Equal(t, maxBulkCost, lanes.bulkTo(node, "counter", true).cost)
}
