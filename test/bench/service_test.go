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

// arena has the servers to compare: podlink on a Redis, a Kratos server that answers from memory, and one that sends one plain
// command per call to the same Redis.
type arena struct {
	redis                         int // process id
	podlink, second, memory, hget *side
}

// TestService measures the service from the callers' side.
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
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // Like podlink.
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

// redisPID returns the process id of a redis-server.
func redisPID(t *testing.T, redis *redistest.Server) int {
	t.Helper()
	pid, err := strconv.Atoi(redis.Client(t).InfoMap(t.Context(), "server").Item("Server", "process_id"))
	require.NoError(t, err)
	return pid
}

// slice is the length of one load, and turns the number of loads per contender in a run. They are many and short, because the
// machine's speed changes.
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

// sides returns the servers; the second one answers from memory.
func (a *arena) sides() []*side { return []*side{a.podlink, a.memory, a.hget} }

// fill links the users, one per call.
func fill(t *testing.T, s *side, calls int) {
	t.Helper()
	var made atomic.Int64
	_, err := from(connections, overrunTimeout, func(ctx context.Context, caller int, _ func(time.Duration)) error {
		for made.Add(1) <= int64(calls) {
			if err := s.overGRPC(set)(ctx, caller); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
}

// Columns of the throughput tables. A cell is empty if it makes no sense for a side.
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

// throughputTable returns the table of a transport's throughput and costs.
func throughputTable(over transport) *Table {
	return &Table{
		ID:    "service-" + over.id,
		Title: fmt.Sprintf("The service over %s, %d connections", over.name, connections),
		Note: fmt.Sprintf("Each connection calls, waits for the answer and calls again; %d users. The server, Redis and the clients "+
			"share the machine. The rivals are one Kratos server with podlink's middleware and Kratos' default codecs: it answers from "+
			"memory, or after one plain HGET or HSET.", users),
		Columns: throughputColumns,
	}
}

// compareThroughput loads the sides in turns, with each operation.
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

// throughputTargets adds podlink's targets relative to the server that answers from memory.
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

// figures is a load with its CPU time.
type figures struct {
	load
	cpu cpu
}

// cpu is CPU time by process.
type cpu struct{ server, redis, client time.Duration }

// perCall returns the CPU time per call in microseconds.
func (f *figures) perCall(spent time.Duration) float64 {
	return float64(spent) / float64(time.Microsecond) / float64(f.calls)
}

// spent returns the CPU time of a side, Redis and the clients so far.
func (a *arena) spent(t *testing.T, s *side) cpu {
	t.Helper()
	return cpu{server: cpuTime(t, s.process.PID()), redis: cpuTime(t, a.redis), client: cpuTime(t, os.Getpid())}
}

// contender is a call to compare, with the side whose CPU time counts.
type contender struct {
	side *side
	call call
}

// addFigures adds the result of other loads.
func (f *figures) addFigures(other figures) {
	f.add(other.load)
	f.cpu.server += other.cpu.server
	f.cpu.redis += other.cpu.redis
	f.cpu.client += other.cpu.client
}

// inTurns makes the contenders' calls in turns.
func (a *arena) inTurns(t *testing.T, callers int, contenders ...contender) []figures {
	t.Helper()
	return a.paced(t, pace{slice(), turns()}, callers, contenders...)
}

// paced makes the contenders' calls in turns at a pace. The first turn is a warm-up and doesn't count.
func (a *arena) paced(t *testing.T, p pace, callers int, contenders ...contender) []figures {
	t.Helper()
	total := make([]figures, len(contenders))
	for turn := range p.turns + 1 {
		for i, c := range contenders {
			before := a.spent(t, c.side)
			l, err := closed(callers, p.slice, c.call)
			require.NoError(t, err)
			if turn == 0 {
				continue
			}
			after := a.spent(t, c.side)
			total[i].addFigures(figures{l, cpu{
				server: after.server - before.server, redis: after.redis - before.redis, client: after.client - before.client,
			}})
		}
	}
	return total
}

// latencyChart returns the chart of a transport's latency under load.
func latencyChart(over transport) *Chart {
	return &Chart{
		ID:    "service-latency-" + over.id,
		Title: "GetLinkedPod over " + over.name + ": latency against load",
		Note: "The calls come at a fixed rate even if answers are late, and their latency counts from when they were due. " +
			"Both servers get the same rate: a share of podlink's own throughput in that run.",
		X: "load, % of podlink's throughput", Y: "latency, ms", LogY: true,
	}
}

// compareLatency loads podlink and the server that answers from memory at shares of podlink's throughput.
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

// compareBatches compares the cost of a uid in a batch and alone, over gRPC, with one connection and with all.
func (a *arena) compareBatches(t *testing.T) {
	t.Helper()
	const perSecond, cheaper, podlinkCPU, redisCPU, columns = 0, 1, 2, 3, 4
	table := &Table{
		ID:    "batch-grpc",
		Title: "Batches over gRPC",
		Note:  "Uids that podlink looks up per second, and how much cheaper each is than with its own GetLinkedPod.",
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

// comparePair compares one podlink process with two on the same Redis.
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
