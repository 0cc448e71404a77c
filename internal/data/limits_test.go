package data

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	redistest "podlink/test/kit/redis"
)

// serviceKey is the link of one uid for the i-th service.
func serviceKey(i int) biz.LinkKey {
	return biz.LinkKey{Namespace: "ns", UID: "collector", Service: "service-" + strconv.Itoa(i)}
}

// adding has the mutations that may add a link.
var adding = map[string]func(t *testing.T, links biz.LinkRepo, key biz.LinkKey, ttl biz.TTL) (biz.LinkChange, error){
	"Set": func(t *testing.T, links biz.LinkRepo, key biz.LinkKey, ttl biz.TTL) (biz.LinkChange, error) {
		return links.Set(t.Context(), key, 1, ttl, biz.SetTerms{})
	},
	"Set with a claim": func(t *testing.T, links biz.LinkRepo, key biz.LinkKey, ttl biz.TTL) (biz.LinkChange, error) {
		return links.Set(t.Context(), key, 1, ttl, biz.SetTerms{Claim: 7, Expected: new(biz.Epoch)})
	},
	"TrySet": func(t *testing.T, links biz.LinkRepo, key biz.LinkKey, ttl biz.TTL) (biz.LinkChange, error) {
		return links.TrySet(t.Context(), key, 1, ttl, nil)
	},
	"SetIfAbsent": func(t *testing.T, links biz.LinkRepo, key biz.LinkKey, ttl biz.TTL) (biz.LinkChange, error) {
		return links.SetIfAbsent(t.Context(), key, 1, ttl, biz.SetTerms{Claim: 7})
	},
	"SetIfEpoch": func(t *testing.T, links biz.LinkRepo, key biz.LinkKey, ttl biz.TTL) (biz.LinkChange, error) {
		return links.SetIfEpoch(t.Context(), key, 1, ttl, biz.MoveTerms{})
	},
}

// TestServicesOfOneUID: a uid has at most so many live links. Calls on those that it has always work.
func TestServicesOfOneUID(t *testing.T) {
	const most = 8
	onEachStore(t, func(t *testing.T, store *testStore) {
		links := NewLinkRepo(store.Runner, store.keys, LinkLimits{MaxServices: most}, store.metrics)
		name := store.keys.links("ns", serviceKey(0).UID)
		for call, add := range adding {
			for kind, ttl := range map[string]biz.TTL{"persistent": biz.Forever, "temporary": 600} {
				t.Run(call+"/"+kind, func(t *testing.T) {
					defer store.client.Del(t.Context(), name)
					for i := range most {
						require.NoError(t, second(links.Set(t.Context(), serviceKey(i), 1, []biz.TTL{biz.Forever, 600}[i%2], biz.SetTerms{})))
					}
					before := read(t, store, name)
					_, err := add(t, links, serviceKey(most), ttl)
					var limit *biz.LimitError
					require.ErrorAs(t, err, &limit)
					require.Equal(t, "limits.max_services", limit.Limit)
					require.Equal(t, before, read(t, store, name), "nothing has changed")

					for i := range most {
						require.NoError(t, second(links.Set(t.Context(), serviceKey(i), 2, ttl, biz.SetTerms{})), "a link that exists")
					}
					require.NoError(t, second(links.Remove(t.Context(), serviceKey(3), 0, biz.RemoveTerms{})))
					change, err := add(t, links, serviceKey(most), ttl)
					require.NoError(t, err)
					require.True(t, change.Applied)
					_, err = add(t, links, serviceKey(3), ttl)
					require.ErrorAs(t, err, &limit)
				})
			}
		}
	})
}

// TestExpiredServicesDontCount: expired fields leave room for new links, and are swept then.
func TestExpiredServicesDontCount(t *testing.T) {
	const most = 150
	onEachStore(t, func(t *testing.T, store *testStore) {
		links := NewLinkRepo(store.Runner, store.keys, LinkLimits{MaxServices: most}, store.metrics)
		name := store.keys.links("ns", serviceKey(0).UID)
		expired := fmt.Sprintf("1 1700000000000000 %d", time.Now().Add(-time.Second).UnixMilli())
		for kind, ttl := range map[string]biz.TTL{"persistent": biz.Forever, "temporary": 600} {
			t.Run(kind, func(t *testing.T) {
				defer store.client.Del(t.Context(), name)
				fields := make(map[string]any)
				for i := range most {
					fields[serviceKey(i).Service] = expired + []string{"", " 7"}[i%2]
				}
				require.NoError(t, store.client.HSet(t.Context(), name, fields).Err())
				for i := range most {
					require.NoError(t, second(links.Set(t.Context(), serviceKey(most+i), 1, ttl, biz.SetTerms{})), "%d", i)
				}
				require.ErrorAs(t, second(links.Set(t.Context(), serviceKey(2*most), 1, ttl, biz.SetTerms{})), new(*biz.LimitError))
				all, err := links.List(t.Context(), "ns", serviceKey(0).UID)
				require.NoError(t, err)
				require.Len(t, all, most)
				require.EqualValues(t, most, store.client.HLen(t.Context(), name).Val(), "the expired ones were swept")
			})
		}
	})
}

// TestLinksOfALargerLimit: a uid that has more links than a limit that was lowered keeps them all, and gets no more.
func TestLinksOfALargerLimit(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		links := reposOf(store).Links
		lowered := NewLinkRepo(store.Runner, store.keys, LinkLimits{MaxServices: 2}, store.metrics)
		for i := range 5 {
			require.NoError(t, second(links.Set(t.Context(), serviceKey(i), 1, biz.Forever, biz.SetTerms{})))
		}
		for i := range 5 {
			require.NoError(t, second(lowered.Set(t.Context(), serviceKey(i), 2, 600, biz.SetTerms{})))
			require.NoError(t, second(lowered.Remove(t.Context(), serviceKey(i), 600, biz.RemoveTerms{})))
		}
		require.ErrorAs(t, second(lowered.Set(t.Context(), serviceKey(5), 1, biz.Forever, biz.SetTerms{})), new(*biz.LimitError))
	})
}

// TestNoEpochIsLeft: a link with the greatest epoch can't get a greater one. That is refused before it is written: podlink could
// not read the link then.
func TestNoEpochIsLeft(t *testing.T) {
	const greatest = "1 9007199254740990 0"
	onEachStore(t, func(t *testing.T, store *testStore) {
		links, key := reposOf(store).Links, populated.link()
		name := store.keys.links(key.Namespace, key.UID)
		require.NoError(t, store.client.HSet(t.Context(), name, key.Service, greatest).Err())
		for what, err := range map[string]error{
			"a move":    second(links.Set(t.Context(), key, 2, biz.Forever, biz.SetTerms{})),
			"a claim":   second(links.Set(t.Context(), key, 1, 600, biz.SetTerms{Claim: 7})),
			"a compute": second(links.SetIfEpoch(t.Context(), key, 2, biz.Forever, biz.MoveTerms{Epoch: 9007199254740990})),
		} {
			require.ErrorIs(t, err, biz.ErrStoreDataCorrupt, what)
			require.Equal(t, greatest, store.client.HGet(t.Context(), name, key.Service).Val(), what)
		}
		link, err := links.Get(t.Context(), key)
		require.NoError(t, err)
		require.EqualValues(t, 9007199254740990, link.Epoch)
		require.NoError(t, second(links.Remove(t.Context(), key, 0, biz.RemoveTerms{})))
	})
}

// TestMemoryOfAClaimedLink: a uid with one claimed link takes at most 170 bytes of Redis' memory.
func TestMemoryOfAClaimedLink(t *testing.T) {
	const uids, batch, most = 1 << 16, 1 << 10, 170
	client := redistest.Start(t).Client(t)
	used := func() float64 {
		info := client.InfoMap(t.Context(), "memory")
		all, err := strconv.ParseFloat(info.Item("Memory", "used_memory"), 64)
		require.NoError(t, err)
		buffers, err := strconv.ParseFloat(info.Item("Memory", "mem_clients_normal"), 64)
		require.NoError(t, err)
		return all - buffers
	}
	before := used()
	for from := 0; from < uids; from += batch {
		_, err := client.Pipelined(t.Context(), func(pipe redis.Pipeliner) error {
			for i := range batch {
				key := Keyspace("podlink").links("games", fmt.Sprintf("user:%07d", from+i))
				pipe.HSet(t.Context(), key, "room", "7 1795408417769593 0 1795408417769593")
			}
			return nil
		})
		require.NoError(t, err)
	}
	require.LessOrEqual(t, (used()-before)/uids, float64(most))
}
