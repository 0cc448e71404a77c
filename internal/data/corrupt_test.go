package data

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"podlink/internal/biz"
)

// Values that podlink does not write, by the kind of the key. The tests store them in a field that the calls read.
var (
	foreignLinks = map[string]string{
		"empty":              "",
		"text":               "hello",
		"one number":         "1",
		"two numbers":        "1 1700000000000000",
		"four numbers":       "1 1700000000000000 0 0",
		"a pod in words":     "one 1700000000000000 0",
		"no pod":             "-1 1700000000000000 0",
		"minus zero":         "-0 1700000000000000 0",
		"plus":               "+1 1700000000000000 0",
		"too large a pod":    "2147483648 1700000000000000 0",
		"huge pod":           strings.Repeat("9", 400) + " 1700000000000000 0",
		"zero before pod":    "01 1700000000000000 0",
		"zero before epoch":  "1 01700000000000000 0",
		"zero before expiry": "1 1700000000000000 00",
		"no epoch":           "1 0 0",
		"negative epoch":     "1 -5 0",
		"minus zero epoch":   "1 -0 0",
		"too large an epoch": "1 9007199254740992 0",
		"largest epoch":      "1 9223372036854775807 0",
		"float epoch":        "1 1.7e15 0",
		"hex epoch":          "1 0x10 0",
		"negative expiry":    "1 1700000000000000 -1",
		"too large expiry":   "1 1700000000000000 99999999999999999",
		"claim 0":            "1 1700000000000000 1700000000000 0",
		"zero before claim":  "1 1700000000000000 0 07",
		"negative claim":     "1 1700000000000000 0 -7",
		"too large a claim":  "1 1700000000000000 0 4503599627370496",
		"huge claim":         "1 1700000000000000 0 " + strings.Repeat("9", 400),
		"space after claim":  "1 1700000000000000 0 7 ",
		"two before claim":   "1 1700000000000000 0  7",
		"five numbers":       "1 1700000000000000 0 7 7",
		"no expiry":          "1 1700000000000000  7",
		"space before":       " 1 1700000000000000 0",
		"space after":        "1 1700000000000000 0 ",
		"two spaces":         "1  1700000000000000 0",
		"newline":            "1 1700000000000000 0\n",
		"null byte":          "1 1700000000000000 0\x00",
		"not UTF-8":          "\xff\xfe",
	}
	foreignReports = map[string]string{
		"empty":               "",
		"text":                "hello",
		"no state":            "0 0 0 30 1700000000000",
		"empty state":         "0 0 0 30 1700000000000 ",
		"load in words":       "x 0 0 30 1700000000000 up",
		"negative load":       "-1 0 0 30 1700000000000 up",
		"too large a load":    "2147483648 0 0 30 1700000000000 up",
		"zero before load":    "00 0 0 30 1700000000000 up",
		"negative given":      "0 -1 0 30 1700000000000 up",
		"zero before given":   "0 01 0 30 1700000000000 up",
		"huge given":          "0 9999999999999999 0 30 1700000000000 up",
		"unknown routing":     "0 0 3 30 1700000000000 up",
		"negative routing":    "0 0 -1 30 1700000000000 up",
		"ttl 0":               "0 0 0 0 1700000000000 up",
		"ttl -2":              "0 0 0 -2 1700000000000 up",
		"minus in ttl":        "0 0 0 - 1700000000000 up",
		"too large a ttl":     "0 0 0 2147483648 1700000000000 up",
		"zero before ttl":     "0 0 0 030 1700000000000 up",
		"negative heartbeat":  "0 0 0 30 -1 up",
		"zero before":         "0 0 0 30 01700000000000 up",
		"huge heartbeat":      "0 0 0 30 9999999999999999 up",
		"state not UTF-8":     "0 0 0 30 1700000000000 \xff\xfe",
		"overlong UTF-8":      "0 0 0 30 1700000000000 \xc0\x80",
		"half a rune":         "0 0 0 30 1700000000000 a\xe2\x82",
		"a surrogate":         "0 0 0 30 1700000000000 \xed\xa0\x80",
		"beyond Unicode":      "0 0 0 30 1700000000000 \xf4\x90\x80\x80",
		"a stray middle byte": "0 0 0 30 1700000000000 a\x80b",
		"two in one another":  "0 0 0 30 1700000000000 \xe2\xc3\xa9\x82\xac",
	}
	foreignWorkloads = map[string]map[string]any{
		"no time":          {"state": "up"},
		"no state":         {"update_ms": "1700000000000"},
		"time in words":    {"state": "up", "update_ms": "now"},
		"negative time":    {"state": "up", "update_ms": "-1"},
		"huge time":        {"state": "up", "update_ms": strings.Repeat("9", 30)},
		"zero before time": {"state": "up", "update_ms": "01700000000000"},
		"empty state":      {"state": "", "update_ms": "1700000000000"},
		"not UTF-8":        {"state": "\xff", "update_ms": "1700000000000"},
	}
)

// foreign is a way to fill a key with a value that podlink does not write.
type foreign struct {
	name string
	fill func(store *testStore, key string) error
}

// foreignKeys returns the ways to fill a key of the kind: with another type, or with a malformed hash.
func foreignKeys(kind string) []foreign {
	ways := []foreign{
		{"a string", func(s *testStore, key string) error { return s.client.Set(context.Background(), key, "hello", 0).Err() }},
		{"a list", func(s *testStore, key string) error { return s.client.RPush(context.Background(), key, "1").Err() }},
	}
	hash := func(name string, fields map[string]any) {
		ways = append(ways, foreign{name, func(s *testStore, key string) error {
			return s.client.HSet(context.Background(), key, fields).Err()
		}})
	}
	switch kind {
	case "link":
		for name, value := range foreignLinks {
			hash(name, map[string]any{"game": value})
		}
	case "pods":
		for name, value := range foreignReports {
			hash(name, map[string]any{"1": value, "0": "0 0 0 -1 1700000000000 up"})
		}
	case "workload":
		for name, fields := range foreignWorkloads {
			hash(name, fields)
		}
	}
	return ways
}

// TestForeignData: every method reports a foreign value, and leaves it unchanged.
func TestForeignData(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		for _, call := range repoCalls {
			key := call.key(store, populated)
			for _, way := range foreignKeys(call.kind) {
				t.Run(call.name+"/"+way.name, func(t *testing.T) {
					require.NoError(t, way.fill(store, key))
					before := read(t, store, key)
					require.ErrorIs(t, call.do(t.Context(), reposOf(store), populated), biz.ErrStoreDataCorrupt)
					require.Equal(t, before, read(t, store, key))
					require.NoError(t, store.client.Del(t.Context(), key).Err())
				})
			}
		}
	})
}

// TestForeignPodNames: the hash of a service has a field whose name is not a pod.
func TestForeignPodNames(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		key := store.keys.service(game)
		for _, name := range []string{"", "x", "-1", "01", "+1", "1 ", "2147483648", "9999999999", "Reported"} {
			require.NoError(t, store.client.HSet(t.Context(), key, name, "0 0 0 -1 1700000000000 up").Err())
			before := read(t, store, key)
			_, err := reposOf(store).Pods.List(t.Context(), game)
			require.ErrorIs(t, err, biz.ErrStoreDataCorrupt, "List of %q", name)
			_, err = reposOf(store).Pods.Reserve(t.Context(), game, biz.ReserveRequest{Linked: biz.NoPod})
			require.ErrorIs(t, err, biz.ErrStoreDataCorrupt, "Reserve of %q", name)
			require.Equal(t, before, read(t, store, key))
			require.NoError(t, store.client.Del(t.Context(), key).Err())
		}
	})
}

// TestForeignNeighbour: a foreign value under another service of the uid makes no call fail, and is never removed: not by
// a sweep, not by the removal of the last link, and not by a TTL of the key.
func TestForeignNeighbour(t *testing.T) {
	set := func(ttl biz.TTL) func(t *testing.T, links biz.LinkRepo) {
		return func(t *testing.T, links biz.LinkRepo) {
			t.Helper()
			require.NoError(t, second(links.Set(t.Context(), populated.link(), populated.pod, ttl, biz.SetTerms{})))
		}
	}
	found := map[string]func(t *testing.T, links biz.LinkRepo){
		"no link":         func(*testing.T, biz.LinkRepo) {},
		"persistent link": set(biz.Forever),
		"temporary link":  set(60), // The key has a TTL.
	}
	onEachStore(t, func(t *testing.T, store *testStore) {
		key := store.keys.links("ns", populated.uid)
		for before, make := range found {
			for _, name := range []string{"text", "four numbers", "no epoch", "not UTF-8"} {
				value := foreignLinks[name]
				for _, call := range repoCalls {
					if call.kind != "link" || !call.mutation() {
						continue
					}
					t.Run(before+"/"+call.name+"/"+name, func(t *testing.T) {
						links := reposOf(store).Links
						make(t, links)
						require.NoError(t, store.client.HSet(t.Context(), key, "chat", value).Err())
						fields := store.client.HGetAll(t.Context(), key).Val()
						require.NoError(t, call.do(t.Context(), reposOf(store), populated))
						after := read(t, store, key)
						require.Equal(t, value, after.value.(map[string]string)["chat"])
						if after.value.(map[string]string)["game"] != fields["game"] {
							require.False(t, after.hasTTL, "a TTL would remove the foreign value")
						}
						require.NoError(t, second(links.Get(t.Context(), populated.link())))
						require.NoError(t, store.client.Del(t.Context(), key).Err())
					})
				}
			}
		}
	})
}

// TestCorruptUIDInABatch: the foreign values of some uids don't fail a batch. Each has its error in its place.
func TestCorruptUIDInABatch(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		links := reposOf(store).Links
		persistent, temporary := guestKey(1), guestKey(2)
		require.NoError(t, second(links.Set(t.Context(), persistent, 1, biz.Forever, biz.SetTerms{})))
		require.NoError(t, second(links.Set(t.Context(), temporary, 2, 600, biz.SetTerms{Claim: 7})))
		for i, value := range map[int]string{3: "hello", 4: "1 0 0", 5: "1 1700000000000000 0 0"} {
			require.NoError(t, store.client.HSet(t.Context(), store.keys.links("ns", guestKey(i).UID), "game", value).Err())
		}
		require.NoError(t, store.client.Set(t.Context(), store.keys.links("ns", guestKey(6).UID), "hello", 0).Err())
		foreign := map[int]bool{3: true, 4: true, 5: true, 6: true}

		order := []int{6, 3, 1, 4, 0, 5, 2}
		uids := make([]string, len(order))
		for n, i := range order {
			uids[n] = guestKey(i).UID
		}
		results, err := links.BatchGet(t.Context(), "ns", "game", uids)
		require.NoError(t, err)
		require.Len(t, results, len(order))
		for n, i := range order {
			require.Equal(t, guestKey(i), results[n].Link.Key)
			want, err := links.Get(t.Context(), guestKey(i))
			if foreign[i] {
				require.ErrorIs(t, err, biz.ErrStoreDataCorrupt)
				require.ErrorIs(t, results[n].Err, biz.ErrStoreDataCorrupt)
				continue
			}
			require.NoError(t, err)
			require.NoError(t, results[n].Err)
			sameLink(t, want, results[n].Link)
		}

		results, err = links.BatchGet(t.Context(), "ns", "game", uids[:1])
		require.NoError(t, err, "the store has answered, although for no uid")
		require.ErrorIs(t, results[0].Err, biz.ErrStoreDataCorrupt)
	})
}

// TestFormatOfLinks: Go and Lua accept the same values, whatever is changed in one that podlink writes. Go reads a persistent link
// without a script, so a difference would show one link in a read and another one in a mutation.
func TestFormatOfLinks(t *testing.T) {
	store := openStore(t, embeddedStore)
	key := populated.link()
	name := store.keys.links(key.Namespace, key.UID)
	numbers := rapid.SampledFrom([]string{
		"0", "1", "7", "07", "-1", "+1", "", " ", "x", "1.0", "0x7", "999999999", "2147483647", "2147483648", "999999999999999",
		"1700000000000000", "4503599627370495", "4503599627370496", "9007199254740990", "9007199254740991", "9007199254740992",
		"9223372036854775808", "99999999999999999999", "\x00", "é", "1\n",
	})
	accepted := 0
	rapid.Check(t, func(rt *rapid.T) {
		words := []string{"1", "1700000000000000", "0", "7", "7"}[:rapid.IntRange(1, 5).Draw(rt, "words")]
		for range rapid.IntRange(0, 2).Draw(rt, "changes") {
			words[rapid.IntRange(0, len(words)-1).Draw(rt, "which")] = numbers.Draw(rt, "word")
		}
		value := strings.Join(words, " ")
		require.NoError(rt, store.client.HSet(context.Background(), name, key.Service, value).Err())
		link, temporary, err := persistentLink(key, value, true)
		fromLua, luaErr := linkByScript(store, key)
		if temporary {
			return // Only Lua reads it.
		}
		require.Equal(rt, luaErr == nil, err == nil, "%q: %v, %v", value, luaErr, err)
		if err == nil {
			require.Equal(rt, fromLua, link, value)
			accepted++
		}
	})
	require.Positive(t, accepted)
}

// linkByScript reads the link by script, also if it is persistent.
func linkByScript(store *testStore, key biz.LinkKey) (biz.Link, error) {
	repo := NewLinkRepo(store.Runner, store.keys, testLinkLimits, store.metrics).(linkRepo)
	_, change, err := repo.one(context.Background(), scriptGetLink, key)
	return change.Link, err
}
