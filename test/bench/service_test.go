//go:build bench

package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// arena is where the sides are compared: podlink on a Redis, a Kratos server that answers from memory, and one that sends
// one plain command per call to the same Redis.
type arena struct {
	redis                         int // the id of its process
	podlink, second, memory, hget *side
}

// TestService measures the service as its callers see it.
func TestService(t *testing.T) {
	a := newArena(t)
	for _, over := range transports {
		throughput, latency := throughputTable(over), latencyChart(over)
		for run := range runs {
			a.compareThroughput(t, over, throughput, run)
			a.compareLatency(t, over, latency, run, throughput.row(get.name + ", podlink").Cells[perSecond][run])
		}
		results.tables(throughput)
		results.charts(latency)
		throughputTargets(over, throughput)
	}
	a.compareBatches(t)
	a.comparePair(t)
}

func newArena(t *testing.T) *arena {
	t.Helper()
	redis := redistest.Start(t)
	onRedis := podlinktest.OnRedis("standalone", redis.Addr())
	baseline := filepath.Join(t.TempDir(), "baseline")
	build := exec.Command("go", "build", "-tags", "bench", "-trimpath", "-o", baseline, "./baseline")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // As podlink is built.
	output, err := build.CombinedOutput()
	require.NoError(t, err, "%s", output)
	a := &arena{
		redis:   redisPID(t, redis),
		podlink: newSide(t, "podlink", podlinktest.Start(t, binary, onRedis...)),
		second:  newSide(t, "second podlink", podlinktest.Start(t, binary, onRedis...)),
		memory:  newSide(t, "memory", podlinktest.Start(t, baseline)),
		hget:    newSide(t, "one plain command", podlinktest.Start(t, baseline, onRedis...)),
	}
	states := v1.NewStateServiceClient(a.podlink.process.Conn(t))
	for pod := range int32(pods) {
		_, err := states.SetServiceState(t.Context(), &v1.SetServiceStateRequest{
			Namespace: namespace, Service: service, PodId: proto.Int32(pod), State: "up", TtlSeconds: proto.Int32(-1),
		})
		require.NoError(t, err)
	}
	for _, s := range a.sides() {
		fill(t, s, users)
	}
	return a
}

// redisPID is the id of the server's process.
func redisPID(t *testing.T, redis *redistest.Server) int {
	t.Helper()
	pid, err := strconv.Atoi(redis.Client(t).InfoMap(t.Context(), "server").Item("Server", "process_id"))
	require.NoError(t, err)
	return pid
}

// slice is how long one load lasts, and turns how many of them each contender has in a run: many short ones, because the
// machine's own speed changes too.
func slice() time.Duration {
	if quick {
		return 200 * time.Millisecond
	}
	return 500 * time.Millisecond
}

func turns() int {
	if quick {
		return 1
	}
	return 6
}

// sides are those that are compared; memory is the second.
func (a *arena) sides() []*side { return []*side{a.podlink, a.memory, a.hget} }

// fill links users by that many calls.
func fill(t *testing.T, s *side, calls int) {
	t.Helper()
	var made atomic.Int64
	_, err := from(connections, lateLimit, func(ctx context.Context, caller int, _ func(time.Duration)) error {
		for made.Add(1) <= int64(calls) {
			if err := s.overGRPC(set)(ctx, caller); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
}

// The columns of the tables of throughput. What has no sense for a side stays empty.
const (
	perSecond = iota
	ofMemory
	p50
	p99
	p999
	serverCPU
	beyondMemory
	redisCPU
	clientCPU
)

var throughputColumns = []string{
	"calls/s", "of memory's", "p50, ms", "p99, ms", "p99.9, ms", "server's CPU per call, µs", "beyond memory's, µs",
	"Redis' CPU per call, µs", "client's CPU per call, µs",
}

// throughputTable is for what a transport's calls cost.
func throughputTable(over transport) *Table {
	return &Table{
		ID:    "service-" + over.id,
		Title: fmt.Sprintf("The service over %s, %d connections", over.name, connections),
		Note: fmt.Sprintf("Each connection calls, waits for the answer and calls again; %d users. The server, Redis and the clients "+
			"share the machine. The rivals are one Kratos server with podlink's middleware and Kratos' own codecs: it answers from "+
			"memory, or after one plain HGET or HSET.", users),
		Columns: throughputColumns,
	}
}

// compareThroughput loads the sides with each operation in turns.
func (a *arena) compareThroughput(t *testing.T, over transport, table *Table, run int) {
	t.Helper()
	for _, op := range []operation{get, set, compute} {
		progress(run, "%s over %s", op.name, over.name)
		var contenders []contender
		for _, s := range a.sides() {
			contenders = append(contenders, contender{s, over.call(s, op)})
		}
		all := a.inTurns(t, connections, contenders...)
		memory := all[1]
		for i, f := range all {
			side := contenders[i].side
			row := op.name + ", " + side.name
			table.add(row, perSecond, f.rate())
			for column, latency := range f.percentiles(.5, .99, .999) {
				table.add(row, p50+column, latency)
			}
			table.add(row, serverCPU, f.perCall(f.cpu.server))
			table.add(row, clientCPU, f.perCall(f.cpu.client))
			if side != a.memory {
				table.add(row, ofMemory, f.rate()/memory.rate())
				table.add(row, beyondMemory, f.perCall(f.cpu.server)-memory.perCall(memory.cpu.server))
				table.add(row, redisCPU, f.perCall(f.cpu.redis))
			}
		}
	}
}

// throughputTargets are podlink's against the server that answers from memory.
func throughputTargets(over transport, table *Table) {
	results.target(Target{
		Measure: fmt.Sprintf("GetLinkedPod over %s, %d connections: throughput, of the same Kratos server's from memory",
			over.name, connections),
		AtLeast: true, Limit: .75, Runs: table.row(get.name + ", podlink").Cells[ofMemory],
	})
	for _, op := range []operation{get, set} {
		results.target(Target{
			Measure: fmt.Sprintf("%s over %s: CPU per call in podlink beyond that server's", op.name, over.name),
			Limit:   25, Unit: "µs", Runs: table.row(op.name + ", podlink").Cells[beyondMemory],
		})
	}
}

// figures are what a load did, and the CPU time that it took.
type figures struct {
	load
	cpu cpu
}

// cpu is CPU time by who spent it.
type cpu struct{ server, redis, client time.Duration }

// perCall is in microseconds.
func (f *figures) perCall(spent time.Duration) float64 {
	return float64(spent) / float64(time.Microsecond) / float64(f.calls)
}

// spent is what a side, Redis and the clients have used so far.
func (a *arena) spent(t *testing.T, s *side) cpu {
	t.Helper()
	return cpu{server: cpuTime(t, s.process.PID()), redis: cpuTime(t, a.redis), client: cpuTime(t, os.Getpid())}
}

// contender is a call that is compared with others, and the side whose CPU time it is to be told with.
type contender struct {
	side *side
	call call
}

// inTurns makes each call from that many connections: a slice to warm up, and then slices in turns.
func (a *arena) inTurns(t *testing.T, callers int, contenders ...contender) []figures {
	t.Helper()
	total := make([]figures, len(contenders))
	for turn := range turns() + 1 {
		for i, c := range contenders {
			before := a.spent(t, c.side)
			l, err := closed(callers, slice(), c.call)
			require.NoError(t, err)
			if turn == 0 {
				continue
			}
			after := a.spent(t, c.side)
			total[i].add(l)
			total[i].cpu.server += after.server - before.server
			total[i].cpu.redis += after.redis - before.redis
			total[i].cpu.client += after.client - before.client
		}
	}
	return total
}

// latencyChart is for how long a transport's calls take under load.
func latencyChart(over transport) *Chart {
	return &Chart{
		ID:    "service-latency-" + over.id,
		Title: "GetLinkedPod over " + over.name + ": latency against load",
		Note: "The calls come at a fixed rate, whether or not the answers do, and their time counts from when they were due. " +
			"Both servers get the same rate: a share of podlink's own throughput in that run.",
		X: "load, % of podlink's throughput", Y: "latency, ms", LogY: true,
	}
}

// compareLatency loads podlink and the server that answers from memory at shares of the rate, which is podlink's
// throughput.
func (a *arena) compareLatency(t *testing.T, over transport, chart *Chart, run int, rate float64) {
	t.Helper()
	for _, percent := range []float64{10, 25, 50, 75, 90} {
		progress(run, "GetLinkedPod over %s at %.0f %% of %.0f calls/s", over.name, percent, rate)
		for _, s := range []*side{a.podlink, a.memory} {
			l, err := open(connections, rate*percent/100, time.Duration(turns())*slice(), over.call(s, get))
			require.NoError(t, err)
			for i, latency := range l.percentiles(.5, .99, .999) {
				chart.add(s.name+", "+[]string{"p50", "p99", "p99.9"}[i], percent, latency)
			}
		}
	}
}

// compareBatches compares what a uid costs in a batch and alone, over gRPC, from one connection and from all.
func (a *arena) compareBatches(t *testing.T) {
	t.Helper()
	const perSecond, cheaper, podlinkCPU, redisCPU, columns = 0, 1, 2, 3, 4
	table := &Table{
		ID:    "batch-grpc",
		Title: "Batches over gRPC",
		Note:  "How many uids podlink looks up in a second, and how much less one of them costs than by a GetLinkedPod of its own.",
	}
	for _, from := range []string{"1 connection", fmt.Sprintf("%d connections", connections)} {
		for _, column := range []string{"uids/s", "times cheaper", "podlink's CPU per uid, µs", "Redis' CPU per uid, µs"} {
			table.Columns = append(table.Columns, from+": "+column)
		}
	}
	sizes := []int{1, 10, 100, 1000}
	for run := range runs {
		for group, callers := range []int{1, connections} {
			progress(run, "batches, %d at once", callers)
			contenders := []contender{{a.podlink, a.podlink.overGRPC(get)}}
			for _, size := range sizes[1:] {
				contenders = append(contenders, contender{a.podlink, a.podlink.batch(size)})
			}
			all := a.inTurns(t, callers, contenders...)
			for i, f := range all {
				row, size := "GetLinkedPod", float64(sizes[i])
				if i > 0 {
					row = fmt.Sprintf("BatchGetLinkedPod of %d", sizes[i])
					table.add(row, group*columns+cheaper, f.rate()*size/all[0].rate())
				}
				table.add(row, group*columns+perSecond, f.rate()*size)
				table.add(row, group*columns+podlinkCPU, f.perCall(f.cpu.server)/size)
				table.add(row, group*columns+redisCPU, f.perCall(f.cpu.redis)/size)
			}
		}
	}
	results.tables(table)
	results.target(Target{
		Measure: fmt.Sprintf("BatchGetLinkedPod of 1000 over gRPC, %d connections: times cheaper per uid than GetLinkedPod",
			connections),
		AtLeast: true, Limit: 20, Runs: table.row("BatchGetLinkedPod of 1000").Cells[columns+cheaper],
	})
}

// comparePair compares one podlink with two on the same Redis.
func (a *arena) comparePair(t *testing.T) {
	t.Helper()
	chart := &Chart{
		ID:    "growth-processes",
		Title: "podlink processes on one Redis",
		Note: fmt.Sprintf("Calls over gRPC from %d connections, which are spread over the processes. All share the machine.",
			connections),
		X: "podlink processes", Y: "calls per second",
	}
	for run := range runs {
		for _, op := range []operation{get, set} {
			progress(run, "%s from one podlink and from two", op.name)
			one, other := a.podlink.overGRPC(op), a.second.overGRPC(op)
			all := a.inTurns(t, connections, contender{a.podlink, one}, contender{a.podlink,
				func(ctx context.Context, caller int) error {
					if caller%2 == 0 {
						return one(ctx, caller)
					}
					return other(ctx, caller)
				}})
			for i, f := range all {
				chart.add(op.name, float64(i+1), f.rate())
			}
		}
	}
	results.charts(chart)
}
