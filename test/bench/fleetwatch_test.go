//go:build bench

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// watchLoad is how long changes are made in a run.
func watchLoad() time.Duration {
	if quick {
		return time.Second
	}
	return 10 * time.Second
}

// TestFleetWatch measures how late one watcher gets the changes of a busy service. It watches another podlink than the one that makes
// them.
func TestFleetWatch(t *testing.T) {
	rate := 5000.
	if quick {
		rate = 500
	}
	const p50, p99, most, ofCall, calls, writerCPU, watcherCPU, redisCPU = 0, 1, 2, 3, 4, 5, 6, 7
	row := fmt.Sprintf("%s changes a second", figure(rate))
	table := &Table{
		ID: "fleet-watch", Title: "From a change to a watcher",
		Note: fmt.Sprintf("SetLinkedPod at a fixed rate from %d connections to one podlink, and one watcher of another one. The time of a "+
			"change is when podlink has got Redis' answer to it.", connections),
		Columns: []string{
			"p50, ms", "p99, ms", "latest, ms", "p99 from the start of the call, ms", "p99 of the calls, ms",
			"writing podlink, cores", "watched podlink, cores", "Redis, cores",
		},
	}
	redis := redistest.Start(t)
	onRedis := podlinktest.OnRedis("standalone", redis.Addr())
	writer, watched := newSide(t, "writer", podlinktest.Start(t, binary, onRedis...)), podlinktest.Start(t, binary, onRedis...)
	watched.WaitReady(t)
	awaitComplete(t, writer.process) // A census would be in the way.
	conn, moves, began := watched.Conn(t), new(atomic.Int64), make([]atomic.Int64, users)
	for run := range runs {
		progress(run, "one watcher at %s", row)
		var late, lateOfCall, made load
		var err error
		spent := coresOf(t, writer.process.PID(), watched.PID(), redisPID(t, redis))
		watching(t, []*grpc.ClientConn{conn}, int(rate*watchLoad().Seconds()), func(_ int, c *v1.LinkChange) {
			late.latencies = append(late.latencies, time.Since(c.GetTime().AsTime()))
			lateOfCall.latencies = append(lateOfCall.latencies, time.Since(time.Unix(0, began[number(c)].Load())))
		}, func() {
			made, err = open(connections, rate, watchLoad(), func(ctx context.Context, caller int) error {
				n := int(moves.Add(1))
				began[n%users].Store(time.Now().UnixNano())
				_, err := set.grpc(ctx, writer.links[caller], n)
				return err
			})
			require.NoError(t, err)
		})
		for column, latency := range late.percentiles(.5, .99, 1) {
			table.add(row, p50+column, latency)
		}
		table.add(row, ofCall, lateOfCall.percentiles(.99)[0])
		table.add(row, calls, made.percentiles(.99)[0])
		for i, cores := range spent() {
			table.add(row, writerCPU+i, cores)
		}
	}
	results.tables(table)
	results.target(Target{
		Measure: "From a change to its watcher, p99 at " + row, Limit: 100, Unit: "ms", Runs: table.row(row).Cells[p99],
	})
}

// number returns the number of a change's user.
func number(c *v1.LinkChange) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(c.GetLink().GetUid(), "user-")) // The benchmark has made all uids.
	return n
}

// TestFleetWatchers measures how late many watchers of a service get its changes, and what they cost podlink.
func TestFleetWatchers(t *testing.T) {
	watchers := 1000
	if quick {
		watchers = 100
	}
	const rate = 100.
	const p50, p99, most, podlinkCPU, redisCPU, clientCPU = 0, 1, 2, 3, 4, 5
	row := fmt.Sprintf("%d watchers, %s changes a second", watchers, figure(rate))
	table := &Table{
		ID: "fleet-watchers", Title: "Many watchers of one service",
		Note:    "Each watcher has its own connection to the podlink that makes the changes. All watchers are one process of the same machine.",
		Columns: []string{"p50, ms", "p99, ms", "latest, ms", "podlink, cores", "Redis, cores", "all clients, cores"},
	}
	redis := redistest.Start(t)
	a := &arena{redis: redisPID(t, redis)}
	a.podlink = newSide(t, "podlink", podlinktest.Start(t, binary,
		append(podlinktest.OnRedis("standalone", redis.Addr()),
			"PODLINK_SERVER_MAX_CONNECTIONS_PER_PEER=8192", "PODLINK_SERVER_MAX_WATCHES_PER_CALLER=4096")...))
	awaitComplete(t, a.podlink.process)
	moves := new(atomic.Int64)
	conns := make([]*grpc.ClientConn, watchers)
	for i := range conns {
		conns[i] = a.podlink.process.Conn(t)
	}
	for run := range runs {
		progress(run, "%s", row)
		var late load
		each := make([][]time.Duration, watchers)
		var spent func() []float64
		watching(t, conns, int(rate*watchLoad().Seconds()), func(watcher int, c *v1.LinkChange) {
			each[watcher] = append(each[watcher], time.Since(c.GetTime().AsTime()))
		}, func() {
			spent = coresOf(t, a.podlink.process.PID(), a.redis, os.Getpid())
			_, err := open(connections, rate, watchLoad(), func(ctx context.Context, caller int) error {
				_, err := set.grpc(ctx, a.podlink.links[caller], int(moves.Add(1)))
				return err
			})
			require.NoError(t, err)
		})
		for _, latencies := range each {
			late.latencies = append(late.latencies, latencies...)
		}
		for i, cores := range spent() {
			table.add(row, podlinkCPU+i, cores)
		}
		for column, latency := range late.percentiles(.5, .99, 1) {
			table.add(row, p50+column, latency)
		}
	}
	results.tables(table)
	results.target(Target{Measure: row + ": the latest change at any watcher", Limit: 300, Unit: "ms", Runs: table.row(row).Cells[most]})
	results.target(Target{Measure: row + ": podlink's CPU", Limit: 1, Unit: "cores", Runs: table.row(row).Cells[podlinkCPU]})
}

// watching runs load while a watcher on each connection follows the service, and returns when each has got as many changes as wanted.
// take must be safe for calls about several watchers at once.
func watching(t *testing.T, conns []*grpc.ClientConn, want int, take func(watcher int, c *v1.LinkChange), load func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), watchLoad()+2*overrunTimeout)
	defer cancel()
	var begun, ended sync.WaitGroup
	errs := make([]error, len(conns))
	for i, conn := range conns {
		begun.Add(1)
		ended.Go(func() {
			begin := sync.OnceFunc(begun.Done)
			defer begin()
			errs[i] = follow(ctx, conn, want, begin, func(c *v1.LinkChange) { take(i, c) })
		})
	}
	begun.Wait()
	load()
	ended.Wait()
	require.NoError(t, errors.Join(errs...))
}

// follow watches the service until it has got as many changes as wanted. It calls begin after the first message.
func follow(ctx context.Context, conn *grpc.ClientConn, want int, begin func(), take func(*v1.LinkChange)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := v1.NewFleetServiceClient(conn).WatchLinks(ctx, &v1.WatchLinksRequest{Namespace: namespace, Service: service})
	if err != nil {
		return err
	}
	for got := 0; got < want; begin() {
		message, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("after %d of %d changes: %w", got, want, err)
		}
		if resync := message.GetResync(); resync > v1.WatchLinksReply_START {
			return fmt.Errorf("the watcher was told %s after %d of %d changes", resync, got, want)
		}
		for _, c := range message.GetChanges() {
			take(c)
		}
		got += len(message.GetChanges())
	}
	return nil
}

// coresOf returns a function that returns how many cores each process has used since, on average.
func coresOf(t *testing.T, pids ...int) func() []float64 {
	t.Helper()
	begin, before := time.Now(), make([]time.Duration, len(pids))
	for i, pid := range pids {
		before[i] = cpuTime(t, pid)
	}
	return func() []float64 {
		t.Helper()
		cores := make([]float64, len(pids))
		for i, pid := range pids {
			cores[i] = float64(cpuTime(t, pid)-before[i]) / float64(time.Since(begin))
		}
		return cores
	}
}
