package biz

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func sweepOf(store *fleetStore, holder string, log FleetObserver) *Sweep {
	return NewSweep(store, store, store, SweepOptions{Rate: 20_000, Every: 24 * time.Hour, Holder: holder, Observer: log})
}

// withSweep runs the test in a synctest bubble, with an empty store.
func withSweep(t *testing.T, test func(t *testing.T, store *fleetStore, log *censusLog)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newFleetStore(), &censusLog{}) })
}

// TestSweepDropsExpiredLinks in five minutes, and leaves those that stand.
func TestSweepDropsExpiredLinks(t *testing.T) {
	withSweep(t, func(t *testing.T, store *fleetStore, log *censusLog) {
		for i := range 100 {
			store.flush(t, store.bind(ofRoom(strconv.Itoa(i)), PodID(i%3), TTL(1+i)))
		}
		store.flush(t, store.bind(ofRoom("stays"), 0, 3600))
		store.flush(t, store.bind(ofRoom("persists"), 0, 60))
		store.bind(ofRoom("persists"), 0, Forever) // Its note was lost.
		runs(t, sweepOf(store, "a", log).Run)
		time.Sleep(2*sweepInterval + time.Second)
		require.Len(t, store.entries(room, 0), 2)
		require.Zero(t, store.entries(room, 0)["persists"].Expires, "it is not verified every five minutes")
		require.Zero(t, len(store.entries(room, 1)))
		require.Zero(t, len(store.entries(room, 2)))
		require.Equal(t, 100, log.stale)
		require.Empty(t, store.unindexed())
	})
}

// TestSweepVerifiesEachEntryOnceADay, whoever sweeps.
func TestSweepVerifiesEachEntryOnceADay(t *testing.T) {
	for name, lives := range map[string]time.Duration{
		"one process":                   24 * time.Hour,
		"processes that live for hours": 3*time.Hour + 7*time.Second,
	} {
		t.Run(name, func(t *testing.T) {
			withSweep(t, func(t *testing.T, store *fleetStore, log *censusLog) {
				const entries = 2000
				for i := range entries {
					store.put(room, PodID(i%3), IndexEntry{UID: strconv.Itoa(i), Epoch: 1})
				}
				store.flush(t, store.bind(ofRoom("stays"), 0, Forever))
				deadline := time.Now().Add(24*time.Hour + sweepInterval)
				for i := 0; time.Now().Before(deadline); i++ {
					ctx, cancel := context.WithTimeout(t.Context(), min(lives, time.Until(deadline)))
					require.NoError(t, sweepOf(store, strconv.Itoa(i), log).Run(ctx))
					cancel()
					if i == 0 && lives < 24*time.Hour {
						require.InDelta(t, entries/8, log.stale, entries/40, "it is spread over the day")
					}
				}
				require.Equal(t, entries, log.stale)
				require.Len(t, store.entries(room, 0), 1)
				require.LessOrEqual(t, log.verified, entries+16, "each once, but for what two processes have in common")
			})
		})
	}
}

// TestSweepWithAShortPeriod verifies everything each time.
func TestSweepWithAShortPeriod(t *testing.T) {
	withSweep(t, func(t *testing.T, store *fleetStore, log *censusLog) {
		for i := range 100 {
			store.put(room, 0, IndexEntry{UID: strconv.Itoa(i), Epoch: 1})
		}
		runs(t, NewSweep(store, store, store, SweepOptions{Rate: 20_000, Every: time.Second, Holder: "a", Observer: log}).Run)
		time.Sleep(2 * time.Second)
		require.Zero(t, len(store.entries(room, 0)))
	})
}

// TestSweepSettlesDoubts that their own process has not settled: it indexes what is there, wherever it is.
func TestSweepSettlesDoubts(t *testing.T) {
	for name, row := range map[string]struct {
		given func(store *fleetStore)
		pod   PodID // where the link is then
	}{
		"the link is here":        {func(s *fleetStore) { s.bind(ofRoom("alice"), 2, Forever) }, 2},
		"the link is elsewhere":   {func(s *fleetStore) { s.bind(ofRoom("alice"), 3, Forever) }, 3},
		"there is no link":        {func(*fleetStore) {}, NoPod},
		"the link arrives late":   {func(s *fleetStore) { s.lateBind(ofRoom("alice"), 2) }, 2},
		"the link can't be read":  {func(s *fleetStore) { s.silent[ofRoom("alice")] = ErrStoreUnavailable }, NoPod},
		"the link is not podlink": {func(s *fleetStore) { s.corrupt[ofRoom("alice")] = true }, NoPod},
	} {
		t.Run(name, func(t *testing.T) {
			withSweep(t, func(t *testing.T, store *fleetStore, log *censusLog) {
				readable := len(store.silent)+len(store.corrupt) == 0
				row.given(store)
				readable = readable && len(store.silent)+len(store.corrupt) == 0
				doubt := IndexEntry{UID: "alice", Uncertain: true, Noted: time.Now().Add(-maxUncertain + time.Second)}
				store.put(room, 2, doubt)
				runs(t, sweepOf(store, "a", log).Run)
				time.Sleep(time.Minute)
				require.Contains(t, store.entries(room, 2), "\x1falice", "its process may settle it")
				time.Sleep(sweepInterval)
				_, stays := store.entries(room, 2)["\x1falice"]
				require.Equal(t, !readable, stays)
				require.Empty(t, store.unindexed())
				require.Equal(t, row.pod, store.get(ofRoom("alice")).Pod)
			})
		})
	}
}

// lateBind binds a link just after the store has answered a read: a mutation was still on its way.
func (s *fleetStore) lateBind(key LinkKey, pod PodID) {
	s.afterRead = func() {
		s.afterRead = nil
		s.bind(key, pod, Forever)
	}
}

// TestSweepLeavesALaterDoubt that was noted while it settled an earlier one.
func TestSweepLeavesALaterDoubt(t *testing.T) {
	withSweep(t, func(t *testing.T, store *fleetStore, log *censusLog) {
		doubt := IndexEntry{UID: "alice", Uncertain: true, Noted: time.Now().Add(-time.Hour)}
		store.put(room, 2, doubt)
		store.afterRead = func() {
			doubt.Noted = time.Now()
			store.put(room, 2, doubt)
			store.afterRead = nil
		}
		runs(t, sweepOf(store, "a", log).Run)
		time.Sleep(time.Minute)
		require.Contains(t, store.entries(room, 2), "\x1falice")
		time.Sleep(2 * sweepInterval)
		require.Zero(t, len(store.entries(room, 2)))
	})
}

// TestSweepKeepsADoubtUntilItsLinkIsIndexed: a failure between the two must not lose the link.
func TestSweepKeepsADoubtUntilItsLinkIsIndexed(t *testing.T) {
	withSweep(t, func(t *testing.T, store *fleetStore, log *censusLog) {
		store.bind(ofRoom("alice"), 3, Forever)
		store.put(room, 2, IndexEntry{UID: "alice", Uncertain: true, Noted: time.Now().Add(-time.Hour)})
		store.failFlush = func(part FlushPart) error {
			if part.Pod == 3 {
				return ErrStoreUnavailable
			}
			return nil
		}
		runs(t, sweepOf(store, "a", log).Run)
		time.Sleep(time.Minute)
		require.NotEmpty(t, store.unindexed())
		require.Contains(t, store.entries(room, 2), "\x1falice")
		store.failFlush = nil
		time.Sleep(sweepInterval)
		require.Empty(t, store.unindexed())
		require.Zero(t, len(store.entries(room, 2)))
	})
}

// TestSweepThroughFailures: what a walk did not come to is due in the next one.
func TestSweepThroughFailures(t *testing.T) {
	withSweep(t, func(t *testing.T, store *fleetStore, log *censusLog) {
		for i := range 1000 {
			store.put(room, 0, IndexEntry{UID: strconv.Itoa(i), Epoch: 1})
		}
		runs(t, sweepOf(store, "a", log).Run, sweepOf(store, "b", log).Run)
		for range 23 {
			time.Sleep(30 * time.Minute)
			store.fail(ErrStoreUnavailable)
			time.Sleep(30 * time.Minute)
			store.fail(nil)
		}
		time.Sleep(3 * time.Hour)
		require.Zero(t, len(store.entries(room, 0)))
	})
}

// TestSweepPassesAForeignIndex.
func TestSweepPassesAForeignIndex(t *testing.T) {
	withSweep(t, func(t *testing.T, store *fleetStore, log *censusLog) {
		for i := range 3 {
			store.flush(t, store.bind(ofRoom(strconv.Itoa(i)), PodID(i), 1))
		}
		store.foreign[podIndex{room, 1}] = true
		store.servicesErrors = map[ServiceKey]error{{"game", "broken"}: ErrStoreDataCorrupt}
		store.services[ServiceKey{"game", "broken"}] = true
		runs(t, sweepOf(store, "a", log).Run)
		time.Sleep(2 * sweepInterval)
		require.Zero(t, len(store.entries(room, 0)))
		require.Zero(t, len(store.entries(room, 2)))
	})
}

// TestOneSweep: of many processes one sweeps, at its pace.
func TestOneSweep(t *testing.T) {
	withSweep(t, func(t *testing.T, store *fleetStore, log *censusLog) {
		for i := range 100 {
			store.flush(t, store.bind(ofRoom(strconv.Itoa(i)), 0, 1))
		}
		time.Sleep(time.Second)
		reads := 0
		store.afterRead = func() { reads++ }
		for i := range 5 {
			runs(t, sweepOf(store, strconv.Itoa(i), log).Run)
		}
		time.Sleep(time.Hour)
		require.Equal(t, 1, reads)
		require.Equal(t, 100, log.verified)
	})
}
