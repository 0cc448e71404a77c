package data

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	redistest "podlink/test/kit/redis"
)

// TestFullRedis: a Redis that is out of memory refuses new data, and still serves reads and removals.
func TestFullRedis(t *testing.T) {
	server := redistest.Start(t)
	direct := server.Client(t)
	store := openStore(t, onServer(server.Addr()))
	repos := reposOf(store)
	for _, call := range repoCalls {
		t.Run(call.name, func(t *testing.T) {
			require.NoError(t, direct.FlushDB(t.Context()).Err())
			populate(t, store)
			setConfig(t, direct, "maxmemory", "1")
			defer setConfig(t, direct, "maxmemory", "0")
			before := dump(t, store)
			switch call.effect {
			case reads, releases:
				require.NoError(t, call.do(t.Context(), repos, populated))
			case removes:
				require.NoError(t, call.do(t.Context(), repos, populated))
				require.NotEqual(t, before, dump(t, store))
			case cordons:
				require.ErrorIs(t, call.do(t.Context(), repos, populated), biz.ErrStoreFull)
				require.Equal(t, before, dump(t, store), "nothing has changed")
			case stores:
				require.ErrorIs(t, call.do(t.Context(), repos, fresh), biz.ErrStoreFull)
				require.Equal(t, before, dump(t, store), "nothing has changed")
			}
		})
	}
	t.Run("kept links get their TTL and services their mark", func(t *testing.T) {
		require.NoError(t, direct.FlushDB(t.Context()).Err())
		populate(t, store)
		require.NoError(t, second(repos.Links.Set(t.Context(), populated.link(), populated.pod, biz.Forever, biz.SetTerms{Claim: 7})))
		setConfig(t, direct, "maxmemory", "1")
		defer setConfig(t, direct, "maxmemory", "0")
		before, err := repos.Links.Get(t.Context(), populated.link())
		require.NoError(t, err)
		change, err := repos.Links.Remove(t.Context(), populated.link(), 600, biz.RemoveTerms{})
		require.NoError(t, err)
		require.Equal(t, before.Epoch, change.Link.Epoch)
		require.EqualValues(t, 0, change.Link.Claim)
		require.True(t, read(t, store, store.keys.links("ns", populated.uid)).hasTTL)
		after, err := repos.Links.Get(t.Context(), populated.link())
		require.NoError(t, err)
		require.Equal(t, change.Link, after)

		require.NoError(t, second(repos.Pods.Remove(t.Context(), game, populated.pod)))
		reservation, err := repos.Pods.Reserve(t.Context(), game, biz.ReserveRequest{Linked: biz.NoPod})
		require.NoError(t, err)
		require.Equal(t, biz.NoPodAvailable, reservation.Outcome, "the service has reported")
	})
}

// TestRefusedLogin: if Redis refuses the login, every call returns ErrStoreUnavailable.
func TestRefusedLogin(t *testing.T) {
	for name, with := range map[string][]option{
		"no password":    nil,
		"wrong password": {password("wrong")},
		"unknown user":   {password("secret"), func(c *testOptions) { c.Username = "nobody" }},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t, "--requirepass", "secret")
			store := openStore(t, append(with, onServer(server.Addr()))...)
			for _, call := range repoCalls {
				require.ErrorIs(t, call.do(t.Context(), reposOf(store), populated), biz.ErrStoreUnavailable, call.name)
			}
			require.Error(t, store.Check(t.Context()))
		})
	}
	t.Run("right password", func(t *testing.T) {
		server := redistest.Start(t, "--requirepass", "secret")
		store := openStore(t, onServer(server.Addr()), password("secret"))
		require.NoError(t, store.Check(t.Context()))
		populate(t, store)
		for _, call := range repoCalls {
			require.True(t, isAnswer(call.do(t.Context(), reposOf(store), populated)), call.name)
		}
	})
}

// TestCheckOfReplica: a replica is not ready, because it accepts no writes.
func TestCheckOfReplica(t *testing.T) {
	primary := redistest.Start(t)
	require.NoError(t, openStore(t, onServer(primary.Addr())).Check(t.Context()))
	replica := redistest.StartReplica(t, primary.Addr())
	require.Error(t, openStore(t, onServer(replica.Addr())).Check(t.Context()))

	store := openStore(t, onServer(primary.Addr()))
	require.NoError(t, store.Check(t.Context()))
	replicate(t, primary.Client(t), redistest.Start(t))
	require.ErrorContains(t, store.Check(t.Context()), "is a replica", "it was demoted")
}

// TestCheckOfEvictionPolicy: a Redis that may evict keys is not ready, because it would silently lose links.
func TestCheckOfEvictionPolicy(t *testing.T) {
	parallel(t)
	allow := func(c *testOptions) { c.AllowEviction = true }
	for _, policy := range []string{"allkeys-lru", "allkeys-random", "volatile-ttl"} {
		t.Run(policy, func(t *testing.T) {
			server := redistest.Start(t, "--maxmemory-policy", policy)
			err := openStore(t, onServer(server.Addr())).Check(t.Context())
			require.ErrorContains(t, err, "noeviction")
			require.ErrorContains(t, err, policy)
			waitReady(t, openStore(t, onServer(server.Addr()), allow))
		})
	}
	t.Run("one node of a cluster", func(t *testing.T) {
		cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 2})
		store := openStore(t, onCluster(cluster.Addrs()))
		waitReady(t, store)
		setConfig(t, cluster.Nodes()[1].Client(t), "maxmemory-policy", "allkeys-lru")
		require.ErrorContains(t, store.Check(t.Context()), "noeviction")
	})
	t.Run("the embedded store evicts nothing", func(t *testing.T) {
		require.NoError(t, openStore(t, embeddedStore).Check(t.Context()))
	})
}

// TestCheckOfPermissions: a denied command would stop a script half-way, so the self-test must detect each one.
func TestCheckOfPermissions(t *testing.T) {
	server := redistest.Start(t)
	direct := server.Client(t)
	used := make(map[string]bool)
	for _, sc := range scripts {
		for _, command := range callees(withoutComments(sc.Source())) {
			used[command] = true
		}
	}
	require.Len(t, used, len(readCommands)+len(writeCommands))
	for command := range used {
		t.Run(command, func(t *testing.T) {
			require.NoError(t, direct.Do(t.Context(), "ACL", "SETUSER", "default", "-"+strings.ToLower(command)).Err())
			defer func() {
				require.NoError(t, direct.Do(context.Background(), "ACL", "SETUSER", "default", "+@all").Err())
			}()
			err := openStore(t, onServer(server.Addr())).Check(t.Context())
			require.Error(t, err)
			require.Regexp(t, "self-test|layout of the store", err.Error(), "GET and SET are needed before the self-test, too")
		})
	}
}

// TestCheckLeavesNothing: the self-test uses its own keys and removes them.
func TestCheckLeavesNothing(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		populate(t, store)
		before := dump(t, store)
		require.NoError(t, store.Check(t.Context()))
		require.NoError(t, store.Check(t.Context()))
		require.Equal(t, before, dump(t, store))
	})
}

// TestCheckAfterRestart: after a restart the self-test runs again.
func TestCheckAfterRestart(t *testing.T) {
	server := redistest.Start(t)
	store := openStore(t, onServer(server.Addr()))
	require.NoError(t, store.Check(t.Context()))
	server.Kill()
	require.Error(t, store.Check(t.Context()))
	server.Restart()
	require.NoError(t, store.Check(t.Context()))
	sha := scriptSHA(scripts[0])
	require.Equal(t, []bool{true}, server.Client(t).ScriptExists(t.Context(), sha).Val(), "the scripts are loaded again")
}
