package biztest

import (
	"encoding/base64"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
)

// update changes the index of a pod of the default service.
func (e *env) update(pod biz.PodID, updates ...biz.IndexUpdate) {
	e.Helper()
	e.flush(e.Feed, biz.FlushPart{Service: e.pods(), Pod: pod, Updates: updates})
}

// entries returns the index of a pod, in pages of n entries, by uid. Uncertain entries are behind the others of a uid.
func (e *env) entries(pod biz.PodID, n int) []biz.IndexEntry {
	e.Helper()
	var found []biz.IndexEntry
	token := ""
	for {
		page, next, err := e.Index.Entries(e.Context(), e.pods(), pod, token, n)
		require.NoError(e, err)
		require.LessOrEqual(e, len(page), n)
		found = append(found, page...)
		if next == "" {
			break
		}
		require.NotEmpty(e, page)
		require.Less(e, len(next), 3000)
		require.Regexp(e, `^[A-Za-z0-9_-]+$`, next)
		token = next
	}
	slices.SortFunc(found, func(a, b biz.IndexEntry) int {
		if a.UID != b.UID {
			return strings.Compare(a.UID, b.UID)
		}
		return int(b.Epoch - a.Epoch)
	})
	return slices.Compact(found)
}

func added(uid string, epoch biz.Epoch) biz.IndexUpdate {
	return biz.IndexUpdate{Op: biz.AddEntry, Entry: biz.IndexEntry{UID: uid, Epoch: epoch}}
}

func removed(uid string, epoch biz.Epoch) biz.IndexUpdate {
	return biz.IndexUpdate{Op: biz.RemoveEntry, Entry: biz.IndexEntry{UID: uid, Epoch: epoch}}
}

func uncertain(op biz.IndexOp, uid string) biz.IndexUpdate { return noted(op, uid, time.Time{}) }

func noted(op biz.IndexOp, uid string, at time.Time) biz.IndexUpdate {
	return biz.IndexUpdate{Op: op, Entry: biz.IndexEntry{UID: uid, Uncertain: true, Noted: at}}
}

// The epochs of indexRows. Texts of them are not in the order of the numbers.
const small, epoch1, epoch2, largest biz.Epoch = 9, 1_700_000_000_000_000, 1_700_000_000_000_001, biz.MaxEpoch

// indexRows are updates of one uid, and its entry after them: 0 is none.
var indexRows = []struct {
	name    string
	updates []biz.IndexUpdate
	want    biz.Epoch
}{
	{"added", []biz.IndexUpdate{added("u", epoch1)}, epoch1},
	{"added twice", []biz.IndexUpdate{added("u", epoch1), added("u", epoch1)}, epoch1},
	{"added with a greater epoch", []biz.IndexUpdate{added("u", epoch1), added("u", epoch2)}, epoch2},
	{"added with a shorter epoch", []biz.IndexUpdate{added("u", epoch1), added("u", small)}, epoch1},
	{"added with a longer epoch", []biz.IndexUpdate{added("u", small), added("u", epoch1)}, epoch1},
	{"added with the greatest epoch", []biz.IndexUpdate{added("u", epoch2), added("u", largest), added("u", epoch2)}, largest},
	{"a late add", []biz.IndexUpdate{added("u", epoch2), added("u", epoch1)}, epoch2},
	{"removed", []biz.IndexUpdate{added("u", epoch1), removed("u", epoch1)}, 0},
	{"removed with a greater epoch", []biz.IndexUpdate{added("u", epoch1), removed("u", epoch2)}, 0},
	{"a late removal", []biz.IndexUpdate{added("u", epoch2), removed("u", epoch1)}, epoch2},
	{"a late removal of a short epoch", []biz.IndexUpdate{added("u", epoch1), removed("u", small)}, epoch1},
	{"removed, and not there", []biz.IndexUpdate{removed("u", epoch1)}, 0},
	{"removed and added again", []biz.IndexUpdate{added("u", epoch1), removed("u", epoch1), added("u", epoch2)}, epoch2},
	{"added again and removed late", []biz.IndexUpdate{added("u", epoch1), added("u", epoch2), removed("u", epoch1)}, epoch2},
	{"removed by a move that comes again", []biz.IndexUpdate{added("u", epoch2), removed("u", epoch2-1), removed("u", epoch2-1)}, epoch2},
}

func testIndex(t *testing.T, s suite) {
	for _, row := range indexRows {
		s.test(t, "rule/"+row.name, func(e *env) {
			e.requireFleet()
			want := []biz.IndexEntry{}
			if row.want != 0 {
				want = append(want, biz.IndexEntry{UID: "u", Epoch: row.want})
			}
			for _, update := range row.updates {
				e.update(1, update)
			}
			require.ElementsMatch(e, want, e.entries(1, 10), "one flush each")
			e.update(2, row.updates...)
			require.ElementsMatch(e, want, e.entries(2, 10), "one flush for all")
		})
	}

	s.test(t, "in any order, and repeated, the greatest epoch stands", func(e *env) {
		e.requireFleet()
		random := rand.New(rand.NewPCG(1, 2))
		updates := []biz.IndexUpdate{added("u", 10), removed("u", 10), added("u", 20), removed("u", 29), added("u", 30), removed("u", 9)}
		for range 5 {
			all := slices.Concat(updates, updates)
			random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			for some := range slices.Chunk(all, 1+random.IntN(len(all))) {
				e.update(1, some...)
			}
			require.Equal(e, []biz.IndexEntry{{UID: "u", Epoch: 30}}, e.entries(1, 10))
		}
	})

	s.test(t, "an expiry", func(e *env) {
		e.requireFleet()
		expires := time.Now().Add(time.Hour).Truncate(time.Second)
		temporary := biz.IndexEntry{UID: "u", Epoch: epoch1, Expires: expires}
		e.update(1, biz.IndexUpdate{Op: biz.AddEntry, Entry: temporary})
		require.Equal(e, []biz.IndexEntry{temporary}, e.entries(1, 10))
		e.update(1, added("u", epoch1))
		require.Equal(e, []biz.IndexEntry{{UID: "u", Epoch: epoch1}}, e.entries(1, 10), "an equal epoch replaces")
		temporary.Expires = expires.Add(time.Millisecond)
		e.update(1, biz.IndexUpdate{Op: biz.AddEntry, Entry: temporary})
		found := e.entries(1, 10)
		require.Len(e, found, 1)
		require.False(e, found[0].Expires.Before(temporary.Expires), "never early")
	})

	s.test(t, "uncertain entries stay until they are dropped", func(e *env) {
		e.requireFleet()
		begin := time.Now()
		e.update(1, uncertain(biz.AddUncertain, "u"), added("u", epoch1), removed("u", epoch2))
		e.update(1, removed("u", largest), added("v", epoch1))
		found := e.entries(1, 10)
		require.Len(e, found, 2)
		require.WithinRange(e, found[0].Noted, begin.Add(-margin), time.Now().Add(margin))
		found[0].Noted = time.Time{}
		require.Equal(e, []biz.IndexEntry{{UID: "u", Uncertain: true}, {UID: "v", Epoch: epoch1}}, found)

		e.update(1, added("u", epoch1))
		require.Len(e, e.entries(1, 10), 3, "beside the certain one")
		e.update(1, uncertain(biz.DropUncertain, "u"), uncertain(biz.DropUncertain, "w"))
		require.Equal(e, []biz.IndexEntry{{UID: "u", Epoch: epoch1}, {UID: "v", Epoch: epoch1}}, e.entries(1, 10))
	})

	s.test(t, "an uncertain entry that was noted later stays", func(e *env) {
		e.requireFleet()
		at := time.Now().Truncate(time.Millisecond)
		entry := biz.IndexEntry{UID: "u", Uncertain: true, Noted: at}
		e.update(1, noted(biz.AddUncertain, "u", at), noted(biz.DropUncertain, "u", at.Add(-time.Millisecond)))
		require.Equal(e, []biz.IndexEntry{entry}, e.entries(1, 10))
		e.update(1, noted(biz.AddUncertain, "u", at.Add(-time.Second)))
		require.Equal(e, []biz.IndexEntry{entry}, e.entries(1, 10), "a late one is not newer")
		e.update(1, noted(biz.DropUncertain, "u", at))
		require.Empty(e, e.entries(1, 10))
	})

	s.test(t, "pods and services are known", func(e *env) {
		e.requireFleet()
		none, err := e.Index.IndexedPods(e.Context(), e.pods())
		require.NoError(e, err)
		require.Empty(e, none)
		services, err := e.Index.Services(e.Context(), e.namespace)
		require.NoError(e, err)
		require.Empty(e, services)

		key := func(service string) biz.ServiceKey { return biz.ServiceKey{Namespace: e.namespace, Service: service} }
		e.update(10, added("a", 1), added("b", 1))
		e.update(9, added("a", 1), removed("a", 1))
		e.flush(e.Feed, biz.FlushPart{Service: key("chat"), Changes: []biz.Change{e.linked("a", 1)}}, biz.FlushPart{Service: key("9")})
		e.flush(e.Feed, biz.FlushPart{Service: key("9")})
		for _, view := range e.views {
			pods, err := view.Index.IndexedPods(e.Context(), e.pods())
			require.NoError(e, err)
			require.Equal(e, []biz.IndexedPod{{Pod: 9}, {Pod: 10, Entries: 2}}, pods)
			services, err = view.Index.Services(e.Context(), e.namespace)
			require.NoError(e, err)
			require.Equal(e, []biz.ServiceKey{key("9"), key("chat"), key(service)}, services)
			all, err := view.Index.Services(e.Context(), "")
			require.NoError(e, err)
			require.Subset(e, all, services)
		}
	})

	s.test(t, "pages", func(e *env) {
		e.requireFleet()
		require.Empty(e, e.entries(1, 10))
		for _, size := range []int{1, 40, 600} {
			pod := biz.PodID(size)
			var want []biz.IndexEntry
			var updates []biz.IndexUpdate
			for i := range size {
				uid := "user " + strconv.Itoa(i)
				want, updates = append(want, biz.IndexEntry{UID: uid, Epoch: epoch1}), append(updates, added(uid, epoch1))
			}
			for some := range slices.Chunk(updates, 512) {
				e.update(pod, some...)
			}
			slices.SortFunc(want, func(a, b biz.IndexEntry) int { return strings.Compare(a.UID, b.UID) })
			for _, n := range []int{1 + size/20, 100, 1000} {
				require.Equal(e, want, e.entries(pod, n), "%d entries in pages of %d", size, n)
			}
		}
	})

	s.test(t, "page tokens that no page has", func(e *env) {
		e.requireFleet()
		e.update(1, added("u", 1))
		encode := base64.RawURLEncoding.EncodeToString
		for _, token := range []string{
			"x", "=", "a", "%", " ", encode([]byte("a")), encode([]byte("x1")), encode([]byte("c")), encode([]byte("c1")),
			encode([]byte("c-1 ")), encode([]byte("cx ")), encode([]byte("c18446744073709551616 ")), encode([]byte("c1 short")),
			encode([]byte("c1 " + strings.Repeat("x", 1<<12))), encode([]byte("a" + strings.Repeat("x", 1<<12))), "Y\n",
		} {
			_, _, err := e.Index.Entries(e.Context(), e.pods(), 1, token, 10)
			e.requireInvalidToken(err, token)
			_, _, err = e.Index.ScanLinks(e.Context(), "", token, 10)
			e.requireInvalidToken(err, token)
		}
	})

	s.test(t, "a scan finds every link", func(e *env) {
		e.requireFleet()
		want := make(map[biz.LinkKey]biz.Link)
		for i := range 20 {
			for service, ttl := range map[string]biz.TTL{"game": biz.Forever, "chat": currentTTL} {
				link := e.set(e.keyOf("user:"+strconv.Itoa(i)+" {x}", service), biz.PodID(i), ttl)
				want[link.Key] = link
			}
		}
		_, err := e.Links.Remove(e.Context(), e.keyOf("user:7 {x}", "chat"), 0, biz.RemoveTerms{})
		require.NoError(e, err)
		delete(want, e.keyOf("user:7 {x}", "chat"))
		for _, namespace := range []string{"", e.namespace} {
			found := e.scanned(namespace)
			require.Len(e, found, len(want), namespace)
			for key, link := range want {
				e.requireSameLink(link, found[key])
			}
		}
		require.Empty(e, e.scanned(e.namespace[:len(e.namespace)-1]), "a namespace that begins as this one does")
	})
}

func (e *env) requireInvalidToken(err error, token string) {
	e.Helper()
	var invalid *biz.InvalidArgumentError
	require.ErrorAs(e, err, &invalid, "%q", token)
	require.Equal(e, "page_token", invalid.Field)
}

// scanned returns the links of the test's namespace that a walk over the links of a namespace, or of all, finds, in large parts: the keys
// of all other tests are among them. While a cluster settles, a walk begins again.
func (e *env) scanned(namespace string) map[biz.LinkKey]biz.Link {
	e.Helper()
	found := make(map[biz.LinkKey]biz.Link)
	token := ""
	for begin := time.Now(); ; {
		links, next, err := e.Index.ScanLinks(e.Context(), namespace, token, 1000)
		if errors.Is(err, biz.ErrScanMoved) {
			require.Less(e, time.Since(begin), time.Minute)
			clear(found)
			token = ""
			continue
		}
		require.NoError(e, err)
		for _, link := range links {
			if link.Key.Namespace == e.namespace {
				found[link.Key] = link
			}
		}
		if next == "" {
			return found
		}
		token = next
	}
}
