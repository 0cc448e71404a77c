package data

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	redistest "podlink/test/kit/redis"
)

// executions returns the number of scripts that the server has run.
func executions(t *testing.T, client *redis.Client) int {
	t.Helper()
	return redistest.StatsOf(t, client, "eval", "evalsha").Calls
}

// TestLostReply: a mutation whose reply is lost is executed exactly once and returns ErrOutcomeUnknown.
func TestLostReply(t *testing.T) {
	parallel(t)
	for name, open := range map[string]func(t *testing.T) (*testStore, *redis.Client, *redistest.Proxy){
		"standalone": func(t *testing.T) (*testStore, *redis.Client, *redistest.Proxy) {
			server := redistest.Start(t)
			proxy := redistest.NewProxy(t, server.Addr())
			return openStore(t, onServer(proxy.Addr()), withLongTimeouts), server.Client(t), proxy
		},
		"cluster": func(t *testing.T) (*testStore, *redis.Client, *redistest.Proxy) {
			server := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 1}).Nodes()[0]
			proxy := redistest.NewProxy(t, server.Addr())
			direct := server.Client(t)
			// The client connects to the address that the node announces.
			_, port, _ := strings.Cut(proxy.Addr(), ":")
			setConfig(t, direct, "cluster-announce-port", port)
			return openStore(t, onCluster([]string{proxy.Addr()}), withLongTimeouts), direct, proxy
		},
	} {
		t.Run(name, func(t *testing.T) {
			store, direct, proxy := open(t)
			waitReady(t, store) // The scripts are loaded.
			const rounds = 2
			lost := 0
			for round := range rounds {
				for _, call := range repoCalls {
					if !call.mutation() {
						continue
					}
					populate(t, store)
					before := executions(t, direct)
					proxy.LoseReplies(1)
					err := call.do(t.Context(), reposOf(store), populated)
					lost++
					require.ErrorIs(t, err, biz.ErrOutcomeUnknown, call.name)
					require.Equal(t, lost, proxy.Lost(), call.name)
					require.Equal(t, before+1, executions(t, direct), "%s, round %d: executed once", call.name, round)
				}
			}
			require.GreaterOrEqual(t, lost, 20)
		})
	}
}

// TestLostReplyIsExecutedOnce: a count in the store shows that each mutation was executed once.
func TestLostReplyIsExecutedOnce(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.NewProxy(t, server.Addr())
	store := openStore(t, onServer(proxy.Addr()))
	repos := reposOf(store)
	populate(t, store)
	const lost = 20
	for range lost {
		proxy.LoseReplies(1)
		require.ErrorIs(t, second(repos.Pods.Reserve(t.Context(), game, biz.ReserveRequest{Linked: biz.NoPod})), biz.ErrOutcomeUnknown)
	}
	pod, err := repos.Pods.Get(t.Context(), game, populated.pod)
	require.NoError(t, err)
	require.EqualValues(t, lost, pod.Given, "links given out")

	before, err := repos.Links.Get(t.Context(), populated.link())
	require.NoError(t, err)
	proxy.LoseReplies(1)
	require.ErrorIs(t, second(repos.Links.Set(t.Context(), populated.link(), 9, 600, biz.SetTerms{})), biz.ErrOutcomeUnknown)
	after, err := repos.Links.Get(t.Context(), populated.link())
	require.NoError(t, err)
	require.EqualValues(t, 9, after.Pod, "it was executed")
	require.Greater(t, after.Epoch, before.Epoch)
}

// TestLostReplyOfRead: a read is retried.
func TestLostReplyOfRead(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.NewProxy(t, server.Addr())
	store := openStore(t, onServer(proxy.Addr()))
	populate(t, store)
	for _, call := range repoCalls {
		if !call.mutation() {
			proxy.LoseReplies(1)
			require.NoError(t, call.do(t.Context(), reposOf(store), populated), call.name)
		}
	}
	require.Positive(t, proxy.Lost(), "the proxy has lost replies")
}

// TestReadIsRetriedOnce: no read is sent more than twice, alone or in a batch, even if every reply is lost.
func TestReadIsRetriedOnce(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.NewProxy(t, server.Addr())
	store := openStore(t, onServer(proxy.Addr()))
	require.NoError(t, store.Check(t.Context()))
	direct, links := server.Client(t), reposOf(store).Links
	for _, callers := range []int{1, 10} {
		proxy.LoseEvery(1)
		before := executions(t, direct)
		var calling sync.WaitGroup
		for i := range callers {
			calling.Go(func() {
				assert.ErrorIs(t, second(links.GetIfPersist(t.Context(), guestKey(i))), biz.ErrStoreUnavailable)
			})
		}
		calling.Wait()
		proxy.LoseEvery(0)
		sent := executions(t, direct) - before
		require.LessOrEqual(t, sent, 2*callers)
		if callers == 1 {
			require.Equal(t, 2, sent, "it is retried")
		} // In a batch, commands after the lost reply may not have been executed before the connection was closed.
	}
}

// TestDriverRetriesOtherCommands is the control for the tests above: sent as an ordinary command, a script whose reply was
// lost is retried by the driver.
func TestDriverRetriesOtherCommands(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.NewProxy(t, server.Addr())
	store := openStore(t, onServer(proxy.Addr()))
	require.NoError(t, store.Check(t.Context()))
	direct := server.Client(t)
	before := executions(t, direct)
	proxy.LoseReplies(1)
	cmd := store.client.EvalSha(t.Context(), scriptSHA(scriptSetWorkload), []string{store.keys.workload("ns", "game")}, "up")
	require.NoError(t, cmd.Err())
	require.Equal(t, before+2, executions(t, direct))
}

// TestPausedRedis: a call returns when its context ends, even if Redis does not reply.
func TestPausedRedis(t *testing.T) { onEachRedis(t, testPausedRedis) }

func testPausedRedis(t *testing.T, store *testStore, server *redistest.Server) {
	const timeout, tolerance = 300 * time.Millisecond, 100 * time.Millisecond
	repos := reposOf(store)
	populate(t, store)

	server.Pause()
	err := second(repos.Links.Set(withTimeout(t, timeout), populated.link(), 5, biz.Forever, biz.SetTerms{}))
	server.Resume()
	require.ErrorIs(t, err, biz.ErrOutcomeUnknown, "it was sent")
	require.Eventually(t, func() bool {
		link, err := repos.Links.Get(t.Context(), populated.link())
		return err == nil && link.Pod == 5
	}, 2*time.Second, 10*time.Millisecond, "and executed later")

	// All calls at once: some use idle connections, some new ones.
	results := make([]error, len(repoCalls))
	took := make([]time.Duration, len(repoCalls))
	server.Pause()
	var calls sync.WaitGroup
	for i, call := range repoCalls {
		calls.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			defer cancel()
			start := time.Now()
			results[i] = call.do(ctx, repos, populated)
			took[i] = time.Since(start)
		})
	}
	calls.Wait()
	server.Resume()
	for i, call := range repoCalls {
		t.Run(call.name, func(t *testing.T) {
			require.LessOrEqual(t, took[i], timeout+tolerance)
			if call.mutation() {
				requireOneOf(t, results[i], biz.ErrOutcomeUnknown, biz.ErrStoreUnavailable)
			} else {
				require.ErrorIs(t, results[i], biz.ErrDeadlineExceeded)
			}
			require.True(t, isAnswer(call.do(t.Context(), repos, populated)), "the next call works")
		})
	}
}

func requireOneOf(t *testing.T, err error, classes ...error) {
	t.Helper()
	for _, class := range classes {
		if errors.Is(err, class) {
			return
		}
	}
	require.Failf(t, "another error", "%v is none of %v", err, classes)
}

// TestKilledRedis: a call that never reached Redis returns ErrStoreUnavailable.
func TestKilledRedis(t *testing.T) {
	parallel(t)
	onEachRedis(t, func(t *testing.T, store *testStore, server *redistest.Server) {
		repos := reposOf(store)
		populate(t, store)
		server.Kill()
		for _, call := range repoCalls {
			require.ErrorIs(t, call.do(t.Context(), repos, populated), biz.ErrStoreUnavailable, call.name)
		}
		require.Error(t, store.Check(t.Context()))

		server.Restart()
		for _, call := range repoCalls {
			// A node of a cluster refuses all calls for two seconds after its start.
			require.Eventually(t, func() bool {
				return isAnswer(call.do(t.Context(), repos, populated))
			}, recoveryTimeout, 10*time.Millisecond, call.name)
		}
		waitReady(t, store)
	})
}

// TestScriptFlush: calls succeed after the script cache was flushed.
func TestScriptFlush(t *testing.T) {
	parallel(t)
	flushed := func(t *testing.T, store *testStore, nodes []*redistest.Server) {
		clients := make([]*redis.Client, len(nodes))
		for i, node := range nodes {
			clients[i] = node.Client(t)
		}
		for round := range 2 {
			for _, call := range repoCalls {
				populate(t, store)
				for _, client := range clients {
					require.NoError(t, client.ScriptFlush(t.Context()).Err())
				}
				require.NoError(t, call.do(t.Context(), reposOf(store), populated), "%s, round %d", call.name, round)
			}
		}
	}
	t.Run("standalone", func(t *testing.T) {
		server := redistest.Start(t)
		flushed(t, openStore(t, onServer(server.Addr()), withLongTimeouts), []*redistest.Server{server})
	})
	t.Run("cluster", func(t *testing.T) {
		cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 2})
		flushed(t, openStore(t, onCluster(cluster.Addrs()), withLongTimeouts), cluster.Nodes())
	})
}

// TestCanceledCall: a call with a canceled context is not sent.
func TestCanceledCall(t *testing.T) {
	parallel(t)
	onEachRedis(t, func(t *testing.T, store *testStore, server *redistest.Server) {
		populate(t, store)
		direct := server.Client(t)
		before := executions(t, direct)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, call := range repoCalls {
			require.ErrorIs(t, call.do(ctx, reposOf(store), populated), biz.ErrCanceled, call.name)
		}
		require.Equal(t, before, executions(t, direct))
	})
}

// TestExpiredCall: the deadline has passed before the call is sent.
func TestExpiredCall(t *testing.T) {
	parallel(t)
	onEachRedis(t, func(t *testing.T, store *testStore, _ *redistest.Server) {
		populate(t, store)
		ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		defer cancel()
		for _, call := range repoCalls {
			want := biz.ErrDeadlineExceeded
			if call.mutation() {
				want = biz.ErrStoreUnavailable // Not executed.
			}
			require.ErrorIs(t, call.do(ctx, reposOf(store), populated), want, call.name)
		}
	})
}

// TestBusyPool: a call that gets no connection is not executed.
func TestBusyPool(t *testing.T) {
	server := redistest.Start(t)
	store := openStore(t, onServer(server.Addr()), func(c *testOptions) { c.PoolSize, c.MinIdleConns = 1, 0 })
	populate(t, store)
	server.Pause()
	defer server.Resume()
	holder := make(chan error, 1)
	go func() { holder <- second(reposOf(store).Links.Get(context.Background(), fresh.link())) }()
	time.Sleep(50 * time.Millisecond)
	err := second(reposOf(store).Links.Set(withTimeout(t, 200*time.Millisecond), fresh.link(), 1, biz.Forever, biz.SetTerms{}))
	require.ErrorIs(t, err, biz.ErrStoreUnavailable)
	require.ErrorIs(t, <-holder, biz.ErrDeadlineExceeded)
}
