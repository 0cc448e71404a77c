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
)

// movingTags are hash tags, of slots that belong to different nodes at first.
var movingTags = []string{"a", "b", "c"}

// inSlots puts the uids of a workload into the slots of movingTags.
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

// move is a slot on its way, by its tag; times are since the start of the load.
type move struct {
	tag      string
	from, to time.Duration
}

// touches tells whether the call was about the slot while it was on its way.
func (m move) touches(c call) bool {
	return strings.HasPrefix(c.uid, inSlot(m.tag, "")) && c.begin < m.to && c.end > m.from
}

// migrate moves slots back and forth between the nodes of a cluster, under the load of two podlinks, one of which waits
// for replicas. All links of the load are in these slots.
func migrate(t *testing.T, binary string, operations int) *Report {
	t.Helper()
	cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 3, Replicas: 1})
	env := append(podlinktest.OnRedis("cluster", cluster.Addrs()...),
		// Replicas that are slow on a busy machine are none of this scenario.
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
	time.Sleep(time.Second) // For links to move.
	var moves []move
	for r.more() {
		tag := movingTags[len(moves)%len(movingTags)]
		m := move{tag: tag, from: time.Since(r.started)}
		moveOn(cluster, tag)
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
		report.violated("uid %s, service %s: no order of the calls explains the answers", found.uid, found.service)
	}
	report.publish(t)
	t.Logf("%d slots moved, %d calls on a slot while it moved, %d batches read", len(moves), touching, batches)
	require.Greater(t, touching, operations/10, "too few calls to prove anything")
	require.Greater(t, batches, 50, "too few batches to prove anything")
	return report
}

// moveOn moves the slot of the tag to the next primary.
func moveOn(cluster *redistest.Cluster, tag string) {
	primaries, from := cluster.Primaries(), cluster.Owner(inSlot(tag, ""))
	to := primaries[(slices.Index(primaries, from)+1)%len(primaries)]
	cluster.MoveSlot(redistest.Slot(inSlot(tag, "")), from, to)
}

// batchReader reads batches of links that have to be there, again and again.
type batchReader struct {
	over     chan struct{}
	running  sync.WaitGroup
	batches  int
	failures []string
}

func readBatches(r *run, entries *ledger) *batchReader {
	b := &batchReader{over: make(chan struct{})}
	b.running.Go(func() {
		for {
			select {
			case <-b.over:
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
	stands, err := readBatch(r.conns[b.batches%len(r.conns)], newest)
	if err != nil {
		b.failures = append(b.failures, "a batch: "+err.Error())
		return
	}
	for _, e := range newest {
		if stands[e.uid] != e.pod {
			b.failures = append(b.failures, "a batch lacks "+e.uid)
		}
	}
}

func (b *batchReader) stop() (batches int, failures []string) {
	close(b.over)
	b.running.Wait()
	return b.batches, b.failures
}

// TestMigration: nobody notices that slots move.
func TestMigration(t *testing.T) {
	report := migrate(t, binary, 10_000)
	require.Empty(t, report.Violations)
	require.Zero(t, report.Refused)
	require.Zero(t, report.Unknown)
	require.Zero(t, report.Lost)
}

// TestMigrationKnownBad: scripts on two keys are refused while a slot moves, which this has to find.
func TestMigrationKnownBad(t *testing.T) {
	t.Run("known-bad/two keys per link", func(t *testing.T) {
		report := migrate(t, variant(t, twoKeys), 3000)
		require.Positive(t, report.Refused)
	})
}
