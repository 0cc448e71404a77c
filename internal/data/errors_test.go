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

// The store's error table is this file, and for what takes a test of its own: TestFullRedis (OOM), TestForeignData
// (WRONGTYPE), TestScriptFlush (NOSCRIPT), TestRefusedLogin (NOAUTH, WRONGPASS), TestPausedRedis and TestLostReply (no
// reply in time, or none at all), TestCanceledCall and TestExpiredCall (no time before the send).

// refusal is a state of Redis in which it carries nothing out that changes something.
type refusal struct {
	name string
	args []string // of redis-server
	with []option // of the store
	// provoke brings it about and returns what ends it.
	provoke func(t *testing.T, store *testStore, server *redistest.Server, direct *redis.Client) (end func())
	word    string              // of the error that the log gets
	unknown bool                // whether a mutation may be OUTCOME_UNKNOWN as well
	refused func(repoCall) bool // whether a call is refused; the others work
	only    string              // "standalone" or "cluster", if it is for one of them
}

func anyCall(repoCall) bool { return true }

// runsScript tells the calls that run a script, as persistent links and workloads are read without one.
func runsScript(c repoCall) bool {
	return c.name != "Links.Get" && c.name != "Workloads.Get" && c.name != "Workloads.BatchGet"
}

// withUser is a store that logs in as the user of limitedUser.
func withUser(c *testOptions) { c.Username, c.Password = "podlink", "secret" }

// limitedUser are the arguments of a server with a user that may do everything.
var limitedUser = []string{"--user", "podlink", "on", ">secret", "~*", "+@all"}

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
		// It loads for ten seconds and more, and looks at its clients every few milliseconds.
		args: []string{
			"--enable-debug-command", "yes", "--key-load-delay", "100", "--loading-process-events-interval-bytes", "1024",
		},
	},
	{name: "READONLY", refused: repoCall.mutation, word: "READONLY", provoke: demotedServer, only: "standalone"},
	{name: "MASTERDOWN", refused: anyCall, word: "MASTERDOWN", provoke: orphanedReplica, only: "standalone"},
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
		name: "NOPERM: the command", refused: runsScript, word: "NOPERM", args: limitedUser, with: []option{withUser},
		provoke: ruled("-evalsha", "+evalsha"),
	},
	{
		name: "NOPERM: the key", refused: anyCall, word: "NOPERM", args: limitedUser, with: []option{withUser},
		provoke: ruled("resetkeys", "~*"),
	},
	{
		name: "a user who is switched off", refused: anyCall, word: "WRONGPASS", args: limitedUser, with: []option{withUser},
		provoke: func(t *testing.T, store *testStore, server *redistest.Server, direct *redis.Client) func() {
			end := ruled("off", "on")(t, store, server, direct)
			require.NoError(t, direct.Do(t.Context(), "CLIENT", "KILL", "USER", "podlink").Err())
			return end
		},
	},
	{
		name: "a user who is deleted", refused: anyCall, word: "WRONGPASS", args: limitedUser, with: []option{withUser},
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
		name: "another password", refused: anyCall, word: "WRONGPASS", args: limitedUser, with: []option{withUser},
		provoke: func(t *testing.T, store *testStore, server *redistest.Server, direct *redis.Client) func() {
			end := ruled("<secret", ">secret")(t, store, server, direct)
			require.NoError(t, direct.Do(t.Context(), "CLIENT", "KILL", "USER", "podlink").Err())
			return end
		},
	},
	// The driver takes the refusal of its handshake for that of an old server, and sends the command all the same.
	{name: "too many clients", refused: anyCall, provoke: withoutRoom, unknown: true},
	{
		name: "no free connection", refused: anyCall, word: "connection pool timeout", provoke: poolHeld,
		with: []option{func(c *testOptions) {
			c.PoolSize, c.MinIdleConns, c.PoolTimeout = 1, 0, 20*time.Millisecond
		}},
	},
}

// TestRefusals: what Redis refuses is STORE_UNAVAILABLE, has changed nothing, and works again once the cause is gone. With
// and without replicas to wait for, as mutations take different ways then.
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
						t.Run("waiting for none", func(t *testing.T) { row.test(t, server, redis) })
						t.Run("waiting for a replica", func(t *testing.T) {
							row.test(t, server, redis, confirmedBy(1, time.Millisecond))
						})
					})
				}
			}
		})
	}
}

// recoveryTimeout bounds how long a store may take to work again. A node of a cluster takes nothing for two seconds after
// its start.
const recoveryTimeout = 30 * time.Second

func (row refusal) test(t *testing.T, server *redistest.Server, all ...option) {
	all = append(append(all, longTimeouts), row.with...)
	store := openStore(t, all...)
	repos := reposOf(store)
	plain := openStore(t, append(all, prefix(string(store.keys)), confirmedBy(0, time.Second))...)
	populate(t, plain)
	// A report with a link given out: to release it would change something.
	counted := "0 1 0 -1 1700000000000 up"
	require.NoError(t, plain.client.HSet(t.Context(), plain.keys.pods(game), "1", counted).Err())
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
	require.NotEqual(t, before, callKeys(t, plain), "the calls do change something")
	for key := range dump(t, plain) {
		require.NoError(t, plain.client.Del(t.Context(), key).Err())
	}
}

// callKeys is what calls have written: a self-test that could not end may have left its keys.
func callKeys(t *testing.T, store *testStore) map[string]keyContent {
	t.Helper()
	all := dump(t, store)
	maps.DeleteFunc(all, func(key string, _ keyContent) bool { return strings.HasPrefix(key, string(store.keys)+":selftest:") })
	return all
}

// changing are the names with which the call changes something in a populated store.
func (c repoCall) changing() subject {
	if c.effect == stores {
		return fresh
	}
	return populated
}

// loadingServer restarts the server with so much data that it loads for long.
func loadingServer(t *testing.T, _ *testStore, server *redistest.Server, direct *redis.Client) func() {
	require.NoError(t, direct.Do(t.Context(), "DEBUG", "POPULATE", 100_000).Err())
	require.NoError(t, direct.Save(t.Context()).Err())
	server.RestartLoading()
	return func() { setConfig(t, direct, "key-load-delay", "0") }
}

// demotedServer makes the server a replica of another one that has the same data.
func demotedServer(t *testing.T, _ *testStore, server *redistest.Server, direct *redis.Client) func() {
	twin := redistest.StartReplica(t, server.Addr())
	require.NoError(t, twin.Client(t).Do(t.Context(), "REPLICAOF", "NO", "ONE").Err())
	replicate(t, direct, twin)
	server.WaitInSync()
	return func() { promote(t, direct) }
}

// orphanedReplica makes the server a replica that has lost its primary, and answers nothing then.
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

// withoutSlot takes a slot away from a cluster of one node.
func withoutSlot(slot int) func(*testing.T, *testStore, *redistest.Server, *redis.Client) func() {
	return func(t *testing.T, _ *testStore, _ *redistest.Server, direct *redis.Client) func() {
		require.NoError(t, direct.ClusterDelSlots(t.Context(), slot).Err())
		return func() { require.NoError(t, direct.ClusterAddSlots(context.Background(), slot).Err()) }
	}
}

// busyScript keeps the server busy with somebody else's endless script.
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

// configured sets a value of the server's configuration for a while.
func configured(key, bad, good string) func(*testing.T, *testStore, *redistest.Server, *redis.Client) func() {
	return func(t *testing.T, _ *testStore, _ *redistest.Server, direct *redis.Client) func() {
		setConfig(t, direct, key, bad)
		return func() { setConfig(t, direct, key, good) }
	}
}

// withoutSnapshot lets a snapshot fail: there is a directory where its file should be.
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

// withFullDisk puts the append-only file where every write fails for want of space.
func withFullDisk(t *testing.T, _ *testStore, _ *redistest.Server, direct *redis.Client) func() {
	folder := filepath.Join(dirOf(t, direct), "appendonlydir")
	require.NoError(t, os.MkdirAll(folder, 0o700))
	file := filepath.Join(folder, "temp-appendonly.aof.incr") // Which it becomes only once the first part is written.
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

// dirOf is the directory of the server's files.
func dirOf(t *testing.T, direct *redis.Client) string {
	t.Helper()
	config, err := direct.ConfigGet(t.Context(), "dir").Result()
	require.NoError(t, err)
	return config["dir"]
}

// ruled changes a rule of the user for a while.
func ruled(bad, good string) func(*testing.T, *testStore, *redistest.Server, *redis.Client) func() {
	set := func(t *testing.T, direct *redis.Client, rule string) {
		require.NoError(t, direct.Do(context.Background(), "ACL", "SETUSER", "podlink", rule).Err())
	}
	return func(t *testing.T, _ *testStore, _ *redistest.Server, direct *redis.Client) func() {
		set(t, direct, bad)
		return func() { set(t, direct, good) }
	}
}

// withoutRoom lets the server take no clients but direct, which has one connection.
func withoutRoom(t *testing.T, _ *testStore, _ *redistest.Server, direct *redis.Client) func() {
	setConfig(t, direct, "maxclients", "1")
	require.NoError(t, direct.Do(t.Context(), "CLIENT", "KILL", "SKIPME", "yes").Err())
	return func() { setConfig(t, direct, "maxclients", "1000") }
}

// poolHeld takes the only connection that the store may have.
func poolHeld(t *testing.T, store *testStore, server *redistest.Server, _ *redis.Client) func() {
	// A read that waits for its reply holds it.
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

// TestClusterWithoutAPrimary: while a primary is missing, nothing that is refused was carried out, be it that its own node
// can't be reached or that the others have given up.
func TestClusterWithoutAPrimary(t *testing.T) {
	parallel(t)
	cluster := redistest.StartCluster(t, redistest.ClusterOptions{
		Primaries: 3, Args: []string{"--cluster-node-timeout", "500", "--appendonly", "yes", "--appendfsync", "always"},
	})
	store := openStore(t, onCluster(cluster.Addrs()), longTimeouts)
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
	given := func() bool {
		return !slices.ContainsFunc(alive, func(node *redis.Client) bool {
			return !strings.Contains(node.ClusterInfo(context.Background()).Val(), "cluster_state:fail")
		})
	}

	dead.Kill()
	for begin := time.Now(); !given(); {
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

// TestNoPrimaryNamed: as long as nobody names the primary nothing is carried out, and "there is no link" is no answer.
func TestNoPrimaryNamed(t *testing.T) {
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
	t.Run("as it should be", func(t *testing.T) {
		store := openStore(t, onSentinel(set), login, longTimeouts)
		waitReady(t, store)
		populate(t, store)
	})
}

// TestSlotOnItsWay: while a slot moves, TRYAGAIN is for scripts with several keys, which podlink's are not; their calls
// find every key, wherever it is.
func TestSlotOnItsWay(t *testing.T) {
	t.Parallel()
	for name, waiting := range map[string]option{
		"waiting for none":      confirmedBy(0, time.Millisecond),
		"waiting for a replica": confirmedBy(1, time.Millisecond),
	} {
		t.Run(name, func(t *testing.T) {
			parallel(t)
			testSlotOnItsWay(t, waiting)
		})
	}
}

func testSlotOnItsWay(t *testing.T, waiting option) {
	const tag = "{tag}"
	slot := redistest.Slot(tag)
	cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 2})
	store := openStore(t, onCluster(cluster.Addrs()), prefix(tag), longTimeouts, waiting)
	plain := openStore(t, onCluster(cluster.Addrs()), prefix(tag), longTimeouts)
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
	// mutation is the error of a mutation with two keys: that is why a script works on one.
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

// startMove puts a slot on its way between two nodes, with none of its keys.
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
