package data

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
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
		"empty":             "",
		"text":              "hello",
		"no state":          "1 0 0 0 0 -1 30 1700000000000 0 0 0 * * 0 - - ",
		"a text too many":   "1 0 0 0 0 -1 30 1700000000000 0 0 0 * * 0 - - up -",
		"another pod":       "2 0 0 0 0 -1 30 1700000000000 0 0 0 * * 0 - - up",
		"zero before pod":   "01 0 0 0 0 -1 30 1700000000000 0 0 0 * * 0 - - up",
		"load in words":     "1 x 0 0 0 -1 30 1700000000000 0 0 0 * * 0 - - up",
		"negative load":     "1 -1 0 0 0 -1 30 1700000000000 0 0 0 * * 0 - - up",
		"too large a load":  "1 2147483648 0 0 0 -1 30 1700000000000 0 0 0 * * 0 - - up",
		"zero before load":  "1 00 0 0 0 -1 30 1700000000000 0 0 0 * * 0 - - up",
		"unknown routing":   "1 0 3 0 0 -1 30 1700000000000 0 0 0 * * 0 - - up",
		"unknown cordon":    "1 0 0 3 0 -1 30 1700000000000 0 0 0 * * 0 - - up",
		"negative lift":     "1 0 0 0 -1 -1 30 1700000000000 0 0 0 * * 0 - - up",
		"capacity -2":       "1 0 0 0 0 -2 30 1700000000000 0 0 0 * * 0 - - up",
		"huge capacity":     "1 0 0 0 0 2147483648 30 1700000000000 0 0 0 * * 0 - - up",
		"ttl 0":             "1 0 0 0 0 -1 0 1700000000000 0 0 0 * * 0 - - up",
		"ttl -2":            "1 0 0 0 0 -1 -2 1700000000000 0 0 0 * * 0 - - up",
		"minus in ttl":      "1 0 0 0 0 -1 - 1700000000000 0 0 0 * * 0 - - up",
		"too large a ttl":   "1 0 0 0 0 -1 2147483648 1700000000000 0 0 0 * * 0 - - up",
		"zero before ttl":   "1 0 0 0 0 -1 030 1700000000000 0 0 0 * * 0 - - up",
		"negative time":     "1 0 0 0 0 -1 30 -1 0 0 0 * * 0 - - up",
		"huge time":         "1 0 0 0 0 -1 30 9999999999999999 0 0 0 * * 0 - - up",
		"huge heard":        "1 0 0 0 0 -1 30 1700000000000 9999999999999999 0 0 * * 0 - - up",
		"huge generation":   "1 0 0 0 0 -1 30 1700000000000 0 4503599627370496 0 * * 0 - - up",
		"huge sequence":     "1 0 0 0 0 -1 30 1700000000000 0 0 4503599627370496 * * 0 - - up",
		"no predecessor":    "1 0 0 0 0 -1 30 1700000000000 0 0 0 *  0 - - up",
		"too large a set":   "1 0 0 0 0 -1 30 1700000000000 0 0 0 * * 65 - - up",
		"two spaces":        "1 0 0 0 0 -1 30 1700000000000 0 0 0 * * 0  - - up",
		"state not ASCII":   "1 0 0 0 0 -1 30 1700000000000 0 0 0 * * 0 - - \xff\xfe",
		"state with a line": "1 0 0 0 0 -1 30 1700000000000 0 0 0 * * 0 - - a\nb",
	}
	foreignMetas = map[string]string{
		"empty":          "",
		"text":           "hello",
		"seven numbers":  "0 0 1700000000000 30000 0 0 0",
		"nine numbers":   "0 0 1700000000000 30000 0 0 0 0 0",
		"negative heard": "-1 0 1700000000000 30000 0 0 0 0",
	}
	// A choice checks only what it uses.
	foreignMetasUnread = map[string]string{
		"huge last":   "0 0 9999999999999999 30000 0 0 0 0",
		"zero before": "00 0 1700000000000 30000 0 0 0 0",
	}
	foreignEntries = map[string]string{
		"empty":          "",
		"text":           "hello",
		"six numbers":    "0000000001 0 -1 -1 1700000000000 0",
		"a pod in words": "000000000x 0 -1 -1 1700000000000 0 0",
		"negative load":  "0000000001 -1 -1 -1 1700000000000 0 0",
	}
	foreignStores = map[string]string{
		"empty":         "",
		"one word":      "id",
		"time in words": "id now one",
		"not ASCII":     "\xff 1700000000000 one",
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

// Values that podlink does not write in the keys of the feeds and the index.
var (
	foreignFeeds = map[string]string{
		"empty":             "",
		"text":              "hello world",
		"no kind":           " 1 -1 1 -1 0 0 - u",
		"an empty line":     "L 1 -1 1 -1 0 0 - u\n",
		"a lower-case kind": "l 1 -1 1 -1 0 0 - u",
		"no uid":            "L 1 -1 1 -1 0 0 -",
		"an empty uid":      "L 1 -1 1 -1 0 0 - ",
		"a pod in words":    "L x -1 1 -1 0 0 - u",
		"pod -2":            "L -2 -1 1 -1 0 0 - u",
		"zero before epoch": "L 1 -1 01 -1 0 0 - u",
		"huge epoch":        "L 1 -1 9007199254740991 -1 0 0 - u",
		"ttl -3":            "L 1 -1 1 -3 0 0 - u",
		"huge claim":        "L 1 -1 1 -1 4503599627370496 0 - u",
		"negative time":     "L 1 -1 1 -1 0 -1 - u",
		"half an escape":    "L 1 -1 1 -1 0 0 %2 u",
		"not UTF-8":         "L 1 -1 1 -1 0 0 - \xff",
	}
	foreignIndexed = map[string]string{
		"empty":             "",
		"text":              "hello",
		"zero":              "0",
		"zero before":       "01",
		"negative":          "-1",
		"space after":       "1 ",
		"no expiry":         "1 0",
		"two spaces":        "1  2",
		"three numbers":     "1 2 3",
		"too large":         "9007199254740991",
		"huge":              strings.Repeat("9", 400),
		"newline":           "1\n",
		"fraction":          "1.5",
		"expiry in words":   "1 x",
		"zero before after": "1 02",
	}
	foreignCounters = map[string]string{
		"empty": "", "text": "hello", "negative": "-1", "zero before": "01", "huge": strings.Repeat("9", 20), "fraction": "1.5",
	}
)

// foreign is a way to fill a key with a value that podlink does not write.
type foreign struct {
	name    string
	fill    func(store *testStore, key string) error
	allowed []string // calls that don't need it
}

// foreignKeys returns the ways to fill a key of the kind: with another type, or with a malformed hash.
func foreignKeys(kind string) []foreign {
	ways := []foreign{
		{name: "a string", fill: func(s *testStore, key string) error { return s.client.Set(context.Background(), key, "hello", 0).Err() }},
		{name: "a list", fill: func(s *testStore, key string) error { return s.client.RPush(context.Background(), key, "1").Err() }},
	}
	hash := func(name string, fields map[string]any) {
		ways = append(ways, foreign{name: name, fill: func(s *testStore, key string) error {
			return s.client.HSet(context.Background(), key, fields).Err()
		}})
	}
	member := func(score int64, values map[string]string, allowed ...string) {
		for name, value := range values {
			ways = append(ways, foreign{fmt.Sprintf("%s at %d", name, score), func(s *testStore, _ string) error {
				members := countedPod()
				members[score] = value
				return s.writeMembers(context.Background(), members)
			}, allowed})
		}
	}
	members := func(allowed []string, values ...string) {
		for _, value := range values {
			ways = append(ways, foreign{"the member " + strconv.Quote(value), func(s *testStore, key string) error {
				return s.client.SAdd(context.Background(), key, value).Err()
			}, allowed})
		}
	}
	entry := func(name, id, field, value string, allowed ...string) {
		ways = append(ways, foreign{name, func(s *testStore, key string) error {
			return s.client.XAdd(context.Background(), &redis.XAddArgs{Stream: key, ID: id, Values: []any{field, value}}).Err()
		}, allowed})
	}
	switch kind {
	case "feed":
		for name, value := range foreignFeeds {
			entry(name, "1700000000000-1", fieldChanges, value, "Feed.Flush changes")
		}
		entry("an empty gap", "1700000000000-1", fieldGap, "", "Feed.Flush changes")
		entry("a huge id", "9999999999999999-1", fieldGap, "STORE")
		entry("a huge number", "1700000000000-9999999999999999", fieldGap, "STORE")
	case "index":
		for name, value := range foreignIndexed {
			hash(name, map[string]any{populated.uid: value})
		}
		for name, value := range foreignCounters {
			ways = append(ways, foreign{"uncertain, " + name, func(s *testStore, key string) error {
				return s.client.HSet(context.Background(), key, uncertainPrefix+"u", value).Err()
			}, []string{"Feed.Flush updates"}})
		}
	case "pods":
		members(nil, "", "x", "-1", "01", "2147483648")
	case "services":
		members([]string{"Feed.Flush a service"}, "", "x", ":", "ns:", ":game", "ns:\xff")
	case "writers":
		for name, value := range foreignCounters {
			hash(name, map[string]any{populated.uid: value})
		}
	case "fleet":
		for name, value := range foreignCounters {
			hash("gaps: "+name, map[string]any{"gaps": value})
			hash("covered: "+name, map[string]any{"gaps": "1", "covered": value})
		}
	case "lease":
		return ways[1:] // A string names a holder.
	case "link":
		for name, value := range foreignLinks {
			hash(name, map[string]any{"game": value})
		}
	case "service":
		hash("a hash", map[string]any{"1": "0 0 0 -1 1700000000000 up"})
		ways = append(ways, foreign{"another sorted set", func(s *testStore, key string) error {
			return s.client.ZAdd(context.Background(), key, redis.Z{Score: 4e12, Member: "hello"}).Err()
		}, nil})
		member(-3, foreignReports, "Pods.Reserve")
		member(-1, foreignMetas, "Pods.Release")
		member(-1, foreignMetasUnread, "Pods.Release", "Pods.Reserve")
		member(1, foreignEntries)
		member(-1<<36, foreignStores, "Pods.Reserve", "Pods.Release", "Pods.Remove", "Pods.Cordon", "Pods.Get", "Pods.List", "Pods.View")
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
				if slices.Contains(way.allowed, strings.Replace(call.name, "Batch", "", 1)) {
					continue
				}
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

// TestForeignReportOfAnother: a foreign report, an entry without a report and two reports of one pod make the calls fail that
// need them, and no others. Nothing of it is removed.
func TestForeignReportOfAnother(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		key, repos := store.keys.service(game), reposOf(store)
		for name, members := range map[string]map[int64]string{
			"a report":        {-9: "hello"},
			"a second report": {-9: strings.Replace(countedReport, "1", "7", 1)},
			"a buried report": {-(1<<33 + 9): "hello"},
			"a fence":         {-(1<<34 + 9): "hello"},
		} {
			require.NoError(t, store.writeMembers(t.Context(), countedPod()))
			require.NoError(t, store.writeMembers(t.Context(), members))
			if name == "a second report" {
				require.NoError(t, store.writeMembers(t.Context(), map[int64]string{-9: strings.Replace(countedReport, "1 0", "7 1", 1)}))
			}
			foreign := func() map[string]string {
				left := make(map[string]string)
				for member, score := range read(t, store, key).value.(map[string]string) {
					if strings.HasSuffix(score, "9") && strings.HasPrefix(score, "-") || score == "-8589934601" || score == "-17179869193" {
						left[member] = score
					}
				}
				return left
			}
			before := foreign()
			require.NotEmpty(t, before)
			_, err := repos.Pods.Set(t.Context(), game, biz.Report{Pod: 7, State: "up", TTL: 30})
			require.ErrorIs(t, err, biz.ErrStoreDataCorrupt, name)
			_, err = repos.Pods.Set(t.Context(), game, biz.Report{Pod: 1, State: "up", TTL: 30, Capacity: biz.NoCapacity})
			require.NoError(t, err, name)
			require.NoError(t, second(repos.Pods.Reserve(t.Context(), game, biz.ReserveRequest{Linked: biz.NoPod})), name)
			require.NoError(t, second(repos.Pods.Get(t.Context(), game, 1)), name)
			require.Equal(t, before, foreign(), name)
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
	_, change, err := repo.one(context.Background(), scriptGetLink, key, key.Service)
	return change.Link, err
}
