package rdb

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	redistest "podlink/test/kit/redis"
)

// TestForgottenConnections: after a pause in which a firewall has forgotten the connections, every mutation succeeds.
func TestForgottenConnections(t *testing.T) {
	const calls = 48
	for name, coalesce := range map[string]bool{"shared round trips": true, "one for each call": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			proxy := redistest.NewProxy(t, server.Addr())
			db, _ := open(t, server, func(o *Options) {
				o.Addrs, o.Coalesce, o.PoolSize = []string{proxy.Addr()}, coalesce, calls
			})
			callAll := func() {
				t.Helper()
				errs := make([]error, calls)
				var all sync.WaitGroup
				for i := range calls {
					all.Go(func() { _, errs[i] = db.Runner.Run(t.Context(), increment, "counter"+strconv.Itoa(i)) })
				}
				all.Wait()
				for _, err := range errs {
					require.NoError(t, err)
				}
			}
			callAll()
			proxy.ForgetIdle(testAfter)
			time.Sleep(testAfter + 200*time.Millisecond)
			callAll()
			require.Positive(t, proxy.Faults().ConnsForgotten)
			for i := range calls {
				require.Equal(t, "2", value(t, server, "counter"+strconv.Itoa(i)))
			}
		})
	}
}

// TestReplicaBehindTheName: the name of a standalone Redis moves to a promoted replica while the old primary becomes its
// replica. After the first sign of that no read is answered by the old primary, and its connections are closed.
func TestReplicaBehindTheName(t *testing.T) {
	for name, sign := range map[string]func(t *testing.T, db *DB){
		"a refused mutation": func(t *testing.T, db *DB) {
			_, err := db.Runner.Run(t.Context(), increment, "other")
			require.Equal(t, Unavailable, ClassOf(err), "%v", err)
		},
		"a check": func(t *testing.T, db *DB) {
			require.ErrorIs(t, db.Health.Check(t.Context()), errReplica)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old := redistest.Start(t)
			promoted := redistest.StartReplica(t, old.Addr())
			proxy := redistest.NewProxy(t, old.Addr())
			db, _ := open(t, old, func(o *Options) { o.Addrs = []string{proxy.Addr()} })
			require.NoError(t, db.Health.Check(t.Context()))
			fill := func() { // The pool, with connections to the server that the name leads to.
				var all sync.WaitGroup
				for range 4 * db.client.single.Options().PoolSize {
					all.Go(func() { _, _ = db.Runner.ReadAll(t.Context(), "counter", [][]any{{"get", "counter"}}) })
				}
				all.Wait()
			}
			fill()
			require.Positive(t, clients(t, old))

			require.NoError(t, promoted.Client(t).Do(t.Context(), "REPLICAOF", "NO", "ONE").Err())
			require.NoError(t, promoted.Client(t).Set(t.Context(), "counter", "7", 0).Err())
			// A replica of a server that can't be reached, so that it answers what was.
			require.NoError(t, old.Client(t).Do(t.Context(), "REPLICAOF", "127.0.0.1", "1").Err())
			proxy.Aim(promoted.Addr())
			sign(t, db)
			for range 10 {
				reply, err := db.Runner.Run(t.Context(), show, "counter")
				require.NoError(t, err)
				require.Equal(t, []any{"SHOWN", "7"}, reply.Values)
				results, err := db.Runner.ReadAll(t.Context(), "counter", [][]any{{"get", "counter"}, {"get", "counter"}})
				require.NoError(t, err)
				require.Equal(t, []Result{{Value: "7"}, {Value: "7"}}, results)
			}
			require.Eventually(t, func() bool { return clients(t, old) == 0 }, 10*time.Second, 10*time.Millisecond, "they are closed")
			require.NoError(t, db.Health.Check(t.Context()))
		})
	}
}

// TestReadInFlightAtASign: a read that a replica answered while the sign came is read again.
func TestReadInFlightAtASign(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	db, _ := open(t, server, func(o *Options) { o.ReadTimeout = 10 * time.Second })
	require.NoError(t, db.Health.Check(t.Context()))
	server.Pause()
	got := make(chan any, 1)
	go func() {
		reply, err := db.Runner.Run(context.Background(), show, "counter")
		if err != nil {
			got <- err
		}
		got <- reply.Status()
	}()
	require.Eventually(t, func() bool { _, inFlight := db.Runner.coalescers.load(); return inFlight == 1 }, 10*time.Second, time.Millisecond)
	time.Sleep(50 * time.Millisecond) // So that it has been written.
	db.client.conns.retire(db.client.conns.generation.Load())
	server.Resume()
	require.Equal(t, "SHOWN", <-got)
	require.Equal(t, 1+2, redistest.StatsOf(t, server.Client(t), "get").Calls, "once by the self-test, twice by the read")
}

// TestReplicaIsRefused: a connection to a replica is not used, not even for a read.
func TestReplicaIsRefused(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	replica := redistest.StartReplica(t, primary.Addr())
	db, _ := open(t, replica)
	_, err := db.Runner.Run(t.Context(), show, "counter")
	require.Equal(t, Unavailable, ClassOf(err))
	require.ErrorIs(t, err, errReplica)
	_, err = db.Runner.Run(t.Context(), increment, "counter")
	require.Equal(t, Unavailable, ClassOf(err))
	require.ErrorIs(t, db.Health.Check(t.Context()), errReplica)
	require.NotContains(t, replica.Client(t).Info(t.Context(), "commandstats").Val(), "cmdstat_evalsha")
}
