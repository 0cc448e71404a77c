package data

import (
	"context"
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	redistest "podlink/test/kit/redis"
)

// This file tests the store's errors, except for those with their own tests: TestFullRedis (OOM), TestForeignData
// (WRONGTYPE), TestScriptFlush (NOSCRIPT), TestRefusedLogin (NOAUTH, WRONGPASS), TestPausedRedis and TestLostReply (late or
// lost replies), TestCanceledCall and TestExpiredCall (canceled or timed out before the send).

// refusal is a state of Redis in which it refuses calls.
type refusal struct {
	name string
	args []string // of redis-server
	with []option // of the store
	// provoke causes the state and returns a function that ends it.
	provoke func(t *testing.T, store *testStore, server *redistest.Server, direct *redis.Client) (end func())
	word    string              // in the text of the error
	unknown bool                // mutations may also return ErrOutcomeUnknown
	refused func(repoCall) bool // whether the call is refused; other calls must succeed
	only    string              // "standalone" or "cluster"; "" for both
}

func anyCall(repoCall) bool { return true }

// runsScript reports whether the call runs a script. Persistent links, workloads, feeds and the index are read without one.
func runsScript(c repoCall) bool {
	if kind, _, _ := strings.Cut(c.name, "."); !c.mutation() && (kind == "Feed" || kind == "Index") {
		return false
	}
	return c.name != "Links.Get" && c.name != "Pods.View" && c.name != "Workloads.Get" && c.name != "Workloads.BatchGet"
}

// withUser logs in as the user of aclUser.
func withUser(c *testOptions) { c.Username, c.Password = "podlink", "secret" }

// aclUser are the arguments of a server with a user that has all permissions.
var aclUser = []string{"--user", "podlink", "on", ">secret", "~*", "+@all"}

var refusals = []refusal{
	{
		name: "connection refused", args: []string{"--appendonly", "yes", "--appendfsync", "always"},
		refused: anyCall, word: "connection refused",
		provoke: func(_ *testing.T, _ *testStore, server *redistest.Server, _ *redis.Client) func() {
			server.Kill()
			return server.Restart
		},
	},
	{
		name: "LOADING", refused: anyCall, word: "LOADING", provoke: loadingServer, only: "standalone",
		// Loading takes at least ten seconds, and the server handles its clients every few milliseconds.
		args: []string{
			"--enable-debug-command", "yes", "--key-load-delay", "100", "--loading-process-events-interval-bytes", "1024",
		},
	},
	// The first call is a mutation. After its READONLY no read is sent to the replica either.
	{name: "READONLY", refused: anyCall, word: "replica", provoke: demotedServer, only: "standalone"},
	{name: "MASTERDOWN", refused: anyCall, word: "replica", provoke: orphanedReplica, only: "standalone"},
	{
		name: "CLUSTERDOWN: a slot is not served", refused: anyCall, word: "CLUSTERDOWN", only: "cluster",
		provoke: withoutSlot(0),
	},
	{
		name: "CLUSTERDOWN: the key's slot is not served", refused: anyCall, word: "CLUSTERDOWN", only: "cluster",
		args: []string{"--cluster-require-full-coverage", "no"}, with: []option{prefix("{tag}")},
		provoke: withoutSlot(redistest.Slot("{tag}")),
	},
	{
		name: "BUSY", refused: anyCall, word: "BUSY", provoke: busyScript,
		args: []string{"--busy-reply-threshold", "10"},
	},
	{
		name: "NOREPLICAS", refused: repoCall.mutation, word: "NOREPLICAS", provoke: configured("min-replicas-to-write", "1", "0"),
	},
	{
		name: "MISCONF: no snapshot", refused: repoCall.mutation, word: "MISCONF", provoke: withoutSnapshot,
		args: []string{"--save", "3600 1"},
	},
	{name: "MISCONF: no append-only file", refused: repoCall.mutation, word: "MISCONF", provoke: withFullDisk},
	{
		name: "NOPERM: the command", refused: runsScript, word: "NOPERM", args: aclUser, with: []option{withUser},
		provoke: ruled("-evalsha", "+evalsha"),
	},
	{
		name: "NOPERM: the key", refused: anyCall, word: "NOPERM", args: aclUser, with: []option{withUser},
		provoke: ruled("resetkeys", "~*"),
	},
	{
		name: "a disabled user", refused: anyCall, word: "WRONGPASS", args: aclUser, with: []option{withUser},
		provoke: func(t *testing.T, store *testStore, server *redistest.Server, direct *redis.Client) func() {
			end := ruled("off", "on")(t, store, server, direct)
			require.NoError(t, direct.Do(t.Context(), "CLIENT", "KILL", "USER", "podlink").Err())
			return end
		},
	},
	{
		name: "a deleted user", refused: anyCall, word: "WRONGPASS", args: aclUser, with: []option{withUser},
		provoke: func(t *testing.T, _ *testStore, _ *redistest.Server, direct *redis.Client) func() {
			require.NoError(t, direct.Do(t.Context(), "ACL", "DELUSER", "podlink").Err())
			require.Eventually(t, func() bool {
				return !strings.Contains(direct.ClientList(context.Background()).Val(), "user=podlink")
			}, 10*time.Second, 10*time.Millisecond, "its connections are closed")
			return func() {
				rules := []any{"ACL", "SETUSER", "podlink", "on", ">secret", "~*", "+@all"}
				require.NoError(t, direct.Do(context.Background(), rules...).Err())
			}
		},
	},
	{
		name: "a changed password", refused: anyCall, word: "WRONGPASS", args: aclUser, with: []option{withUser},
		provoke: func(t *testing.T, store *testStore, server *redistest.Server, direct *redis.Client) func() {
			end := ruled("<secret", ">secret")(t, store, server, direct)
			require.NoError(t, direct.Do(t.Context(), "CLIENT", "KILL", "USER", "podlink").Err())
			return end
		},
	},
	// The driver takes the refused handshake for that of an old server, and sends the command anyway.
	{name: "too many clients", refused: anyCall, provoke: withoutRoom, unknown: true},
	{
		name: "no free connection", refused: anyCall, word: "connection pool timeout", provoke: poolHeld,
		with: []option{func(c *testOptions) {
			c.PoolSize, c.MinIdleConns, c.PoolTimeout = 1, 0, 20*time.Millisecond
		}},
	},
}

// TestRefusals: a call that Redis refuses returns ErrStoreUnavailable, has changed nothing, and works again once the cause
// is gone. Tested with and without wait_replicas, which use different code paths.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, row := range refusals {
		t.Run(row.name, func(t *testing.T) {
			parallel(t)
			for name, start := range map[string]func(t *testing.T, args []string) (option, *redistest.Server){
				"standalone": func(t *testing.T, args []string) (option, *redistest.Server) {
					server := redistest.Start(t, args...)
					return onServer(server.Addr()), server
				},
				"cluster": func(t *testing.T, args []string) (option, *redistest.Server) {
					cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 1, Args: args})
					return onCluster(cluster.Addrs()), cluster.Nodes()[0]
				},
			} {
				if row.only == "" || row.only == name {
					t.Run(name, func(t *testing.T) {
						redis, server := start(t, row.args)
						t.Run("without replicas", func(t *testing.T) { row.test(t, server, redis) })
						t.Run("with wait_replicas", func(t *testing.T) {
							row.test(t, server, redis, confirmedBy(1, time.Millisecond))
						})
					})
				}
			}
		})
	}
}

// recoveryTimeout is the maximum time until a store works again. A cluster node refuses calls for two seconds after its
// start.
const recoveryTimeout = 30 * time.Second

func (row refusal) test(t *testing.T, server *redistest.Server, all ...option) {
	all = append(append(all, withLongTimeouts), row.with...)
	store := openStore(t, all...)
	repos := reposOf(store)
	plain := openStore(t, append(all, prefix(string(store.keys)), confirmedBy(0, time.Second))...)
	populate(t, plain)
	// A report with a reservation, so that Release changes something.
	require.NoError(t, plain.client.Del(t.Context(), plain.keys.service(game)).Err())
	require.NoError(t, plain.writeMembers(t.Context(), countedPod()))
	waitReady(t, store)
	before := callKeys(t, plain)

	end := row.provoke(t, store, server, server.Client(t))
	for _, call := range repoCalls {
		err := call.do(t.Context(), repos, call.changing())
		if !row.refused(call) {
			require.NoError(t, err, call.name)
			continue
		}
		if !row.unknown || !call.mutation() || !errors.Is(err, biz.ErrOutcomeUnknown) {
			require.ErrorIs(t, err, biz.ErrStoreUnavailable, call.name)
		}
		require.ErrorContains(t, err, row.word, call.name)
	}
	end()

	waitReady(t, store)
	waitReady(t, plain)
	require.Equal(t, before, callKeys(t, plain), "nothing has changed")
	for _, call := range repoCalls {
		err := call.do(t.Context(), repos, populated)
		require.True(t, isAnswer(err) || isUnconfirmed(err), "%s: %v", call.name, err)
	}
	require.NotEqual(t, before, callKeys(t, plain), "the calls change something when they succeed")
	for key := range dump(t, plain) {
		require.NoError(t, plain.client.Del(t.Context(), key).Err())
	}
}

// callKeys returns the keys that calls have written. An aborted self-test may have left its own keys.
func callKeys(t *testing.T, store *testStore) map[string]keyContent {
	t.Helper()
	all := dump(t, store)
	maps.DeleteFunc(all, func(key string, _ keyContent) bool { return strings.HasPrefix(key, string(store.keys)+":selftest:") })
	return all
}

// changing returns the subject with which the call changes something in a populated store.
func (c repoCall) changing() subject {
	if c.effect == stores {
		return fresh
	}
	return populated
}

// loadingServer restarts the server with enough data that loading it takes long.
func loadingServer(t *testing.T, _ *testStore, server *redistest.Server, direct *redis.Client) func() {
	require.NoError(t, direct.Do(t.Context(), "DEBUG", "POPULATE", 100_000).Err())
	require.NoError(t, direct.Save(t.Context()).Err())
	server.RestartLoading()
	return func() { setConfig(t, direct, "key-load-delay", "0") }
}

// demotedServer makes the server a replica of another server with the same data.
func demotedServer(t *testing.T, _ *testStore, server *redistest.Server, direct *redis.Client) func() {
	twin := redistest.StartReplica(t, server.Addr())
	require.NoError(t, twin.Client(t).Do(t.Context(), "REPLICAOF", "NO", "ONE").Err())
	replicate(t, direct, twin)
	server.WaitInSync()
	return func() { promote(t, direct) }
}

// orphanedReplica makes the server a replica without its primary, which refuses all calls.
func orphanedReplica(t *testing.T, _ *testStore, _ *redistest.Server, direct *redis.Client) func() {
	primary := redistest.Start(t)
	primary.Kill()
	setConfig(t, direct, "replica-serve-stale-data", "no")
	replicate(t, direct, primary)
	return func() { promote(t, direct) }
}

func replicate(t *testing.T, direct *redis.Client, primary *redistest.Server) {
	t.Helper()
	host, port, err := net.SplitHostPort(primary.Addr())
	require.NoError(t, err)
	require.NoError(t, direct.Do(t.Context(), "REPLICAOF", host, port).Err())
}

func promote(t *testing.T, direct *redis.Client) {
	t.Helper()
	require.NoError(t, direct.Do(context.Background(), "REPLICAOF", "NO", "ONE").Err())
}

// withoutSlot removes a slot from a cluster of one node.
func withoutSlot(slot int) func(*testing.T, *testStore, *redistest.Server, *redis.Client) func() {
	return func(t *testing.T, _ *testStore, _ *redistest.Server, direct *redis.Client) func() {
		require.NoError(t, direct.ClusterDelSlots(t.Context(), slot).Err())
		return func() { require.NoError(t, direct.ClusterAddSlots(context.Background(), slot).Err()) }
	}
}

// busyScript keeps the server busy with an endless script.
func busyScript(t *testing.T, _ *testStore, server *redistest.Server, direct *redis.Client) func() {
	done := make(chan error, 1)
	endless := server.Client(t).WithTimeout(time.Minute)
	go func() { done <- endless.Eval(context.Background(), "while true do end", nil).Err() }()
	require.Eventually(t, func() bool {
		return redis.HasErrorPrefix(direct.Ping(context.Background()).Err(), "BUSY")
	}, 10*time.Second, 10*time.Millisecond)
	return func() {
		require.NoError(t, direct.ScriptKill(context.Background()).Err())
		require.ErrorContains(t, <-done, "killed")
	}
}

// configured sets a value of the server's configuration until the state ends.
func configured(key, bad, good string) func(*testing.T, *testStore, *redistest.Server, *redis.Client) func() {
	return func(t *testing.T, _ *testStore, _ *redistest.Server, direct *redis.Client) func() {
		setConfig(t, direct, key, bad)
		return func() { setConfig(t, direct, key, good) }
	}
}

// withoutSnapshot makes snapshots fail: there is a directory in place of the file.
func withoutSnapshot(t *testing.T, _ *testStore, _ *redistest.Server, direct *redis.Client) func() {
	file := filepath.Join(dirOf(t, direct), "dump.rdb")
	save := func(status string) {
		require.NoError(t, direct.BgSave(context.Background()).Err())
		require.Eventually(t, func() bool {
			info := direct.Info(context.Background(), "persistence").Val()
			return redistest.InfoField(info, "rdb_bgsave_in_progress") == "0" && redistest.InfoField(info, "rdb_last_bgsave_status") == status
		}, 10*time.Second, 10*time.Millisecond)
	}
	require.NoError(t, os.RemoveAll(file))
	require.NoError(t, os.Mkdir(file, 0o700))
	save("err")
	return func() {
		require.NoError(t, os.Remove(file))
		save("ok")
	}
}

// withFullDisk makes every write to the append-only file fail with "no space left on device".
func withFullDisk(t *testing.T, _ *testStore, _ *redistest.Server, direct *redis.Client) func() {
	folder := filepath.Join(dirOf(t, direct), "appendonlydir")
	require.NoError(t, os.MkdirAll(folder, 0o700))
	file := filepath.Join(folder, "temp-appendonly.aof.incr") // Its name until the base file is written.
	require.NoError(t, os.Symlink("/dev/full", file))
	setConfig(t, direct, "appendonly", "yes")
	require.Eventually(t, func() bool {
		return redis.HasErrorPrefix(direct.Set(context.Background(), "filler", "1", 0).Err(), "MISCONF")
	}, 10*time.Second, 10*time.Millisecond)
	return func() {
		setConfig(t, direct, "appendonly", "no")
		require.NoError(t, os.RemoveAll(folder))
	}
}

// dirOf returns the data directory of the server.
func dirOf(t *testing.T, direct *redis.Client) string {
	t.Helper()
	config, err := direct.ConfigGet(t.Context(), "dir").Result()
	require.NoError(t, err)
	return config["dir"]
}

// ruled changes a rule of the user until the state ends.
func ruled(bad, good string) func(*testing.T, *testStore, *redistest.Server, *redis.Client) func() {
	set := func(t *testing.T, direct *redis.Client, rule string) {
		require.NoError(t, direct.Do(context.Background(), "ACL", "SETUSER", "podlink", rule).Err())
	}
	return func(t *testing.T, _ *testStore, _ *redistest.Server, direct *redis.Client) func() {
		set(t, direct, bad)
		return func() { set(t, direct, good) }
	}
}

// withoutRoom makes the server refuse all clients except direct, which has one connection.
func withoutRoom(t *testing.T, _ *testStore, _ *redistest.Server, direct *redis.Client) func() {
	setConfig(t, direct, "maxclients", "1")
	require.NoError(t, direct.Do(t.Context(), "CLIENT", "KILL", "SKIPME", "yes").Err())
	return func() { setConfig(t, direct, "maxclients", "1000") }
}

// poolHeld occupies the store's only connection.
func poolHeld(t *testing.T, store *testStore, server *redistest.Server, _ *redis.Client) func() {
	// A read that waits for its reply.
	server.Pause()
	held := make(chan error, 1)
	go func() { held <- second(reposOf(store).Links.GetIfPersist(context.Background(), fresh.link())) }()
	require.Eventually(t, func() bool {
		return gauge(t, store, "podlink_store_round_trips") == 1 && gauge(t, store, "podlink_redis_pool_conn_idle_current") == 0 &&
			gauge(t, store, "podlink_redis_pool_conn_total_current") == 1
	}, 10*time.Second, time.Millisecond)
	return func() {
		server.Resume()
		require.NoError(t, <-held)
	}
}

// TestClusterWithoutAPrimary: while a primary is down, every refused call was not executed, whether its node can't be
// reached or the cluster has failed.
func TestClusterWithoutAPrimary(t *testing.T) {
	parallel(t)
	cluster := redistest.StartCluster(t, redistest.ClusterOptions{
		Primaries: 3, Args: []string{"--cluster-node-timeout", "500", "--appendonly", "yes", "--appendfsync", "always"},
	})
	store := openStore(t, onCluster(cluster.Addrs()), withLongTimeouts)
	repos := reposOf(store)
	populate(t, store)
	waitReady(t, store)
	dead := cluster.Owner(store.keys.links("ns", populated.uid))
	var alive []*redis.Client
	for _, node := range cluster.Nodes() {
		if node != dead {
			alive = append(alive, node.Client(t))
		}
	}
	clusterFailed := func() bool {
		return !slices.ContainsFunc(alive, func(node *redis.Client) bool {
			return !strings.Contains(node.ClusterInfo(context.Background()).Val(), "cluster_state:fail")
		})
	}

	dead.Kill()
	for begin := time.Now(); !clusterFailed(); {
		require.Less(t, time.Since(begin), 20*time.Second)
		for _, call := range repoCalls {
			if err := call.do(t.Context(), repos, call.changing()); !isAnswer(err) {
				require.ErrorIs(t, err, biz.ErrStoreUnavailable, call.name)
			}
		}
	}
	for _, call := range repoCalls {
		require.ErrorIs(t, call.do(t.Context(), repos, call.changing()), biz.ErrStoreUnavailable, call.name)
	}
	require.Error(t, store.Check(t.Context()))

	dead.Restart()
	for _, call := range repoCalls {
		require.Eventually(t, func() bool { return isAnswer(call.do(t.Context(), repos, populated)) },
			recoveryTimeout, 10*time.Millisecond, call.name)
	}
	waitReady(t, store)
}

// TestUnknownPrimary: if no sentinel returns the address of the primary, every call returns ErrStoreUnavailable; a read must
// not return NoLink.
func TestUnknownPrimary(t *testing.T) {
	parallel(t)
	set := redistest.StartSentinel(t, redistest.SentinelOptions{SentinelPassword: "secret"})
	dead := redistest.Start(t)
	dead.Kill()
	login := func(c *testOptions) { c.SentinelPassword = "secret" }
	for name, wrong := range map[string]option{
		"the sentinels don't know the name": func(c *testOptions) { c.MasterName = "other" },
		"servers in place of sentinels":     func(c *testOptions) { c.Addrs = []string{set.Servers()[0].Addr()} },
		"no password":                       func(c *testOptions) { c.SentinelPassword = "" },
		"wrong password":                    func(c *testOptions) { c.SentinelPassword = "wrong" },
		"no sentinel is up":                 func(c *testOptions) { c.Addrs = []string{dead.Addr()} },
	} {
		t.Run(name, func(t *testing.T) {
			for _, waiting := range []int{0, 1} {
				store := openStore(t, onSentinel(set), login, wrong, confirmedBy(waiting, time.Millisecond))
				for _, call := range repoCalls {
					require.ErrorIs(t, call.do(t.Context(), reposOf(store), populated), biz.ErrStoreUnavailable, call.name)
				}
				require.Error(t, store.Check(t.Context()))
			}
		})
	}
	t.Run("correct options", func(t *testing.T) {
		store := openStore(t, onSentinel(set), login, withLongTimeouts)
		waitReady(t, store)
		populate(t, store)
	})
}

// TestMovingSlot: while a slot is migrated, every call finds its key on either node. Redis replies TRYAGAIN only to
// commands with several keys, which podlink doesn't send.
func TestMovingSlot(t *testing.T) {
	t.Parallel()
	for name, waiting := range map[string]option{
		"without replicas":   confirmedBy(0, time.Millisecond),
		"with wait_replicas": confirmedBy(1, time.Millisecond),
	} {
		t.Run(name, func(t *testing.T) {
			parallel(t)
			testMovingSlot(t, waiting)
		})
	}
}

func testMovingSlot(t *testing.T, waiting option) {
	const tag = "{tag}"
	slot := redistest.Slot(tag)
	cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 2})
	store := openStore(t, onCluster(cluster.Addrs()), prefix(tag), withLongTimeouts, waiting)
	plain := openStore(t, onCluster(cluster.Addrs()), prefix(tag), withLongTimeouts)
	source, target := cluster.Nodes()[0], cluster.Nodes()[1]
	if cluster.Owner(tag) != source {
		source, target = target, source
	}
	from, to := source.Client(t), target.Client(t)
	works := func(stage string) {
		t.Helper()
		for _, call := range repoCalls {
			err := call.do(t.Context(), reposOf(store), populated)
			require.True(t, isAnswer(err) || isUnconfirmed(err), "%s, %s: %v", stage, call.name, err)
		}
	}
	// mutation returns the error of a mutation with several keys: it shows why a script works on one.
	mutation := func(keys ...any) error {
		args := append([]any{"eval", "return redis.call('HSET', KEYS[1], 'field', 'value')", len(keys)}, keys...)
		return from.Do(t.Context(), args...).Err()
	}
	move := func(key string) {
		t.Helper()
		host, port, err := net.SplitHostPort(target.Addr())
		require.NoError(t, err)
		require.NoError(t, from.Migrate(t.Context(), host, port, key, 0, time.Second).Err())
	}

	populate(t, plain)
	require.NoError(t, from.HSet(t.Context(), tag+"one", "field", "value").Err())
	startMove(t, slot, from, to)
	works("nothing has moved")
	err := mutation(tag+"one", tag+"two")
	require.ErrorContains(t, err, "TRYAGAIN")
	require.Equal(t, map[string]string{"field": "value"}, from.HGetAll(t.Context(), tag+"one").Val())

	populate(t, plain)
	move(store.keys.links("ns", populated.uid))
	works("a link has moved")
	for cursor := from.Scan(t.Context(), 0, "*", 1000).Iterator(); cursor.Next(t.Context()); {
		move(cursor.Val())
	}
	works("every key has moved")
	for _, node := range []*redis.Client{to, from} {
		require.NoError(t, node.Do(t.Context(), "CLUSTER", "SETSLOT", slot, "NODE", idOf(t, to)).Err())
		works("the slot has moved")
	}
	populate(t, plain)
	require.NotZero(t, to.ClusterCountKeysInSlot(t.Context(), slot).Val())
	require.Zero(t, from.ClusterCountKeysInSlot(t.Context(), slot).Val())
}

// startMove starts the migration of a slot between two nodes, without moving any of its keys.
func startMove(t *testing.T, slot int, from, to *redis.Client) {
	t.Helper()
	require.NoError(t, to.Do(t.Context(), "CLUSTER", "SETSLOT", slot, "IMPORTING", idOf(t, from)).Err())
	require.NoError(t, from.Do(t.Context(), "CLUSTER", "SETSLOT", slot, "MIGRATING", idOf(t, to)).Err())
}

func idOf(t *testing.T, node *redis.Client) string {
	t.Helper()
	id, err := node.Do(t.Context(), "CLUSTER", "MYID").Text()
	require.NoError(t, err)
	return id
}
