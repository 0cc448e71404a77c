package data

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	redistest "podlink/test/kit/redis"
)

// confirmedBy makes mutations wait for that many replicas.
func confirmedBy(replicas int, timeout time.Duration) option {
	return func(c *testOptions) { c.WaitReplicas, c.WaitTimeout = replicas, timeout }
}

func isUnconfirmed(err error) bool { return errors.As(err, new(*biz.UnconfirmedError)) }

// waitForReplica waits until the primary counts its replica, which may be a moment after the replica is in sync.
func waitForReplica(t *testing.T, primary *redistest.Server) {
	t.Helper()
	require.EqualValues(t, 1, primary.Client(t).Do(t.Context(), "WAIT", 1, 10_000).Val())
}

// reservation reports whether the call is a mutation without confirmation by replicas.
func (c repoCall) reservation() bool {
	return strings.HasSuffix(c.name, "Reserve") || strings.HasSuffix(c.name, "Release")
}

// unconfirmable reports whether no replica needs to confirm the call: it has no link and no report.
func (c repoCall) unconfirmable() bool {
	return c.reservation() || strings.HasPrefix(c.name, "Feed.") || strings.HasPrefix(c.name, "Index.")
}

// TestConfirmed: with enough replicas, mutations succeed; with too few they are executed as well, but return
// *UnconfirmedError.
func TestConfirmed(t *testing.T) {
	primary := redistest.Start(t)
	replica := redistest.StartReplica(t, primary.Addr())
	replica.WaitInSync()
	waitForReplica(t, primary)

	t.Run("enough replicas", func(t *testing.T) {
		store := openStore(t, onServer(primary.Addr()), confirmedBy(1, 400*time.Millisecond))
		require.NoError(t, store.Check(t.Context()))
		for _, call := range repoCalls {
			populate(t, store)
			require.NoError(t, call.do(t.Context(), reposOf(store), populated), call.name)
		}
		direct := replica.Client(t)
		change, err := reposOf(store).Links.Set(t.Context(), fresh.link(), 5, biz.Forever, biz.SetTerms{})
		require.NoError(t, err)
		value := direct.HGet(t.Context(), store.keys.links("ns", fresh.uid), "game").Val()
		require.Contains(t, value, "5 ", "the replica has link %+v when Set returns", change.Link)
	})
	t.Run("too few replicas", func(t *testing.T) {
		plain := openStore(t, onServer(primary.Addr()))
		store := openStore(t, onServer(primary.Addr()), confirmedBy(2, 10*time.Millisecond), prefix(string(plain.keys)))
		require.NoError(t, store.Check(t.Context()), "reads work, so it is ready")
		for _, call := range repoCalls {
			require.NoError(t, primary.Client(t).FlushDB(t.Context()).Err())
			if call.effect != stores || call.reservation() {
				populate(t, plain)
			}
			before := dump(t, plain)
			err := call.do(t.Context(), reposOf(store), populated)
			if !call.mutation() || call.unconfirmable() {
				require.NoError(t, err, call.name)
				continue
			}
			require.True(t, isUnconfirmed(err), "%s: %v", call.name, err)
			require.ErrorContains(t, err, "1 of 2 replicas within 10ms", call.name)
			require.NotEqual(t, before, dump(t, plain), "%s was executed", call.name)
		}
	})
}

// TestUnconfirmedLink: the error has the current link, and setting the same link again waits for replicas again.
func TestUnconfirmedLink(t *testing.T) {
	primary := redistest.Start(t)
	links := reposOf(openStore(t, onServer(primary.Addr()), confirmedBy(1, 100*time.Millisecond))).Links
	key := fresh.link()
	unconfirmed := func(err error) biz.Link {
		t.Helper()
		var unconfirmed *biz.UnconfirmedError
		require.ErrorAs(t, err, &unconfirmed)
		return *unconfirmed.Link
	}
	link := unconfirmed(second(links.SetIfAbsent(t.Context(), key, 3, biz.Forever, biz.SetTerms{})))
	current, err := links.Get(t.Context(), key)
	require.NoError(t, err)
	require.Equal(t, current, link)
	require.EqualValues(t, 3, link.Pod)
	repeated := second(links.Set(t.Context(), key, 3, biz.Forever, biz.SetTerms{Expected: &link.Epoch}))
	require.Equal(t, link, unconfirmed(repeated), "still without a replica")

	// A mutation that changes nothing needs no confirmation.
	change, err := links.SetIfAbsent(t.Context(), key, 4, biz.Forever, biz.SetTerms{})
	require.NoError(t, err)
	require.False(t, change.Applied)
	change, err = links.TrySet(t.Context(), key, 4, biz.Forever, nil)
	require.NoError(t, err)
	require.False(t, change.Applied)
	change, err = links.RemoveWithID(t.Context(), key, 4, 0)
	require.NoError(t, err)
	require.False(t, change.Applied)
	expectingNone := second(links.Set(t.Context(), key, 4, biz.Forever, biz.SetTerms{Expected: new(biz.Epoch)}))
	require.ErrorAs(t, expectingNone, new(*biz.EpochMismatchError))

	redistest.StartReplica(t, primary.Addr()).WaitInSync()
	waitForReplica(t, primary)
	change, err = links.Set(t.Context(), key, 3, biz.Forever, biz.SetTerms{Expected: &link.Epoch})
	require.NoError(t, err, "the replica has it")
	require.Equal(t, link, change.Link)

	require.Equal(t, biz.NoLink(key), func() biz.Link {
		primary := redistest.Start(t)
		links := reposOf(openStore(t, onServer(primary.Addr()), confirmedBy(1, 10*time.Millisecond))).Links
		_ = second(links.Set(t.Context(), key, 3, biz.Forever, biz.SetTerms{}))
		return unconfirmed(second(links.Remove(t.Context(), key, 0, biz.RemoveTerms{})))
	}(), "a removal leaves no link")
}

// TestConfirmationUnderFaults: with wait_replicas, a failed mutation returns the same error as without.
func TestConfirmationUnderFaults(t *testing.T) {
	waiting := confirmedBy(1, 400*time.Millisecond)
	set := func(t *testing.T, store *testStore, timeout time.Duration) error {
		t.Helper()
		start := time.Now()
		err := second(reposOf(store).Links.Set(withTimeout(t, timeout), fresh.link(), 1, biz.Forever, biz.SetTerms{}))
		require.Less(t, time.Since(start), timeout+100*time.Millisecond)
		return err
	}
	t.Run("the reply is lost", func(t *testing.T) {
		server := redistest.Start(t)
		proxy := redistest.NewProxy(t, server.Addr())
		store := openStore(t, onServer(proxy.Addr()), waiting)
		require.NoError(t, store.Check(t.Context()))
		before := executions(t, server.Client(t))
		proxy.LoseReplies(1)
		require.ErrorIs(t, set(t, store, time.Second), biz.ErrOutcomeUnknown)
		require.Equal(t, before+1, executions(t, server.Client(t)), "executed once")
	})
	t.Run("the call times out while it waits", func(t *testing.T) {
		store := openStore(t, onServer(redistest.Start(t).Addr()), waiting)
		require.NoError(t, store.Check(t.Context()), "the scripts are loaded")
		err := set(t, store, 150*time.Millisecond)
		require.True(t, isUnconfirmed(err), "the script has replied: %v", err)
	})
	t.Run("redis is paused", func(t *testing.T) {
		server := redistest.Start(t)
		// Without idle connections, the call uses the connection of the check; a new one would have to authenticate first.
		store := openStore(t, onServer(server.Addr()), waiting, func(c *testOptions) { c.MinIdleConns = 0 })
		require.NoError(t, store.Check(t.Context()))
		server.Pause()
		defer server.Resume()
		require.ErrorIs(t, set(t, store, 200*time.Millisecond), biz.ErrOutcomeUnknown)
	})
	t.Run("redis is down", func(t *testing.T) {
		server := redistest.Start(t)
		store := openStore(t, onServer(server.Addr()), waiting)
		server.Kill()
		require.ErrorIs(t, set(t, store, time.Second), biz.ErrStoreUnavailable)
	})
	t.Run("redis refuses the login", func(t *testing.T) {
		server := redistest.Start(t, "--requirepass", "secret")
		require.ErrorIs(t, set(t, openStore(t, onServer(server.Addr()), waiting), time.Second), biz.ErrStoreUnavailable)
	})
	t.Run("redis is full", func(t *testing.T) {
		server := redistest.Start(t, "--maxmemory", "1")
		require.ErrorIs(t, set(t, openStore(t, onServer(server.Addr()), waiting), time.Second), biz.ErrStoreFull)
	})
	t.Run("the user may not WAIT", func(t *testing.T) {
		server := redistest.Start(t)
		store := openStore(t, onServer(server.Addr()), waiting)
		require.NoError(t, server.Client(t).Do(t.Context(), "ACL", "SETUSER", "default", "-wait").Err())
		require.ErrorContains(t, store.Check(t.Context()), "WAIT")
		require.True(t, isUnconfirmed(set(t, store, time.Second)))
	})
}
