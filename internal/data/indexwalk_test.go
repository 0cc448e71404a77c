package data

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	redistest "podlink/test/kit/redis"
)

// indexShapes are how a hash changes during a walk, as numbers of fields that come and go.
var indexShapes = []struct {
	name     string
	stable   int // entries that stand during the whole walk
	begin    int // other entries at its begin
	perPage  int // entries added between two pages; less than 0: removed
	listpack int // hash-max-listpack-entries
	reload   bool
}{
	{name: "a small hash", stable: 100, listpack: 512},
	{name: "a small hash that grows", stable: 100, perPage: 40, listpack: 512},
	{name: "a large hash", stable: 3000, listpack: 512},
	{name: "a large hash that grows", stable: 500, begin: 100, perPage: 900, listpack: 128},
	{name: "a large hash that shrinks", stable: 200, begin: 20000, perPage: -6000, listpack: 128},
	{name: "a hash of a few buckets", stable: 60, begin: 5, perPage: 3, listpack: 0},
	{name: "a large hash that becomes small", stable: 100, begin: 3000, listpack: 128, reload: true},
}

// changedPages is the number of pages after which a hash no longer changes: a walk does not end while the hash grows faster.
const changedPages = 20

// TestIndexWalk: an entry that stands during a whole walk is in at least one page, however the hash grows, shrinks or changes its
// encoding between the pages, and no page has more entries than it may.
func TestIndexWalk(t *testing.T) {
	for _, shape := range indexShapes {
		for _, n := range []int{2, 25, 1000} {
			t.Run(fmt.Sprintf("%s/pages of %d", shape.name, n), func(t *testing.T) {
				parallel(t)
				for seed := range uint64(2) {
					w := newWalkTest(t, seed, shape.listpack)
					w.change(shape.begin)
					var stable []string
					for i := range shape.stable {
						stable = append(stable, "stable "+strconv.Itoa(i))
					}
					w.add(stable...)
					found := w.walk(n, func(page int) {
						if page < changedPages {
							w.change(shape.perPage)
						}
						if shape.reload && page == 0 {
							w.shrink(shape.stable)
						}
					})
					for _, uid := range stable {
						require.Contains(t, found, uid, "seed %d", seed)
					}
				}
			})
		}
	}
}

// walkTest is a hash that changes, on a Redis of its own.
type walkTest struct {
	*testing.T
	store   *testStore
	random  *rand.Rand
	others  []string
	created int
}

func newWalkTest(t *testing.T, seed uint64, listpack int) *walkTest {
	server := redistest.Start(t, "--hash-max-listpack-entries", strconv.Itoa(listpack))
	return &walkTest{T: t, store: openStore(t, onServer(server.Addr()), withLongTimeouts), random: rand.New(rand.NewPCG(seed, 7))}
}

func (w *walkTest) key() string { return w.store.keys.index(game, 1) }

func (w *walkTest) add(uids ...string) {
	values := make(map[string]any)
	for _, uid := range uids {
		values[uid] = "1700000000000000"
	}
	if len(values) > 0 {
		require.NoError(w, w.store.client.HSet(w.Context(), w.key(), values).Err())
	}
}

// change adds n other entries, or removes -n of them, at random.
func (w *walkTest) change(n int) {
	var added []string
	for range n {
		w.created++
		added = append(added, fmt.Sprintf("other %d %d", w.random.IntN(1000), w.created))
	}
	w.add(added...)
	w.others = append(w.others, added...)
	w.random.Shuffle(len(w.others), func(i, j int) { w.others[i], w.others[j] = w.others[j], w.others[i] })
	gone := min(max(-n, 0), len(w.others))
	if gone > 0 {
		require.NoError(w, w.store.client.HDel(w.Context(), w.key(), w.others[:gone]...).Err())
	}
	w.others = w.others[gone:]
}

// shrink makes the hash small again, with the entries that stand, as a restart of Redis does: it loads small hashes as listpacks.
func (w *walkTest) shrink(stable int) {
	w.change(-len(w.others))
	text, err := w.store.client.Dump(w.Context(), w.key()).Result()
	require.NoError(w, err)
	require.NoError(w, w.store.client.RestoreReplace(w.Context(), w.key(), 0, text).Err())
	require.Equal(w, "listpack", w.store.client.ObjectEncoding(w.Context(), w.key()).Val())
	require.EqualValues(w, stable, w.store.client.HLen(w.Context(), w.key()).Val())
}

// walk returns how often each entry was in a page of n entries. Between two pages it calls between.
func (w *walkTest) walk(n int, between func(page int)) map[string]int {
	found := make(map[string]int)
	token := ""
	for page := 0; ; page++ {
		entries, next, err := w.store.fleet.Entries(w.Context(), game, 1, token, n)
		require.NoError(w, err)
		require.LessOrEqual(w, len(entries), n)
		require.LessOrEqual(w, len(next), maxIndexToken)
		for _, entry := range entries {
			found[entry.UID]++
		}
		if next == "" {
			return found
		}
		require.NotEmpty(w, entries)
		token = next
		between(page)
	}
}

// TestIndexWalkOfAStandingIndex: without changes, the pages of a large index are nearly full, and no entry is in two.
func TestIndexWalkOfAStandingIndex(t *testing.T) {
	w := newWalkTest(t, 1, 128)
	const size, n = 20000, 1000
	w.change(size)
	pages := 1
	for uid, times := range w.walk(n, func(int) { pages++ }) {
		require.Equal(t, 1, times, uid)
	}
	require.LessOrEqual(t, pages, 2*size/n)
}

// TestIndexWalkOfABucket: entries of one bucket that are more than a page are divided among pages.
func TestIndexWalkOfABucket(t *testing.T) {
	w := newWalkTest(t, 1, 0)
	const size = 5
	w.change(4 * size)
	w.change(4 - 3*size) // The hash may have fewer buckets now.
	seen := 0
	for _, times := range w.walk(1, func(int) {}) {
		seen += times
	}
	require.Equal(t, len(w.others), seen)
}

// TestIndexTokensAreNotForAnotherWalk: a token of another index or pod, or one that somebody has made up, gives entries or an error.
func TestIndexTokensAreNotForAnotherWalk(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		populate(t, store)
		for _, text := range []string{"az", "c0 ", "c9223372036854775807 ", "c7 0123456789abcdef", "a\xff"} {
			token := base64.RawURLEncoding.EncodeToString([]byte(text))
			entries, _, err := store.fleet.Entries(t.Context(), game, populated.pod, token, 10)
			require.NoError(t, err, text)
			require.LessOrEqual(t, len(entries), 1)
		}
	})
}

// TestEntriesOfAnExpiry: an expiry is a whole second, and never early.
func TestEntriesOfAnExpiry(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	for expires, want := range map[time.Time]string{
		{}:                      "5",
		at:                      "5 1700000000",
		at.Add(1):               "5 1700000001",
		at.Add(time.Second - 1): "5 1700000001",
	} {
		require.Equal(t, want, encodeEntry(biz.IndexEntry{UID: "u", Epoch: 5, Expires: expires}))
	}
}
