//go:build faults

package faults

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	podlinktest "podlink/test/kit/podlink"
)

const (
	// serverTimeout is podlink's request timeout, the default of server.grpc.timeout.
	serverTimeout = time.Second
	// maxLateness is how far a call may exceed serverTimeout.
	maxLateness = 100 * time.Millisecond
	// baselineTimeout bounds how long a podlink may take to return to its baseline after the load.
	baselineTimeout = 10 * time.Second
	// goroutineAllowance is for short-lived goroutines, such as one that serves /metrics.
	goroutineAllowance = 5
	// memoryAllowance is for heap that the runtime has not returned to the system, in bytes: garbage may grow to what lives (25 to 32
	// MiB after such a load), and is returned slowly. A load leaves up to 47 MiB.
	memoryAllowance = 64 << 20
	// loadTimeout bounds a load that does not reach its minimum of operations and faults.
	loadTimeout = 3 * time.Minute
)

// workload chooses the operations of the clients. It must be safe for concurrent use.
type workload interface {
	// next returns the client's next operation. Clients are numbered from 0.
	next(client int, random *rand.Rand) operation
	// done reports the client's finished call. It is called before the client's next call of next.
	done(call call)
}

// load is a closed-loop load: every client calls, waits for the answer and calls again.
type load struct {
	podlinks []*podlinktest.Process // each call goes to a random one
	workload workload
	clients  int
	// The load continues until it has both acknowledged operations and faults.
	operations, faults int
	// pause is between two calls of a client.
	pause time.Duration
}

// run is a running load.
type run struct {
	load
	started time.Time
	conns   []*grpc.ClientConn // to each podlink
	base    []level            // of each podlink
	running sync.WaitGroup

	mu      sync.Mutex
	ended   bool // no more faults are injected
	failed  bool // the test has ended
	calls   []call
	success time.Duration // end of the latest acknowledged call
	wrong   map[string]int
	report  *Report
}

// level is the resource usage of a podlink.
type level struct{ goroutines, memory float64 }

func levelOf(t testing.TB, p *podlinktest.Process) level {
	t.Helper()
	return level{p.Metric(t, "go_goroutines"), p.Metric(t, "process_resident_memory_bytes")}
}

// begin starts the load. The test then injects faults while more returns true, and calls end.
func (l load) begin(t testing.TB) *run {
	t.Helper()
	r := &run{
		load: l, wrong: make(map[string]int),
		report: &Report{Name: strings.TrimPrefix(t.Name(), "Test"), wantOperations: l.operations, wantFaults: l.faults},
	}
	for _, p := range l.podlinks {
		conn := p.Conn(t)
		warm := perform(conn, operation{kind: get, uid: "warm-up", service: "warm-up"})
		require.Equal(t, acknowledged, warm.outcome, "%s: %s", warm.reason, warm.message)
		r.conns = append(r.conns, conn)
		r.base = append(r.base, levelOf(t, p))
	}
	t.Cleanup(r.abandon)
	r.started = time.Now()
	for client := range l.clients {
		r.running.Go(func() { r.client(client) })
	}
	return r
}

// abandon ends a load whose test has failed early.
func (r *run) abandon() {
	r.mu.Lock()
	r.failed = true
	r.mu.Unlock()
	r.running.Wait()
}

// client calls until the load is over.
func (r *run) client(client int) {
	random := rand.New(rand.NewPCG(uint64(r.started.UnixNano()), uint64(client)))
	for !r.over() {
		r.call(client, random.IntN(len(r.conns)), r.workload.next(client, random))
		time.Sleep(r.pause)
	}
}

func (r *run) over() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed || r.overdue() || r.ended && r.report.Acknowledged >= r.operations
}

// overdue reports whether the load has timed out.
func (r *run) overdue() bool { return time.Since(r.started) > loadTimeout }

// more reports whether the load needs more operations or faults.
func (r *run) more() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.overdue() && (r.report.Acknowledged < r.operations || r.report.Faults < r.faults)
}

// injected records the total number of faults so far.
func (r *run) injected(total int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Faults = total
}

// call performs an operation, and records the call.
func (r *run) call(client, podlink int, op operation) call {
	c := call{operation: op, client: client, podlink: podlink, begin: time.Since(r.started)}
	c.answer = perform(r.conns[podlink], op)
	c.end = time.Since(r.started)
	r.record(c)
	r.workload.done(c)
	return c
}

func (r *run) record(c call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, c)
	r.report.Operations++
	r.report.Late = max(r.report.Late, c.end-c.begin-serverTimeout)
	switch c.outcome {
	case acknowledged:
		r.report.Acknowledged++
		r.report.Unavailable = max(r.report.Unavailable, c.end-r.success)
		r.success = max(r.success, c.end)
	case refused:
		r.report.Refused++
	case unknown:
		r.report.Unknown++
	case wrong:
		r.wrong[fmt.Sprintf("%s answered %q: %s", c.kind, c.reason, c.message)]++
	}
}

// recovered waits for an acknowledged mutation that began after since, of a uid that matches (nil: any), and returns the time
// from since to its acknowledgement.
func (r *run) recovered(
	t testing.TB, since time.Time, timeout time.Duration, matches func(uid string) bool,
) time.Duration {
	t.Helper()
	after := since.Sub(r.started)
	for next := 0; ; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		for ; next < len(r.calls); next++ {
			c := r.calls[next]
			if c.begin > after && c.outcome == acknowledged && !c.kind.reads() && (matches == nil || matches(c.uid)) {
				r.report.Recovery = max(r.report.Recovery, c.end-after)
				r.mu.Unlock()
				return c.end - after
			}
		}
		r.mu.Unlock()
		require.Less(t, time.Since(since), timeout, "no acknowledged mutation after the fault")
	}
}

// end waits until the load is over and every podlink has returned to its baseline. The caller must complete and publish the
// report.
func (r *run) end(t testing.TB) *Report {
	t.Helper()
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.running.Wait()
	for failure, times := range r.wrong {
		r.report.violated("%d times %s", times, failure)
	}
	if r.report.Late > maxLateness {
		r.report.violated("a call took %s longer than podlink's timeout", r.report.Late)
	}
	deadline := time.Now().Add(baselineTimeout)
	for i, p := range r.podlinks {
		r.settled(t, i, p, deadline)
	}
	return r.report
}

// settled waits until the podlink has returned to its baseline.
func (r *run) settled(t testing.TB, i int, p *podlinktest.Process, deadline time.Time) {
	t.Helper()
	base := r.base[i]
	for ; ; time.Sleep(50 * time.Millisecond) {
		now := levelOf(t, p)
		if now.goroutines <= base.goroutines+goroutineAllowance && now.memory <= base.memory+memoryAllowance {
			t.Logf("podlink %d: %.0f goroutines before, %.0f after; %.0f MiB before, %.0f MiB after",
				i, base.goroutines, now.goroutines, base.memory/(1<<20), now.memory/(1<<20))
			return
		}
		if time.Now().After(deadline) {
			r.report.violated("podlink %d did not return to its baseline: %.0f goroutines before, %.0f after; "+
				"%.0f MiB before, %.0f MiB after", i, base.goroutines, now.goroutines, base.memory/(1<<20), now.memory/(1<<20))
			return
		}
	}
}
