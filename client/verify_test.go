package client

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	v1 "podlink/api/podlink/v1"
)

// TestMovedUserIsNoticed within 2 TTL, though no request for the user reaches the pod, and also when the user is back.
func TestMovedUserIsNoticed(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		away, back, stays := mustStart(t, p, "away"), mustStart(t, p, "back"), mustStart(t, p, "stays")
		p.store.put("away", 1)
		p.store.put("back", 1)
		p.store.put("back", 0)
		sleep(t.Context(), 2*podTTL)
		require.Equal(t, []string{fmt.Sprint("away ", away.Epoch()), fmt.Sprint("back ", back.Epoch())}, p.losses())
		<-away.Lost()
		<-back.Lost()
		<-back.Lost()
		requireCount(t, p, 1, 0)
		requireHeld(t, p, "stays", stays.Epoch())
		back.End(t.Context(), 0) // Of a session that is lost.
		sleep(t.Context(), 2*podTTL)
		require.Len(t, p.losses(), 2)
		require.EqualValues(t, 0, p.store.of("back").GetPodId())
	})
}

// TestGuardNoticesAtOnce what its own question has shown.
func TestGuardNoticesAtOnce(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		h := mustStart(t, p, "u")
		begun := time.Now()
		sleep(t.Context(), time.Second)
		p.saw("u", &v1.Link{PodId: 1, Epoch: 1}, begun.Add(-time.Second))
		requireHeld(t, p, "u", h.Epoch()) // That answer was older.
		p.store.put("u", 1)
		p.saw("u", p.store.of("u"), time.Now())
		require.Equal(t, holding{}, p.holding("u"))
		<-h.Lost()
		p.saw("nobody", p.store.of("u"), time.Now())
	})
}

// TestEachSessionIsVerified once in 2 TTL, in batches, and not much more often.
func TestEachSessionIsVerified(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		const users = 3000
		for i := range users {
			mustStart(t, p, fmt.Sprint("u", i))
			if i%10 == 0 {
				sleep(t.Context(), 50*time.Millisecond)
			}
		}
		before, calls := p.store.counted("BatchVerify"), p.store.count("BatchVerify")
		const rounds = 20
		for range rounds {
			sleep(t.Context(), 2*podTTL)
			require.LessOrEqual(t, p.oldestCheck(), 2*podTTL)
		}
		items := p.store.counted("BatchVerify") - before
		require.GreaterOrEqual(t, items, rounds*users)
		require.LessOrEqual(t, items, 2*rounds*users+users)
		require.LessOrEqual(t, p.store.count("BatchVerify")-calls, rounds*30)
	})
}

// TestManySessions are not verified faster than 2,000 a second: then the bound grows.
func TestManySessions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const users, ttl = 20_000, 3 * time.Second
		p := newPodSessions(newFakeLinks(), 0, 7)
		p.lease.ttl = ttl
		p.report()
		go p.run(t.Context())
		go func() {
			for t.Context().Err() == nil {
				sleep(t.Context(), ttl/3)
				p.report()
			}
		}()
		for i := range users {
			epoch := p.store.put(fmt.Sprint("u", i), 0)
			if _, err := p.start(t.Context(), fmt.Sprint("u", i), epoch); err != nil {
				t.Fatal(err)
			}
		}
		sleep(t.Context(), 10*ttl)
		for range 5 {
			before := p.store.counted("BatchVerify")
			sleep(t.Context(), 10*time.Second)
			require.LessOrEqual(t, p.store.counted("BatchVerify")-before, 10*checksPerSecond+largestBatch)
		}
		require.Greater(t, p.oldestCheck(), 2*ttl)
		require.LessOrEqual(t, p.oldestCheck(), 4*ttl)
	})
}

// TestLapseIsOneReview: the sessions are verified once, at once and beside the reports.
func TestLapseIsOneReview(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		const users = 2000
		for i := range users {
			mustStart(t, p, fmt.Sprint("u", i))
		}
		p.store.setAround(func(_ context.Context, _ string, do func()) error {
			time.Sleep(40 * time.Millisecond)
			do()
			return nil
		})
		sleep(t.Context(), podTTL/2)
		p.silent.Store(true)
		sleep(t.Context(), podTTL+podTTL/4)
		before := p.store.counted("BatchVerify")
		p.silent.Store(false)
		p.report()
		state, _ := p.lease.state()
		require.Equal(t, 1, state.lapses)
		sleep(t.Context(), 2*time.Second)
		items := p.store.counted("BatchVerify") - before
		require.GreaterOrEqual(t, items, users)
		require.LessOrEqual(t, items, users+largestBatch)
		require.LessOrEqual(t, p.oldestCheck(), 3*time.Second)
		require.Empty(t, p.losses())
	})
}

// TestUnreadLink: one link that podlink can't read, or a podlink that is away, changes nothing for the others.
func TestUnreadLink(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		bad := mustStart(t, p, "bad")
		for i := range 10 {
			mustStart(t, p, fmt.Sprint("u", i))
		}
		p.store.fail("bad", v1.ErrorStoreDataCorrupt("corrupt"))
		for i := range 5 {
			sleep(t.Context(), podTTL)
			p.store.put(fmt.Sprint("u", i), 1)
			sleep(t.Context(), 2*podTTL)
			require.Len(t, p.losses(), i+1)
		}
		require.Greater(t, p.oldestCheck(), 10*podTTL, "the metric shows it")
		require.LessOrEqual(t, p.store.count("BatchVerify"), 100)
		p.store.fail("bad", nil)
		sleep(t.Context(), podTTL)
		require.LessOrEqual(t, p.oldestCheck(), 2*podTTL)

		p.store.setAround(func(context.Context, string, func()) error { return errors.New("away") })
		sleep(t.Context(), 10*podTTL)
		require.Greater(t, p.oldestCheck(), 9*podTTL)
		p.store.put("u9", 1)
		p.store.setAround(nil)
		sleep(t.Context(), 2*podTTL)
		require.Len(t, p.losses(), 6)
		requireHeld(t, p, "bad", bad.Epoch())
	})
}

// oneGauge is a meter that has what the one gauge made with it observes.
type oneGauge struct {
	noop.Meter
	noop.Observer
	observe metric.Callback
	value   float64
}

func (g *oneGauge) RegisterCallback(observe metric.Callback, _ ...metric.Observable) (metric.Registration, error) {
	g.observe = observe
	return registration{g: g}, nil
}

func (g *oneGauge) ObserveFloat64(_ metric.Float64Observable, value float64, _ ...metric.ObserveOption) {
	g.value = value
}

type registration struct {
	noop.Registration
	g *oneGauge
}

func (r registration) Unregister() error {
	r.g.observe = nil
	return nil
}

// TestAgeOfTheOldestCheckIsAMetric for as long as the sessions run.
func TestAgeOfTheOldestCheckIsAMetric(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPodSessions(newFakeLinks(), 0, 7)
		gauge := &oneGauge{}
		end := p.observe(gauge)
		p.report()
		mustStart(t, p, "u")
		time.Sleep(time.Minute)
		require.NoError(t, gauge.observe(t.Context(), gauge))
		require.InDelta(t, 60, gauge.value, .001)
		end()
		require.Nil(t, gauge.observe)
	})
}
