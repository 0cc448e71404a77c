package data

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
)

// roomLinks is how many links the service of a listedStore has at first, and roomPods on how many pods they are, in turn.
const roomLinks, roomPods = 3000, 3

// listedStore is a store with links that nobody has noted, and their lists.
type listedStore struct {
	*testStore
	links biz.LinkRepo
	lists *biz.FleetUsecase
	room  biz.ServiceKey
}

func newListedStore(t *testing.T, store *testStore) *listedStore {
	t.Helper()
	repos := reposOf(store)
	s := &listedStore{
		testStore: store, links: repos.Links, room: biz.ServiceKey{Namespace: "game", Service: "room"},
		lists: biz.NewFleetUsecase(store.fleet, store.fleet, repos.Links, biz.NewPodViews(repos.Pods, biz.NopObserver{}),
			func() bool { return true }, biz.FleetOptions{Index: true}),
	}
	for at := 0; at < roomLinks; at += 1000 {
		var items []biz.SetItem
		for i := at; i < at+1000; i++ {
			items = append(items, biz.SetItem{UID: roomUID(i), Pod: biz.PodID(i % roomPods), TTL: biz.Forever})
		}
		for _, result := range s.links.BatchSet(t.Context(), s.room, items) {
			require.NoError(t, result.Err)
		}
	}
	require.NoError(t, store.fleet.Gap(t.Context(), biz.GapStore))
	return s
}

func roomUID(i int) string { return fmt.Sprintf("user:%d é", i) }

// walk returns how many links the pages of a pod's list have, and whether they are complete.
func (s *listedStore) walk(t *testing.T, pod biz.PodID, size int32) (links int, complete bool) {
	t.Helper()
	uids := make(map[string]bool)
	for token := ""; ; {
		page, err := s.lists.PodLinks(t.Context(), s.room, &pod, biz.Page{Size: size, Token: token})
		require.NoError(t, err)
		require.LessOrEqual(t, len(page.Links), int(size))
		for _, link := range page.Links {
			require.Equal(t, pod, link.Pod)
			uids[link.Key.UID] = true
		}
		if page.Next == "" {
			return len(uids), page.Complete
		}
		token = page.Next
	}
}

// background runs a chore of the index until the test ends.
func background(t *testing.T, run func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
}

// becomes waits until the counts of the pods are these.
func (s *listedStore) becomes(t *testing.T, pods ...biz.IndexedPod) {
	t.Helper()
	require.Eventually(t, func() bool {
		counts, err := s.lists.CountPodLinks(t.Context(), s.room)
		return err == nil && fmt.Sprint(counts.Counts) == fmt.Sprint(pods)
	}, time.Minute, 10*time.Millisecond, "%v", pods)
}

// TestListsOnTheStore: a census makes the lists of links complete that nobody has noted, lists of every page size have them all and drop
// what is stale, and the sweep drops what no list has found.
func TestListsOnTheStore(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		s := newListedStore(t, store)
		_, complete := s.walk(t, 0, 1000)
		require.False(t, complete)

		background(t, biz.NewCensus(store.fleet, store.fleet, biz.CensusOptions{
			Rate: 1_000_000, Every: time.Hour, Holder: "a", Observer: biz.NopFleetObserver{},
		}).Run)
		require.Eventually(t, func() bool {
			gaps, covered, err := store.fleet.Completeness(t.Context())
			return err == nil && covered >= gaps
		}, time.Minute, 10*time.Millisecond)
		for _, size := range []int32{1000, 333, 7} {
			links, complete := s.walk(t, 1, size)
			require.True(t, complete)
			require.Equal(t, roomLinks/roomPods, links)
		}

		for i := range 300 { // Nobody notes these either.
			key := biz.LinkKey{Namespace: s.room.Namespace, UID: roomUID(roomPods * i), Service: s.room.Service}
			if i%2 == 0 {
				require.NoError(t, second(s.links.Remove(t.Context(), key, 0, biz.RemoveTerms{})))
			} else {
				require.NoError(t, second(s.links.Set(t.Context(), key, 1, biz.Forever, biz.SetTerms{})))
			}
		}
		links, complete := s.walk(t, 0, 1000)
		require.True(t, complete)
		require.Equal(t, 700, links)
		s.becomes(t, biz.IndexedPod{Pod: 0, Entries: 700}, biz.IndexedPod{Pod: 1, Entries: 1000}, biz.IndexedPod{Pod: 2, Entries: 1000})

		for i := range 100 {
			key := biz.LinkKey{Namespace: s.room.Namespace, UID: roomUID(roomPods*i + 2), Service: s.room.Service}
			require.NoError(t, second(s.links.Remove(t.Context(), key, 0, biz.RemoveTerms{})))
		}
		background(t, biz.NewSweep(store.fleet, store.fleet, s.links, biz.SweepOptions{
			Rate: 1_000_000, Every: time.Second, Holder: "a", Observer: biz.NopFleetObserver{},
		}).Run)
		s.becomes(t, biz.IndexedPod{Pod: 0, Entries: 700}, biz.IndexedPod{Pod: 1, Entries: 1000}, biz.IndexedPod{Pod: 2, Entries: 900})
	})
}
