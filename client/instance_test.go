package client

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
	"podlink/test/kit/logwatch"
)

func TestInstanceID(t *testing.T) {
	t.Setenv("POD_UID", "")
	for _, given := range []string{"", "0e9d4c1c-8bc5-4a52-8f8c-0a1b2c3d4e5f", strings.Repeat("x", 100)} {
		for _, byOption := range []bool{true, false} {
			option := given
			if !byOption {
				t.Setenv("POD_UID", given)
				option = ""
			}
			first, err := newInstanceID(option)
			require.NoError(t, err)
			second, err := newInstanceID(option)
			require.NoError(t, err)
			require.NotEqual(t, first, second, "a container is restarted within its pod")
			require.LessOrEqual(t, len(first), 128)
			require.True(t, strings.HasPrefix(first, given))
			require.Equal(t, given != "", strings.HasPrefix(first, given+"."))
		}
	}
	for _, bad := range []string{"a b", "ä", "a/b", strings.Repeat("x", 101)} {
		_, err := newInstanceID(bad)
		require.ErrorContains(t, err, "AgentOptions.InstanceID must be")
		t.Setenv("POD_UID", bad)
		_, err = newInstanceID("")
		require.ErrorContains(t, err, "POD_UID must be")
	}
}

// TestSuccessor: of two processes of one pod the one that came last remains. The other one has no lease, whatever it reports.
func TestSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 15 * time.Second
		var lines logwatch.Log
		s := &states{}
		first := s.process(t, ttl, func(o *reporterOptions) { o.log = log.NewHelper(log.NewStdLogger(&lines)) }).begin(t)
		time.Sleep(time.Minute)
		second := s.process(t, ttl, nil).begin(t)
		synctest.Wait()
		require.True(t, second.holds(), "at once")
		require.Greater(t, second.generation(), first.generation())
		require.Equal(t, second.instance.id, s.stored().GetInstanceId())
		first.setRouting(v1.Routing_SHUTDOWN)
		time.Sleep(time.Hour)
		require.False(t, first.holds())
		require.True(t, second.holds())
		require.Zero(t, second.lapses())
		require.Equal(t, second.instance.id, s.stored().GetInstanceId())
		require.Equal(t, v1.Routing_DENY_NEW, s.stored().GetReportedRouting(), "not the late SHUTDOWN")
		require.Equal(t, 1, strings.Count(lines.String(), "another process has taken over the pod"))
		require.ErrorIs(t, first.waitReported(t.Context(), v1.Routing_SHUTDOWN), ErrSuperseded)
		require.NoError(t, first.stop(), "it stays as long as the other one reports")
	})
}

// TestLostFirstReplies: a process whose first report's answer was lost asks again, and gets its own generation.
func TestLostFirstReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 15 * time.Second
		s := &states{}
		before := s.process(t, ttl, nil).begin(t)
		time.Sleep(time.Minute)
		require.NoError(t, before.stop())
		lost := 0
		s.set(func(ctx context.Context, execute func() error) error {
			if lost++; lost < 5 {
				return losesReplies(ctx, execute)
			}
			return execute()
		})
		p := s.process(t, ttl, nil).begin(t)
		time.Sleep(10 * time.Second)
		require.True(t, p.holds())
		require.Equal(t, s.stored().GetGeneration(), p.generation())
		require.Equal(t, p.instance.id, s.stored().GetInstanceId())
		require.Greater(t, p.generation(), before.generation())
	})
}

// TestReplacedBeforeItKnew: a process whose first answer was lost was replaced before it asked again. That is final.
func TestReplacedBeforeItKnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 15 * time.Second
		s := &states{fault: losesReplies}
		first := s.process(t, ttl, nil).begin(t)
		time.Sleep(time.Millisecond)
		s.set(isAway)
		time.Sleep(ttl)
		require.Equal(t, first.instance.id, s.stored().GetInstanceId())
		require.NoError(t, s.takeOver(t))
		s.set(nil)
		time.Sleep(ttl)
		require.True(t, first.superseded())
		require.NotEqual(t, first.instance.id, s.stored().GetInstanceId())
	})
}

// takeOver reports the pod once as another process.
func (s *states) takeOver(t *testing.T) error {
	t.Helper()
	s.mu.Lock()
	fault := s.fault
	s.fault = nil
	s.mu.Unlock()
	defer s.set(fault)
	return s.process(t, time.Minute, nil).report(t.Context())
}

// TestManyProcesses of one pod start at once. One remains.
func TestManyProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 15 * time.Second
		s := &states{}
		s.set(func(_ context.Context, execute func() error) error {
			time.Sleep(10 * time.Millisecond)
			err := execute()
			time.Sleep(10 * time.Millisecond)
			return err
		})
		all := make([]*process, 10)
		for i := range all {
			all[i] = s.process(t, ttl, nil).begin(t)
		}
		time.Sleep(2 * ttl)
		live := 0
		for _, p := range all {
			if p.holds() {
				live++
				require.Equal(t, p.instance.id, s.stored().GetInstanceId())
			} else {
				require.True(t, p.superseded())
			}
		}
		require.Equal(t, 1, live)
	})
}

// TestOutlives: a process that was superseded ends when its successor has been silent for three TTLs in which podlink answered.
func TestOutlives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 15 * time.Second
		s := &states{}
		first := s.process(t, ttl, nil)
		ended := make(chan error, 1)
		go func() { ended <- first.run(t.Context()) }()
		time.Sleep(time.Second)
		second := s.process(t, ttl, nil).begin(t)
		time.Sleep(time.Hour)
		require.Empty(t, ended)

		s.set(isAway)
		time.Sleep(time.Hour)
		s.set(nil)
		time.Sleep(10 * ttl)
		require.Empty(t, ended, "the successor is back")

		require.NoError(t, second.stop())
		s.set(isAway)
		time.Sleep(time.Hour)
		s.set(nil)
		time.Sleep(2 * ttl)
		require.Empty(t, ended, "it may come back as podlink has")
		third := s.process(t, ttl, nil).begin(t)
		time.Sleep(time.Hour)
		require.Empty(t, ended)
		require.NoError(t, third.stop())
		time.Sleep(5 * ttl)
		require.ErrorIs(t, <-ended, ErrSuperseded)
	})
}

// TestOutlivesInTime: that takes three TTLs, and one until it reads.
func TestOutlivesInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 15 * time.Second
		s := &states{}
		p := s.process(t, ttl, nil)
		require.NoError(t, p.report(t.Context()))
		require.NoError(t, s.takeOver(t))
		begin := time.Now()
		require.ErrorIs(t, p.run(t.Context()), ErrSuperseded)
		require.Equal(t, 3*ttl, time.Since(begin))
	})
}
