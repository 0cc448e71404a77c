package telemetry

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
)

var (
	room = biz.ServiceKey{Namespace: "game", Service: "room"}
	chat = biz.ServiceKey{Namespace: "game", Service: "chat"}
)

// readTime is the latency of a reading.
const readTime = 100 * time.Millisecond

func liveness(live bool) biz.Liveness {
	if live {
		return biz.Live
	}
	return biz.Dead
}

func podOf(id biz.PodID, routing biz.Routing, ttl biz.TTL, live bool) biz.Pod {
	return biz.Pod{Report: biz.Report{Pod: id, State: "up", Routing: routing, TTL: ttl}, Liveness: liveness(live)}
}

// readBy simulates a reading for Compute.
func readBy(domain *Domain, key biz.ServiceKey, pods ...biz.Pod) {
	asOf := time.Now()
	time.Sleep(readTime)
	domain.PodsRead(key, pods, asOf)
}

// requirePods checks the gauges of pods.
func requirePods(t *testing.T, domain *Domain, live, draining, shutdown, dead, services int, age time.Duration) {
	t.Helper()
	want := fmt.Sprintf(`
		# HELP podlink_pod_services How many services those are of.
		# TYPE podlink_pod_services gauge
		podlink_pod_services %d
		# HELP podlink_pod_view_age_seconds How old the oldest of those reports and readings is.
		# TYPE podlink_pod_view_age_seconds gauge
		podlink_pod_view_age_seconds %g
		# HELP podlink_pods Pods that reported to this podlink, or that it read for ComputeLinkedPod, by state.
		# TYPE podlink_pods gauge
		podlink_pods{state="dead"} %d
		podlink_pods{state="draining"} %d
		podlink_pods{state="live"} %d
		podlink_pods{state="shutdown"} %d
		`, services, age.Seconds(), dead, draining, live, shutdown)
	require.NoError(t, testutil.CollectAndCompare(domain, strings.NewReader(want),
		"podlink_pods", "podlink_pod_services", "podlink_pod_view_age_seconds"))
}

// TestPodsAsSeen: the gauges follow readings and reports, and drop services that were not seen for rosterTTL.
func TestPodsAsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		domain := NewDomain()
		seen := func(live, draining, shutdown, dead, services int, age time.Duration) {
			t.Helper()
			requirePods(t, domain, live, draining, shutdown, dead, services, age)
		}
		pods := []biz.Pod{
			podOf(0, biz.Ready, biz.Forever, true), podOf(1, biz.DenyNew, biz.Forever, true),
			podOf(2, biz.Shutdown, biz.Forever, true), podOf(3, biz.Ready, biz.Forever, false),
		}
		seen(0, 0, 0, 0, 0, 0)
		readBy(domain, room, pods...)
		seen(1, 1, 1, 1, 1, readTime)

		back, fresh := podOf(3, biz.Ready, biz.Forever, true), podOf(4, biz.DenyNew, biz.Forever, true)
		domain.PodReported(room, back)
		seen(2, 1, 1, 0, 1, readTime)
		domain.PodReported(room, fresh)
		seen(2, 2, 1, 0, 1, readTime)

		time.Sleep(2 * time.Second)
		readBy(domain, chat, append(pods[:3:3], back, fresh)...)
		seen(4, 4, 2, 0, 2, 2*time.Second+2*readTime)
		domain.PodRemoved(chat, 0)
		seen(3, 4, 2, 0, 2, 2*time.Second+2*readTime)
		time.Sleep(rosterTTL)
		seen(0, 0, 0, 0, 0, 0)
	})
}

// writeOnlyStore accepts reports and panics on reads: a gauge must not read the store.
type writeOnlyStore struct{ biz.PodRepo }

func (writeOnlyStore) Set(_ context.Context, _ biz.ServiceKey, report biz.Report) (biz.ReportResult, error) {
	return biz.ReportResult{Applied: true, Pod: biz.Pod{Report: report, Liveness: biz.Live}}, nil
}

// TestPodsAreCountedWhenTheyReport: also pods of a service without computes. A pod that stops reporting is dead after its ttl,
// and dropped a minute later.
func TestPodsAreCountedWhenTheyReport(t *testing.T) {
	for name, ttl := range map[string]biz.TTL{"shorter than a minute": 30, "longer than a minute": 300} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				domain := NewDomain()
				pods := biz.NewPodUsecase(biz.NewPodViews(writeOnlyStore{}, domain), ttl)
				report := func(id biz.PodID, routing biz.Routing) {
					_, err := pods.Set(t.Context(), room, biz.NewReport{Pod: &id, State: "up", Routing: routing})
					require.NoError(t, err)
				}
				lifetime := time.Duration(ttl) * time.Second
				report(0, biz.Ready)
				requirePods(t, domain, 1, 0, 0, 0, 1, 0)
				time.Sleep(lifetime - time.Millisecond)
				requirePods(t, domain, 1, 0, 0, 0, 1, lifetime-time.Millisecond)
				time.Sleep(time.Millisecond)
				requirePods(t, domain, 0, 0, 0, 1, 1, lifetime)

				report(0, biz.DenyNew)
				report(1, biz.Shutdown)
				requirePods(t, domain, 0, 1, 1, 0, 1, 0)
				time.Sleep(lifetime + rosterTTL)
				requirePods(t, domain, 0, 0, 0, 2, 1, lifetime+rosterTTL)
				time.Sleep(time.Millisecond)
				requirePods(t, domain, 0, 0, 0, 0, 0, 0)
				require.Zero(t, domain.roster.pods)
				require.Empty(t, domain.roster.services)
			})
		})
	}
}

// TestReadingsAndReports: a reading replaces older reports but not newer ones, and does not prolong a report it repeats.
func TestReadingsAndReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		domain := NewDomain()
		at := func(pod biz.Pod, heartbeatMs int64) biz.Pod {
			pod.HeartbeatMs = heartbeatMs
			return pod
		}
		up := podOf(0, biz.Ready, 30, true)
		domain.PodReported(room, at(up, 1))
		time.Sleep(20 * time.Second)
		readBy(domain, room, at(up, 1))
		requirePods(t, domain, 1, 0, 0, 0, 1, readTime)
		time.Sleep(10*time.Second - readTime)
		requirePods(t, domain, 0, 0, 0, 1, 1, 10*time.Second)

		readBy(domain, room, at(up, 2)) // The pod has reported to another podlink.
		requirePods(t, domain, 1, 0, 0, 0, 1, readTime)
		time.Sleep(30*time.Second - readTime)
		requirePods(t, domain, 0, 0, 0, 1, 1, 30*time.Second)

		asOf := time.Now()
		time.Sleep(readTime)
		domain.PodReported(room, at(podOf(0, biz.DenyNew, 30, true), 3))
		domain.PodReported(room, at(podOf(1, biz.Shutdown, 30, true), 3))
		domain.PodsRead(room, []biz.Pod{at(podOf(0, biz.Ready, 30, false), 2)}, asOf)
		requirePods(t, domain, 0, 1, 1, 0, 1, 0)

		time.Sleep(time.Second)
		readBy(domain, room)
		requirePods(t, domain, 0, 0, 0, 0, 1, readTime)
		domain.PodReported(room, at(up, 4))
		domain.PodRemoved(room, 0)
		domain.PodRemoved(room, 0)
		requirePods(t, domain, 0, 0, 0, 0, 0, 0)
	})
}

// TestRosterIsBounded: in services and in pods.
func TestRosterIsBounded(t *testing.T) {
	domain := NewDomain()
	within := func() {
		t.Helper()
		known := 0
		for _, service := range domain.roster.services {
			known += len(service.pods)
		}
		require.Equal(t, known, domain.roster.pods)
		require.LessOrEqual(t, known, maxPods)
		require.LessOrEqual(t, len(domain.roster.services), maxServices)
	}
	for i := range maxServices + 10 {
		domain.PodReported(biz.ServiceKey{Namespace: "game", Service: strconv.Itoa(i)}, podOf(1, biz.Ready, 30, true))
	}
	within()
	require.Len(t, domain.roster.services, maxServices)

	many := slices.Repeat([]biz.Pod{podOf(0, biz.Ready, 30, true)}, maxPods-maxServices)
	for i := range many {
		many[i].Pod = biz.PodID(i)
	}
	domain.PodsRead(room, many, time.Now())
	within()
	require.NotZero(t, domain.roster.pods)
	for i := range 10 {
		domain.PodReported(room, podOf(biz.PodID(maxPods+i), biz.Ready, 30, true))
	}
	within()
}
