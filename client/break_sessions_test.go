package client

import (
	"context"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	v1 "podlink/api/podlink/v1"
)

// countingConn counts the calls, and answers none.
type countingConn struct{ calls atomic.Int64 }

func (c *countingConn) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	c.calls.Add(1)
	return ErrUnavailable
}

func (c *countingConn) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, ErrUnavailable
}

// TestBreakReportsHaveTheirOwnConnection: an agent's reports have a separate connection, and no part in the budget.
func TestBreakReportsHaveTheirOwnConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls, reports := new(countingConn), new(countingConn)
		c := newClient(calls, reports, DefaultTimeout, proof{}, func() error { return nil })
		defer c.Close()
		a, err := c.NewAgent(testNamespace, testService, AgentOptions{PodName: "chat-0", Logger: log.NewStdLogger(io.Discard)})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		require.NoError(t, a.Start(ctx))
		require.Zero(t, calls.calls.Load(), "reports over the connection of all calls")
		require.NotZero(t, reports.calls.Load())
	})
}

// TestBreakUnseenUserOfCordonedPod: the pod is cordoned, the user's link to it is persistent (by hand, say), and the handler starts
// its session without the guard's context. The user must get away.
func TestBreakUnseenUserOfCordonedPod(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		p.store.put("u", 0)
		p.drain.Store(true)
		_, err := p.start(t.Context(), "u", 0)
		require.ErrorIs(t, err, ErrWrongPod)
		sleep(t.Context(), 10*podTTL)
		require.EqualValues(t, -1, p.store.of("u").GetPodId(), "whoever asks next reaches another pod")
	})
}

// TestBreakStartOverDoubted: the link of a running session is seen wrong between settle and hold of a start.
func TestBreakStartOverDoubted(t *testing.T) {
	t.Parallel()
	p := newPodSessions(newFakeLinks(), 0, 7)
	p.report()
	p.store.put("u", 0)
	h, err := p.start(t.Context(), "u", 0)
	require.NoError(t, err)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { // Answers of checks and of the guard: of a failover that brought back an older link, and of the one after it.
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
			}
			link := p.store.of("u")
			p.saw("u", &v1.Link{PodId: 0, Epoch: link.GetEpoch() - 1}, time.Now())
			p.saw("u", p.store.of("u"), time.Now())
		}
	}()
	running, listed := 0, 0
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end) && running < 2 && listed < 2; {
		_, _ = p.start(t.Context(), "u", 0)
		p.sessions.mu.Lock()
		running, listed = p.running, 0
		for x := p.order.first; x != nil; x = x.next {
			listed++
		}
		p.sessions.mu.Unlock()
	}
	close(stop)
	<-ended
	assert.Equal(t, []int{1, 1}, []int{running, listed}, "of one user: a drain never ends")
	_ = h
	superseded := make(chan struct{})
	go func() { p.lease.supersede(); p.look(); close(superseded) }()
	select {
	case <-superseded:
	case <-time.After(2 * time.Second):
		t.Fatal("look() loops for ever, with the lock of all sessions")
	}
}

// TestBreakStateGoexit: State that ends its goroutine.
func TestBreakStateGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		l := newLatest("State", func() string {
			if calls.Add(1) == 1 {
				runtime.Goexit()
			}
			return "ok"
		}, DefaultState, repairState, log.NewHelper(log.NewStdLogger(io.Discard)))
		over := make(chan struct{})
		time.AfterFunc(time.Second, func() { close(over) })
		l.get(l.refresh(), over)
		require.Equal(t, "ok", l.get(l.refresh(), over))
	})
}

// TestBreakUnconfirmedForLong: with wait_replicas and a replica that is away for long, each report is stored, but not confirmed.
func TestBreakUnconfirmedForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLease(podTTL)
		l.renew(renewal{begun: time.Now(), generation: 1, storeID: "s"})
		for range 60 {
			time.Sleep(podTTL / 3)
			l.renew(renewal{begun: time.Now(), generation: 1, unconfirmed: true})
		}
		state, _ := l.state()
		require.LessOrEqual(t, state.lapses, 1, "a lapse makes all sessions be verified at once, and a line in the log")
	})
}

// TestBreakUntoldAtTheEnd: OnLost is called for each lost session, also if the run ends meanwhile and another goes on.
func TestBreakUntoldAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPodSessions(newFakeLinks(), 0, 7)
		p.report()
		ctx, cancel := context.WithCancel(t.Context())
		go p.run(ctx)
		p.onLostDo = func(string, int64) { cancel(); time.Sleep(time.Second) }
		mustStart(t, p, "a")
		mustStart(t, p, "b")
		p.lease.supersede()
		synctest.Wait()
		time.Sleep(2 * time.Second)
		ctx2, cancel2 := context.WithTimeout(t.Context(), time.Minute)
		defer cancel2()
		p.run(ctx2)
		require.Len(t, p.losses(), 2)
	})
}
