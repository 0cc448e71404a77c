//go:build faults

package faults

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// recoveryTimeout bounds the time from a fault to the first acknowledged mutation after it.
const recoveryTimeout = 20 * time.Second

// disturbance is a fault to inject during a contended load.
type disturbance struct {
	name    string
	redis   []string // arguments of redis-server
	proxied bool     // Redis is behind a proxy
	faults  int      // minimum
	// invisible means that callers must not notice the fault.
	invisible bool
	inject    func(t *testing.T, r *run, redis *redistest.Server, proxy *redistest.Proxy)
}

var (
	undisturbed = disturbance{name: "no fault", invisible: true}

	lostReplies = disturbance{
		name: "5 % of the replies lost", proxied: true, faults: 250,
		inject: func(_ *testing.T, r *run, _ *redistest.Server, proxy *redistest.Proxy) {
			proxy.LoseEvery(20)
			for r.more() {
				time.Sleep(10 * time.Millisecond)
				r.injected(proxy.Lost())
			}
			proxy.LoseEvery(0)
			r.injected(proxy.Lost())
		},
	}

	kills = disturbance{
		name: "kill -9 and restart", redis: []string{"--appendonly", "yes", "--appendfsync", "always"}, faults: 5,
		inject: func(t *testing.T, r *run, redis *redistest.Server, _ *redistest.Proxy) {
			for n := 1; r.more(); n++ {
				time.Sleep(500 * time.Millisecond)
				redis.Kill()
				killed := time.Now()
				time.Sleep(200 * time.Millisecond)
				redis.Restart()
				r.recovered(t, killed, recoveryTimeout, nil)
				r.injected(n)
			}
		},
	}

	pauses = disturbance{
		name: "SIGSTOP of 0.1, 1 and 5 s", faults: 6,
		inject: func(t *testing.T, r *run, redis *redistest.Server, _ *redistest.Proxy) {
			lengths := []time.Duration{100 * time.Millisecond, time.Second, 5 * time.Second}
			for n := 0; r.more(); n++ {
				time.Sleep(800 * time.Millisecond)
				redis.Pause()
				paused := time.Now()
				time.Sleep(lengths[n%len(lengths)])
				redis.Resume()
				r.recovered(t, paused, recoveryTimeout, nil)
				r.injected(n + 1)
			}
		},
	}

	resets = disturbance{
		name: "connections reset every 50 ms", proxied: true, faults: 50,
		inject: func(_ *testing.T, r *run, _ *redistest.Server, proxy *redistest.Proxy) {
			for n := 0; r.more(); r.injected(n) {
				time.Sleep(50 * time.Millisecond)
				if proxy.Reset() > 0 {
					n++
				}
			}
		},
	}

	flushes = disturbance{
		name: "SCRIPT FLUSH every 200 ms", faults: 25, invisible: true,
		inject: func(t *testing.T, r *run, redis *redistest.Server, _ *redistest.Proxy) {
			client := redis.Client(t)
			for n := 1; r.more(); n++ {
				time.Sleep(200 * time.Millisecond)
				require.NoError(t, client.ScriptFlush(context.Background()).Err())
				r.injected(n)
			}
		},
	}
)

// linearizability runs 8 clients that contend for links through two podlinks while the fault is injected. It returns the
// report, and the first history that is not linearizable, nil if all are.
func linearizability(t *testing.T, binary string, d disturbance) (*Report, *history) {
	t.Helper()
	redis := redistest.Start(t, d.redis...)
	addr := redis.Addr()
	var proxy *redistest.Proxy
	if d.proxied {
		proxy = redistest.NewProxy(t, addr)
		addr = proxy.Addr()
	}
	podlinks := start(t, binary, 2, podlinktest.OnRedis("standalone", addr)...)
	workload := newHistories(everything)
	workload.prepare(t, podlinks[0])
	r := load{
		podlinks: podlinks, workload: workload,
		clients: 8, operations: 5000, faults: d.faults, pause: time.Millisecond,
	}.begin(t)
	if d.inject != nil {
		d.inject(t, r, redis, proxy)
	}
	report := r.end(t)
	found := illegal(t, historiesOf(workload.read(t, r)))
	if found != nil {
		report.violated("uid %s, service %s: history is not linearizable", found.uid, found.service)
	}
	if d.invisible && report.Refused+report.Unknown > 0 {
		report.violated("callers noticed the fault")
	}
	report.publish(t)
	return report, found
}

// TestLinearizability: the operations on every link are linearizable, whatever fault Redis has.
func TestLinearizability(t *testing.T) {
	for _, d := range []disturbance{undisturbed, lostReplies, kills, pauses, resets, flushes} {
		t.Run(d.name, func(t *testing.T) {
			report, found := linearizability(t, binary, d)
			if found != nil {
				t.Errorf("history that is not linearizable: %s", found.draw(t, os.TempDir()))
			}
			require.Empty(t, report.Violations)
		})
	}
}
