//go:build faults

package faults

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	podlinktest "podlink/test/kit/podlink"
	"podlink/test/kit/proc"
	redistest "podlink/test/kit/redis"
	"podlink/test/kit/variants"
)

// deathTimeout bounds how long podlink takes to find a dead pod: a report of another pod after a ttl, and a view of the pods
// that is a second old; and as much again for a busy machine.
const deathTimeout = 4 * fleetTTL

// silence is a fault during which no pod of a service can report.
type silence struct {
	name string
	// stage starts what the fleet needs.
	stage func(t *testing.T, binary string) stage
	// lengths are how long the fault lasts, in ttls.
	lengths []float64
	// certain: no report of before the end arrives late, so the first report afterwards is that of one pod for certain.
	certain bool
}

// stage is a running podlink with a fault to inject.
type stage struct {
	callers, pods string // podlink's address for them
	begin, end    func()
}

// lengths are the default lengths of a silence.
var lengths = []float64{.5, 1, 2, 5}

// fixed starts a podlink whose address stays the same when it is started again with the returned environment.
func fixed(t *testing.T, binary string, env ...string) (p *podlinktest.Process, same []string) {
	t.Helper()
	same = append([]string{"PODLINK_SERVER_GRPC_ADDR=" + proc.FreeAddr(t)}, env...)
	return start(t, binary, 1, same...)[0], same
}

func silences() []silence {
	aof := []string{"--appendonly", "yes", "--appendfsync", "always"}
	return []silence{
		{"podlink killed and restarted", func(t *testing.T, binary string) stage {
			redis := redistest.Start(t)
			p, env := fixed(t, binary, podlinktest.OnRedis("standalone", redis.Addr())...)
			return stage{p.GRPC, p.GRPC, func() { p.Kill() }, func() { p = start(t, binary, 1, env...)[0] }}
		}, lengths, true},
		{"podlink frozen", func(t *testing.T, binary string) stage {
			redis := redistest.Start(t)
			p, _ := fixed(t, binary, podlinktest.OnRedis("standalone", redis.Addr())...)
			return stage{
				p.GRPC, p.GRPC,
				func() { require.NoError(t, p.Freeze()) }, func() { require.NoError(t, p.Resume()) },
			}
		}, lengths, false},
		{"Redis killed and restarted with AOF", func(t *testing.T, binary string) stage {
			redis := redistest.Start(t, aof...)
			p, _ := fixed(t, binary, podlinktest.OnRedis("standalone", redis.Addr())...)
			return stage{p.GRPC, p.GRPC, redis.Kill, redis.Restart}
		}, lengths, true},
		{"Redis frozen", func(t *testing.T, binary string) stage {
			redis := redistest.Start(t)
			p, _ := fixed(t, binary, podlinktest.OnRedis("standalone", redis.Addr())...)
			return stage{p.GRPC, p.GRPC, redis.Pause, redis.Resume}
		}, lengths, false},
		{"all pods cut off", func(t *testing.T, binary string) stage {
			redis := redistest.Start(t)
			p, _ := fixed(t, binary, podlinktest.OnRedis("standalone", redis.Addr())...)
			network := newRelay(t, p.GRPC)
			return stage{p.GRPC, network.addr(), network.cut, network.mend}
		}, lengths, true},
		{"failover", func(t *testing.T, binary string) stage {
			set := redistest.StartSentinel(t, redistest.SentinelOptions{DownAfter: fleetTTL, Args: aof})
			env := append(podlinktest.OnRedis("sentinel", set.Addrs()...), "PODLINK_DATA_REDIS_MASTER_NAME="+set.MasterName())
			p, _ := fixed(t, binary, env...)
			var killed *redistest.Server
			return stage{p.GRPC, p.GRPC, func() { killed = set.KillPrimary() }, func() {
				set.WaitNewPrimary(killed)
				killed.Restart()
				set.WaitHealthy()
			}}
		}, []float64{0}, false}, // The sentinels take more than a ttl.
	}
}

// outages silences a fleet for each length, and computes all users: during the silence, as soon as the first pod has
// reported, and until every pod has reported. In the end a pod dies.
func outages(t *testing.T, binary string, s silence) *Report {
	t.Helper()
	stage := s.stage(t, binary)
	f := newFleet(t, stage.callers, stage.pods)
	f.report.wantOperations, f.report.wantFaults = 2*fleetUsers*len(s.lengths), len(s.lengths)
	f.undisturbed(t, "at first")
	for _, ttls := range s.lengths {
		when := fmt.Sprintf("%s for %g ttl", s.name, ttls)
		stage.begin()
		until := time.Now().Add(time.Duration(ttls * float64(fleetTTL)))
		if stage.callers != stage.pods {
			for time.Now().Before(until) {
				f.undisturbed(t, when+", meanwhile")
				time.Sleep(100 * time.Millisecond)
			}
		}
		time.Sleep(time.Until(until))
		f.hold()
		stage.end()
		f.report.Faults++
		f.reportFirst(t)
		f.undisturbed(t, when+", after the first report")
		reported := f.reported(2)
		f.release()
		for !reported() {
			f.undisturbed(t, when+", while pods report again")
			time.Sleep(100 * time.Millisecond)
		}
		f.steady(t)
	}
	took := f.bury(t)
	t.Logf("a pod that died was found after %s", took.Round(time.Millisecond))
	if took > deathTimeout {
		f.report.violated("a dead pod was found after %s", took)
	}
	f.report.publish(t)
	return f.report
}

// TestOutages: a fault that silences all pods of a service takes no user from a pod that runs, and a pod that died is found all
// the same.
func TestOutages(t *testing.T) {
	for _, s := range silences() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			require.Empty(t, outages(t, binary, s).Violations)
		})
	}
}

// TestOutagesKnownBad: a build for which a pod is dead as soon as its report has expired is found by every silence
// that ends with the report of one pod.
func TestOutagesKnownBad(t *testing.T) {
	bad := variants.Build(t, variants.Impatient)
	for _, s := range silences() {
		if !s.certain {
			continue
		}
		s.lengths = []float64{2}
		t.Run("known-bad/"+s.name, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, strings.Join(outages(t, bad, s).Violations, "\n"), "after the first report")
		})
	}
}
