package model_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	"podlink/test/kit/model"
)

var (
	key     = biz.LinkKey{Namespace: "ns", UID: "alice", Service: "chat"}
	service = biz.ServiceKey{Namespace: "ns", Service: "chat"}
)

// bubble runs a test in virtual time, on a store that the podlink sees.
func bubble(t *testing.T, test func(t *testing.T, store *model.Store, podlink *model.Podlink)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := model.NewStore()
		test(t, store, store.Podlink())
	})
}

func set(t *testing.T, p *model.Podlink, pod biz.PodID) biz.Link {
	t.Helper()
	change, err := p.Links().Set(t.Context(), key, pod, biz.Forever, biz.SetTerms{})
	require.NoError(t, err)
	return change.Link
}

func report(t *testing.T, p *model.Podlink) biz.ReportResult {
	t.Helper()
	result, err := p.Pods().Set(t.Context(), service, biz.Report{Pod: 1, State: "up", TTL: 15, Capacity: biz.NoCapacity})
	require.NoError(t, err)
	return result
}

func TestEpochsDifferAtOneMomentOfVirtualTime(t *testing.T) {
	bubble(t, func(t *testing.T, _ *model.Store, p *model.Podlink) {
		first := set(t, p, 1)
		_, err := p.Links().Remove(t.Context(), key, 0, biz.RemoveTerms{})
		require.NoError(t, err)
		require.Greater(t, set(t, p, 1).Epoch, first.Epoch)
	})
}

func TestKilledStoreRefusesAndKeepsItsData(t *testing.T) {
	bubble(t, func(t *testing.T, store *model.Store, p *model.Podlink) {
		link, id := set(t, p, 1), report(t, p).StoreID
		store.Kill()
		_, err := p.Links().Get(t.Context(), key)
		require.ErrorIs(t, err, biz.ErrStoreUnavailable)
		_, err = p.Links().Remove(t.Context(), key, 0, biz.RemoveTerms{})
		require.ErrorIs(t, err, biz.ErrStoreUnavailable)
		store.Restart()
		got, err := p.Links().Get(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, link, got)
		require.Equal(t, id, report(t, p).StoreID, "podlink has not looked yet")
		time.Sleep(5 * time.Second)
		require.NotEqual(t, id, report(t, p).StoreID, "another process may have lost data")
	})
}

func TestEmptyAndFlushedStores(t *testing.T) {
	for name, lose := range map[string]func(*model.Store){
		"flushed": (*model.Store).Flush,
		"restarted": func(s *model.Store) {
			s.Kill()
			s.RestartEmpty()
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, store *model.Store, p *model.Podlink) {
				set(t, p, 1)
				id := report(t, p).StoreID
				lose(store)
				require.False(t, store.Link(key).Exists())
				require.NotEqual(t, id, report(t, p).StoreID)
			})
		})
	}
}

func TestRequestInFlightWhenTheStoreDies(t *testing.T) {
	bubble(t, func(t *testing.T, store *model.Store, p *model.Podlink) {
		store.SetLatency(func() time.Duration { return 100 * time.Millisecond })
		for after, executed := range map[time.Duration]bool{20 * time.Millisecond: false, 80 * time.Millisecond: true} {
			time.AfterFunc(after, store.Kill)
			_, err := p.Links().Set(t.Context(), key, 3, biz.Forever, biz.SetTerms{})
			require.ErrorIs(t, err, biz.ErrOutcomeUnknown)
			time.Sleep(time.Second)
			store.Restart()
			require.Equal(t, executed, store.Link(key).Exists())
			store.Flush()
		}
		time.AfterFunc(20*time.Millisecond, store.Kill)
		_, err := p.Links().Get(t.Context(), key)
		require.ErrorIs(t, err, biz.ErrStoreUnavailable)
	})
}

func TestFrozenStoreExecutesLate(t *testing.T) {
	bubble(t, func(t *testing.T, store *model.Store, p *model.Podlink) {
		store.Freeze()
		began := time.Now()
		_, err := p.Links().Set(t.Context(), key, 3, biz.Forever, biz.SetTerms{})
		require.ErrorIs(t, err, biz.ErrOutcomeUnknown)
		require.Equal(t, p.ReadTimeout, time.Since(began))
		_, err = p.Links().Get(t.Context(), key)
		require.ErrorIs(t, err, biz.ErrDeadlineExceeded)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err = p.Links().Remove(ctx, key, 0, biz.RemoveTerms{})
		require.ErrorIs(t, err, biz.ErrOutcomeUnknown)
		require.False(t, store.Link(key).Exists())

		changes := 0
		store.Watch(func(model.Change) { changes++ })
		store.Unfreeze()
		require.Equal(t, 2, changes, "both writes, in their order")
		require.False(t, store.Link(key).Exists())
		set(t, p, 1)
		store.Freeze()
		_, err = p.Links().Remove(t.Context(), key, 0, biz.RemoveTerms{})
		require.ErrorIs(t, err, biz.ErrOutcomeUnknown)
		store.Kill()
		store.Restart()
		require.True(t, store.Link(key).Exists(), "what waited is lost")
	})
}

func TestFailoverLosesTheLatestWrites(t *testing.T) {
	bubble(t, func(t *testing.T, store *model.Store, p *model.Podlink) {
		store.KeepUndo(10 * time.Second)
		old, pod := set(t, p, 1), report(t, p).Pod
		time.Sleep(time.Second)
		set(t, p, 2)
		report(t, p)
		time.Sleep(300 * time.Millisecond)
		_, err := p.Links().Remove(t.Context(), key, 0, biz.RemoveTerms{})
		require.NoError(t, err)
		_, err = p.Workloads().Set(t.Context(), service, "up")
		require.NoError(t, err)
		store.FailOver(time.Second)
		require.Equal(t, old, store.Link(key))
		got, err := p.Pods().Get(t.Context(), service, 1)
		require.NoError(t, err)
		require.Equal(t, pod, got)
		_, err = p.Workloads().Get(t.Context(), service)
		require.ErrorIs(t, err, biz.ErrWorkloadNotFound)
	})
}

func TestCorruptUser(t *testing.T) {
	bubble(t, func(t *testing.T, store *model.Store, p *model.Podlink) {
		link := set(t, p, 1)
		store.Corrupt(key.Namespace, key.UID)
		_, err := p.Links().Get(t.Context(), key)
		require.ErrorIs(t, err, biz.ErrStoreDataCorrupt)
		_, err = p.Links().Set(t.Context(), key, 1, biz.Forever, biz.SetTerms{})
		require.ErrorIs(t, err, biz.ErrStoreDataCorrupt)
		results, err := p.Links().BatchGet(t.Context(), key.Namespace, key.Service, []string{"bob", key.UID})
		require.NoError(t, err)
		require.NoError(t, results[0].Err)
		require.ErrorIs(t, results[1].Err, biz.ErrStoreDataCorrupt)
		store.Repair(key.Namespace, key.UID)
		require.Equal(t, link, store.Link(key))
	})
}
