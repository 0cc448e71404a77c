//go:build faults

package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	v1 "podlink/api/podlink/v1"
)

const (
	fleetService = "fleet"
	fleetPods    = 5
	fleetUsers   = 500
	// fleetTTL is the ttl of the reports. A pod reports at a third of it, and repeats a failed report after reportPause.
	fleetTTL    = 3 * time.Second
	reportPause = 250 * time.Millisecond
	// reportTimeout is the deadline of a report.
	reportTimeout = time.Second
	// fleetCallers is how many users are computed at a time.
	fleetCallers = 16
)

// fleet is a stateful service as podlink sees it: pods that report, and users evenly linked to them.
type fleet struct {
	callers *grpc.ClientConn // to compute the users
	pods    []*reporter
	homes   []int32 // the pod of each user
	report  *Report
	// disturbed has the occasions on which a user was moved or refused.
	disturbed map[string]bool
}

// reporter is a pod that reports until the test ends or the pod dies.
type reporter struct {
	pod    int32
	states v1.StateServiceClient
	turn   chan struct{} // held during a report
	done   atomic.Int64  // reports that were acknowledged
	die    context.CancelFunc
}

// newFleet starts a service whose callers and pods reach podlink at these addresses.
func newFleet(t testing.TB, callers, pods string) *fleet {
	t.Helper()
	f := &fleet{callers: fleetConn(t, callers), report: &Report{Name: strings.TrimPrefix(t.Name(), "Test")}, disturbed: make(map[string]bool)}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for pod := range int32(fleetPods) {
		ctx, die := context.WithCancel(ctx)
		p := &reporter{
			pod: pod, states: v1.NewStateServiceClient(fleetConn(t, pods)), turn: make(chan struct{}, 1), die: die,
		}
		f.pods = append(f.pods, p)
		running.Go(func() { p.run(ctx) })
	}
	t.Cleanup(running.Wait)
	t.Cleanup(cancel)
	for user := range fleetUsers {
		pod := int32(user % fleetPods)
		a := perform(f.callers, operation{
			kind: set, uid: fleetUID(user), service: fleetService, pod: pod, seconds: forever, expected: noEpoch,
		})
		require.Equal(t, acknowledged, a.outcome, "%s: %s", a.reason, a.message)
		f.homes = append(f.homes, pod)
	}
	f.steady(t)
	return f
}

func fleetUID(user int) string { return fmt.Sprintf("user-%d", user) }

// fleetConn returns a connection that is soon back after an outage. It retries no call.
func fleetConn(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: reportPause / 2, Multiplier: 1.2, MaxDelay: reportPause},
			MinConnectTimeout: reportTimeout,
		}))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (p *reporter) run(ctx context.Context) {
	for {
		pause := reportPause
		select {
		case p.turn <- struct{}{}:
			if p.report(ctx) == nil {
				pause = time.Duration((1 - rand.Float64()/10) * float64(fleetTTL/3))
			}
			<-p.turn
		case <-ctx.Done():
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// report reports once. The caller must have the turn.
func (p *reporter) report(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	ttl := int32(fleetTTL / time.Second)
	_, err := p.states.SetServiceState(ctx, &v1.SetServiceStateRequest{
		Namespace: namespace, Service: fleetService, PodId: &p.pod, State: "up", TtlSeconds: &ttl,
	})
	if err == nil {
		p.done.Add(1)
	}
	return err
}

// hold lets the pods finish the reports in flight and make no more, until release.
func (f *fleet) hold() {
	for _, p := range f.pods {
		p.turn <- struct{}{}
	}
}

func (f *fleet) release() {
	for _, p := range f.pods {
		<-p.turn
	}
}

// reportFirst makes one pod report, while the others are held.
func (f *fleet) reportFirst(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(readTimeout)
	for err := f.pods[0].report(t.Context()); err != nil; err = f.pods[0].report(t.Context()) {
		require.True(t, time.Now().Before(deadline), "no report arrives: %v", err)
		time.Sleep(20 * time.Millisecond)
	}
}

// steady waits until every pod has reported for more than a ttl.
func (f *fleet) steady(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(readTimeout)
	for reported := f.reported(4); !reported(); time.Sleep(20 * time.Millisecond) {
		require.True(t, time.Now().Before(deadline), "not all pods report")
	}
}

// reported returns a function that reports whether every pod has reported that often since.
func (f *fleet) reported(times int64) func() bool {
	since := make([]int64, len(f.pods))
	for i, p := range f.pods {
		since[i] = p.done.Load()
	}
	return func() bool {
		for i, p := range f.pods {
			if p.done.Load() < since[i]+times {
				return false
			}
		}
		return true
	}
}

// computeAll computes every user, and returns how many were answered, moved, and refused for lack of a pod. It repeats a call
// that podlink did not answer.
func (f *fleet) computeAll(t testing.TB) (answered, moved, refused int) {
	t.Helper()
	deadline := time.Now().Add(readTimeout)
	answers := make([]answer, fleetUsers)
	var next, calls atomic.Int64
	var running sync.WaitGroup
	for range fleetCallers {
		running.Go(func() {
			for user := next.Add(1) - 1; user < fleetUsers; user = next.Add(1) - 1 {
				op := operation{
					kind: compute, uid: fleetUID(int(user)), service: fleetService, seconds: forever, expected: noEpoch,
				}
				calls.Add(1)
				a := perform(f.callers, op)
				for ; a.outcome != acknowledged && time.Now().Before(deadline); a = perform(f.callers, op) {
					time.Sleep(20 * time.Millisecond)
					calls.Add(1)
				}
				answers[user] = a
			}
		})
	}
	running.Wait()
	f.report.Operations += int(calls.Load())
	f.report.Refused += int(calls.Load()) - fleetUsers
	for user, a := range answers {
		require.Equal(t, acknowledged, a.outcome, "user %d: %s: %s", user, a.reason, a.message)
		switch {
		case a.reason != "":
			refused++
		case a.computed != v1.ComputeLinkedPodReply_EXISTING.String() || a.link.pod != f.homes[user]:
			moved++
			f.homes[user] = a.link.pod
		}
		answered++
	}
	f.report.Acknowledged += answered
	return answered, moved, refused
}

// undisturbed computes every user. It is a violation if one of them is moved or refused; the first of each occasion is recorded.
func (f *fleet) undisturbed(t testing.TB, when string) {
	t.Helper()
	answered, moved, refused := f.computeAll(t)
	if moved+refused > 0 && !f.disturbed[when] {
		f.disturbed[when] = true
		f.report.violated("%s: of %d users of pods that run, %d were moved and %d refused", when, answered, moved, refused)
	}
}

// bury lets the last pod die, and waits until all of its users, and no others, are moved. It returns how long that took.
func (f *fleet) bury(t testing.TB) time.Duration {
	t.Helper()
	last := f.pods[len(f.pods)-1]
	affected := 0
	for _, home := range f.homes {
		if home == last.pod {
			affected++
		}
	}
	last.die()
	last.turn <- struct{}{} // No report is in flight any more.
	f.pods = f.pods[:len(f.pods)-1]
	died := time.Now()
	for moved := 0; moved < affected; time.Sleep(50 * time.Millisecond) {
		require.Less(t, time.Since(died), readTimeout, "%d of %d users of a dead pod were moved", moved, affected)
		_, more, refused := f.computeAll(t)
		moved += more
		if refused > 0 {
			f.report.violated("%d users were refused after the death of a pod", refused)
		}
		if moved > affected {
			f.report.violated("%d users were moved after the death of a pod with %d", moved, affected)
		}
	}
	return time.Since(died)
}
