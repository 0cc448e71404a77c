//go:build faults

package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
	"podlink/test/kit/variants"
)

const (
	ledgerService = "ledger"
	// batch is how many links one call reads, limits.max_batch.
	batch = 1000
)

// ledger is a workload that links every uid once, so that only a loss can remove or change a link.
type ledger struct {
	tags []string // hash tags for the uids, in turn; empty for none

	mu    sync.Mutex
	begun int32
	acked []entry
}

// entry is an acknowledged write of a ledger.
type entry struct {
	uid  string
	pod  int32
	lost bool
}

// next implements workload.
func (l *ledger) next(int, *rand.Rand) operation {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begun++
	uid := fmt.Sprintf("entry-%d", l.begun)
	if len(l.tags) > 0 {
		uid = inSlot(l.tags[int(l.begun)%len(l.tags)], uid)
	}
	return operation{kind: set, uid: uid, service: ledgerService, pod: l.begun, seconds: forever, expected: noEpoch}
}

// inSlot returns a uid whose key is in the slot of the hash tag.
func inSlot(tag, uid string) string { return "{" + tag + "}" + uid }

// done implements workload.
func (l *ledger) done(c call) {
	if c.outcome != acknowledged {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked = append(l.acked, entry{uid: c.uid, pod: c.pod})
}

// entries returns the writes acknowledged so far.
func (l *ledger) entries() []entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.acked)
}

// check reads all links acknowledged so far, and returns how many of them are lost, or were lost at an earlier check. It
// waits until the store has recovered.
func (l *ledger) check(t testing.TB, conn *grpc.ClientConn) int {
	t.Helper()
	all := l.entries()
	lost := 0
	for chunk := range slices.Chunk(all, batch) {
		deadline := time.Now().Add(readTimeout)
		linked, err := readBatch(conn, chunk)
		for ; err != nil; linked, err = readBatch(conn, chunk) {
			require.True(t, time.Now().Before(deadline), "the store has not recovered: %v", err)
			time.Sleep(20 * time.Millisecond)
		}
		for i, e := range chunk {
			chunk[i].lost = e.lost || linked[e.uid] != e.pod
			if chunk[i].lost {
				lost++
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	copy(l.acked, all)
	return lost
}

// readBatch returns the linked pods, by uid.
func readBatch(conn *grpc.ClientConn, entries []entry) (map[string]int32, error) {
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	request := &v1.BatchGetLinkedPodRequest{Namespace: namespace, Service: ledgerService}
	for _, e := range entries {
		request.Uids = append(request.Uids, e.uid)
	}
	reply, err := v1.NewLinkServiceClient(conn).BatchGetLinkedPod(ctx, request)
	linked := make(map[string]int32)
	for _, pod := range reply.GetPods() {
		for _, uid := range pod.GetUids() {
			linked[uid] = pod.GetPodId()
		}
	}
	return linked, err
}

// mixture distributes the clients over several workloads.
type mixture []workload

func (m mixture) of(client int) workload { return m[client%len(m)] }

// next implements workload.
func (m mixture) next(client int, random *rand.Rand) operation {
	return m.of(client).next(client, random)
}

// done implements workload.
func (m mixture) done(c call) { m.of(c.client).done(c) }

// losses is a mixture of all mutations that detects lost acknowledged writes.
type losses struct {
	mixture
	ledger  *ledger
	writers *writers
}

// newLosses returns the workload for that many clients.
func newLosses(t *testing.T, p *podlinktest.Process, clients int) *losses {
	t.Helper()
	others := newHistories(append([]kind{compute}, mutations...))
	others.prepare(t, p)
	l := &losses{ledger: &ledger{}, writers: newWriters(clients, 50)}
	l.mixture = mixture{l.ledger, l.ledger, l.writers, others}
	return l
}

// end ends the load and returns its report, including lost writes.
func (l *losses) end(t *testing.T, r *run) *Report {
	t.Helper()
	report := r.end(t)
	l.writers.verify(t, r.podlinks[0], report)
	report.Lost += l.ledger.check(t, r.conns[0])
	return report
}

// site is a Redis behind a proxy, which follows failovers.
type site struct {
	redis   *redistest.Server
	front   *redistest.Proxy  // between podlink and redis
	replica *redistest.Server // of redis; nil for none
	between *redistest.Proxy  // between redis and its replica
}

// danger is a setup and a fault that may make Redis lose acknowledged writes.
type danger struct {
	redis      []string // arguments of redis-server
	env        []string // of podlink
	replicated bool
	operations int
	faults     int
	inject     func(t *testing.T, r *run, s *site)
}

// durability runs a load while the fault is injected. The report counts the acknowledged writes that were lost.
func durability(t *testing.T, binary string, d danger) *Report {
	t.Helper()
	s := &site{redis: redistest.Start(t, d.redis...)}
	s.front = redistest.NewProxy(t, s.redis.Addr())
	if d.replicated {
		s.replicate(t, d.redis)
	}
	env := append(podlinktest.OnRedis("standalone", s.front.Addr()), d.env...)
	podlinks := start(t, binary, 1, env...)
	const clients = 8
	workload := newLosses(t, podlinks[0], clients)
	r := load{
		podlinks: podlinks, workload: workload, clients: clients, operations: d.operations, faults: d.faults,
		pause: time.Millisecond,
	}.begin(t)
	d.inject(t, r, s)
	report := workload.end(t, r)
	report.publish(t)
	return report
}

// replicate starts a replica.
func (s *site) replicate(t *testing.T, args []string) {
	t.Helper()
	s.between = redistest.NewProxy(t, s.redis.Addr())
	s.replica = redistest.StartReplica(t, s.between.Addr(), args...)
}

// failOver kills the primary and promotes the replica.
func (s *site) failOver(t *testing.T) {
	t.Helper()
	s.redis.Kill()
	require.NoError(t, s.replica.Client(t).ReplicaOf(t.Context(), "NO", "ONE").Err())
	s.front.Aim(s.replica.Addr())
	s.between.Mend()
	s.redis = s.replica
}

// crashes kills Redis with SIGKILL and restarts it, repeatedly.
func crashes(args ...string) danger {
	return danger{
		redis: args, operations: 3000, faults: 8,
		inject: func(_ *testing.T, r *run, s *site) {
			for n := 1; r.more(); n++ {
				time.Sleep(500 * time.Millisecond)
				s.redis.Restart()
				r.injected(n)
			}
		},
	}
}

// failovers fails over to a replica that has been unreachable for a while, repeatedly.
func failovers(waitReplicas int) danger {
	aof := []string{"--appendonly", "yes"} // So that only the failover can lose a write.
	return danger{
		redis: aof, env: []string{"PODLINK_DATA_REDIS_WAIT_REPLICAS=" + strconv.Itoa(waitReplicas)}, replicated: true,
		operations: 1500, faults: 8,
		inject: func(t *testing.T, r *run, s *site) {
			for n := 2; r.more(); n += 2 { // Two faults per round: the cut and the kill.
				time.Sleep(500 * time.Millisecond)
				s.between.Cut()
				require.Positive(t, s.between.Faults().ConnectionsCut)
				time.Sleep(300 * time.Millisecond)
				s.failOver(t)
				r.injected(n)
				s.replicate(t, aof)
			}
		},
	}
}

// evictions limits the memory of a Redis that may evict keys.
func evictions() danger {
	const room = 200 << 10 // for links, in bytes
	return danger{
		redis:      []string{"--maxmemory-policy", "allkeys-lru"},
		env:        []string{"PODLINK_DATA_REDIS_ALLOW_EVICTION=true"},
		operations: 1000, faults: 100, // evicted keys
		inject: func(t *testing.T, r *run, s *site) {
			client := s.redis.Client(t)
			limit := infoNumber(t, client, "memory", "used_memory") + room
			require.NoError(t, client.ConfigSet(t.Context(), "maxmemory", strconv.Itoa(limit)).Err())
			for r.more() {
				time.Sleep(10 * time.Millisecond)
				r.injected(infoNumber(t, client, "stats", "evicted_keys"))
			}
		},
	}
}

// infoNumber reads a field of INFO.
func infoNumber(t *testing.T, client *redis.Client, section, field string) int {
	t.Helper()
	info, err := client.Info(t.Context(), section).Result()
	require.NoError(t, err)
	_, rest, _ := strings.Cut(info, "\n"+field+":")
	text, _, _ := strings.Cut(rest, "\r\n")
	number, err := strconv.Atoi(text)
	require.NoError(t, err)
	return number
}

// TestDurability counts lost acknowledged writes on a Redis that is configured to survive the fault.
func TestDurability(t *testing.T) {
	for _, row := range []struct {
		name     string
		danger   danger
		promised bool
	}{
		{"AOF always, kill -9", crashes("--appendonly", "yes", "--appendfsync", "always"), true},
		// Redis delays writes during an fsync and replies all the same: with a slow disk it does lose writes.
		{"AOF everysec, kill -9", crashes("--appendonly", "yes", "--appendfsync", "everysec"), false},
		{"cut and failover with wait_replicas 1", failovers(1), true},
	} {
		t.Run(row.name, func(t *testing.T) {
			report := durability(t, binary, row.danger)
			require.Empty(t, report.Violations)
			if row.promised {
				require.Zero(t, report.Lost)
			}
		})
	}
}

// TestDurabilityKnownBad: setups that lose writes are detected. Otherwise "none lost" would prove nothing.
func TestDurabilityKnownBad(t *testing.T) {
	for _, row := range []struct {
		name   string
		danger danger
	}{
		{"no AOF", crashes()},
		{"eviction on", evictions()},
		{"cut and failover without wait_replicas", failovers(0)},
	} {
		t.Run("known-bad/"+row.name, func(t *testing.T) {
			require.Positive(t, durability(t, binary, row.danger).Lost)
		})
	}
	t.Run("known-bad/WAIT left out", func(t *testing.T) {
		require.Positive(t, durability(t, variants.Build(t, variants.NoWait), failovers(1)).Lost)
	})
}
