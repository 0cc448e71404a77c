package client

import (
	"context"
	"fmt"
	"math"
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

func TestReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 15 * time.Second
		s := &states{storeID: "a", cordon: v1.Routing_DENY_NEW}
		p := s.process(t, ttl, func(o *reporterOptions) {
			o.capacity, o.labels, o.address = 100, map[string]string{"zone": "a"}, "10.0.0.3:9000"
		}).begin(t)
		begin := time.Now()
		time.Sleep(10 * ttl)
		all := s.since(begin)
		require.InDelta(t, 31, len(all), 3, "three in a TTL")
		for i, report := range all {
			require.EqualValues(t, i+1, report.GetSequence())
			require.Equal(t, "here", report.GetState())
			require.EqualValues(t, 7, report.GetLoad())
			require.EqualValues(t, 15, report.GetTtlSeconds())
			require.EqualValues(t, 100, report.GetCapacity())
			require.Equal(t, "a", report.GetLabels()["zone"])
			require.Equal(t, "10.0.0.3:9000", report.GetAddress())
			require.Equal(t, v1.Routing_DENY_NEW, report.GetRouting(), "until the app is ready")
			if i > 0 {
				require.LessOrEqual(t, report.at.Sub(all[i-1].at), ttl/3)
				require.NotZero(t, report.GetGeneration())
			}
		}
		state, _ := p.lease.state()
		require.True(t, state.holds())
		require.Equal(t, "a", state.storeID)
		require.Equal(t, v1.Routing_DENY_NEW, state.cordon)
		require.Equal(t, s.stored().GetGeneration(), state.generation)
		require.Zero(t, state.lapses)
	})
}

func TestReportsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &states{}
		var load atomic.Int32
		p := s.process(t, time.Hour, func(o *reporterOptions) { o.load = load.Load }).begin(t)
		time.Sleep(time.Second)
		load.Store(1)
		p.setRouting(v1.Routing_READY)
		require.NoError(t, p.waitReported(t.Context(), v1.Routing_READY))
		require.EqualValues(t, 1, s.stored().GetLoad())
		require.Equal(t, v1.Routing_READY, p.routing())

		begin := time.Now()
		for time.Since(begin) < time.Second {
			p.reportNow()
			time.Sleep(time.Millisecond)
		}
		require.InDelta(t, 20, len(s.since(begin)), 2, "not more often than that")
	})
}

// TestAttemptsWhilePodlinkIsAway: an attempt at least every second and every sixth of the TTL, none longer, never two at once; and
// the lease is there again within one of them.
func TestAttemptsWhilePodlinkIsAway(t *testing.T) {
	for name, fault := range map[string]func(context.Context, func() error) error{
		"away": isAway, "hanging": isHanging, "losing replies": losesReplies,
	} {
		for _, ttl := range []time.Duration{time.Second, 3 * time.Second, 15 * time.Second, time.Hour} {
			t.Run(fmt.Sprint(name, " ", ttl), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var lines logwatch.Log
					s := &states{}
					p := s.process(t, ttl, func(o *reporterOptions) { o.log = log.NewHelper(log.NewStdLogger(&lines)) }).begin(t)
					time.Sleep(time.Second)
					s.set(fault)
					p.reportNow()
					begin := time.Now()
					time.Sleep(min(3*ttl, 2*time.Minute) + 20*time.Second)
					limit := min(time.Second, ttl/6)
					all := s.since(begin)
					for i, report := range all {
						if i > 0 {
							require.LessOrEqual(t, report.at.Sub(all[i-1].at), limit)
							require.Greater(t, report.GetSequence(), all[i-1].GetSequence())
						}
					}
					require.Greater(t, len(all), 20)
					require.Equal(t, 1, s.mostInFlight())
					s.set(nil)
					time.Sleep(limit)
					require.True(t, p.holds())
					require.Equal(t, 1, strings.Count(lines.String(), "report failed, retrying"))
					require.Equal(t, 1, strings.Count(lines.String(), "reporting again"))
				})
			})
		}
	}
}

// TestCallsThatDoNotEnd: a call that outlives its context holds up no other attempt, and there are never many of them.
func TestCallsThatDoNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 15 * time.Second
		s := &states{}
		p := s.process(t, ttl, nil).begin(t)
		time.Sleep(time.Second)
		stuck := make(chan struct{})
		var calls atomic.Int32
		s.set(func(_ context.Context, execute func() error) error {
			if calls.Add(1) <= maxHanging-1 {
				<-stuck
			}
			return execute()
		})
		p.reportNow()
		for range 100 {
			time.Sleep(ttl / 3)
			require.True(t, p.holds())
		}
		require.Zero(t, p.lapses())

		s.set(func(context.Context, func() error) error { <-stuck; return ErrUnavailable })
		time.Sleep(time.Hour)
		require.LessOrEqual(t, s.mostInFlight(), maxHanging)
		close(stuck)
		s.set(nil)
		time.Sleep(time.Second)
		require.True(t, p.holds())
	})
}

func (p *process) lapses() int {
	state, _ := p.lease.state()
	return state.lapses
}

// TestReportsWaitForNoFunction: the app's functions may block or panic, and return what podlink refuses: the pod is reported all
// the same, with what they returned before.
func TestReportsWaitForNoFunction(t *testing.T) {
	const ttl = time.Second
	stuck := make(chan struct{})
	for name, row := range map[string]struct {
		state     func() string
		load      func() int32
		wantState string
		wantLoad  int32
		line      string
	}{
		"state blocks":         {state: func() string { <-stuck; return "" }, line: "AgentOptions.State does not return"},
		"load blocks":          {load: func() int32 { <-stuck; return 0 }, line: "AgentOptions.Load does not return"},
		"state panics":         {state: func() string { panic("oops") }, line: "AgentOptions.State panicked"},
		"load panics":          {load: func() int32 { panic("oops") }, line: "AgentOptions.Load panicked"},
		"a negative load":      {load: func() int32 { return math.MinInt32 }, wantState: "good", line: "it is negative"},
		"an empty state":       {state: func() string { return "" }, wantState: DefaultState, wantLoad: 5, line: "it is empty"},
		"a long state":         {state: func() string { return strings.Repeat("ä", 600) }, wantState: strings.Repeat("ä", 512), wantLoad: 5, line: "longer than 1024 bytes"},
		"a long state, uneven": {state: func() string { return "a" + strings.Repeat("ä", 600) }, wantState: "a" + strings.Repeat("ä", 511), wantLoad: 5, line: "longer than 1024 bytes"},
		"a binary state":       {state: func() string { return "a\xff\x00b\nc" }, wantState: "a� b c", wantLoad: 5, line: "not UTF-8 without control characters"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stuck = make(chan struct{})
				var lines logwatch.Log
				var bad atomic.Bool
				s := &states{}
				p := s.process(t, ttl, func(o *reporterOptions) {
					o.log = log.NewHelper(log.NewStdLogger(&lines))
					o.state = func() string {
						if bad.Load() && row.state != nil {
							return row.state()
						}
						return "good"
					}
					o.load = func() int32 {
						if bad.Load() && row.load != nil {
							return row.load()
						}
						return 5
					}
				}).begin(t)
				time.Sleep(2 * ttl)
				bad.Store(true)
				time.Sleep(2 * ttl)
				begin := time.Now()
				time.Sleep(20 * ttl)
				require.True(t, p.holds())
				require.Zero(t, p.lapses())
				require.GreaterOrEqual(t, len(s.since(begin)), 60)
				if row.wantState == "" {
					row.wantState, row.wantLoad = "good", 5
				}
				require.Equal(t, row.wantState, s.stored().GetState())
				require.Equal(t, row.wantLoad, s.stored().GetLoad())
				require.Equal(t, 1, strings.Count(lines.String(), row.line), lines.String())
				asked := time.Now()
				p.reportNow()
				time.Sleep(minReportInterval)
				require.NotEmpty(t, s.since(asked), "it is known to block")
				close(stuck)
				bad.Store(false)
				time.Sleep(2 * ttl)
				require.Equal(t, "good", s.stored().GetState())
				require.EqualValues(t, 5, s.stored().GetLoad())
			})
		})
	}
}

// TestUnconfirmedReports: with wait_replicas and no replica podlink takes the pod for live, and so does the pod.
func TestUnconfirmedReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 15 * time.Second
		s := &states{fault: isUnconfirmed}
		p := s.process(t, ttl, nil).begin(t)
		time.Sleep(10 * ttl)
		require.True(t, p.holds(), "none was ever confirmed")
		require.NotZero(t, p.generation(), "which the error does not say")
		require.Equal(t, s.stored().GetGeneration(), p.generation())
		require.Zero(t, p.lapses())

		s.set(nil)
		time.Sleep(ttl)
		s.set(isUnconfirmed)
		time.Sleep(ttl)
		require.True(t, p.holds())
		time.Sleep(ttl)
		require.False(t, p.holds(), "a failover may have lost what one TTL has brought")
	})
}

// TestReportsThatChangeNothing renew no lease.
func TestReportsThatChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 15 * time.Second
		s := &states{}
		p := s.process(t, ttl, nil).begin(t)
		time.Sleep(time.Second)
		require.True(t, p.holds())
		s.mu.Lock()
		s.sequence = math.MaxInt64
		s.mu.Unlock()
		begin := time.Now()
		time.Sleep(ttl)
		require.False(t, p.holds())
		require.GreaterOrEqual(t, len(s.since(begin)), 10, "as while podlink is away")
	})
}

// TestRefusedReports are repeated no more often than others: podlink may have a reason to turn away many.
func TestRefusedReports(t *testing.T) {
	for name, refusal := range map[string]error{"invalid": ErrInvalidArgument, "limit": ErrLimitExceeded} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const ttl = 15 * time.Second
				var lines logwatch.Log
				s := &states{fault: func(context.Context, func() error) error { return refusal }}
				s.process(t, ttl, func(o *reporterOptions) { o.log = log.NewHelper(log.NewStdLogger(&lines)) }).begin(t)
				begin := time.Now()
				time.Sleep(10 * ttl)
				require.InDelta(t, 31, len(s.since(begin)), 3)
				require.Equal(t, 1, strings.Count(lines.String(), "report failed, retrying"))
			})
		})
	}
}

// TestDeniedReports: the pod is as while podlink is away, says once what to do, and reports within a second after that was done.
func TestDeniedReports(t *testing.T) {
	for name, refusal := range map[string]error{"not known": ErrUnauthenticated, "not permitted": ErrPermissionDenied} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const ttl = 15 * time.Second
				var lines logwatch.Log
				s := &states{}
				p := s.process(t, ttl, func(o *reporterOptions) { o.log = log.NewHelper(log.NewStdLogger(&lines)) }).begin(t)
				time.Sleep(time.Second)
				s.set(func(context.Context, func() error) error { return refusal })
				time.Sleep(ttl - ttl/reportsPerTTL)
				require.True(t, p.holds())
				time.Sleep(ttl)
				require.False(t, p.holds())
				require.Equal(t, 1, strings.Count(lines.String(), "podlink refuses its reports, retrying; its users are served until the lease ends"))
				s.set(nil)
				time.Sleep(maxAttempt)
				require.True(t, p.holds())
				require.Equal(t, 1, strings.Count(lines.String(), "reporting again"))
			})
		})
	}
}

// TestLimitedReports are repeated as soon as podlink says, and no later than others.
func TestLimitedReports(t *testing.T) {
	const ttl = 15 * time.Second
	for name, row := range map[string]struct {
		after string
		want  time.Duration
	}{"soon": {"1", maxAttempt}, "later": {"3000", 3 * time.Second}, "too late": {"60000", ttl / reportsPerTTL}, "podlink does not say": {"", maxAttempt}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limited := withCause(ErrRateLimited, nil, metadataRetryAfter, row.after)
				s := &states{fault: func(context.Context, func() error) error { return limited }}
				s.process(t, ttl, nil).begin(t)
				begin := time.Now()
				time.Sleep(time.Minute)
				require.InDelta(t, float64(time.Minute)/float64(row.want), float64(len(s.since(begin))), .2*float64(time.Minute)/float64(row.want))
			})
		})
	}
}

// TestLapsedLease: the lease had ended when the answer came.
func TestLapsedLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 15 * time.Second
		var lines logwatch.Log
		s := &states{}
		p := s.process(t, ttl, func(o *reporterOptions) { o.log = log.NewHelper(log.NewStdLogger(&lines)) }).begin(t)
		time.Sleep(time.Second)
		s.set(isHanging)
		time.Sleep(2 * ttl)
		require.False(t, p.holds())
		s.set(nil)
		time.Sleep(time.Second)
		require.True(t, p.holds())
		require.Equal(t, 1, p.lapses())
		require.Equal(t, 1, strings.Count(lines.String(), "its users may be linked to other pods"))
	})
}
