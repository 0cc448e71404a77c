//go:build faults

package faults

import (
	"crypto/sha1"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// modes are the values of data.redis.mode with a real Redis.
var modes = []string{"standalone", "sentinel", "cluster"}

// deployment is a Redis behind proxies.
type deployment struct {
	env     []string // points podlink to it
	servers []*redistest.Server
	proxies []*redistest.Proxy
}

// deployments has a function for each mode that starts its Redis.
var deployments = map[string]func(t *testing.T) deployment{
	"standalone": func(t *testing.T) deployment {
		server := redistest.Start(t)
		proxy := redistest.NewProxy(t, server.Addr())
		return deployment{
			env:     podlinktest.OnRedis("standalone", proxy.Addr()),
			servers: []*redistest.Server{server},
			proxies: []*redistest.Proxy{proxy},
		}
	},
	"sentinel": func(t *testing.T) deployment {
		s := redistest.StartSentinel(t, redistest.SentinelOptions{Proxied: true})
		return deployment{
			env: append(podlinktest.OnRedis("sentinel", s.Addrs()...),
				"PODLINK_DATA_REDIS_MASTER_NAME="+s.MasterName()),
			servers: s.Servers(),
			proxies: s.Proxies(),
		}
	},
	"cluster": func(t *testing.T) deployment {
		c := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 3, Proxied: true})
		return deployment{
			env:     podlinktest.OnRedis("cluster", c.Addrs()...),
			servers: c.Nodes(),
			proxies: c.Proxies(),
		}
	},
}

// mutationScripts returns the SHA1 of the scripts that mutations of links run. What podlink runs by itself, for the feed and the index, and
// to read what has come of an unknown outcome, is no mutation.
func mutationScripts(t *testing.T) (shas []string) {
	t.Helper()
	for _, name := range []string{"SetLink", "TrySetLink", "SetLinkIfAbsent", "RemoveLink", "RemoveLinkWithId"} {
		text, err := os.ReadFile("../../internal/data/lua/assembled/stateful" + name + ".lua")
		require.NoError(t, err)
		shas = append(shas, fmt.Sprintf("%x", sha1.Sum(text))) //nolint:gosec // Redis names scripts by it.
	}
	return shas
}

// loseEvery loses every n-th reply to a mutation.
func (d deployment) loseEvery(t *testing.T, n int) {
	t.Helper()
	for _, proxy := range d.proxies {
		proxy.LoseOnly(mutationScripts(t)...)
		proxy.LoseEvery(n)
	}
}

func (d deployment) lost() int {
	lost := 0
	for _, proxy := range d.proxies {
		lost += proxy.Lost()
	}
	return lost
}

// executions counts from now on the mutations that the servers execute.
func (d deployment) executions(t *testing.T) (executed func() int) {
	t.Helper()
	var calls []string
	for _, sha := range mutationScripts(t) {
		calls = append(calls, `"evalsha" "`+sha) // None is refused with NOSCRIPT: podlink has loaded them.
	}
	monitors := make([]*redistest.Monitor, len(d.servers))
	for i, server := range d.servers {
		monitors[i] = server.Count(t, calls...)
	}
	return func() (total int) {
		for _, monitor := range monitors {
			total += monitor.Counted(t)
		}
		return total
	}
}

// countExecutions loses replies to mutations, each of which is one script, and returns how many scripts the servers executed
// beyond one per call. The count is exact unless calls share round trips: then a lost reply takes later ones with it, of
// commands that may or may not have been executed. The test must not call /readyz during the load, because a self-test
// executes scripts.
func countExecutions(t *testing.T, binary, mode string, shared bool) (report *Report, more int) {
	t.Helper()
	d := deployments[mode](t)
	env := slices.Concat(d.env, []string{"PODLINK_DATA_REDIS_AUTO_PIPELINE=" + strconv.FormatBool(shared)})
	l := load{
		podlinks: start(t, binary, 2, env...), workload: newHistories(mutations),
		clients: 8, operations: 3000, faults: 100, pause: time.Millisecond,
	}
	counted := d.executions(t)
	r := l.begin(t)
	d.loseEvery(t, 20)
	for r.more() {
		time.Sleep(10 * time.Millisecond)
		r.injected(d.lost())
	}
	d.loseEvery(t, 0)
	r.injected(d.lost())
	report = r.end(t)
	executed := counted()
	more = executed - report.Acknowledged - report.Unknown
	if more > 0 || !shared && more != 0 {
		report.violated("the servers executed %d scripts more than one per call", more)
	}
	if executed < report.Acknowledged+report.Faults {
		report.violated("the servers executed %d scripts fewer than calls were answered or lost their reply",
			report.Acknowledged+report.Faults-executed)
	}
	if report.Unknown < report.Faults || !shared && report.Unknown != report.Faults {
		report.violated("%d replies were lost, but %d callers got an unknown outcome", report.Faults, report.Unknown)
	}
	report.publish(t)
	return report, more
}

// TestAtMostOneExecution: a mutation whose reply is lost is not retried, and its caller gets OUTCOME_UNKNOWN.
func TestAtMostOneExecution(t *testing.T) {
	for _, mode := range modes {
		for name, shared := range map[string]bool{mode: false, mode + ", shared round trips": true} {
			t.Run(name, func(t *testing.T) {
				report, _ := countExecutions(t, binary, mode, shared)
				require.Empty(t, report.Violations)
			})
		}
	}
}
