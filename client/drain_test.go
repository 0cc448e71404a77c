package client

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
	"podlink/test/kit/logwatch"
)

// TestDrainReports: DENY_NEW before the sessions are handed over, SHUTDOWN when none is left, and nothing else after that.
func TestDrainReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &states{}
		var held []*Session
		a := s.agent(t, AgentOptions{OnDrain: func(ctx context.Context) {
			require.Equal(t, v1.Routing_DENY_NEW, s.stored().GetReportedRouting())
			end, bounded := ctx.Deadline()
			require.True(t, bounded)
			require.InDelta(t, 28*time.Second, time.Until(end), float64(time.Second), "a bit before the drain's end")
			time.Sleep(5 * time.Second)
			require.Equal(t, v1.Routing_DENY_NEW, s.stored().GetReportedRouting())
			held[0].End(ctx, 0)
		}})
		run(t, a)
		require.NoError(t, a.Ready(t.Context()))
		held = s.hold(t, a, 1)
		time.Sleep(time.Minute)
		require.Equal(t, v1.Routing_READY, s.stored().GetReportedRouting())
		begin := time.Now()
		require.NoError(t, a.Drain(t.Context()))
		require.Equal(t, v1.Routing_SHUTDOWN, s.stored().GetReportedRouting())
		require.InDelta(t, 5*time.Second, time.Since(begin), float64(time.Second))
		require.NoError(t, a.Ready(t.Context()))
		time.Sleep(time.Minute)
		require.Equal(t, v1.Routing_SHUTDOWN, s.stored().GetReportedRouting())
	})
}

// TestDrainIsBounded by DrainTimeout, whatever podlink and OnDrain do.
func TestDrainIsBounded(t *testing.T) {
	t.Parallel()
	const limit = 30 * time.Second
	for podlink, fault := range map[string]func(context.Context, func() error) error{
		"answers": nil, "away": isAway, "hangs": isHanging, "unconfirmed": isUnconfirmed,
	} {
		for name, onDrain := range map[string]func(ctx context.Context, held []*Session){
			"no OnDrain": nil,
			"ends": func(ctx context.Context, held []*Session) {
				for _, session := range held {
					session.End(ctx, 0)
				}
			},
			"waits":  func(ctx context.Context, _ []*Session) { <-ctx.Done() },
			"blocks": func(context.Context, []*Session) { time.Sleep(3 * limit) },
			"panics": func(context.Context, []*Session) { panic("oops") },
		} {
			t.Run(podlink+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var lines logwatch.Log
					s := &states{}
					o := AgentOptions{DrainTimeout: limit, Logger: log.NewStdLogger(&lines)}
					var held []*Session
					if onDrain != nil {
						o.OnDrain = func(ctx context.Context) { onDrain(ctx, held) }
					}
					a := s.agent(t, o)
					run(t, a)
					require.NoError(t, a.Ready(t.Context()))
					time.Sleep(time.Minute)
					held = s.hold(t, a, 60)
					s.linksAway()
					s.set(fault)
					begin := time.Now()
					require.NoError(t, a.Drain(t.Context()))
					require.LessOrEqual(t, time.Since(begin), limit)
					if fault == nil || podlink == "unconfirmed" {
						require.Equal(t, v1.Routing_SHUTDOWN, s.stored().GetReportedRouting())
					}
					time.Sleep(3 * limit) // What blocks has ended.
					require.Regexp(t, `with \d+ sessions left, and \d+ ended ones that podlink does not know of`, lines.String())
				})
			})
		}
	}
}

// TestDrainsOnce: whoever drains or stops again waits for the first.
func TestDrainsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &states{}
		var calls atomic.Int32
		a := s.agent(t, AgentOptions{OnDrain: func(context.Context) { calls.Add(1) }})
		run(t, a)
		time.Sleep(time.Minute)
		held := s.hold(t, a, 1)
		all := make(chan error, 3)
		go func() { all <- a.Drain(context.Background()) }()
		go func() { all <- a.Drain(context.Background()) }()
		go func() { all <- a.Stop(context.Background()) }()
		time.Sleep(20 * time.Second)
		require.Empty(t, all)
		held[0].End(t.Context(), 0)
		for range cap(all) {
			require.NoError(t, <-all)
		}
		require.EqualValues(t, 1, calls.Load())
	})
}

// TestDrainEndsWithItsContext.
func TestDrainEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &states{}
		a := s.agent(t, AgentOptions{})
		run(t, a)
		s.hold(t, a, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begin := time.Now()
		require.ErrorIs(t, a.Drain(ctx), context.DeadlineExceeded)
		require.Equal(t, 10*time.Second, time.Since(begin))
		require.ErrorIs(t, a.Stop(ctx), context.DeadlineExceeded)
	})
}

// TestDrainReportsAfterStart: the app's context has ended, and with it Start. The drain is reported all the same.
func TestDrainReportsAfterStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &states{}
		a := s.agent(t, AgentOptions{})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- a.Start(ctx) }()
		time.Sleep(time.Second)
		cancel()
		require.NoError(t, <-ended)
		require.NoError(t, a.Stop(t.Context()))
		require.Equal(t, v1.Routing_SHUTDOWN, s.stored().GetReportedRouting())
	})
}

// TestStopBeforeStart: an app that fails while it starts stops servers that have not started. Nobody has heard of the pod.
func TestStopBeforeStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &states{}
		a := s.agent(t, AgentOptions{})
		begin := time.Now()
		require.NoError(t, a.Stop(t.Context()))
		require.NoError(t, a.Ready(t.Context()))
		require.Equal(t, v1.Routing_SHUTDOWN, a.reporter.routing(), "it is too late")
		require.False(t, a.healthy(t))
		require.NoError(t, a.Start(t.Context()))
		require.Zero(t, time.Since(begin))
		require.Empty(t, s.since(time.Time{}))
	})
}

// TestCordon: the pod hands its sessions over while it is cordoned, and goes on serving.
func TestCordon(t *testing.T) {
	for _, cordon := range []v1.Routing{v1.Routing_DENY_NEW, v1.Routing_SHUTDOWN} {
		t.Run(cordon.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const ttl = 15 * time.Second
				var lines logwatch.Log
				var calls, running atomic.Int32
				s := &states{}
				a := s.agent(t, AgentOptions{TTL: ttl, Logger: log.NewStdLogger(&lines), OnDrain: func(ctx context.Context) {
					calls.Add(1)
					require.EqualValues(t, 1, running.Add(1))
					<-ctx.Done()
					running.Add(-1)
				}})
				run(t, a)
				require.NoError(t, a.Ready(t.Context()))
				time.Sleep(time.Minute)
				held := s.hold(t, a, 1)
				require.Equal(t, v1.Routing_READY, a.Cordoned())
				require.False(t, a.draining())

				s.setCordon(cordon)
				time.Sleep(ttl / 3)
				require.Equal(t, cordon, a.Cordoned())
				require.True(t, a.draining(), "it starts no sessions")
				require.EqualValues(t, 1, calls.Load())
				require.Equal(t, v1.Routing_READY, s.stored().GetReportedRouting(), "the cordon is podlink's to keep")
				require.True(t, a.healthy(t))
				time.Sleep(time.Hour)
				require.EqualValues(t, 1, calls.Load())
				require.Zero(t, running.Load(), "as long as a drain")
				require.Equal(t, 1, a.Sessions(), "a session that does not end goes on")

				s.setCordon(v1.Routing_READY)
				time.Sleep(ttl / 3)
				require.False(t, a.draining())
				s.setCordon(cordon)
				time.Sleep(ttl / 3)
				require.EqualValues(t, 2, calls.Load())
				s.setCordon(v1.Routing_READY)
				time.Sleep(ttl / 3)
				require.Zero(t, running.Load(), "it has been lifted")
				require.Equal(t, 2, strings.Count(lines.String(), "cordoned ("+cordon.String()+")"))

				s.setCordon(cordon)
				time.Sleep(ttl / 3)
				held[0].End(t.Context(), 0)
				drained := make(chan error, 1)
				go func() { drained <- a.Drain(t.Context()) }()
				time.Sleep(time.Second)
				require.EqualValues(t, 4, calls.Load(), "the drain calls it again, at once")
				require.NoError(t, <-drained)
			})
		})
	}
}
