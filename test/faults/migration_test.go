//go:build faults

package faults

import (
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
	"podlink/test/kit/variants"
)

// movingTags are hash tags whose slots are on different nodes at first.
var movingTags = []string{"a", "b", "c"}

// inSlots maps the uids of a workload to the slots of movingTags.
type inSlots struct{ workload }

// next implements workload.
func (s inSlots) next(client int, random *rand.Rand) operation {
	op := s.workload.next(client, random)
	hash := fnv.New32()
	_, _ = hash.Write([]byte(op.uid))
	op.uid = inSlot(movingTags[int(hash.Sum32())%len(movingTags)], op.uid)
	return op
}

// done implements workload.
func (s inSlots) done(c call) {
	_, c.uid, _ = strings.Cut(c.uid, "}")
	s.workload.done(c)
}

// move is the move of a tag's slot. Its times are since the start of the load.
type move struct {
	tag      string
	from, to time.Duration
}

// touches reports whether the call used the slot during the move.
func (m move) touches(c call) bool {
	return strings.HasPrefix(c.uid, inSlot(m.tag, "")) && c.begin < m.to && c.end > m.from
}

// migrate moves the slots of movingTags from node to node of a cluster, while two podlinks, one of which waits for replicas,
// serve a load. All links of the load are in these slots.
func migrate(t *testing.T, binary string, operations int) *Report {
	t.Helper()
	cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 3, Replicas: 1})
	env := append(podlinktest.OnRedis("cluster", cluster.Addrs()...),
		// Long, because this scenario is not about slow replicas on a busy machine.
		"PODLINK_DATA_REDIS_READ_TIMEOUT=900ms", "PODLINK_DATA_REDIS_WAIT_TIMEOUT=800ms")
	podlinks := start(t, binary, 1, env...)
	podlinks = append(podlinks, start(t, binary, 1, append(env, "PODLINK_DATA_REDIS_WAIT_REPLICAS=1")...)...)
	links := newHistories(everything)
	links.prepare(t, podlinks[0])
	entries := &ledger{tags: movingTags}
	r := load{
		podlinks: podlinks, workload: mixture{entries, inSlots{links}}, clients: 8,
		operations: operations, faults: 40, pause: time.Millisecond,
	}.begin(t)

	reader := readBatches(r, entries)
	time.Sleep(time.Second) // Until there are links to move.
	var moves []move
	for r.more() {
		tag := movingTags[len(moves)%len(movingTags)]
		m := move{tag: tag, from: time.Since(r.started)}
		moveToNext(cluster, tag)
		m.to = time.Since(r.started)
		moves = append(moves, m)
		r.injected(len(moves))
	}
	batches, failures := reader.stop()

	report := r.end(t)
	report.Lost = entries.check(t, r.conns[0])
	report.Violations = append(report.Violations, failures...)
	touching := 0
	for _, m := range moves {
		for _, c := range r.calls {
			if m.touches(c) {
				touching++
			}
		}
	}
	r.calls = slices.DeleteFunc(r.calls, func(c call) bool { return c.service == ledgerService })
	if found := illegal(t, historiesOf(links.read(t, r))); found != nil {
		report.violated("uid %s, service %s: history is not linearizable", found.uid, found.service)
	}
	report.publish(t)
	t.Logf("%d slots moved, %d calls on a moving slot, %d batches read", len(moves), touching, batches)
	require.Greater(t, touching, operations/10, "too few calls to prove anything")
	require.Greater(t, batches, 50, "too few batches to prove anything")
	return report
}

// moveToNext moves the slot of the tag to the next primary.
func moveToNext(cluster *redistest.Cluster, tag string) {
	primaries, from := cluster.Primaries(), cluster.Owner(inSlot(tag, ""))
	to := primaries[(slices.Index(primaries, from)+1)%len(primaries)]
	cluster.MoveSlot(redistest.Slot(inSlot(tag, "")), from, to)
}

// batchReader reads batches of acknowledged links until stop, and records those that are missing.
type batchReader struct {
	stopped  chan struct{}
	running  sync.WaitGroup
	batches  int
	failures []string
}

func readBatches(r *run, entries *ledger) *batchReader {
	b := &batchReader{stopped: make(chan struct{})}
	b.running.Go(func() {
		for {
			select {
			case <-b.stopped:
				return
			case <-time.After(10 * time.Millisecond):
				b.read(r, entries)
			}
		}
	})
	return b
}

// read reads the newest entries.
func (b *batchReader) read(r *run, entries *ledger) {
	all := entries.entries()
	newest := all[max(0, len(all)-batch/5):]
	if len(newest) == 0 {
		return
	}
	b.batches++
	linked, err := readBatch(r.conns[b.batches%len(r.conns)], newest)
	if err != nil {
		b.failures = append(b.failures, "a batch: "+err.Error())
		return
	}
	for _, e := range newest {
		if linked[e.uid] != e.pod {
			b.failures = append(b.failures, "a batch lacks "+e.uid)
		}
	}
}

func (b *batchReader) stop() (batches int, failures []string) {
	close(b.stopped)
	b.running.Wait()
	return b.batches, b.failures
}

// TestMigration: callers do not notice that slots move.
func TestMigration(t *testing.T) {
	report := migrate(t, binary, 10_000)
	require.Empty(t, report.Violations)
	require.Zero(t, report.Refused)
	require.Zero(t, report.Unknown)
	require.Zero(t, report.Lost)
}

// TestMigrationKnownBad: Redis refuses scripts with two keys while their slot moves, and the scenario finds that.
func TestMigrationKnownBad(t *testing.T) {
	t.Run("known-bad/two keys per link", func(t *testing.T) {
		report := migrate(t, variants.Build(t, variants.TwoKeys), 3000)
		require.Positive(t, report.Refused)
	})
}
