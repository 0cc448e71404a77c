package data

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
)

// TestLinksWithoutClaims: links as podlink wrote them before processes could claim them, "<pod> <epoch> <expiry>", are read,
// kept and moved by every operation.
func TestLinksWithoutClaims(t *testing.T) {
	const epoch, later = biz.Epoch(1_700_000_000_000_000), 600 * time.Second
	persistent := func(time.Time) string { return fmt.Sprintf("3 %d 0", epoch) }
	temporary := func(now time.Time) string { return fmt.Sprintf("3 %d %d", epoch, now.Add(later).UnixMilli()) }
	expected := epoch
	rows := []struct {
		name    string
		written func(now time.Time) string
		do      func(links biz.LinkRepo, key biz.LinkKey) (biz.LinkChange, error)
		keeps   bool // the link is still the one that was written, but for its ttl
		gone    bool
	}{
		{"get", persistent, nil, true, false},
		{"get a temporary one", temporary, nil, true, false},
		{"set again", temporary, func(links biz.LinkRepo, key biz.LinkKey) (biz.LinkChange, error) {
			return links.Set(t.Context(), key, 3, biz.Forever, biz.SetTerms{Expected: &expected})
		}, true, false},
		{"try to move", persistent, func(links biz.LinkRepo, key biz.LinkKey) (biz.LinkChange, error) {
			return links.TrySet(t.Context(), key, 4, biz.Forever, nil)
		}, true, false},
		{"set if absent", temporary, func(links biz.LinkRepo, key biz.LinkKey) (biz.LinkChange, error) {
			return links.SetIfAbsent(t.Context(), key, 4, biz.Forever, biz.SetTerms{Claim: 7})
		}, true, false},
		{"keep", persistent, func(links biz.LinkRepo, key biz.LinkKey) (biz.LinkChange, error) {
			return links.Remove(t.Context(), key, 60, biz.RemoveTerms{Expected: &expected})
		}, true, false},
		{"move", persistent, func(links biz.LinkRepo, key biz.LinkKey) (biz.LinkChange, error) {
			return links.SetIfEpoch(t.Context(), key, 4, 60, biz.MoveTerms{Epoch: epoch})
		}, false, false},
		{"claim", temporary, func(links biz.LinkRepo, key biz.LinkKey) (biz.LinkChange, error) {
			return links.Set(t.Context(), key, 3, biz.Forever, biz.SetTerms{Expected: &expected, Claim: 7})
		}, false, false},
		{"remove", temporary, func(links biz.LinkRepo, key biz.LinkKey) (biz.LinkChange, error) {
			return links.RemoveWithID(t.Context(), key, 3, 0)
		}, false, true},
	}
	onEachStore(t, func(t *testing.T, store *testStore) {
		links := reposOf(store).Links
		for _, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				key := biz.LinkKey{Namespace: "ns", UID: "written before: " + row.name, Service: "game"}
				now, err := store.client.Time(t.Context()).Result()
				require.NoError(t, err)
				name := store.keys.links(key.Namespace, key.UID)
				require.NoError(t, store.client.HSet(t.Context(), name, key.Service, row.written(now)).Err())

				if row.do != nil {
					_, err := row.do(links, key)
					require.NoError(t, err)
				}
				link, err := links.Get(t.Context(), key)
				require.NoError(t, err)
				switch {
				case row.gone:
					require.Equal(t, biz.NoLink(key), link)
				case row.keeps:
					require.Equal(t, biz.Link{Key: key, Pod: 3, TTL: link.TTL, Epoch: epoch}, link)
				default:
					require.Greater(t, link.Epoch, epoch)
				}
			})
		}

		t.Run("in a list and a batch", func(t *testing.T) {
			const uid = "written before: many"
			now, err := store.client.Time(t.Context()).Result()
			require.NoError(t, err)
			name := store.keys.links("ns", uid)
			require.NoError(t, store.client.HSet(t.Context(), name, "chat", temporary(now), "game", persistent(now)).Err())
			listed, err := links.List(t.Context(), "ns", uid)
			require.NoError(t, err)
			require.Len(t, listed, 2)
			read, err := links.BatchGet(t.Context(), "ns", "game", []string{uid})
			require.NoError(t, err)
			require.Equal(t, []biz.LinkResult{{Link: listed[1]}}, read)
			require.Equal(t, biz.PodID(3), listed[0].Pod)
		})

		t.Run("and expire", func(t *testing.T) {
			key := biz.LinkKey{Namespace: "ns", UID: "written before: expired", Service: "game"}
			name := store.keys.links(key.Namespace, key.UID)
			require.NoError(t, store.client.HSet(t.Context(), name, key.Service, fmt.Sprintf("3 %d 1700000000000", epoch)).Err())
			link, err := links.Get(t.Context(), key)
			require.NoError(t, err)
			require.Equal(t, biz.NoLink(key), link)
		})
	})
}
