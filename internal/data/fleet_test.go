package data

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	redistest "podlink/test/kit/redis"
)

// flushed appends the subject's change to the feed of the default service.
func flushed(t *testing.T, fleet *Fleet, n subject) {
	t.Helper()
	require.NoError(t, fleet.Flush(t.Context(), []biz.FlushPart{{Service: game, Changes: []biz.Change{n.change()}}})[0])
}

// TestFeedIsTrimmed: a feed loses its oldest entries by age and by length, never the newest, and a reader that was behind is told.
func TestFeedIsTrimmed(t *testing.T) {
	const nodes = 100 // Redis trims by this many entries.
	fill := func(t *testing.T, store *testStore, count int, at int64) {
		t.Helper()
		pipe := store.client.Pipeline()
		for i := range count {
			pipe.XAdd(t.Context(), &redis.XAddArgs{
				Stream: store.keys.feed(game), ID: fmt.Sprintf("%d-%d", at, i+1), Values: []any{fieldGap, "STORE"},
			})
		}
		_, err := pipe.Exec(t.Context())
		require.NoError(t, err)
	}
	start := func(t *testing.T) *testStore {
		return openStore(t, onServer(redistest.Start(t).Addr()), withLongTimeouts)
	}
	old := time.Now().Add(-2 * testFeedMaxAge).UnixMilli()

	t.Run("by age", func(t *testing.T) {
		store := start(t)
		fill(t, store, 3*nodes, old)
		flushed(t, store.fleet, populated)
		left := store.client.XLen(t.Context(), store.keys.feed(game)).Val()
		require.LessOrEqual(t, left, int64(nodes))
		require.Positive(t, left)
		page, err := store.fleet.ReadFeed(t.Context(), game, biz.FeedPosition(fmt.Sprintf("%d-5", old)), 2*nodes)
		require.NoError(t, err)
		require.True(t, page.Trimmed)
		require.Equal(t, []biz.Change{populated.change()}, page.Entries[len(page.Entries)-1].Changes)
		again, err := store.fleet.ReadFeed(t.Context(), game, page.Next, 10)
		require.NoError(t, err)
		require.Equal(t, biz.FeedPage{Next: page.Next, Entries: []biz.FeedEntry{}}, again, "said once")
	})
	t.Run("by length", func(t *testing.T) {
		store := start(t)
		const longest = 100000
		fill(t, store, longest+5*nodes, time.Now().UnixMilli())
		flushed(t, store.fleet, populated)
		require.LessOrEqual(t, store.client.XLen(t.Context(), store.keys.feed(game)).Val(), int64(longest+nodes))
	})
	t.Run("a reader that had read everything missed nothing, if the feed was not silent for too long", func(t *testing.T) {
		store := start(t)
		fill(t, store, nodes, time.Now().Add(-2*testFeedMaxAge+time.Minute).UnixMilli()) // A full node.
		end, err := store.fleet.ReadFeed(t.Context(), game, "", 1)
		require.NoError(t, err)
		flushed(t, store.fleet, populated)
		require.EqualValues(t, 1, store.client.XLen(t.Context(), store.keys.feed(game)).Val(), "all others were trimmed")
		page, err := store.fleet.ReadFeed(t.Context(), game, end.Next, 10)
		require.NoError(t, err)
		require.False(t, page.Trimmed)
		require.Len(t, page.Entries, 1)
	})
	t.Run("a feed that nobody writes disappears", func(t *testing.T) {
		store := start(t)
		flushed(t, store.fleet, populated)
		left := store.client.PTTL(t.Context(), store.keys.feed(game)).Val()
		require.Greater(t, left, testFeedMaxAge)
		require.LessOrEqual(t, left, 2*testFeedMaxAge)
		end, err := store.fleet.ReadFeed(t.Context(), game, "", 1)
		require.NoError(t, err)
		silent := entryID{at: time.Now().Add(-2 * testFeedMaxAge).UnixMilli(), number: 1}
		require.NoError(t, store.client.Del(t.Context(), store.keys.feed(game)).Err())
		time.Sleep(2 * time.Millisecond) // It would be longer, and ids have the time in ms.
		flushed(t, store.fleet, fresh)
		flushed(t, store.fleet, fresh)
		for name, position := range map[string]biz.FeedPosition{
			"the number comes again": silent.position(), "there was no feed": feedStart(time.Now().Add(-testFeedMaxAge - time.Minute)),
		} {
			page, err := store.fleet.ReadFeed(t.Context(), game, position, 1)
			require.NoError(t, err)
			require.True(t, page.Trimmed, name)
		}
		page, err := store.fleet.ReadFeed(t.Context(), game, end.Next, 1)
		require.NoError(t, err)
		require.True(t, page.Trimmed, "what was in the feed before it disappeared is not known")
		require.Len(t, page.Entries, 1)
	})
	t.Run("from the start of a feed that did not exist", func(t *testing.T) {
		store := start(t)
		end, err := store.fleet.ReadFeed(t.Context(), game, "", 1)
		require.NoError(t, err)
		flushed(t, store.fleet, fresh)
		page, err := store.fleet.ReadFeed(t.Context(), game, end.Next, 10)
		require.NoError(t, err)
		require.False(t, page.Trimmed)
		require.Len(t, page.Entries, 1)
	})
}

// TestFeedWhenTheClockIsSetBack: entries stay in order, and are numbered without holes.
func TestFeedWhenTheClockIsSetBack(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		ahead := time.Now().Add(time.Hour).UnixMilli()
		require.NoError(t, store.client.XAdd(t.Context(), &redis.XAddArgs{
			Stream: store.keys.feed(game), ID: fmt.Sprintf("%d-41", ahead), Values: []any{fieldGap, "STORE"},
		}).Err())
		flushed(t, store.fleet, populated)
		page, err := store.fleet.ReadFeed(t.Context(), game, biz.FeedPosition(fmt.Sprintf("%d-40", ahead)), 10)
		require.NoError(t, err)
		require.False(t, page.Trimmed)
		require.Len(t, page.Entries, 2)
		require.Equal(t, biz.FeedPosition(fmt.Sprintf("%d-42", ahead)), page.Next)
	})
}

// TestFeedOfALaterPodlink: kinds of changes and fields that this podlink does not know are left out.
func TestFeedOfALaterPodlink(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		for i, values := range [][]any{
			{fieldChanges, "L 1 -1 5 -1 0 1700000000000 - u\nZ what ever it is\nR -1 1 5 -2 0 1700000000000 - u"},
			{"later", "something"},
			{"later", "something", fieldGap, "LATER_REASON"},
		} {
			id := fmt.Sprintf("1700000000000-%d", i+1)
			require.NoError(t, store.client.XAdd(t.Context(), &redis.XAddArgs{Stream: store.keys.feed(game), ID: id, Values: values}).Err())
		}
		page, err := store.fleet.ReadFeed(t.Context(), game, "1700000000000-0", 10)
		require.NoError(t, err)
		require.Len(t, page.Entries, 3)
		require.Len(t, page.Entries[0].Changes, 2)
		require.Equal(t, biz.Linked, page.Entries[0].Changes[0].Kind)
		require.Equal(t, biz.Removed, page.Entries[0].Changes[1].Kind)
		require.Equal(t, biz.FeedEntry{At: "1700000000000-2"}, page.Entries[1])
		require.Equal(t, biz.GapReason("LATER_REASON"), page.Entries[2].Gap)
	})
}

// TestRegistration: what a process has registered it does not register again, until the store is another one or a minute has passed.
func TestRegistration(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		identity := "one"
		fleet := NewFleet(store.Runner, store.keys, FleetOptions{FeedMaxAge: testFeedMaxAge})
		fleet.registry.store = func() string { return identity }
		known := func() (services, pods int64) {
			return store.client.SCard(t.Context(), store.keys.services()).Val(), store.client.SCard(t.Context(), store.keys.indexed(game)).Val()
		}
		flush := func() {
			t.Helper()
			part := biz.FlushPart{Service: game, Pod: 1, Updates: populated.updates()}
			require.NoError(t, fleet.Flush(t.Context(), []biz.FlushPart{part})[0])
		}
		lose := func() {
			require.NoError(t, store.client.Del(t.Context(), store.keys.services()).Err())
			require.NoError(t, store.client.Del(t.Context(), store.keys.indexed(game)).Err())
		}
		for _, row := range []struct {
			name       string
			before     func()
			registered int64
		}{
			{"the first flush", func() {}, 1},
			{"another one", func() {}, 0},
			{"another store", func() { identity = "two" }, 1},
			{"a minute later", func() { fleet.registry.begun = time.Now().Add(-registered) }, 1},
			{"just before", func() { fleet.registry.begun = time.Now().Add(-registered / 2) }, 0},
		} {
			row.before()
			flush()
			services, pods := known()
			require.Equal(t, []int64{row.registered, row.registered}, []int64{services, pods}, row.name)
			lose()
		}
	})
}

// TestFlushOfUnregistered: a part whose service can't be registered is not carried out, and fails no other.
func TestFlushOfUnregistered(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		require.NoError(t, store.client.Set(t.Context(), store.keys.indexed(game), "hello", 0).Err())
		failures := store.fleet.Flush(t.Context(), []biz.FlushPart{
			{Service: game, Pod: 1, Updates: populated.updates()},
			{Service: game, Changes: []biz.Change{populated.change()}},
			{Service: game},
		})
		require.ErrorIs(t, failures[0], biz.ErrStoreDataCorrupt)
		require.NoError(t, failures[1])
		require.NoError(t, failures[2])
		require.Zero(t, store.client.Exists(t.Context(), store.keys.index(game, 1)).Val())
		require.EqualValues(t, 1, store.client.XLen(t.Context(), store.keys.feed(game)).Val())
	})
}

// TestFlushRoundTrips: what belongs to one server is sent in one round trip, whatever kinds of keys it is for.
func TestFlushRoundTrips(t *testing.T) {
	server := redistest.Start(t)
	store := openStore(t, onServer(server.Addr()), withLongTimeouts)
	waitReady(t, store)
	var parts []biz.FlushPart
	for pod := range biz.PodID(20) {
		parts = append(parts, biz.FlushPart{Service: game, Pod: pod, Updates: populated.updates()})
	}
	parts = append(parts, biz.FlushPart{Service: game, Changes: []biz.Change{populated.change()}})
	flush := func() {
		for _, err := range store.fleet.Flush(t.Context(), parts) {
			require.NoError(t, err)
		}
	}
	flush()
	before := roundTrips(t, store)
	flush()
	require.Equal(t, before+1, roundTrips(t, store))
}

// roundTrips returns how many round trips have carried calls so far.
func roundTrips(t *testing.T, store *testStore) int {
	t.Helper()
	const name = "podlink_store_batch_commands"
	text, err := testutil.CollectAndFormat(store.Metrics, expfmt.TypeTextPlain, name)
	require.NoError(t, err)
	found := regexp.MustCompile(`(?m)^` + name + `_count (\d+)$`).FindSubmatch(text)
	require.NotNil(t, found, "%s", text)
	count, err := strconv.Atoi(string(found[1]))
	require.NoError(t, err)
	return count
}

// TestLargestUpdate: an index takes as many updates as a flush may have, with the longest uids, and of one uid too.
func TestLargestUpdate(t *testing.T) {
	const most = 512
	onEachStore(t, func(t *testing.T, store *testStore) {
		random := rand.New(rand.NewPCG(1, 1))
		var updates []biz.IndexUpdate
		for i := range most {
			uid := strconv.Itoa(i % (most / 2))
			update := biz.IndexUpdate{Op: biz.AddEntry, Entry: biz.IndexEntry{
				UID: fmt.Sprintf("%0256s", uid), Epoch: biz.Epoch(1 + random.Int64N(int64(biz.MaxEpoch))), Expires: time.Unix(1e10, 0),
			}}
			updates = append(updates, update)
		}
		require.NoError(t, store.fleet.Flush(t.Context(), []biz.FlushPart{{Service: game, Pod: 1, Updates: updates}})[0])
		require.EqualValues(t, most/2, store.client.HLen(t.Context(), store.keys.index(game, 1)).Val())
		for i := range updates {
			updates[i] = biz.IndexUpdate{Op: biz.RemoveEntry, Entry: biz.IndexEntry{UID: updates[i].Entry.UID, Epoch: biz.MaxEpoch}}
		}
		require.NoError(t, store.fleet.Flush(t.Context(), []biz.FlushPart{{Service: game, Pod: 1, Updates: updates}})[0])
		require.Zero(t, store.client.Exists(t.Context(), store.keys.index(game, 1)).Val())
	})
}

// TestGapAfterFlushAll: a gap puts back what the process has registered, and reaches the feeds of a store that has lost its data.
func TestGapAfterFlushAll(t *testing.T) {
	for name, row := range map[string]struct {
		before     time.Duration // the age of the registration
		registered bool
	}{
		"a moment later":    {0, true},
		"a minute later":    {registered, true},
		"two minutes later": {2 * registered, false},
	} {
		t.Run(name, func(t *testing.T) {
			onEachStore(t, func(t *testing.T, store *testStore) {
				flush := func(key biz.ServiceKey) {
					part := biz.FlushPart{Service: key, Pod: 1, Updates: populated.updates()}
					require.NoError(t, store.fleet.Flush(t.Context(), []biz.FlushPart{part})[0])
				}
				flush(game)
				for range row.before / registered {
					store.fleet.registry.begun = time.Now().Add(-registered)
					flush(biz.ServiceKey{Namespace: "ns", Service: "another"})
				}
				require.NoError(t, store.client.FlushAll(t.Context()).Err())
				require.NoError(t, store.fleet.Gap(t.Context(), biz.GapStore))
				services, err := store.fleet.Services(t.Context(), "")
				require.NoError(t, err)
				if !row.registered {
					require.NotContains(t, services, game)
					return
				}
				require.Contains(t, services, game)
				pods, err := store.fleet.IndexedPods(t.Context(), game)
				require.NoError(t, err)
				require.Equal(t, []biz.IndexedPod{{Pod: 1}}, pods)
				require.EqualValues(t, 1, store.client.XLen(t.Context(), store.keys.feed(game)).Val())
			})
		})
	}
}

// TestGapWithAForeignFeed: a feed that podlink did not write keeps no other from its gap, and no index from being complete again.
func TestGapWithAForeignFeed(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		another := biz.ServiceKey{Namespace: "ns", Service: "another"}
		require.NoError(t, store.client.Set(t.Context(), store.keys.feed(game), "hello", 0).Err())
		for _, key := range []biz.ServiceKey{game, another} {
			part := biz.FlushPart{Service: key, Pod: 1, Updates: populated.updates()}
			require.NoError(t, store.fleet.Flush(t.Context(), []biz.FlushPart{part})[0])
		}
		require.NoError(t, store.fleet.Gap(t.Context(), biz.GapDropped))
		require.EqualValues(t, 1, store.client.XLen(t.Context(), store.keys.feed(another)).Val())
		require.Equal(t, "hello", store.client.Get(t.Context(), store.keys.feed(game)).Val())
	})
}
