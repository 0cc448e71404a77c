package biz

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func ofRoom(uid string) LinkKey { return LinkKey{Namespace: "game", UID: uid, Service: "room"} }

// flush carries out updates, which must succeed.
func (s *fleetStore) flush(t *testing.T, updates indexUpdates) {
	t.Helper()
	require.NoError(t, updates.flush(t.Context(), s))
}

// withFleet runs the test in a synctest bubble, with lists of a store whose index is complete.
func withFleet(t *testing.T, test func(t *testing.T, lists *FleetUsecase, store *fleetStore)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := newFleetStore()
		test(t, listsOf(store, store), store)
	})
}

func listsOf(store *fleetStore, links LinkRepo) *FleetUsecase {
	complete := func() bool { return true }
	return NewFleetUsecase(store, store, links, NewPodViews(nil, NopObserver{}), complete, FleetOptions{Index: true})
}

// walkPod returns the uids of all pages, and whether the last one was complete. Each is checked when it was read.
func walkPod(t *testing.T, lists *FleetUsecase, pod PodID, size func() int32, check func(page PodLinks)) (map[string]bool, bool) {
	t.Helper()
	uids := make(map[string]bool)
	for token := ""; ; {
		n := size()
		page, err := lists.PodLinks(t.Context(), room, &pod, Page{n, token})
		require.NoError(t, err)
		require.LessOrEqual(t, len(page.Links), int(n))
		for _, link := range page.Links {
			uids[link.Key.UID] = true
		}
		check(page)
		if page.Next == "" {
			return uids, page.Complete
		}
		token = page.Next
	}
}

// TestPodLinksAreRead: what the index says is shown and kept only if the link says so too.
func TestPodLinksAreRead(t *testing.T) {
	const pod = PodID(2)
	alice := ofRoom("alice")
	doubt := IndexEntry{UID: "alice", Uncertain: true}
	for name, row := range map[string]struct {
		given func(t *testing.T, store *fleetStore)
		shown bool
		kept  bool // the index has an entry then
	}{
		"a link":           {func(t *testing.T, s *fleetStore) { s.flush(t, s.bind(alice, pod, Forever)) }, true, true},
		"a temporary link": {func(t *testing.T, s *fleetStore) { s.flush(t, s.bind(alice, pod, 5)) }, true, true},
		"an expired link": {func(t *testing.T, s *fleetStore) {
			s.flush(t, s.bind(alice, pod, 5))
			time.Sleep(5 * time.Second)
		}, false, false},
		"a removed link": {func(t *testing.T, s *fleetStore) {
			s.flush(t, s.bind(alice, pod, Forever))
			s.unbind(alice)
		}, false, false},
		"a moved link": {func(t *testing.T, s *fleetStore) {
			s.flush(t, s.bind(alice, pod, Forever))
			s.bind(alice, 3, Forever)
		}, false, false},
		"a link that was moved here and back": {func(t *testing.T, s *fleetStore) {
			s.flush(t, s.bind(alice, pod, Forever))
			s.bind(alice, 3, Forever)
			s.bind(alice, pod, Forever)
		}, true, true},
		"a link that may be here and is": {func(_ *testing.T, s *fleetStore) {
			s.bind(alice, pod, Forever)
			s.put(room, pod, doubt)
		}, true, true},
		"a link that may be here and is not": {func(_ *testing.T, s *fleetStore) { s.put(room, pod, doubt) }, false, true},
		"a link beside a doubt": {func(t *testing.T, s *fleetStore) {
			s.flush(t, s.bind(alice, pod, Forever))
			s.put(room, pod, doubt)
		}, true, true},
		"a removed link beside a doubt": {func(t *testing.T, s *fleetStore) {
			s.flush(t, s.bind(alice, pod, Forever))
			s.put(room, pod, doubt)
			s.unbind(alice)
		}, false, true},
		"a link to which the index has no entry": {func(_ *testing.T, s *fleetStore) { s.bind(alice, pod, Forever) }, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			withFleet(t, func(t *testing.T, lists *FleetUsecase, store *fleetStore) {
				row.given(t, store)
				id := pod
				page, err := lists.PodLinks(t.Context(), room, &id, Page{})
				require.NoError(t, err)
				require.True(t, page.Complete)
				require.Empty(t, page.Next)
				require.Equal(t, row.shown, len(page.Links) == 1, "%v", page.Links)
				if row.shown {
					require.Equal(t, store.get(alice), page.Links[0])
				}
				require.Equal(t, row.kept, len(store.entries(room, pod)) > 0)
			})
		})
	}
}

// TestPodLinksOfEveryPageSize: every link is on a page, and no page is longer than asked for.
func TestPodLinksOfEveryPageSize(t *testing.T) {
	for _, size := range []int32{1, 2, 7, 99, 100, 101, 500, 1000} {
		withFleet(t, func(t *testing.T, lists *FleetUsecase, store *fleetStore) {
			for i := range 100 {
				store.flush(t, store.bind(ofRoom(strconv.Itoa(i)), PodID(i%2), Forever))
			}
			pages := 0
			uids, complete := walkPod(t, lists, 1, func() int32 { return size }, func(PodLinks) { pages++ })
			require.Equal(t, store.at(room, 1), uids, "pages of %d", size)
			require.True(t, complete)
			require.Equal(t, max(1, (50+int(size)-1)/int(size)), pages, "pages of %d", size)
		})
	}
}

// TestPodLinksWithoutSize have 100 links on a page.
func TestPodLinksWithoutSize(t *testing.T) {
	withFleet(t, func(t *testing.T, lists *FleetUsecase, store *fleetStore) {
		for i := range 101 {
			store.flush(t, store.bind(ofRoom(strconv.Itoa(i)), 0, Forever))
		}
		page, err := lists.PodLinks(t.Context(), room, new(PodID), Page{})
		require.NoError(t, err)
		require.Len(t, page.Links, 100)
		require.NotEmpty(t, page.Next)
	})
}

// TestPodLinksComplete: the first page and the last one decide, and what was missing on one page is missing in the walk.
func TestPodLinksComplete(t *testing.T) {
	for name, row := range map[string]struct {
		before, between func(store *fleetStore, ofProcess *bool)
		first, last     bool
	}{
		"nothing happens": {nil, nil, true, true},
		"a gap before":    {func(s *fleetStore, _ *bool) { s.gaps++ }, nil, false, false},
		"a gap before that is covered meanwhile": {
			func(s *fleetStore, _ *bool) { s.gaps++ }, func(s *fleetStore, _ *bool) { s.covered = s.gaps }, false, false,
		},
		"a gap meanwhile": {nil, func(s *fleetStore, _ *bool) { s.gaps++ }, true, false},
		"a gap meanwhile that is covered": {nil, func(s *fleetStore, _ *bool) {
			s.gaps++
			s.covered = s.gaps
		}, true, false},
		"a gap before that was covered": {func(s *fleetStore, _ *bool) {
			s.gaps++
			s.covered = s.gaps
		}, nil, true, true},
		"no census since the start":    {func(s *fleetStore, _ *bool) { s.covered = 0 }, nil, false, false},
		"changes wait in this process": {func(_ *fleetStore, complete *bool) { *complete = false }, nil, false, false},
		"changes waited in this process": {
			func(_ *fleetStore, complete *bool) { *complete = false }, func(_ *fleetStore, complete *bool) { *complete = true }, false, false,
		},
		"changes begin to wait in this process": {nil, func(_ *fleetStore, complete *bool) { *complete = false }, true, false},
		"a corrupt link": {func(s *fleetStore, _ *bool) {
			for i := range 10 {
				s.corrupt[ofRoom(strconv.Itoa(i))] = true
			}
		}, func(s *fleetStore, _ *bool) { clear(s.corrupt) }, false, false},
		"a link that is corrupt later": {nil, func(s *fleetStore, _ *bool) {
			for i := range 10 {
				s.corrupt[ofRoom(strconv.Itoa(i))] = true
			}
		}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			store, ofProcess, pod := newFleetStore(), true, PodID(0)
			lists := NewFleetUsecase(store, store, store, nil, func() bool { return ofProcess }, FleetOptions{Index: true})
			for i := range 10 {
				store.flush(t, store.bind(ofRoom(strconv.Itoa(i)), pod, Forever))
			}
			step := func(do func(*fleetStore, *bool)) {
				if do != nil {
					do(store, &ofProcess)
				}
			}
			step(row.before)
			first, err := lists.PodLinks(t.Context(), room, &pod, Page{Size: 4})
			require.NoError(t, err)
			require.Equal(t, row.first, first.Complete)
			step(row.between)
			second, err := lists.PodLinks(t.Context(), room, &pod, Page{Size: 4, Token: first.Next})
			require.NoError(t, err)
			last, err := lists.PodLinks(t.Context(), room, &pod, Page{Size: 4, Token: second.Next})
			require.NoError(t, err)
			require.Empty(t, last.Next)
			require.Equal(t, row.last, last.Complete)
		})
	}
}

// TestPodLinksOfACorruptLink: it fails only itself, and its entry stays.
func TestPodLinksOfACorruptLink(t *testing.T) {
	withFleet(t, func(t *testing.T, lists *FleetUsecase, store *fleetStore) {
		store.flush(t, store.bind(ofRoom("alice"), 0, Forever))
		store.flush(t, store.bind(ofRoom("bob"), 0, Forever))
		store.corrupt[ofRoom("alice")] = true
		page, err := lists.PodLinks(t.Context(), room, new(PodID), Page{})
		require.NoError(t, err)
		require.Len(t, page.Links, 1)
		require.Equal(t, "bob", page.Links[0].Key.UID)
		require.False(t, page.Complete)
		require.Len(t, store.entries(room, 0), 2)
	})
}

// TestPodLinksFail if the store does not answer for one of them: the page can be asked for again.
func TestPodLinksFail(t *testing.T) {
	for name, fail := range map[string]func(store *fleetStore){
		"for a link": func(s *fleetStore) { s.silent[ofRoom("alice")] = ErrStoreUnavailable },
		"at all":     func(s *fleetStore) { s.down = ErrStoreUnavailable },
	} {
		t.Run(name, func(t *testing.T) {
			withFleet(t, func(t *testing.T, lists *FleetUsecase, store *fleetStore) {
				store.flush(t, store.bind(ofRoom("alice"), 0, Forever))
				fail(store)
				_, err := lists.PodLinks(t.Context(), room, new(PodID), Page{})
				require.ErrorIs(t, err, ErrStoreUnavailable)
				_, err = listsOf(store, store).CountPodLinks(t.Context(), room)
				require.Equal(t, store.down != nil, err != nil)
			})
		})
	}
}

// TestPodLinksWithoutDropping: a list does not fail when stale entries can't be dropped, and drops more than a part may have.
func TestPodLinksWithoutDropping(t *testing.T) {
	withFleet(t, func(t *testing.T, lists *FleetUsecase, store *fleetStore) {
		for i := range 2 * maxIndexUpdates {
			store.put(room, 0, IndexEntry{UID: strconv.Itoa(i), Epoch: 1})
		}
		store.failFlush = func(FlushPart) error { return ErrStoreFull }
		page, err := lists.PodLinks(t.Context(), room, new(PodID), Page{Size: 1000})
		require.NoError(t, err)
		require.Empty(t, page.Links)
		require.NotEmpty(t, page.Next)
		require.Len(t, store.entries(room, 0), 2*maxIndexUpdates)
		store.failFlush = nil
		uids, complete := walkPod(t, lists, 0, func() int32 { return 1000 }, func(PodLinks) {})
		require.Empty(t, uids)
		require.True(t, complete)
		require.Zero(t, len(store.entries(room, 0)))
	})
}

// TestPageTokens of others than the page before are refused, and none of them breaks anything.
func TestPageTokens(t *testing.T) {
	withFleet(t, func(t *testing.T, lists *FleetUsecase, store *fleetStore) {
		for i := range 10 {
			store.flush(t, store.bind(ofRoom(strconv.Itoa(i)), PodID(i%2), Forever))
		}
		list := func(service ServiceKey, pod PodID, token string) error {
			_, err := lists.PodLinks(t.Context(), service, &pod, Page{1, token})
			return err
		}
		page, err := lists.PodLinks(t.Context(), room, new(PodID), Page{Size: 1})
		require.NoError(t, err)
		good := page.Next
		require.NoError(t, list(room, 0, good))
		require.Regexp(t, `^[A-Za-z0-9._~-]+$`, good)

		gaps, rest, _ := strings.Cut(good, ".")
		ofList, at, _ := strings.Cut(rest, ".")
		for name, err := range map[string]error{
			"of another pod":        list(room, 1, good),
			"of another service":    list(ServiceKey{"game", "hall"}, 0, good),
			"of another namespace":  list(ServiceKey{"play", "room"}, 0, good),
			"without its end":       list(room, 0, gaps+"."+ofList+"."),
			"without its list":      list(room, 0, gaps+".."+at),
			"without gaps":          list(room, 0, "."+ofList+"."+at),
			"with negative gaps":    list(room, 0, "-1."+ofList+"."+at),
			"with many gaps":        list(room, 0, strings.Repeat("z", 20)+"."+ofList+"."+at),
			"with zeros":            list(room, 0, "00"+good),
			"with a sign":           list(room, 0, "+"+good),
			"of the repo":           list(room, 0, at),
			"that the repo refuses": list(room, 0, gaps+"."+ofList+".!"),
			"of names":              list(room, 0, "cm9vbQ"),
			"of dots":               list(room, 0, "..."),
			"not UTF-8":             list(room, 0, "\xff"),
			"too long":              list(room, 0, good+strings.Repeat("0", maxPageTokenLen)),
		} {
			var invalid *InvalidArgumentError
			require.ErrorAs(t, err, &invalid, name)
			require.Equal(t, "page_token", invalid.Field, name)
		}
	})
}

// FuzzPageTokens: a token is refused, or it is what its walk gives.
func FuzzPageTokens(f *testing.F) {
	for _, token := range []string{"", "1.2.3", podWalk{complete: true, gaps: 7, at: "x"}.token(room, 3), "cm9vbQ", "0..", "-0.0.0"} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if walk, err := parsePodWalk(token, room, 3); err == nil && token != "" {
			require.Equal(t, token, walk.token(room, 3))
			require.NotEmpty(t, walk.at)
			require.Equal(t, walk.complete, walk.gaps > 0)
		}
		if name, err := (Page{Token: token}).validateNamed(); err == nil && token != "" {
			require.True(t, isName(name))
		}
	})
}

// fleetModel lets links change at random while they are listed, and checks every page. Flushes are late, and come in any order.
type fleetModel struct {
	*rand.Rand
	store *fleetStore
	late  []indexUpdates
	// stood are the uids whose link was at pod 0 and in its index since the walk began.
	stood map[string]bool
}

func (m *fleetModel) uid() string { return strconv.Itoa(m.IntN(15)) }

// change changes a few links, and flushes some of what was changed until now.
func (m *fleetModel) change(t *testing.T) {
	for range m.IntN(15) {
		key, pod := ofRoom(m.uid()), PodID(m.IntN(2))
		if m.store.get(key).Pod != pod {
			delete(m.stood, key.UID)
		}
		switch m.IntN(4) {
		case 0:
			delete(m.stood, key.UID)
			m.late = append(m.late, m.store.unbind(key))
		case 1:
			m.late = append(m.late, m.store.bind(key, pod, TTL(1+m.IntN(20))))
		default:
			m.late = append(m.late, m.store.bind(key, pod, Forever))
		}
	}
	m.flush(t, m.IntN(len(m.late)+1)/2)
}

// flush carries out n of the changes that wait, some of them twice.
func (m *fleetModel) flush(t *testing.T, n int) {
	m.Shuffle(len(m.late), func(i, j int) { m.late[i], m.late[j] = m.late[j], m.late[i] })
	for _, updates := range m.late[:n] {
		again := indexUpdates{}
		for at, list := range updates {
			again[at] = list
		}
		m.store.flush(t, updates)
		if m.IntN(4) == 0 {
			m.store.flush(t, again)
		}
	}
	m.late = m.late[n:]
}

// check requires that a list of pod 0 misses nothing that stood, whatever happens between the pages and while they are read.
func (m *fleetModel) check(t *testing.T, links LinkRepo) error {
	lists := listsOf(m.store, links)
	m.store.shorter = func(n int) int { return 1 + m.IntN(n) }
	m.store.afterRead = func() {
		if m.IntN(2) == 0 {
			m.change(t)
		}
	}
	var wrong error
	for range 20 {
		m.change(t)
		m.flush(t, len(m.late))
		m.stood = m.store.at(room, 0)
		for uid := range m.stood {
			if !m.store.links[ofRoom(uid)].expires.IsZero() {
				delete(m.stood, uid)
			}
		}
		uids, complete := walkPod(t, lists, 0, func() int32 { return int32(1 + m.IntN(30)) }, func(PodLinks) { m.change(t) })
		require.True(t, complete)
		for uid := range m.stood {
			if !uids[uid] && wrong == nil {
				wrong = fmt.Errorf("a link that stood was not listed: %s", uid)
			}
		}
		time.Sleep(time.Duration(m.IntN(10)) * time.Second)
	}
	return wrong
}

// truth is a LinkRepo that remembers what it has answered: a list must show exactly that.
type truth struct {
	*fleetStore
	at map[string]bool
}

// BatchGet implements LinkRepo.
func (r *truth) BatchGet(ctx context.Context, namespace, service string, uids []string) ([]LinkResult, error) {
	results, err := r.fleetStore.BatchGet(ctx, namespace, service, uids)
	r.at = make(map[string]bool)
	for _, result := range results {
		if result.Link.Pod == 0 {
			r.at[result.Link.Key.UID] = true
		}
	}
	return results, err
}

// TestListsDuringChanges: a list never shows what the store has not just said, and shows everything that stood.
func TestListsDuringChanges(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			model := &fleetModel{Rand: rand.New(rand.NewPCG(seed, 0)), store: newFleetStore()}
			require.NoError(t, model.check(t, model.store), "seed %d", seed)
		})
	}
}

// TestListsShowOnlyWhatWasRead, with each page of a list that goes on while links change.
func TestListsShowOnlyWhatWasRead(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			model := &fleetModel{Rand: rand.New(rand.NewPCG(seed, 1)), store: newFleetStore()}
			read := &truth{fleetStore: model.store}
			lists := listsOf(model.store, read)
			for range 20 {
				model.change(t)
				walkPod(t, lists, 0, func() int32 { return int32(1 + model.IntN(30)) }, func(page PodLinks) {
					shown := make(map[string]bool)
					for _, link := range page.Links {
						require.False(t, shown[link.Key.UID], "a page shows a link once")
						shown[link.Key.UID] = true
					}
					for uid := range shown {
						require.True(t, read.at[uid])
					}
					require.Len(t, shown, len(read.at))
					model.change(t)
					read.at = nil
				})
			}
		})
	}
}

// TestKnownBadIndexIsCaught: without the rule of epochs a list drops the entry of a link that has just come back.
func TestKnownBadIndexIsCaught(t *testing.T) {
	caught := 0
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			model := &fleetModel{Rand: rand.New(rand.NewPCG(seed, 0)), store: newFleetStore()}
			model.store.anyEpoch = true
			if model.check(t, model.store) != nil {
				caught++
			}
		})
	}
	require.Greater(t, caught, 25)
}

// TestCountPodLinks counts what the index has, without pods that have nothing.
func TestCountPodLinks(t *testing.T) {
	withFleet(t, func(t *testing.T, lists *FleetUsecase, store *fleetStore) {
		counts, err := lists.CountPodLinks(t.Context(), room)
		require.NoError(t, err)
		require.Equal(t, LinkCounts{Counts: []IndexedPod{}, Complete: true}, counts)

		for i := range 5 {
			store.flush(t, store.bind(ofRoom(strconv.Itoa(i)), PodID(i/3), Forever))
		}
		store.flush(t, store.bind(ofRoom("alice"), 9, Forever))
		store.flush(t, store.unbind(ofRoom("alice")))
		counts, err = lists.CountPodLinks(t.Context(), room)
		require.NoError(t, err)
		require.Equal(t, LinkCounts{Counts: []IndexedPod{{0, 3}, {1, 2}}, Complete: true, Approximate: true}, counts)

		store.gap()
		counts, err = lists.CountPodLinks(t.Context(), room)
		require.NoError(t, err)
		require.False(t, counts.Complete)
	})
}

// TestNamespaces are sorted, and paged by their names.
func TestNamespaces(t *testing.T) {
	withFleet(t, func(t *testing.T, lists *FleetUsecase, store *fleetStore) {
		for _, key := range []ServiceKey{{"b", "x"}, {"a-b", "y"}, {"a", "z"}, {"a", "c"}, {"c", "hidden"}, {"a", "hidden"}} {
			store.services[key] = true
		}
		sees := func(key ServiceKey) bool { return key.Service != "hidden" }
		want := []NamespaceServices{{"a", []string{"c", "z"}}, {"a-b", []string{"y"}}, {"b", []string{"x"}}}
		for size := range int32(4) {
			var got []NamespaceServices
			for token := ""; ; {
				page, next, err := lists.Namespaces(t.Context(), sees, Page{size + 1, token})
				require.NoError(t, err)
				require.LessOrEqual(t, len(page), int(size+1))
				got = append(got, page...)
				if token = next; token == "" {
					break
				}
			}
			require.Equal(t, want, got)
		}
		all, _, err := lists.Namespaces(t.Context(), nil, Page{})
		require.NoError(t, err)
		require.Len(t, all, 4)
	})
}

// TestServices sums up pods and links, and leaves out services that have neither.
func TestServices(t *testing.T) {
	withFleet(t, func(t *testing.T, lists *FleetUsecase, store *fleetStore) {
		pod := func(id PodID, liveness Liveness, load, capacity int32, cordon Routing) Pod {
			return Pod{Report: Report{Pod: id, Load: load, Capacity: capacity}, Liveness: liveness, Cordon: cordon}
		}
		pods := map[ServiceKey][]Pod{
			{"game", "hall"}: {pod(0, Live, 3, NoCapacity, Ready), pod(1, Live, 4, 10, Ready)},
			{"game", "room"}: {
				pod(0, Live, 1<<30, 1<<30, Ready), pod(1, Live, 1<<30, 1<<30, DenyNew), pod(2, InDoubt, 5, NoCapacity, Ready),
				pod(3, Dead, 7, NoCapacity, Shutdown), pod(4, Dead, 7, 0, Ready),
			},
		}
		lists.pods = NewPodViews(fleetPods{pods: pods}, NopObserver{})
		for _, service := range []string{"hall", "room", "gone", "secret"} {
			store.services[ServiceKey{"game", service}] = true
		}
		store.services[ServiceKey{"other", "x"}] = true
		for i := range 3 {
			store.flush(t, store.bind(LinkKey{"game", strconv.Itoa(i), "lobby"}, PodID(i), Forever))
		}
		sum, none := int64(2<<30), int64(0)
		want := []ServiceSummary{
			{Service: "hall", Live: 2, Load: 7},
			{Service: "lobby", Capacity: &none, Links: 3},
			{Service: "room", Live: 2, InDoubt: 1, Dead: 2, Cordoned: 2, Load: sum, Capacity: &sum},
		}
		sees := func(key ServiceKey) bool { return key.Service != "secret" }
		for size := range int32(5) {
			var got []ServiceSummary
			for token := ""; ; {
				page, next, err := lists.Services(t.Context(), "game", sees, Page{size + 1, token})
				require.NoError(t, err)
				got = append(got, page...)
				if token = next; token == "" {
					break
				}
			}
			require.Equal(t, want, got)
		}
	})
}

// TestServicesFail when one of them can't be read: its numbers would be wrong.
func TestServicesFail(t *testing.T) {
	withFleet(t, func(t *testing.T, lists *FleetUsecase, store *fleetStore) {
		lists.pods = NewPodViews(fleetPods{}, NopObserver{})
		store.servicesErrors = make(map[ServiceKey]error)
		for i := range 100 {
			key := ServiceKey{"game", strconv.Itoa(i)}
			store.services[key] = true
			store.servicesErrors[key] = ErrStoreUnavailable
		}
		_, _, err := lists.Services(t.Context(), "game", nil, Page{})
		require.ErrorIs(t, err, ErrStoreUnavailable)
	})
}

// TestListsWithoutIndex fail with the reason, whatever the store has.
func TestListsWithoutIndex(t *testing.T) {
	lists, pod := NewFleetUsecase(nil, nil, nil, nil, nil, FleetOptions{}), PodID(0)
	_, err := lists.PodLinks(t.Context(), room, &pod, Page{})
	require.ErrorIs(t, err, ErrIndexDisabled)
	_, err = lists.CountPodLinks(t.Context(), room)
	require.ErrorIs(t, err, ErrIndexDisabled)
	_, _, err = lists.Namespaces(t.Context(), nil, Page{})
	require.ErrorIs(t, err, ErrIndexDisabled)
	_, _, err = lists.Services(t.Context(), "game", nil, Page{})
	require.ErrorIs(t, err, ErrIndexDisabled)
}

// TestPageOf names beside the token's, which may have gone meanwhile.
func TestPageOf(t *testing.T) {
	names := []string{"a", "b", "c", "d"}
	for _, row := range []struct {
		after string
		size  int
		want  []string
		more  bool
	}{
		{"", 2, names[:2], true},
		{"", 4, names, false},
		{"b", 2, names[2:], false},
		{"bb", 1, names[2:3], true},
		{"d", 1, nil, false},
		{"zz", 9, nil, false},
	} {
		page, next := pageOf(slices.Clone(names), func(s string) string { return s }, row.after, row.size)
		require.Equal(t, row.want, append([]string(nil), page...))
		require.Equal(t, row.more, next != "")
		if row.more {
			after, err := (Page{Token: next}).validateNamed()
			require.NoError(t, err)
			require.Equal(t, row.want[len(row.want)-1], after)
		}
	}
}
