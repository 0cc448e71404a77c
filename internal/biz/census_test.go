package biz

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// censusLog remembers the events of a census and of a sweep.
type censusLog struct {
	mu              *sync.Mutex
	complete        bool
	began, went     int
	links           int64
	failures        []error // of each census that has ended; nil: it has covered
	took            []time.Duration
	verified, stale int
}

// IndexChecked implements FleetObserver.
func (l *censusLog) IndexChecked(complete bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.complete = complete
}

// CensusBegan implements FleetObserver.
func (l *censusLog) CensusBegan() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.began++
}

// CensusWent implements FleetObserver.
func (l *censusLog) CensusWent(links int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.went += links
}

// CensusEnded implements FleetObserver.
func (l *censusLog) CensusEnded(links int64, took time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.links, l.failures, l.took = links, append(l.failures, err), append(l.took, took)
}

// Swept implements FleetObserver.
func (l *censusLog) Swept(verified, stale int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.verified, l.stale = l.verified+verified, l.stale+stale
}

// runs starts functions, which go on until the test ends, and must end without an error then.
func runs(t *testing.T, run ...func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for _, f := range run {
		group.Go(func() { require.NoError(t, f(ctx)) })
	}
	t.Cleanup(func() {
		cancel()
		group.Wait()
	})
}

// elapse waits until the time has passed and everybody has done what was due. Before and after it the test may use the store, and a
// log that shares its mutex, without locking.
func (s *fleetStore) elapse(d time.Duration) {
	s.mu.Lock()
	s.mu.Unlock() //nolint:staticcheck // What the test has done happens before what the others do.
	time.Sleep(d)
	synctest.Wait()
}

func censusOf(store *fleetStore, holder string, log FleetObserver) *Census {
	return NewCensus(store, store, CensusOptions{Rate: 1000, Every: 24 * time.Hour, Holder: holder, Observer: log})
}

// withCensus runs the test in a synctest bubble, with a store of 1,000 links, none of which is in an index, and without a census
// until now.
func withCensus(t *testing.T, test func(t *testing.T, store *fleetStore, log *censusLog)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := newFleetStore()
		store.covered = 0
		for i := range 1000 {
			store.bind(ofRoom(strconv.Itoa(i)), PodID(i%7), Forever)
		}
		test(t, store, &censusLog{mu: &store.mu})
	})
}

// TestCensusCompletesTheIndex of a store that had none, at its pace.
func TestCensusCompletesTheIndex(t *testing.T) {
	withCensus(t, func(t *testing.T, store *fleetStore, log *censusLog) {
		store.flush(t, store.bind(ofRoom("temporary"), 3, 60))
		store.bind(ofRoom("expired"), 3, 1)
		store.elapse(time.Second)
		clear(store.index)
		runs(t, censusOf(store, "a", log).Run)
		store.elapse(500 * time.Millisecond)
		require.NotEmpty(t, store.unindexed(), "1,000 links take a second")
		require.False(t, log.complete)
		store.elapse(2 * time.Second)
		require.Empty(t, store.unindexed())
		require.EqualValues(t, 1, store.covered)
		require.True(t, log.complete)
		require.Equal(t, 1, log.began)
		require.Equal(t, []error{nil}, log.failures)
		require.EqualValues(t, 1001, log.links)
		require.Equal(t, 1001, log.went)
		require.GreaterOrEqual(t, log.took[0], time.Second)
		entries := store.entries(room, 3)
		require.WithinDuration(t, time.Now().Add(56*time.Second), entries["temporary"].Expires, 2*time.Second)
		require.NotContains(t, entries, "expired")
		require.Zero(t, entries["3"].Expires)

		store.elapse(time.Hour)
		require.Equal(t, 1, log.began, "no gap, no census")
	})
}

// TestCensusAfterEachGap: one that is noted during a census needs another one.
func TestCensusAfterEachGap(t *testing.T) {
	withCensus(t, func(t *testing.T, store *fleetStore, log *censusLog) {
		runs(t, censusOf(store, "a", log).Run)
		store.elapse(500 * time.Millisecond)
		store.gap()
		store.elapse(time.Second)
		require.Equal(t, 1, len(log.failures))
		require.EqualValues(t, 1, store.covered)
		store.elapse(3 * time.Second)
		require.Equal(t, []error{nil, nil}, log.failures)
		require.EqualValues(t, 2, store.covered)
	})
}

// TestCensusWithoutAGap: once in a longer time, for the changes of those who note none.
func TestCensusWithoutAGap(t *testing.T) {
	withCensus(t, func(t *testing.T, store *fleetStore, log *censusLog) {
		for _, holder := range []string{"a", "b"} {
			o := CensusOptions{Rate: 1000, Every: time.Hour, Holder: holder, Observer: log}
			runs(t, NewCensus(store, store, o).Run)
		}
		store.elapse(10 * time.Second)
		store.bind(ofRoom("noted by nobody"), 1, Forever)
		store.elapse(59 * time.Minute)
		require.Equal(t, 1, log.began)
		require.NotEmpty(t, store.unindexed())
		store.elapse(time.Minute + 10*time.Second)
		require.Equal(t, 2, log.began)
		require.Empty(t, store.unindexed())
	})
}

// TestCensusWithFailures: what does not answer is repeated, and what may have missed links begins again.
func TestCensusWithFailures(t *testing.T) {
	for name, row := range map[string]struct {
		fail    func(store *fleetStore) // 300 ms after the begin
		mend    func(store *fleetStore) // 2 s later
		census  int                     // which one has covered
		failure error                   // of those before
	}{
		"the store is away for a moment": {
			func(s *fleetStore) { s.fail(ErrStoreUnavailable) }, func(s *fleetStore) { s.fail(nil) }, 1, nil,
		},
		"replies of flushes are lost": {
			func(s *fleetStore) { s.failFlush = func(FlushPart) error { return ErrOutcomeUnknown } },
			func(s *fleetStore) { s.failFlush = nil }, 1, nil,
		},
		"some flushes fail": {func(s *fleetStore) {
			s.failFlush = func(part FlushPart) error {
				if part.Pod%2 == 0 {
					return ErrStoreUnavailable
				}
				return nil
			}
		}, func(s *fleetStore) { s.failFlush = nil }, 1, nil},
		"slots move": {func(s *fleetStore) { s.moves++ }, func(*fleetStore) {}, 2, ErrScanMoved},
		"the store is full": {
			func(s *fleetStore) { s.failFlush = func(FlushPart) error { return ErrStoreFull } },
			func(s *fleetStore) { s.failFlush = nil }, 2, ErrStoreFull,
		},
		"an index is foreign": {
			func(s *fleetStore) { s.foreign[flushPlace{room, 3}] = true },
			func(s *fleetStore) { clear(s.foreign) }, 2, ErrStoreDataCorrupt,
		},
	} {
		t.Run(name, func(t *testing.T) {
			withCensus(t, func(t *testing.T, store *fleetStore, log *censusLog) {
				runs(t, censusOf(store, "a", log).Run)
				store.elapse(300 * time.Millisecond)
				row.fail(store)
				store.elapse(2 * time.Second)
				require.Zero(t, store.covered)
				row.mend(store)
				store.elapse(time.Minute)
				require.Empty(t, store.unindexed())
				require.EqualValues(t, 1, store.covered)
				require.Len(t, log.failures, row.census)
				require.NoError(t, log.failures[row.census-1])
				if row.failure != nil {
					require.ErrorIs(t, log.failures[0], row.failure)
				}
			})
		})
	}
}

// TestCensusOfAForeignIndex: all other pods get theirs, and the index stays incomplete.
func TestCensusOfAForeignIndex(t *testing.T) {
	withCensus(t, func(t *testing.T, store *fleetStore, log *censusLog) {
		store.foreign[flushPlace{room, 3}] = true
		runs(t, censusOf(store, "a", log).Run)
		store.elapse(time.Hour)
		require.Zero(t, store.covered)
		for _, key := range store.unindexed() {
			require.Equal(t, PodID(3), store.get(key).Pod)
		}
		require.Greater(t, log.began, 10)
		require.Less(t, log.began, 25, "the pauses grow")
		clear(store.foreign)
		store.elapse(lastCensusPause + 10*time.Second)
		require.EqualValues(t, 1, store.covered)
	})
}

// TestCensusGivesUpAStep that is not answered for long, and begins again: many links may have changed meanwhile.
func TestCensusGivesUpAStep(t *testing.T) {
	withCensus(t, func(t *testing.T, store *fleetStore, log *censusLog) {
		store.failFlush = func(FlushPart) error { return ErrDeadlineExceeded }
		runs(t, censusOf(store, "a", log).Run)
		store.elapse(walkTries * time.Second)
		require.Len(t, log.failures, 1)
		require.ErrorIs(t, log.failures[0], ErrDeadlineExceeded)
		store.failFlush = nil
		store.elapse(10 * time.Second)
		require.Equal(t, 2, log.began)
		require.EqualValues(t, 1, store.covered)
	})
}

// TestOneCensus: of many processes one goes over the links.
func TestOneCensus(t *testing.T) {
	withCensus(t, func(t *testing.T, store *fleetStore, log *censusLog) {
		for i := range 5 {
			runs(t, censusOf(store, strconv.Itoa(i), log).Run)
		}
		store.elapse(time.Minute)
		require.Equal(t, 1, log.began)
		require.Equal(t, 1000, store.scanned)
	})
}

// TestCensusIsTakenOver from a process that has died without a word.
func TestCensusIsTakenOver(t *testing.T) {
	withCensus(t, func(t *testing.T, store *fleetStore, log *censusLog) {
		store.leases["census"] = storedLease{"dead", time.Now().Add(leaseTTL)}
		runs(t, censusOf(store, "a", log).Run)
		store.elapse(leaseTTL - time.Millisecond)
		require.Zero(t, log.began)
		store.elapse(3 * time.Second)
		require.Equal(t, []error{nil}, log.failures)
	})
}

// TestCensusStopsWithoutItsLease, and another process does it.
func TestCensusStopsWithoutItsLease(t *testing.T) {
	for name, lose := range map[string]func(store *fleetStore){
		"it is another's":   func(s *fleetStore) { s.leases["census"] = storedLease{"b", time.Now().Add(leaseTTL)} },
		"the store is away": func(s *fleetStore) { s.fail(ErrStoreUnavailable) },
	} {
		t.Run(name, func(t *testing.T) {
			withCensus(t, func(t *testing.T, store *fleetStore, log *censusLog) {
				slow := NewCensus(store, store, CensusOptions{Rate: 10, Every: time.Hour, Holder: "a", Observer: log})
				runs(t, slow.Run)
				store.elapse(3500 * time.Millisecond)
				lose(store)
				store.elapse(leaseTTL)
				require.Len(t, log.failures, 1)
				require.ErrorIs(t, log.failures[0], errLeaseLost)
				require.Zero(t, store.covered)
				store.fail(nil)
				other := &censusLog{mu: &store.mu}
				runs(t, censusOf(store, "b", other).Run)
				store.elapse(2 * time.Minute)
				require.EqualValues(t, 1, store.covered)
			})
		})
	}
}

// TestCensusEndsWithItsProcess: it gives the lease back, so that the next process need not wait.
func TestCensusEndsWithItsProcess(t *testing.T) {
	withCensus(t, func(t *testing.T, store *fleetStore, log *censusLog) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- censusOf(store, "a", log).Run(ctx) }()
		store.elapse(100 * time.Millisecond)
		cancel()
		require.NoError(t, <-ended)
		require.Empty(t, store.leases)
		require.Len(t, log.failures, 1)
		require.ErrorIs(t, log.failures[0], context.Canceled)
	})
}

// TestCensusDuringChanges: links that change while a census is held are noted as always, late and in any order. At its end nothing
// that stands is missing, although all notes before it were lost.
func TestCensusDuringChanges(t *testing.T) {
	for seed := range uint64(25) {
		withCensus(t, func(t *testing.T, store *fleetStore, log *censusLog) {
			r := rand.New(rand.NewPCG(seed, 0))
			if seed%2 == 0 {
				store.afterScan = func() {
					if r.IntN(50) == 0 {
						store.mu.Lock()
						store.moves++
						store.mu.Unlock()
					}
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- censusOf(store, "a", log).Run(ctx) }()
			changes := rand.New(rand.NewPCG(seed, 1))
			var late []indexUpdates
			for store.gapsOpen() {
				for range changes.IntN(20) {
					key := ofRoom(strconv.Itoa(changes.IntN(1200)))
					if changes.IntN(4) == 0 {
						late = append(late, store.unbind(key))
					} else {
						late = append(late, store.bind(key, PodID(changes.IntN(7)), Forever))
					}
				}
				changes.Shuffle(len(late), func(i, j int) { late[i], late[j] = late[j], late[i] })
				for n := changes.IntN(len(late) + 1); n > 0; n-- {
					store.flush(t, late[0])
					late = late[1:]
				}
				store.elapse(time.Duration(changes.IntN(100)) * time.Millisecond)
			}
			for _, updates := range late {
				store.flush(t, updates)
			}
			require.Empty(t, store.unindexed(), "seed %d", seed)
			cancel()
			require.NoError(t, <-ended)
			require.NoError(t, log.failures[len(log.failures)-1])
		})
	}
}

// gapsOpen reports whether a census is needed.
func (s *fleetStore) gapsOpen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.covered < s.gaps
}
