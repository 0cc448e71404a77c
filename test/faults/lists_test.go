//go:build faults

package faults

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
	"podlink/test/kit/variants"
)

const (
	// lastActs is how many links a podlink changes right before it is stopped or frozen: fewer than what begins a flush at once.
	lastActs = 200
	// flushed is longer than a change waits until it is flushed.
	flushed = 300 * time.Millisecond
)

// actsOf returns the uids of users whom the load leaves alone.
func actsOf(name string, n int) []string {
	uids := make([]string, n)
	for i := range uids {
		uids[i] = fmt.Sprintf("%s:%d", name, i)
	}
	return uids
}

// killed kills the podlink of one of the watchers while it is linking new users, so that its last changes are lost, and starts another one.
func killed(round int) listFault {
	return listFault{name: fmt.Sprintf("kill -9, round %d", round+1), gap: true, inject: func(t *testing.T, l *lists) {
		victim := l.watchers[round%len(l.watchers)].at.Load()
		var linking sync.WaitGroup
		for caller := range 4 {
			linking.Go(func() {
				for n := range 1000 {
					uids := actsOf(fmt.Sprintf("killed:%d:%d:%d", round, caller, n), 10)
					if _, err := changeAll(victim.conn, set, int32(n%listedPods), uids); err != nil {
						return
					}
				}
			})
		}
		time.Sleep(flushed)
		victim.Kill()
		linking.Wait()
		l.roster.remove(victim)
		l.roster.add(t, start(t, l.binary, 1, l.env...)[0])
	}}
}

// stopped stops the podlink of one of the watchers, as a rolling update does: it loses nothing, so nothing is old.
func stopped(watcher int) listFault {
	return listFault{name: "a podlink is replaced", inject: func(t *testing.T, l *lists) {
		victim := l.watchers[watcher].at.Load()
		mustChange(t, victim.conn, set, 1, actsOf("stopped", lastActs))
		l.roster.remove(victim)
		require.Zero(t, victim.Stop(t))
		l.roster.add(t, start(t, l.binary, 1, l.env...)[0])
	}}
}

// frozen lets a podlink flush removals late: it is frozen right after it has answered, and meanwhile the users come back to the same pod
// through another one.
func frozen(rounds int) listFault {
	return listFault{name: "a podlink is frozen", inject: func(t *testing.T, l *lists) {
		all := l.roster.all()
		for round := range rounds {
			victim, other := all[round%len(all)], all[(round+1)%len(all)]
			uids := actsOf(fmt.Sprintf("frozen:%d", round), lastActs)
			mustChange(t, victim.conn, set, 0, uids)
			time.Sleep(flushed)
			mustChange(t, victim.conn, remove, 0, uids)
			require.NoError(t, victim.Freeze())
			mustChange(t, other.conn, set, 0, uids)
			time.Sleep(flushed)
			require.NoError(t, victim.Resume())
		}
	}}
}

// slow keeps the watcher over gRPC from taking messages, while more changes come than are kept for it.
func slow() listFault {
	return listFault{name: "a slow watcher", slow: true, inject: func(t *testing.T, l *lists) {
		w := l.watchers[0]
		w.taking.Lock()
		defer w.taking.Unlock()
		for i := range int32(40) { // Nobody changes again what comes first.
			mustChange(t, l.roster.any(), set, i%listedPods, actsOf(fmt.Sprintf("slow:%d", min(i, 9)), batch))
		}
		time.Sleep(flushed)
	}}
}

// requireLists fails if a list or a view was wrong.
func requireLists(t *testing.T, report *Report) {
	t.Helper()
	require.Empty(t, report.Violations)
	require.Zero(t, report.Lost)
}

// TestListsAfterKills: after a podlink is killed under a load, the lists are complete again without help, every link is in exactly its
// pod's list, and watchers know every link.
func TestListsAfterKills(t *testing.T) {
	_, store := standalone(t)
	l := startLists(t, binary, store, 3)
	l.report.wantOperations, l.report.wantFaults = 5000, 3
	requireLists(t, l.run(t, killed(0), killed(1), killed(2)))
}

// TestLists: the same after other faults of podlink and of Redis.
func TestLists(t *testing.T) {
	for name, scenario := range map[string]func(t *testing.T){
		"podlinks": func(t *testing.T) {
			_, store := standalone(t)
			l := startLists(t, binary, store, 2)
			l.report.wantOperations, l.report.wantFaults = 2000, 4
			requireLists(t, l.run(t, stopped(0), stopped(1), frozen(2), slow()))
			require.Positive(t, l.unaided, "all watchers have read the lists after every fault")
		},
		"Redis":    redisLists,
		"Sentinel": sentinelLists,
		"cluster":  clusterLists,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scenario(t)
		})
	}
}

// redisLists lets a Redis be full, frozen, slow, and lose replies.
func redisLists(t *testing.T) {
	server, store := standalone(t)
	client := server.Client(t)
	proxy := redistest.NewProxy(t, server.Addr())
	store.env = podlinktest.OnRedis("standalone", proxy.Addr())
	l := startLists(t, binary, store, 2)
	l.report.wantOperations, l.report.wantFaults = 2000, 4
	report := l.run(t,
		listFault{name: "Redis is full", inject: func(t *testing.T, _ *lists) {
			do(t, client, command{"CONFIG", "SET", "maxmemory", "1"})
			time.Sleep(2 * time.Second)
			do(t, client, command{"CONFIG", "SET", "maxmemory", "0"})
		}},
		listFault{name: "Redis is frozen", inject: func(*testing.T, *lists) {
			server.Pause()
			time.Sleep(6 * time.Second) // Longer than the silence of a podlink that has died.
			server.Resume()
		}},
		listFault{name: "Redis is slow", inject: func(t *testing.T, _ *lists) {
			for range 4 {
				do(t, client, command{"CLIENT", "PAUSE", "400", "ALL"})
				time.Sleep(600 * time.Millisecond)
			}
		}},
		listFault{name: "replies are lost", inject: func(*testing.T, *lists) {
			proxy.LoseEvery(20)
			time.Sleep(time.Second)
			proxy.LoseEvery(0)
			proxy.Reset()
		}},
	)
	requireLists(t, report)
	require.Positive(t, report.Refused)
	require.Positive(t, report.Unknown)
}

// sentinelLists kills primaries.
func sentinelLists(t *testing.T) {
	set := redistest.StartSentinel(t, redistest.SentinelOptions{DownAfter: time.Second})
	l := startLists(t, binary, listStore{
		env:       append(podlinktest.OnRedis("sentinel", set.Addrs()...), "PODLINK_DATA_REDIS_MASTER_NAME="+set.MasterName()),
		primaries: clientsOf(t, set.Servers(), func() []*redistest.Server { return []*redistest.Server{set.Primary()} }),
	}, 2)
	l.report.wantOperations, l.report.wantFaults = 1000, 2
	failover := listFault{name: "failover", gap: true, inject: func(*testing.T, *lists) {
		killed := set.KillPrimary()
		set.WaitNewPrimary(killed)
		killed.Restart()
		set.WaitHealthy()
	}}
	requireLists(t, l.run(t, failover, failover))
}

// clusterLists moves slots, of links, of the feed and of the indexes, and kills a primary.
func clusterLists(t *testing.T) {
	cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 3, Replicas: 1, Args: []string{
		"--cluster-node-timeout", "1500", "--cluster-replica-validity-factor", "0",
	}})
	l := startLists(t, binary, listStore{
		env:       podlinktest.OnRedis("cluster", cluster.Addrs()...),
		primaries: clientsOf(t, cluster.Nodes(), cluster.Primaries),
	}, 2)
	l.report.wantOperations, l.report.wantFaults = 1000, 2
	suffix := namespace + ":" + listedService
	moving := []string{
		"podlink:feed:" + suffix, "podlink:index:" + suffix + ":0", "podlink:index:" + suffix + ":1", "podlink:fleet", "podlink:writers",
	}
	for user := range 10 {
		moving = append(moving, linkKey("podlink", listedUID(user)))
	}
	requireLists(t, l.run(t,
		listFault{name: "slots move", inject: func(*testing.T, *lists) {
			for _, key := range moving {
				primaries, from := cluster.Primaries(), cluster.Owner(key)
				cluster.MoveSlot(redistest.Slot(key), from, primaries[(slices.Index(primaries, from)+1)%len(primaries)])
			}
		}},
		listFault{name: "failover", gap: true, inject: func(*testing.T, *lists) {
			killed := cluster.Owner("podlink:feed:" + suffix)
			killed.Kill()
			require.Eventually(t, func() bool { return cluster.Owner("podlink:feed:"+suffix) != killed }, readTimeout, 50*time.Millisecond)
			killed.Restart()
			cluster.WaitHealthy()
		}},
	))
}

// TestListsKnownBad: builds that lose what lists and watchers need are found.
func TestListsKnownBad(t *testing.T) {
	for name, bad := range map[string]struct {
		faults []listFault
		found  []string
	}{
		variants.SilentDeath:  {[]listFault{killed(0), killed(1), killed(2), killed(3)}, []string{"there is no gap", "is not told of the gap", "the lists: "}},
		variants.AnyOrder:     {[]listFault{frozen(4)}, []string{"a podlink is frozen: the lists: "}},
		variants.SilentlySlow: {[]listFault{slow()}, []string{"a slow watcher: the watcher over gRPC (resync: false): "}},
	} {
		t.Run("known-bad/"+name, func(t *testing.T) {
			t.Parallel()
			_, store := standalone(t)
			l := startLists(t, variants.Build(t, name), store, 2)
			l.sought = bad.found
			l.run(t, bad.faults...)
			require.Empty(t, l.missed(), "what the violations should have")
		})
	}
}
