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
	// serverTimeout is podlink's own limit for a request, the default of server.grpc.timeout.
	serverTimeout = time.Second
	// lateLimit is how far a call may outlive it.
	lateLimit = 100 * time.Millisecond
	// baseLimit is how long a podlink may take after the load to be what it was before.
	baseLimit = 10 * time.Second
	// goroutineAllowance is for those that are there now and then, as one that serves /metrics.
	goroutineAllowance = 5
	// memoryAllowance is for what the runtime keeps of the heap that the load needed, in bytes.
	memoryAllowance = 32 << 20
	// loadLimit bounds a load that does not get its operations and faults together.
	loadLimit = 3 * time.Minute
)

// workload chooses what the clients call.
type workload interface {
	// next is the client's next operation. Clients are numbered from 0 and ask at the same time.
	next(client int, random *rand.Rand) operation
	// done tells the workload what became of a call, before the client asks for its next operation.
	done(call call)
}

// load is a closed loop: every client calls, waits for the answer and calls again.
type load struct {
	podlinks []*podlinktest.Process // each call goes to one of them
	workload workload
	clients  int
	// operations (acknowledged ones) and faults are the minimum: the load goes on until it has both.
	operations, faults int
	// pause is how long a client rests between two calls.
	pause time.Duration
}

// run is a load under way.
type run struct {
	load
	started time.Time
	conns   []*grpc.ClientConn // to each of podlinks
	base    []level            // of each of podlinks
	running sync.WaitGroup

	mu      sync.Mutex
	ended   bool // the test injects no more faults
	failed  bool // the test is over
	calls   []call
	success time.Duration // the end of the latest acknowledged call
	wrong   map[string]int
	report  *Report
}

// level is what a podlink needs.
type level struct{ goroutines, memory float64 }

func levelOf(t testing.TB, p *podlinktest.Process) level {
	t.Helper()
	return level{p.Metric(t, "go_goroutines"), p.Metric(t, "process_resident_memory_bytes")}
}

// begin starts the load. The test injects faults as long as more says so, and calls end.
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

// abandon ends a load whose test has failed before its end.
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

// overdue tells that the load has taken too long.
func (r *run) overdue() bool { return time.Since(r.started) > loadLimit }

// more tells whether the load still lacks operations or faults.
func (r *run) more() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.overdue() && (r.report.Acknowledged < r.operations || r.report.Faults < r.faults)
}

// injected notes how many faults were injected until now.
func (r *run) injected(total int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Faults = total
}

// call carries out one operation and notes what became of it.
func (r *run) call(client, podlink int, op operation) call {
	c := call{operation: op, client: client, podlink: podlink, begin: time.Since(r.started)}
	c.answer = perform(r.conns[podlink], op)
	c.end = time.Since(r.started)
	r.note(c)
	r.workload.done(c)
	return c
}

func (r *run) note(c call) {
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

// recovered waits for an acknowledged mutation that began after since and whose uid matches, and returns how long after
// since it was acknowledged. Matches may be nil: any uid.
func (r *run) recovered(
	t testing.TB, since time.Time, limit time.Duration, matches func(uid string) bool,
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
		require.Less(t, time.Since(since), limit, "no acknowledged mutation after the fault")
	}
}

// end waits until the load is over, and until every podlink is again what it was before the load. The report is the
// caller's to complete and to publish.
func (r *run) end(t testing.TB) *Report {
	t.Helper()
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.running.Wait()
	for failure, times := range r.wrong {
		r.report.violated("%d times %s", times, failure)
	}
	if r.report.Late > lateLimit {
		r.report.violated("a call took %s longer than podlink's timeout", r.report.Late)
	}
	deadline := time.Now().Add(baseLimit)
	for i, p := range r.podlinks {
		r.settled(t, i, p, deadline)
	}
	return r.report
}

// settled waits until the podlink is at its base level.
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
			r.report.violated("podlink %d does not come back to its base level: %.0f goroutines before, %.0f after; "+
				"%.0f MiB before, %.0f MiB after", i, base.goroutines, now.goroutines, base.memory/(1<<20), now.memory/(1<<20))
			return
		}
	}
}
