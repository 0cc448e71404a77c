package data

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
)

// These tests write fields themselves, for states that would take too long to reach by the clock.

// writeLink writes the field of a link.
func (s *testStore) writeLink(t *testing.T, key biz.LinkKey, pod int, epoch int64, expiry time.Time) {
	t.Helper()
	ms := int64(0)
	if !expiry.IsZero() {
		ms = expiry.UnixMilli()
	}
	field := fmt.Sprintf("%d %d %d", pod, epoch, ms)
	require.NoError(t, s.client.HSet(t.Context(), s.keys.links(key.Namespace, key.UID), key.Service, field).Err())
}

// TestEpochAfterClockWasSetBack: the epoch grows even if the store's clock is behind the last epoch.
func TestEpochAfterClockWasSetBack(t *testing.T) {
	ahead := time.Now().Add(time.Hour).UnixMicro()
	for name, expiry := range map[string]time.Time{
		"persistent": {},
		"temporary":  time.Now().Add(time.Hour),
		"expired":    time.Now().Add(-time.Second),
	} {
		t.Run(name, func(t *testing.T) {
			onEachStore(t, func(t *testing.T, store *testStore) {
				store.writeLink(t, populated.link(), 1, ahead, expiry)
				change, err := reposOf(store).Links.Set(t.Context(), populated.link(), 2, 600, biz.SetTerms{})
				require.NoError(t, err)
				require.EqualValues(t, ahead+1, change.Link.Epoch, "max(previous epoch + 1, the store's clock)")
				link, err := reposOf(store).Links.Get(t.Context(), populated.link())
				require.NoError(t, err)
				require.Equal(t, change.Link, link)
			})
		})
	}
}

// TestLargestEpoch: Lua does not round the largest epoch.
func TestLargestEpoch(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		store.writeLink(t, populated.link(), 1, maxEpoch, time.Time{})
		links := reposOf(store).Links
		for name, read := range map[string]func() (biz.Link, error){
			"Get":          func() (biz.Link, error) { return links.Get(t.Context(), populated.link()) },
			"GetIfPersist": func() (biz.Link, error) { return links.GetIfPersist(t.Context(), populated.link()) },
			"Set": func() (biz.Link, error) {
				expected := biz.Epoch(maxEpoch)
				change, err := links.Set(t.Context(), populated.link(), 1, biz.Forever, biz.SetTerms{Expected: &expected})
				return change.Link, err
			},
		} {
			link, err := read()
			require.NoError(t, err, name)
			require.EqualValues(t, maxEpoch, link.Epoch, name)
		}
	})
}

// TestNoEpochAboveTheLargest: a link that can't get a greater epoch is refused before anything is written, in every operation
// that would give it a new owner. One below, the new owner gets the largest.
func TestNoEpochAboveTheLargest(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		ctx, links, key := t.Context(), reposOf(store).Links, populated.link()
		for state, expiry := range map[string]time.Time{
			"persistent": {}, "temporary": time.Now().Add(time.Hour), "expired": time.Now().Add(-time.Millisecond),
		} {
			for name, move := range map[string]func() error{
				"Set":         func() error { return second(links.Set(ctx, key, 2, biz.Forever, biz.SetTerms{})) },
				"Set for 60s": func() error { return second(links.Set(ctx, key, 2, 60, biz.SetTerms{})) },
				"TrySet":      func() error { return second(links.TrySet(ctx, key, 2, 60, nil)) },
				"SetIfAbsent": func() error { return second(links.SetIfAbsent(ctx, key, 2, biz.Forever, biz.SetTerms{})) },
			} {
				at := name + " of a link that is " + state
				store.writeLink(t, key, 1, maxEpoch, expiry)
				before := store.client.HGetAll(ctx, store.keys.links("ns", populated.uid)).Val()
				err := move()
				kept := state != "expired" && name == "SetIfAbsent" || state == "persistent" && name == "TrySet"
				if kept {
					require.NoError(t, err, at)
				} else {
					require.ErrorIs(t, err, biz.ErrStoreDataCorrupt, at)
				}
				require.Equal(t, before, store.client.HGetAll(ctx, store.keys.links("ns", populated.uid)).Val(), at)
				if kept {
					continue
				}
				store.writeLink(t, key, 1, maxEpoch-1, expiry)
				require.NoError(t, move(), at)
				link, err := links.Get(ctx, key)
				require.NoError(t, err, at)
				require.EqualValues(t, maxEpoch, link.Epoch, at)
			}
		}
	})
}

// TestTTLAfterClockWasSetBack: the remaining TTL may exceed the maximum of the API, and is capped.
func TestTTLAfterClockWasSetBack(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		longest := (1<<31 - 1) * time.Second
		store.writeLink(t, populated.link(), 1, 1, time.Now().Add(longest+time.Hour))
		link, err := reposOf(store).Links.Get(t.Context(), populated.link())
		require.NoError(t, err)
		require.EqualValues(t, 1<<31-1, link.TTL)
	})
}

// TestSweep: a mutation of a temporary link sweeps expired links of the uid, and nothing else.
func TestSweep(t *testing.T) {
	const expired = 250
	onEachStore(t, func(t *testing.T, store *testStore) {
		links := reposOf(store).Links
		key := store.keys.links("ns", populated.uid)
		named := func(service string) biz.LinkKey {
			return biz.LinkKey{Namespace: "ns", UID: populated.uid, Service: service}
		}
		persistent, err := links.Set(t.Context(), named("persistent"), 1, biz.Forever, biz.SetTerms{})
		require.NoError(t, err)
		temporary, err := links.Set(t.Context(), named("temporary"), 1, 3600, biz.SetTerms{})
		require.NoError(t, err)
		for i := range expired {
			store.writeLink(t, named("old-"+strconv.Itoa(i)), 1, 1, time.Now().Add(-time.Minute))
		}
		for range expired { // More than enough: each mutation sweeps up to a hundred.
			require.NoError(t, second(links.Set(t.Context(), named("game"), 1, 600, biz.SetTerms{})))
			require.NoError(t, second(links.Remove(t.Context(), named("game"), 0, biz.RemoveTerms{})))
		}
		list, err := links.List(t.Context(), "ns", populated.uid)
		require.NoError(t, err)
		require.Len(t, list, 2)
		sameLink(t, persistent.Link, list[0])
		sameLink(t, temporary.Link, list[1])
		require.EqualValues(t, 2, store.client.HLen(t.Context(), key).Val(), "nothing expired is left")
		require.False(t, read(t, store, key).hasTTL)

		require.NoError(t, second(links.Remove(t.Context(), named("persistent"), 0, biz.RemoveTerms{})))
		require.True(t, read(t, store, key).hasTTL)
		require.NoError(t, second(links.Remove(t.Context(), named("temporary"), 0, biz.RemoveTerms{})))
		require.Equal(t, "none", read(t, store, key).kind)
	})
}
