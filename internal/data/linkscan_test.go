package data

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	redistest "podlink/test/kit/redis"
)

// fillLinks links users of a service, and returns how many.
func fillLinks(t *testing.T, store *testStore) int {
	t.Helper()
	const links = 500
	pipe := store.client.Pipeline()
	for i := range links {
		pipe.HSet(t.Context(), store.keys.links("ns", "user "+strconv.Itoa(i)), "game", fmt.Sprintf("%d 1700000000000000 0", i%7))
	}
	_, err := pipe.Exec(t.Context())
	require.NoError(t, err)
	return links
}

// scan walks over all links from the token. Between two parts it calls between.
func scan(t *testing.T, store *testStore, token string, n int, between func()) (map[biz.LinkKey]biz.Link, error) {
	t.Helper()
	found := make(map[biz.LinkKey]biz.Link)
	for {
		links, next, err := store.fleet.ScanLinks(t.Context(), "", token, n)
		if err != nil {
			return nil, err
		}
		for _, link := range links {
			found[link.Key] = link
		}
		if next == "" {
			return found, nil
		}
		require.Regexp(t, `^[A-Za-z0-9_-]{1,256}$`, next)
		token = next
		between()
	}
}

// TestScanWhileLinksChange: a link that stands during the whole walk is found, however the other keys change.
func TestScanWhileLinksChange(t *testing.T) {
	onEachRedis(t, func(t *testing.T, store *testStore, _ *redistest.Server) {
		waitReady(t, store)
		want, created := fillLinks(t, store), 0
		found, err := scan(t, store, "", 20, func() {
			if created < 5000 {
				pipe := store.client.Pipeline()
				for range 500 {
					created++
					pipe.HSet(t.Context(), store.keys.links("other", strconv.Itoa(created)), "game", "1 1700000000000000 0")
					pipe.Del(t.Context(), store.keys.links("other", strconv.Itoa(created/2)))
				}
				_, err := pipe.Exec(t.Context())
				require.NoError(t, err)
			}
		})
		require.NoError(t, err)
		for i := range want {
			require.Contains(t, found, biz.LinkKey{Namespace: "ns", UID: "user " + strconv.Itoa(i), Service: "game"})
		}
	})
}

// TestScanLeavesForeignDataOut: keys and values that podlink did not write are no links, and fail no walk.
func TestScanLeavesForeignDataOut(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		populate(t, store)
		ctx := t.Context()
		for name, value := range foreignLinks {
			require.NoError(t, store.client.HSet(ctx, store.keys.links("foreign", name), "game", value, "chat", "1 1700000000000000 0").Err())
		}
		require.NoError(t, store.client.Set(ctx, store.keys.links("ns", "a string"), "hello", 0).Err())
		require.NoError(t, store.client.HSet(ctx, string(store.keys)+":link:without uid", "game", "1 1700000000000000 0").Err())
		require.NoError(t, store.client.HSet(ctx, "another"+store.keys.links("ns", "prefix"), "game", "1 1700000000000000 0").Err())
		expired := biz.LinkKey{Namespace: "ns", UID: "expired", Service: "game"}
		require.NoError(t, store.client.HSet(ctx, store.keys.links("ns", expired.UID), "game", "1 1700000000000000 1700000000000").Err())

		found, err := scan(t, store, "", 10, func() {})
		require.NoError(t, err)
		for key, link := range found {
			require.True(t, link.Exists())
			require.True(t, key.Namespace == "ns" || key.Service == "chat", "%v", key)
		}
		require.Len(t, found, 2+len(foreignLinks))
		require.NotContains(t, found, expired)
		sameLink(t, biz.Link{Key: populated.link(), Pod: populated.pod, TTL: biz.Forever, Epoch: found[populated.link()].Epoch},
			found[populated.link()])
		require.EqualValues(t, 600, found[subject{uid: "temporary"}.link()].TTL)
	})
}

// TestScanMoved: a walk fails when keys may have moved past it, and a new one works.
func TestScanMoved(t *testing.T) {
	begun := func(t *testing.T, store *testStore) string {
		t.Helper()
		waitReady(t, store)
		fillLinks(t, store)
		_, token, err := store.fleet.ScanLinks(t.Context(), "", "", 10)
		require.NoError(t, err)
		require.NotEmpty(t, token)
		_, _, err = store.fleet.ScanLinks(t.Context(), "", token, 10)
		require.NoError(t, err, "nothing has moved")
		return token
	}
	moved := func(t *testing.T, store *testStore, token string) {
		t.Helper()
		_, _, err := store.fleet.ScanLinks(t.Context(), "", token, 10)
		require.ErrorIs(t, err, biz.ErrScanMoved)
	}
	again := func(t *testing.T, store *testStore) {
		t.Helper()
		require.Eventually(t, func() bool {
			_, err := scan(t, store, "", 100, func() {})
			return err == nil
		}, recoveryTimeout, 20*time.Millisecond)
	}
	t.Run("the server has restarted", func(t *testing.T) {
		server := redistest.Start(t)
		store := openStore(t, onServer(server.Addr()), withLongTimeouts)
		token := begun(t, store)
		server.Kill()
		_, _, err := store.fleet.ScanLinks(t.Context(), "", token, 10)
		require.ErrorIs(t, err, biz.ErrStoreUnavailable)
		server.Restart()
		moved(t, store, token)
		again(t, store)
	})
	t.Run("the primary has failed over", func(t *testing.T) {
		set := redistest.StartSentinel(t, redistest.SentinelOptions{})
		store := openStore(t, onSentinel(set), withLongTimeouts)
		token := begun(t, store)
		set.Primary().Kill()
		require.Eventually(t, func() bool {
			_, _, err := store.fleet.ScanLinks(t.Context(), "", token, 10)
			return errors.Is(err, biz.ErrScanMoved)
		}, recoveryTimeout, 20*time.Millisecond)
		again(t, store)
	})
	t.Run("a slot moves, and has moved", func(t *testing.T) {
		cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 2})
		store := openStore(t, onCluster(cluster.Addrs()), withLongTimeouts)
		token := begun(t, store)
		key := store.keys.links("ns", "user 1")
		from, to := cluster.Nodes()[0], cluster.Nodes()[1]
		if cluster.Owner(key) != from {
			from, to = to, from
		}
		startMove(t, redistest.Slot(key), from.Client(t), to.Client(t))
		moved(t, store, token)
		for _, node := range []*redis.Client{from.Client(t), to.Client(t)} {
			require.NoError(t, node.Do(t.Context(), "CLUSTER", "SETSLOT", redistest.Slot(key), "STABLE").Err())
		}
		_, _, err := store.fleet.ScanLinks(t.Context(), "", token, 10)
		require.NoError(t, err, "the move was given up before a key has moved")
		cluster.MoveSlot(redistest.Slot(key), from, to)
		moved(t, store, token)
		again(t, store)
	})
}

// TestScanOfACluster: every node is walked, also when one is empty.
func TestScanOfACluster(t *testing.T) {
	cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 3})
	store := openStore(t, onCluster(cluster.Addrs()), withLongTimeouts)
	waitReady(t, store)
	want := fillLinks(t, store)
	for _, n := range []int{10, 100, 10000} {
		var found map[biz.LinkKey]biz.Link
		require.Eventually(t, func() (done bool) {
			var err error
			found, err = scan(t, store, "", n, func() {})
			return err == nil
		}, recoveryTimeout, 20*time.Millisecond)
		require.Len(t, found, want)
	}
}

// TestScanWithoutInfo: where Redis denies INFO, a walk works, and can't notice a restart.
func TestScanWithoutInfo(t *testing.T) {
	server := redistest.Start(t, aclUser...)
	store := openStore(t, onServer(server.Addr()), withUser, withLongTimeouts)
	setRule(t, server.Client(t), "-info")
	want := fillLinks(t, openStore(t, onServer(server.Addr()), prefix(string(store.keys))))
	found, err := scan(t, store, "", 30, func() {})
	require.NoError(t, err)
	require.Len(t, found, want)
}

// TestScanFaults: a walk whose store is away, or whose caller has left, fails like a read.
func TestScanFaults(t *testing.T) {
	onEachRedis(t, func(t *testing.T, store *testStore, server *redistest.Server) {
		waitReady(t, store)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, _, err := store.fleet.ScanLinks(ctx, "", "", 10)
		require.ErrorIs(t, err, biz.ErrCanceled)
		server.Pause()
		_, _, err = store.fleet.ScanLinks(withTimeout(t, 200*time.Millisecond), "", "", 10)
		server.Resume()
		require.ErrorIs(t, err, biz.ErrDeadlineExceeded)
		server.Kill()
		_, _, err = store.fleet.ScanLinks(t.Context(), "", "", 10)
		require.ErrorIs(t, err, biz.ErrStoreUnavailable)
	})
}
