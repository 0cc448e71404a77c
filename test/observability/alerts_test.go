//go:build alerts

package observability

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	consultest "podlink/test/kit/consul"
	podlinktest "podlink/test/kit/podlink"
	"podlink/test/kit/proc"
	prometheustest "podlink/test/kit/prometheus"
	redistest "podlink/test/kit/redis"
)

const (
	// callers and callPause make a few hundred requests per second: enough for every rate, and a light load.
	callers   = 4
	callPause = 10 * time.Millisecond
	// fireTimeout bounds how long an alert may take to fire in the shorter windows. podlink checks its store every 5 s.
	fireTimeout = 30 * time.Second
	// resolveTimeout bounds how long an alert may fire after its fault is over. The longest short window is two hours.
	resolveTimeout = 2*time.Hour/shorter + 30*time.Second
)

// stage is a podlink under load on a Redis behind a proxy, scraped by a Prometheus.
type stage struct {
	env        []string
	podlink    *podlinktest.Process
	server     *redistest.Server
	registry   *consultest.Server
	redis      *redis.Client
	proxy      *redistest.Proxy
	prometheus *prometheustest.Server

	podsDie atomic.Bool // pods stop reporting, with a last report that expires after a second
	fired   []string    // alerts of this fault
	ever    []string    // alerts of all faults
}

// setStage starts everything. Redis is persistent, so that it restarts with the links.
func setStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{server: redistest.Start(t, "--appendonly", "yes"), registry: consultest.Start(t)}
	s.proxy, s.redis = redistest.NewProxy(t, s.server.Addr()), s.server.Client(t)
	// Fixed addresses, so that Prometheus and the callers find a restarted podlink.
	s.env = append(podlinktest.OnRedis("standalone", s.proxy.Addr()),
		"PODLINK_REGISTRY_TYPE=consul", "PODLINK_REGISTRY_ADDRS="+s.registry.Addr,
		"PODLINK_SERVER_GRPC_ADDR="+proc.FreeAddr(t), "PODLINK_SERVER_ADMIN_ADDR="+proc.FreeAddr(t))
	s.podlink = podlinktest.Start(t, binary, s.env...)
	s.podlink.WaitReady(t)
	s.load(t)
	s.prometheus = startPrometheus(t, s.podlink.Admin)
	// Prometheus needs 5 s until its first scrape, which is eight minutes in the shorter windows.
	s.watch(t, prometheustest.StartTimeout, "not scraped", func(now []string) bool {
		return len(now) == 0 && s.prometheus.Results(t, "up == 1") == 1
	})
	s.fired = nil
	return s
}

// load calls podlink until the test ends, and ignores the answers.
func (s *stage) load(t *testing.T) {
	t.Helper()
	conn := s.podlink.Conn(t)
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	t.Cleanup(func() { cancel(); all.Wait() })
	every := func(pause time.Duration, call func()) {
		all.Go(func() {
			for ctx.Err() == nil {
				call()
				time.Sleep(pause)
			}
		})
	}
	for range callers {
		every(callPause, func() { callOnce(ctx, conn) })
	}
	for pod := range int32(2) {
		dead := false
		every(100*time.Millisecond, func() {
			report := &v1.SetServiceStateRequest{
				Namespace: "game", Service: "room", PodId: proto.Int32(pod), State: "up", TtlSeconds: proto.Int32(600),
			}
			dies := s.podsDie.Load()
			if dies {
				report.TtlSeconds = proto.Int32(1)
			}
			if !dies || !dead {
				_, _ = v1.NewStateServiceClient(conn).SetServiceState(ctx, report)
			}
			dead = dies
		})
	}
}

// callOnce makes a random call, as a gateway does: it reads, creates or removes a link.
func callOnce(ctx context.Context, conn *grpc.ClientConn) {
	links, uid := v1.NewLinkServiceClient(conn), fmt.Sprintf("user-%d", rand.IntN(500))
	switch rand.IntN(5) {
	case 0:
		_, _ = links.SetLinkedPod(ctx, &v1.SetLinkedPodRequest{Namespace: "game", Uid: uid, Service: "room", PodId: proto.Int32(0)})
	case 1:
		_, _ = links.RemoveLinkedPod(ctx, &v1.RemoveLinkedPodRequest{Namespace: "game", Uid: uid, Service: "room"})
	case 2:
		_, _ = links.GetLinkedPod(ctx, &v1.GetLinkedPodRequest{Namespace: "game", Uid: uid, Service: "room"})
	default:
		_, _ = links.ComputeLinkedPod(ctx, &v1.ComputeLinkedPodRequest{Namespace: "game", Uid: uid, Service: "room"})
	}
}

// poll records and returns the alerts that fire now.
func (s *stage) poll(t *testing.T) []string {
	t.Helper()
	now := s.prometheus.Firing(t)
	for _, name := range now {
		if !slices.Contains(s.fired, name) {
			s.fired = append(s.fired, name)
			s.ever = append(s.ever, name)
		}
	}
	return now
}

// watch polls until done returns true, and fails after the timeout.
func (s *stage) watch(t *testing.T, timeout time.Duration, what string, done func(now []string) bool) {
	t.Helper()
	for end := time.Now().Add(timeout); ; time.Sleep(pollInterval) {
		now := s.poll(t)
		if done(now) {
			return
		}
		require.True(t, time.Now().Before(end), "%s: firing now: %v, fired so far: %v", what, now, s.fired)
	}
}

// spent returns the alerts on an error budget. An outage spends it, and shows in the longest windows for some time.
func spent(budget string) []string {
	return []string{"Podlink" + budget + "BudgetBurnFast", "Podlink" + budget + "BudgetBurnSlow", "Podlink" + budget + "BudgetBurnTicket"}
}

// TestAlertsFireAndEnd: with a real Prometheus and a real podlink, each fault fires its alerts and no others, and they resolve
// when it is over.
func TestAlertsFireAndEnd(t *testing.T) {
	begin := time.Now()
	s := setStage(t)
	configure := func(key, value string) {
		t.Helper()
		require.NoError(t, s.redis.ConfigSet(t.Context(), key, value).Err())
	}
	const strange = "podlink:link:game:user-1"

	t.Run("no fault", func(t *testing.T) {
		until := time.Now().Add(8 * time.Second)
		s.watch(t, fireTimeout, "", func([]string) bool { return time.Now().After(until) })
		require.Empty(t, s.fired)
		for _, rule := range rules(t, "podlink.rules.yml") {
			require.Positive(t, s.prometheus.Results(t, rule.Record), "%s is not recorded", rule.Record)
		}
		for _, query := range panelQueries(t) {
			require.GreaterOrEqual(t, s.prometheus.Results(t, query), 0, query)
		}
	})

	// Budget alerts of earlier faults may still fire in later ones.
	var remembered []string
	for _, fault := range []struct {
		name       string
		begin, end func()
		fires      []string // all of these must fire
		may        []string // these may fire too
		spends     bool     // the error budget
	}{
		{
			name:  "all pods of a service die",
			begin: func() { s.podsDie.Store(true) }, end: func() { s.podsDie.Store(false) },
			fires: []string{"PodlinkNoAvailablePod", "PodlinkServiceSilent", "PodlinkPodsInDoubt"},
		},
		{
			name:  "replies are lost",
			begin: func() { s.proxy.LoseEvery(10) }, end: func() { s.proxy.LoseEvery(0) },
			fires: []string{"PodlinkOutcomeUnknown"}, may: []string{"PodlinkFeedLags"}, spends: true,
		},
		{
			name:  "Redis is killed",
			begin: s.server.Kill, end: s.server.Restart,
			fires: []string{"PodlinkStoreNotReady"}, spends: true,
			// Calls in flight have an unknown outcome, and failing connections take time. Changes that were not flushed yet wait.
			may: append(spent("Latency"), "PodlinkOutcomeUnknown", "PodlinkFeedLags", "PodlinkIndexIncomplete"),
		},
		{
			name:  "Redis may evict",
			begin: func() { configure("maxmemory-policy", "allkeys-lru") }, end: func() { configure("maxmemory-policy", "noeviction") },
			fires: []string{"PodlinkStoreMayEvict", "PodlinkStoreNotReady"},
		},
		{
			name:  "Redis is full",
			begin: func() { configure("maxmemory", "1") }, end: func() { configure("maxmemory", "0") },
			fires: []string{"PodlinkStoreFull"}, spends: true,
			// Removals still work, and can't be noted.
			may: []string{"PodlinkFeedLags", "PodlinkIndexIncomplete"},
		},
		{
			name: "foreign data",
			begin: func() {
				require.NoError(t, s.redis.Del(t.Context(), strange).Err())
				require.NoError(t, s.redis.Set(t.Context(), strange, "foreign", 0).Err())
			},
			end:   func() { require.NoError(t, s.redis.Del(t.Context(), strange).Err()) },
			fires: []string{"PodlinkStoreDataCorrupt"}, may: spent("Error"),
		},
		{
			name:  "the registry is down",
			begin: s.registry.Kill, end: s.registry.RestartEmpty,
			fires: []string{"PodlinkNotRegistered"},
		},
		{
			name:  "podlink is killed",
			begin: s.podlink.Kill,
			end: func() {
				s.podlink = podlinktest.Start(t, binary, s.env...)
				s.podlink.WaitReady(t)
			},
			fires: []string{"PodlinkNotScraped"}, may: []string{"PodlinkOutcomeUnknown", "PodlinkIndexIncomplete"},
		},
	} {
		t.Run(fault.name, func(t *testing.T) {
			if fault.spends {
				remembered = append(remembered, spent("Error")...)
			}
			remembered = append(remembered, fault.may...)
			s.fired = nil
			fault.begin()
			wanted := slices.Clone(fault.fires)
			if fault.spends {
				wanted = append(wanted, spent("Error")[0])
			}
			s.watch(t, fireTimeout, fmt.Sprintf("not all of %v fired", wanted), func([]string) bool {
				return !slices.ContainsFunc(wanted, func(name string) bool { return !slices.Contains(s.fired, name) })
			})
			fault.end()
			s.watch(t, fireTimeout, "alerts still fire", func(now []string) bool {
				return !slices.ContainsFunc(now, func(name string) bool { return slices.Contains(fault.fires, name) })
			})
			for _, name := range s.fired {
				require.Contains(t, append(slices.Clone(remembered), fault.fires...), name, "it must not fire")
			}
			t.Logf("%.0f s: %v", time.Since(begin).Seconds(), s.fired)
		})
		require.False(t, t.Failed())
	}

	t.Run("all faults over", func(t *testing.T) {
		s.watch(t, resolveTimeout, "alerts still fire", func(now []string) bool { return len(now) == 0 })
		t.Logf("%.0f s", time.Since(begin).Seconds())
		require.Subset(t, s.ever, spent("Error"), "the slow alerts need more than one fault")
	})
}
