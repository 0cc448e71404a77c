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

// gauges are the gauges of pods.
type gauges struct {
	live, draining, shutdown, inDoubt, dead, services, silent int

	age time.Duration
}

func requirePods(t *testing.T, domain *Domain, want gauges) {
	t.Helper()
	text := fmt.Sprintf(`
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
		podlink_pods{state="in_doubt"} %d
		podlink_pods{state="live"} %d
		podlink_pods{state="shutdown"} %d
		# HELP podlink_pod_services_silent Services with pods in doubt and no live one: none of their pods is heard.
		# TYPE podlink_pod_services_silent gauge
		podlink_pod_services_silent %d
		`, want.services, want.age.Seconds(), want.dead, want.draining, want.inDoubt, want.live, want.shutdown, want.silent)
	require.NoError(t, testutil.CollectAndCompare(domain, strings.NewReader(text),
		"podlink_pods", "podlink_pod_services", "podlink_pod_services_silent", "podlink_pod_view_age_seconds"))
}

// TestPodsAsSeen: the gauges follow readings and reports, and drop services that were not seen for rosterTTL.
func TestPodsAsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		domain := NewDomain()
		seen := func(want gauges) {
			t.Helper()
			requirePods(t, domain, want)
		}
		pods := []biz.Pod{
			podOf(0, biz.Ready, biz.Forever, true), podOf(1, biz.DenyNew, biz.Forever, true),
			podOf(2, biz.Shutdown, biz.Forever, true), podOf(3, biz.Ready, biz.Forever, false),
		}
		seen(gauges{})
		readBy(domain, room, pods...)
		seen(gauges{live: 1, draining: 1, shutdown: 1, dead: 1, services: 1, age: readTime})

		back, fresh := podOf(3, biz.Ready, biz.Forever, true), podOf(4, biz.DenyNew, biz.Forever, true)
		domain.PodReported(room, back)
		seen(gauges{live: 2, draining: 1, shutdown: 1, services: 1, age: readTime})
		domain.PodReported(room, fresh)
		seen(gauges{live: 2, draining: 2, shutdown: 1, services: 1, age: readTime})

		time.Sleep(2 * time.Second)
		readBy(domain, chat, append(pods[:3:3], back, fresh)...)
		seen(gauges{live: 4, draining: 4, shutdown: 2, services: 2, age: 2*time.Second + 2*readTime})
		domain.PodRemoved(chat, 0)
		seen(gauges{live: 3, draining: 4, shutdown: 2, services: 2, age: 2*time.Second + 2*readTime})
		time.Sleep(rosterTTL)
		seen(gauges{})
	})
}

// writeOnlyStore accepts reports and panics on reads: a gauge must not read the store.
type writeOnlyStore struct{ biz.PodRepo }

func (writeOnlyStore) Set(_ context.Context, _ biz.ServiceKey, report biz.Report) (biz.ReportResult, error) {
	pod := biz.Pod{Report: report, Liveness: biz.Live, HeartbeatMs: time.Now().UnixMilli()}
	return biz.ReportResult{Applied: true, Pod: pod}, nil
}

// TestPodsAreCountedWhenTheyReport: also pods of a service without computes. A pod that stops reporting, alone in its
// service, is in doubt after its ttl, and dropped a minute later if no reading finds it.
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
				requirePods(t, domain, gauges{live: 1, services: 1})
				time.Sleep(lifetime - time.Millisecond)
				requirePods(t, domain, gauges{live: 1, services: 1, age: lifetime - time.Millisecond})
				time.Sleep(time.Millisecond)
				requirePods(t, domain, gauges{inDoubt: 1, services: 1, silent: 1, age: lifetime})

				report(0, biz.DenyNew)
				report(1, biz.Shutdown)
				requirePods(t, domain, gauges{draining: 1, shutdown: 1, services: 1})
				time.Sleep(lifetime + rosterTTL)
				requirePods(t, domain, gauges{inDoubt: 1, shutdown: 1, services: 1, silent: 1, age: lifetime + rosterTTL})
				time.Sleep(time.Millisecond)
				requirePods(t, domain, gauges{})
				require.Zero(t, domain.roster.pods)
				require.Empty(t, domain.roster.services)
			})
		})
	}
}

// View fails: a silent service is read, and the roster does not need the answer.
func (writeOnlyStore) View(context.Context, biz.ServiceKey) (biz.PodsView, error) {
	return biz.PodsView{}, biz.ErrStoreUnavailable
}

// TestSilentServices: a service is silent when no pod of it is heard; who is dead then is for the store to judge.
func TestSilentServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		domain := NewDomain()
		report := func(id biz.PodID, heartbeatMs int64) {
			pod := podOf(id, biz.Ready, 30, true)
			pod.HeartbeatMs = heartbeatMs
			domain.PodReported(room, pod)
		}
		read := func(liveness ...biz.Liveness) {
			var pods []biz.Pod
			for id, judged := range liveness {
				pod := podOf(biz.PodID(id), biz.Ready, 30, true)
				pod.Liveness, pod.HeartbeatMs = judged, 1
				if judged == biz.Live {
					pod.HeartbeatMs = 2
				}
				pods = append(pods, pod)
			}
			domain.PodsRead(room, pods, time.Now())
		}
		for id := range biz.PodID(3) {
			report(id, 1)
		}
		requirePods(t, domain, gauges{live: 3, services: 1})
		time.Sleep(30 * time.Second)
		requirePods(t, domain, gauges{inDoubt: 3, services: 1, silent: 1, age: 30 * time.Second})
		read(biz.InDoubt, biz.InDoubt, biz.InDoubt)
		time.Sleep(time.Hour)
		read(biz.InDoubt, biz.InDoubt, biz.InDoubt)
		requirePods(t, domain, gauges{inDoubt: 3, services: 1, silent: 1})

		report(0, 2)
		requirePods(t, domain, gauges{live: 1, inDoubt: 2, services: 1})
		time.Sleep(time.Second)
		read(biz.Live, biz.InDoubt, biz.Dead)
		requirePods(t, domain, gauges{live: 1, inDoubt: 1, dead: 1, services: 1})
		time.Sleep(time.Second)
		read(biz.Live, biz.Live)
		requirePods(t, domain, gauges{live: 2, dead: 1, services: 1, age: time.Second}) // A pod that is dead for long is not read.
		time.Sleep(rosterTTL)
		report(0, 3)
		report(1, 3)
		requirePods(t, domain, gauges{live: 2, services: 1})
	})
}

// TestUnreadServices: of a service that is not read, a pod is dead when another one was heard after its ttl.
func TestUnreadServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		domain := NewDomain()
		report := func(id biz.PodID, heartbeatMs int64) {
			pod := podOf(id, biz.Ready, 30, true)
			pod.HeartbeatMs = heartbeatMs
			domain.PodReported(room, pod)
		}
		report(0, 1)
		report(1, 1)
		time.Sleep(25 * time.Second)
		report(0, 2)
		time.Sleep(10 * time.Second)
		requirePods(t, domain, gauges{live: 1, inDoubt: 1, services: 1, age: 35 * time.Second})
		report(0, 2) // The same report, as after a cordon.
		requirePods(t, domain, gauges{live: 1, inDoubt: 1, services: 1, age: 35 * time.Second})
		report(0, 3)
		requirePods(t, domain, gauges{live: 1, dead: 1, services: 1, age: 35 * time.Second})
	})
}

// TestCordonedPodsCountAsSuch: by the stricter of the cordon and the report.
func TestCordonedPodsCountAsSuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		domain := NewDomain()
		pod := podOf(0, biz.Ready, 30, true)
		domain.PodReported(room, pod)
		time.Sleep(20 * time.Second)
		pod.Cordon = biz.DenyNew
		domain.PodReported(room, pod)
		requirePods(t, domain, gauges{draining: 1, services: 1})
		time.Sleep(10 * time.Second)
		requirePods(t, domain, gauges{inDoubt: 1, services: 1, silent: 1, age: 10 * time.Second}) // A cordon is not a report.
	})
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
		requirePods(t, domain, gauges{live: 1, services: 1, age: readTime})
		time.Sleep(10*time.Second - readTime)
		requirePods(t, domain, gauges{inDoubt: 1, services: 1, silent: 1, age: 10 * time.Second})

		readBy(domain, room, at(up, 2)) // The pod has reported to another podlink.
		requirePods(t, domain, gauges{live: 1, services: 1, age: readTime})
		time.Sleep(30*time.Second - readTime)
		requirePods(t, domain, gauges{inDoubt: 1, services: 1, silent: 1, age: 30 * time.Second})

		asOf := time.Now()
		time.Sleep(readTime)
		domain.PodReported(room, at(podOf(0, biz.DenyNew, 30, true), 3))
		domain.PodReported(room, at(podOf(1, biz.Shutdown, 30, true), 3))
		domain.PodsRead(room, []biz.Pod{at(podOf(0, biz.Ready, 30, false), 2)}, asOf)
		requirePods(t, domain, gauges{draining: 1, shutdown: 1, services: 1})

		time.Sleep(time.Second)
		readBy(domain, room)
		requirePods(t, domain, gauges{services: 1, age: readTime})
		domain.PodReported(room, at(up, 4))
		domain.PodRemoved(room, 0)
		domain.PodRemoved(room, 0)
		requirePods(t, domain, gauges{})
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
