package biztest

import (
	"errors"
	"testing"
	"time"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

// result is the result of one of the concurrent callers.
type result struct {
	outcome biz.Outcome // of a compute
	change  biz.LinkChange
	err     error
}

func testConcurrency(t *testing.T, s suite) {
	// If many callers link the key, each to another pod, exactly one succeeds.
	for name, call := range map[string]func(e *env, links biz.LinkRepo, pod biz.PodID) (biz.LinkChange, error){
		"SetIfAbsent, persistent": func(e *env, links biz.LinkRepo, pod biz.PodID) (biz.LinkChange, error) {
			return links.SetIfAbsent(e.Context(), e.key(), pod, biz.Forever, biz.SetTerms{})
		},
		"SetIfAbsent, temporary": func(e *env, links biz.LinkRepo, pod biz.PodID) (biz.LinkChange, error) {
			return links.SetIfAbsent(e.Context(), e.key(), pod, currentTTL, biz.SetTerms{})
		},
		"TrySet, persistent": func(e *env, links biz.LinkRepo, pod biz.PodID) (biz.LinkChange, error) {
			return links.TrySet(e.Context(), e.key(), pod, biz.Forever, nil)
		},
		"Set that expects no link": func(e *env, links biz.LinkRepo, pod biz.PodID) (biz.LinkChange, error) {
			none := biz.Epoch(0)
			change, err := links.Set(e.Context(), e.key(), pod, biz.Forever, biz.SetTerms{Expected: &none})
			var mismatch *biz.EpochMismatchError
			if errors.As(err, &mismatch) {
				return biz.LinkChange{Previous: mismatch.Current.Pod, Link: mismatch.Current}, nil
			}
			return change, err
		},
	} {
		s.test(t, "one owner/"+name, func(e *env) {
			attempts := race(concurrency, func(i int) result {
				change, err := call(e, e.view(i).Links, biz.PodID(i))
				return result{change: change, err: err}
			})
			winner := e.onlyApplied(attempts)
			for _, a := range attempts {
				e.requireSameLink(winner.Link, a.change.Link)
				if !a.change.Applied {
					require.Equal(e, winner.Link.Pod, a.change.Previous)
				}
			}
			require.Equal(e, biz.NoPod, winner.Previous)
			e.requireLink(winner.Link)
		})
	}

	s.test(t, "every move has its own epoch", func(e *env) {
		attempts := race(concurrency, func(i int) result {
			change, err := e.view(i).Links.Set(e.Context(), e.key(), biz.PodID(i), biz.Forever, biz.SetTerms{})
			return result{change: change, err: err}
		})
		pods := make(map[biz.PodID]bool)
		var last biz.Link
		previous := make(map[biz.PodID]biz.Epoch) // replaced pod -> epoch of its successor
		epochs := make(map[biz.PodID]biz.Epoch)
		for _, a := range attempts {
			require.NoError(e, a.err)
			link := a.change.Link
			pods[link.Pod], epochs[link.Pod], previous[a.change.Previous] = true, link.Epoch, link.Epoch
			if link.Epoch > last.Epoch {
				last = link
			}
		}
		require.Len(e, pods, concurrency)
		require.Len(e, previous, concurrency, "each replaced a different one")
		for pod, by := range previous {
			require.Greater(e, by, epochs[pod], "the epoch grows from owner to owner")
		}
		e.requireLink(last)
	})

	s.test(t, "one removal", func(e *env) {
		before := e.set(e.key(), requestedPod, biz.Forever)
		attempts := race(concurrency, func(i int) result {
			change, err := e.view(i).Links.Remove(e.Context(), e.key(), 0, biz.RemoveTerms{})
			return result{change: change, err: err}
		})
		require.Equal(e, before.Pod, e.onlyApplied(attempts).Previous)
		e.requireNoLink(e.key())
	})

	s.test(t, "services of one uid are independent", func(e *env) {
		attempts := race(concurrency, func(i int) result {
			key := e.keyOf("user-1", "game-"+string(rune('a'+i%10)))
			ttl := []biz.TTL{biz.Forever, currentTTL}[i%2]
			change, err := e.view(i).Links.SetIfAbsent(e.Context(), key, biz.PodID(i), ttl, biz.SetTerms{})
			return result{change: change, err: err}
		})
		created := 0
		for _, a := range attempts {
			require.NoError(e, a.err)
			if a.change.Applied {
				created++
				e.requireLink(a.change.Link)
			}
		}
		require.Equal(e, 10, created)
	})

	for name, row := range map[string]struct {
		pods    func(e *env)
		outcome biz.Outcome
	}{
		"no link": {func(e *env) { e.reportReady(0, 1, 2) }, biz.Created},
		"a link to a pod that shuts down": {func(e *env) {
			e.set(e.key(), otherPod, biz.Forever)
			e.report(biz.Report{Pod: otherPod, State: "up", Routing: biz.Shutdown, TTL: biz.Forever})
			e.reportReady(0, 1, 2)
		}, biz.Relinked},
		"a temporary link to a pod that has never reported": {func(e *env) {
			e.set(e.key(), otherPod, currentTTL)
			e.reportReady(0, 1, 2)
		}, biz.Relinked},
	} {
		s.test(t, "computes end on one pod/"+name, func(e *env) {
			row.pods(e)
			var attempts []result
			took := during(func() {
				attempts = race(concurrency, func(i int) result {
					computed, err := e.linksOf(e.view(i)).Compute(e.Context(), e.key(), forever)
					return result{computed.Outcome, computed.LinkChange, err}
				})
			})
			var made biz.LinkChange
			outcomes := make(map[biz.Outcome]int)
			for _, a := range attempts {
				require.NoError(e, a.err)
				if outcomes[a.outcome]++; a.outcome != biz.Existing {
					made = a.change
				}
			}
			require.Equal(e, map[biz.Outcome]int{row.outcome: 1, biz.Existing: concurrency - 1}, outcomes)
			for _, a := range attempts {
				require.Equal(e, made.Link, a.change.Link)
			}
			e.requireLink(made.Link)

			if took.end.Sub(took.start) >= time.Second {
				return // A release has one second: on a machine as slow as this some may be lost.
			}
			// All but one reservation were released: the pods have one link in total.
			next := map[biz.PodID]bool{made.Link.Pod: true, e.reserved(): true, e.reserved(): true}
			require.Equal(e, map[biz.PodID]bool{0: true, 1: true, 2: true}, next)
		})
	}

	s.test(t, "computes of new uids spread evenly", func(e *env) {
		e.reportReady(0, 1, 2, 3)
		attempts := race(concurrency, func(i int) result {
			key := e.keyOf(string(rune('А'+i)), service)
			computed, err := e.linksOf(e.view(i)).Compute(e.Context(), key, forever)
			return result{computed.Outcome, computed.LinkChange, err}
		})
		given := make(map[biz.PodID]int)
		for _, a := range attempts {
			require.NoError(e, a.err)
			require.Equal(e, biz.Created, a.outcome)
			given[a.change.Link.Pod]++
		}
		require.Equal(e, map[biz.PodID]int{0: concurrency / 4, 1: concurrency / 4, 2: concurrency / 4, 3: concurrency / 4}, given)
	})

	s.test(t, "concurrent reservations spread like sequential ones", func(e *env) {
		e.reportReady(0, 1, 2)
		pods := race(90, func(i int) biz.PodID {
			reservation, err := e.view(i).Pods.Reserve(e.Context(), e.pods(), biz.ReserveRequest{Linked: biz.NoPod})
			if err != nil || reservation.Outcome != biz.Reserved {
				return biz.NoPod
			}
			return reservation.Pod
		})
		given := make(map[biz.PodID]int)
		for _, pod := range pods {
			given[pod]++
		}
		require.Equal(e, map[biz.PodID]int{0: 30, 1: 30, 2: 30}, given)
	})
}

// view returns the repos of the i-th caller.
func (e *env) view(i int) Repos { return e.views[i%len(e.views)] }

// onlyApplied returns the only change that was applied.
func (e *env) onlyApplied(attempts []result) biz.LinkChange {
	e.Helper()
	var applied []biz.LinkChange
	for _, a := range attempts {
		require.NoError(e, a.err)
		if a.change.Applied {
			applied = append(applied, a.change)
		}
	}
	require.Len(e, applied, 1)
	return applied[0]
}
