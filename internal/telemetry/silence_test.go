package telemetry

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
)

// memoryStore keeps the reports of one service, and when it was heard, as the store does.
type memoryStore struct {
	biz.PodRepo

	mu      sync.Mutex
	pods    map[biz.PodID]biz.Pod
	hearing biz.Hearing
}

func (s *memoryStore) Set(_ context.Context, _ biz.ServiceKey, report biz.Report) (biz.ReportResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, ttlMs := time.Now().UnixMilli(), int64(report.TTL)*1000
	gap, most := now-s.hearing.Last, max(ttlMs/2, 500)
	s.hearing.Heard += min(gap, most)
	if gap > most {
		s.hearing.Resumed = s.hearing.Heard
	}
	s.hearing.Last = now
	pod := biz.Pod{Report: report, Liveness: biz.Live, HeartbeatMs: now, HeardMs: s.hearing.Heard}
	s.pods[report.Pod] = pod
	return biz.ReportResult{Applied: true, Pod: pod}, nil
}

func (s *memoryStore) View(context.Context, biz.ServiceKey) (biz.PodsView, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return biz.PodsView{Pods: slices.Collect(maps.Values(s.pods)), Hearing: s.hearing}, nil
}

func (s *memoryStore) Remove(_ context.Context, _ biz.ServiceKey, pod biz.PodID) (*biz.Pod, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pods, pod)
	return nil, nil
}

// TestASilentServiceStaysInTheGauges: without any compute, until its pods report again or are removed, by whichever podlink.
func TestASilentServiceStaysInTheGauges(t *testing.T) {
	for name, ttl := range map[string]biz.TTL{"4 s": 4, "15 s": 15, "30 s": 30, "5 m": 300} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				domain, store := NewDomain(), &memoryStore{pods: map[biz.PodID]biz.Pod{}}
				views := biz.NewPodViews(store, domain)
				defer func() {
					views.Stop()
					time.Sleep(time.Minute)
				}()
				report := func(repo biz.PodRepo) {
					for id := range biz.PodID(3) {
						_, err := repo.Set(t.Context(), room, biz.Report{Pod: id, State: "up", TTL: ttl})
						require.NoError(t, err)
						time.Sleep(100 * time.Millisecond)
					}
				}
				lifetime := time.Duration(ttl) * time.Second
				silentFor := func(period time.Duration) {
					t.Helper()
					for end := time.Now().Add(period); time.Now().Before(end); time.Sleep(7 * time.Second) {
						count := domain.roster.count()
						require.Equal(t, 1, count.silent)
						require.Equal(t, 3, count.pods[podInDoubt])
					}
				}
				for range 10 {
					report(views)
					requireHeard(t, domain)
					time.Sleep(lifetime/3 - 300*time.Millisecond)
				}
				time.Sleep(lifetime)
				silentFor(time.Hour)

				report(views)
				requireHeard(t, domain)
				time.Sleep(lifetime)
				silentFor(15 * time.Minute)

				report(store) // To another podlink.
				time.Sleep(20 * time.Second)
				if lifetime > 20*time.Second {
					requireHeard(t, domain)
				}
				for id := range biz.PodID(3) {
					_, err := store.Remove(t.Context(), room, id)
					require.NoError(t, err)
				}
				time.Sleep(20*time.Second + lifetime + rosterTTL)
				require.Equal(t, podCounts{}, domain.roster.count())
			})
		})
	}
}

func requireHeard(t *testing.T, domain *Domain) {
	t.Helper()
	count := domain.roster.count()
	require.Zero(t, count.silent)
	require.Equal(t, 3, count.pods[podLive])
}
