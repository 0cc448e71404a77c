package data

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	redistest "podlink/test/kit/redis"
)

// fill stores reports of pods, by several callers.
func fill(t *testing.T, pods biz.PodRepo, from, to int, report biz.Report) {
	t.Helper()
	errs := make(chan error, to-from)
	var calls sync.WaitGroup
	for first := range 8 {
		calls.Go(func() {
			report := report
			for pod := from + first; pod < to; pod += 8 {
				report.Pod = biz.PodID(pod)
				errs <- func() error { _, err := pods.Set(t.Context(), game, report); return err }()
			}
		})
	}
	calls.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
}

// TestChoiceReadsTheSame: a choice sends Redis the same commands at any number of pods,
// dead ones included, and any length of their states. TestChoiceCost counts the instructions.
func TestChoiceReadsTheSame(t *testing.T) {
	const choices = 50
	commands := []string{"time", "zrangebyscore", "zadd", "zrem", "zscore", "zcount"}
	up := biz.Report{State: "up", TTL: 3600, Capacity: biz.NoCapacity}
	long := up
	long.State = strings.Repeat("🙂", 256)
	for name, prepare := range map[string]func(t *testing.T, store *testStore){
		"10 pods":    func(t *testing.T, s *testStore) { fill(t, reposOf(s).Pods, 0, 10, up) },
		"1,000 pods": func(t *testing.T, s *testStore) { fill(t, reposOf(s).Pods, 0, 1000, up) },
		"long texts": func(t *testing.T, s *testStore) { fill(t, reposOf(s).Pods, 0, 10, long) },
		"dead pods": func(t *testing.T, s *testStore) {
			fill(t, reposOf(s).Pods, 10, 500, up)
			for range 80 {
				require.NoError(t, passed(s)(t.Context(), game, 20*time.Minute))
				fill(t, reposOf(s).Pods, 0, 10, up)
			}
			view, err := reposOf(s).Pods.View(t.Context(), game)
			require.NoError(t, err)
			require.Len(t, view.Pods, 10)
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			store, direct := openStore(t, onServer(server.Addr()), withLongTimeouts), server.Client(t)
			prepare(t, store)
			before := make(map[string]int)
			for _, command := range commands {
				before[command] = redistest.StatsOf(t, direct, command).Calls
			}
			for range choices {
				reservation, err := reposOf(store).Pods.Reserve(t.Context(), game, biz.ReserveRequest{Linked: biz.NoPod})
				require.NoError(t, err)
				require.Equal(t, biz.Reserved, reservation.Outcome)
			}
			want := map[string]int{"time": choices, "zrangebyscore": choices, "zadd": choices}
			for _, command := range commands {
				require.Equal(t, want[command], redistest.StatsOf(t, direct, command).Calls-before[command], command)
			}
		})
	}
}

// TestBurstOverManyPods: 2,000 users who come at once are spread over 1,000 pods evenly within one.
func TestBurstOverManyPods(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		const pods, users = 1000, 2000
		repo := reposOf(store).Pods
		fill(t, repo, 0, pods, biz.Report{State: "up", TTL: 3600, Capacity: biz.NoCapacity})
		chosen := make([]biz.PodID, users)
		var calls sync.WaitGroup
		for caller := range 40 {
			calls.Go(func() {
				for user := caller; user < users; user += 40 {
					reservation, err := repo.Reserve(t.Context(), game, biz.ReserveRequest{Linked: biz.NoPod})
					if err != nil || reservation.Outcome != biz.Reserved {
						reservation.Pod = biz.NoPod
					}
					chosen[user] = reservation.Pod
				}
			})
		}
		calls.Wait()
		given := make(map[biz.PodID]int)
		for _, pod := range chosen {
			given[pod]++
		}
		require.Len(t, given, pods)
		for pod, links := range given {
			require.Equal(t, users/pods, links, fmt.Sprint("pod ", pod))
		}
		require.False(t, slices.Contains(chosen, biz.NoPod))
	})
}
