//go:build bench

package bench

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// The change feed, the index, the lists and the watches are measured by the tests whose names begin with TestFleet: `make bench-fleet`
// runs them alone, `make bench` among the others. A new one needs such a name, and a chart or table with an id fleet-….

// Forms of podlink, by what they do about a change of a link.
const (
	feedAndIndex = "feed and index"
	feedOnly     = "feed only"
	neither      = "neither"
)

// form is a form of podlink. Each has a prefix in the shared Redis, because an index lacks what another form has changed.
type form struct {
	name, binary string
	env          []string
	// moves and sessions count the calls of all its processes, so that each changes a link.
	moves, sessions atomic.Int64
}

// TestFleetCost compares podlink with the change feed and the index, without the index, and without both.
func TestFleetCost(t *testing.T) {
	bare, err := podlinktest.Build(t.TempDir(), unfed...)
	require.NoError(t, err)
	redis := redistest.Start(t)
	forms := []*form{
		{name: feedAndIndex, binary: binary, env: []string{"PODLINK_FLEET_INDEX=true"}},
		{name: feedOnly, binary: binary, env: []string{"PODLINK_FLEET_INDEX=false"}},
		{name: neither, binary: bare, env: []string{"PODLINK_FLEET_INDEX=false"}},
	}
	for i, f := range forms {
		f.env = append(f.env, podlinktest.OnRedis("standalone", redis.Addr())...)
		f.env = append(f.env, fmt.Sprintf("PODLINK_DATA_REDIS_PREFIX=form%d", i), "PODLINK_SERVER_STOP_DRAIN=0s")
	}
	a, table := &arena{redis: redisPID(t, redis)}, fleetCostTable()
	for run := range runs {
		all := make(map[string]*fleetCost) // by row
		for pair := range pairsEach() {
			progress(run, "feed and index, or not: processes %d of %d", pair+1, pairsEach())
			a.compareForms(t, forms, pair, all)
		}
		for _, op := range fleetOperations {
			for _, f := range forms {
				all[op.name+", "+f.name].record(table, op.name+", "+f.name)
			}
		}
	}
	results.tables(table)
	for _, op := range fleetOperations {
		cells := table.row(op.name + ", " + feedAndIndex).Cells
		results.target(Target{
			Measure: fmt.Sprintf("%s over gRPC with feed and index, %d connections: throughput, of that without both", op.name, connections),
			AtLeast: true, Limit: .9, Runs: cells[fleetThroughput],
		})
		results.target(Target{
			Measure: op.name + " over gRPC with feed and index, one caller: median latency, of that without both",
			Limit:   1.05, Runs: cells[fleetLatency],
		})
	}
}

// Columns of the table of TestFleetCost.
const (
	fleetPerSecond = iota
	fleetThroughput
	fleetPodlinkCPU
	fleetRedisCPU
	fleetP50
	fleetLatency
	fleetP99
)

func fleetCostTable() *Table {
	return &Table{
		ID: "fleet-cost", Title: "What the change feed and the index cost",
		Note: fmt.Sprintf("podlink, podlink with fleet.index off, and podlink built without the feed and with fleet.index off, over gRPC "+
			"in turns on one Redis; %d times three processes in a run. Ratios are the medians of these. A move is a SetLinkedPod to "+
			"another pod, which changes the indexes of both; a session is a SetLinkedPodIfAbsent of a new user and the RemoveLinkedPod "+
			"of the link.", pairsEach()),
		Columns: []string{
			fmt.Sprintf("%d connections: calls/s", connections), "of neither's", "podlink's CPU per call, µs", "Redis' CPU per call, µs",
			"one caller: p50, ms", "of neither's", "p99, ms",
		},
	}
}

// fleetCost is what an operation costs a form of podlink, in a run.
type fleetCost struct {
	many, one           figures
	throughput, latency Runs // as ratios to the form without both, of each round of processes
}

func (c *fleetCost) record(table *Table, row string) {
	table.add(row, fleetPerSecond, c.many.rate())
	table.add(row, fleetThroughput, c.throughput.Median())
	table.add(row, fleetPodlinkCPU, c.many.perCall(c.many.cpu.server))
	table.add(row, fleetRedisCPU, c.many.perCall(c.many.cpu.redis))
	latencies := c.one.percentiles(.5, .99)
	table.add(row, fleetP50, latencies[0])
	table.add(row, fleetLatency, c.latency.Median())
	table.add(row, fleetP99, latencies[1])
}

// fleetOperations are the measured calls of a form of podlink.
var fleetOperations = []struct {
	name string
	call func(f *form, s *side) call
}{
	{"GetLinkedPod", func(_ *form, s *side) call { return s.overGRPC(get) }},
	{"move", (*form).move},
	{"session", (*form).session},
}

// move sets a user's link to another pod.
func (f *form) move(s *side) call {
	return func(ctx context.Context, caller int) error {
		link, err := set.grpc(ctx, s.links[caller], int(f.moves.Add(1)))
		if err != nil {
			return err
		}
		return s.standing(link.GetPodId(), link.GetEpoch() > 0)
	}
}

// session links a new user, and removes the link.
func (f *form) session(s *side) call {
	return func(ctx context.Context, caller int) error {
		n := users + int(f.sessions.Add(1))
		reply, err := s.links[caller].SetLinkedPodIfAbsent(ctx, &v1.SetLinkedPodIfAbsentRequest{
			Namespace: namespace, Uid: user(n), Service: service, PodId: proto.Int32(podOf(n)),
		})
		if err != nil {
			return err
		}
		if err := s.standing(reply.GetLink().GetPodId(), reply.GetLink().GetEpoch() > 0); err != nil {
			return err
		}
		_, err = s.links[caller].RemoveLinkedPod(ctx, &v1.RemoveLinkedPodRequest{Namespace: namespace, Uid: user(n), Service: service})
		return err
	}
}

// compareForms starts a process of each form, and makes their calls in turns.
func (a *arena) compareForms(t *testing.T, forms []*form, round int, all map[string]*fleetCost) {
	t.Helper()
	first := round % len(forms) // The machine changes between the first and the last.
	forms = slices.Concat(forms[first:], forms[:first])
	sides := make([]*side, len(forms))
	for i, f := range forms {
		sides[i] = newSide(t, f.name, podlinktest.Start(t, f.binary, f.env...))
		if f.moves.Load() == 0 {
			fill(t, sides[i], users)
			f.moves.Store(users)
		}
		if f.name == feedAndIndex {
			awaitComplete(t, sides[i].process) // A census would count as its cost.
		}
	}
	bare := slices.IndexFunc(forms, func(f *form) bool { return f.name == neither })
	for _, op := range fleetOperations {
		contenders := make([]contender, len(forms))
		for i, f := range forms {
			contenders[i] = contender{sides[i], op.call(f, sides[i])}
		}
		many := a.paced(t, brief(), connections, contenders...)
		one := a.paced(t, brief(), 1, contenders...)
		for i, f := range forms {
			row := op.name + ", " + f.name
			if all[row] == nil {
				all[row] = new(fleetCost)
			}
			c := all[row]
			c.many.addFigures(many[i])
			c.one.addFigures(one[i])
			c.throughput = append(c.throughput, many[i].rate()/many[bare].rate())
			c.latency = append(c.latency, one[i].percentiles(.5)[0]/one[bare].percentiles(.5)[0])
		}
	}
	for _, s := range sides {
		require.Zero(t, s.process.Stop(t))
	}
}

// brief is the pace of processes that are compared for some seconds, because a process differs from the next for its whole life.
func brief() pace { return pace{slice() / 2, (turns() + 1) / 2} }

// awaitComplete waits until the index has every link.
func awaitComplete(t *testing.T, process *podlinktest.Process) {
	t.Helper()
	fleet := v1.NewFleetServiceClient(process.Conn(t))
	const patience = 5 * time.Minute
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		reply, err := fleet.CountPodLinks(t.Context(), &v1.CountPodLinksRequest{Namespace: namespace, Service: service})
		require.NoError(t, err)
		if reply.GetComplete() {
			return
		}
		require.Less(t, time.Since(begin), patience, "the index is not complete")
	}
}
