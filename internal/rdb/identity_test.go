package rdb

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	redistest "podlink/test/kit/redis"
)

// TestPrimaries: the ids change when a primary restarts and when the name leads to another one, and only then.
func TestPrimaries(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	other := redistest.Start(t)
	proxy := redistest.NewProxy(t, server.Addr())
	db, _ := open(t, server, func(o *Options) { o.Addrs = []string{proxy.Addr()} })
	require.Empty(t, db.Runner.Primaries())
	ended := make(chan error, 1)
	go func() { ended <- db.Health.Start(context.Background()) }()
	defer func() {
		require.NoError(t, db.Health.Stop(t.Context()))
		require.NoError(t, <-ended)
	}()
	changes := func(from string) string {
		t.Helper()
		require.Eventually(t, func() bool { return db.Runner.Primaries() != from }, 10*time.Second, time.Millisecond)
		require.Regexp(t, "^[0-9a-f]{16}$", db.Runner.Primaries())
		return db.Runner.Primaries()
	}
	first := changes("")
	require.NoError(t, db.Health.Check(t.Context()))
	require.Equal(t, first, db.Runner.Primaries())
	server.Restart()
	second := changes(first)
	proxy.Aim(other.Addr())
	proxy.Reset()
	changes(second)
}

// TestPrimariesOfACluster: one id for each primary.
func TestPrimariesOfACluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 3, Replicas: 1})
	db := Open(clusterOptions(cluster), counterTest)
	t.Cleanup(db.Close)
	require.Eventually(t, func() bool { return db.Health.Check(context.Background()) == nil }, 10*time.Second, 10*time.Millisecond)
	require.Len(t, strings.Split(db.Runner.Primaries(), ","), 3)
	again := Open(clusterOptions(cluster), counterTest)
	t.Cleanup(again.Close)
	require.Eventually(t, func() bool { return again.Health.Check(context.Background()) == nil }, 10*time.Second, 10*time.Millisecond)
	require.Equal(t, db.Runner.Primaries(), again.Runner.Primaries(), "in any order")
}

// clusterOptions returns the options of a DB on the cluster.
func clusterOptions(cluster *redistest.Cluster) Options {
	o := testOptions("")
	o.Mode, o.Addrs = Cluster, cluster.Addrs()
	return o
}

// TestIDs: many primaries have one digest, unknown ones have none, and the embedded store has a random one.
func TestIDs(t *testing.T) {
	t.Parallel()
	p := newPrimaries(false)
	require.Empty(t, p.String())
	require.Equal(t, "a,b", p.set([]string{"b", "a", "b"}))
	require.Equal(t, "a,b", p.set(nil), "nothing was learned")
	many := make([]string, maxIDs+1)
	for i := range many {
		many[i] = digest(strings.Repeat("x", i))
	}
	require.Len(t, p.set(many[1:]), maxIDs*(idLength+1)-1)
	require.Len(t, p.set(many), idLength)
	require.Empty(t, p.set([]string{"a", ""}))
	require.Empty(t, p.String())
	require.Empty(t, primaryID("role:master\r\n"))
	require.Len(t, primaryID("run_id:1\r\n"), idLength)
	require.NotEqual(t, newPrimaries(true).String(), newPrimaries(true).String())
	require.Len(t, newPrimaries(true).String(), idLength)
}

// TestLayout: podlink names the layout of a new store, and neither starts on another one nor writes to it.
func TestLayout(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	layout := counterTest
	layout.Layout = Layout{Key: "layout", Name: "2"}
	open := func() *DB {
		db := Open(testOptions(server.Addr()), layout)
		t.Cleanup(db.Close)
		return db
	}
	_, err := open().Runner.Run(t.Context(), increment, "counter")
	require.NoError(t, err)
	require.Equal(t, "2", value(t, server, "layout"), "named by the first mutation, before it")
	require.NoError(t, open().Health.Check(t.Context()))

	direct := server.Client(t)
	require.NoError(t, direct.Del(t.Context(), "layout").Err())
	require.NoError(t, direct.RPush(t.Context(), "layout", "2").Err())
	require.ErrorIs(t, open().Health.Check(t.Context()), ErrLayout)
	require.NoError(t, direct.Set(t.Context(), "layout", "3", 0).Err())
	db := open()
	_, err = db.Runner.Run(t.Context(), increment, "counter")
	require.Equal(t, Unavailable, ClassOf(err))
	err = db.Health.Start(t.Context())
	require.ErrorIs(t, err, ErrLayout)
	require.ErrorContains(t, err, `key layout says "3", and this podlink knows "2"`)
	require.Equal(t, "1", value(t, server, "counter"))
	require.Equal(t, "3", value(t, server, "layout"))

	// It may come to be known later, such as after a migration.
	require.NoError(t, direct.Set(t.Context(), "layout", "2", 0).Err())
	require.NoError(t, db.Health.Check(t.Context()))
	_, err = db.Runner.Run(t.Context(), increment, "counter")
	require.NoError(t, err)
}

// TestLayoutOfAStoreThatIsAway: podlink starts without its store, and names the layout once it is back.
func TestLayoutOfAStoreThatIsAway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Kill()
	layout := counterTest
	layout.Layout = Layout{Key: "layout", Name: "2"}
	db := Open(testOptions(server.Addr()), layout)
	t.Cleanup(db.Close)
	_, err := db.Runner.Run(t.Context(), increment, "counter")
	require.Equal(t, Unavailable, ClassOf(err))
	server.Restart()
	require.Eventually(t, func() bool {
		_, err := db.Runner.Run(context.Background(), increment, "counter")
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)
	require.Equal(t, "2", value(t, server, "layout"))
}

// TestRead reads a whole key.
func TestRead(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	db, _ := open(t, server)
	require.NoError(t, server.Client(t).Do(t.Context(), "ZADD", "set", 1, "a", 2.5, "b").Err())
	read := func(args ...any) (any, error) {
		value, call, err := db.Runner.Read(t.Context(), "set", args...)
		if err == nil {
			call.Decoded(nil)
		}
		return value, err
	}
	got, err := read("zrangebyscore", "set", "-inf", "+inf", "withscores")
	require.NoError(t, err)
	require.Len(t, got, 2, "pairs: %v", got)
	got, err = read("get", "absent")
	require.NoError(t, err)
	require.Nil(t, got)
	_, err = read("get", "set")
	require.Equal(t, Corrupt, ClassOf(err))
	_, err = read("ping")
	require.ErrorContains(t, err, "without a key")
}

// TestRunAllReportsEachItem: one corrupt key fails alone.
func TestRunAllReportsEachItem(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	db, _ := open(t, server)
	require.NoError(t, server.Client(t).HSet(t.Context(), "hash", "field", "value").Err())
	replies, err := db.Runner.RunAll(t.Context(), show, []string{"counter", "hash", "counter"})
	require.NoError(t, err)
	require.Equal(t, []any{"SHOWN", "0"}, replies[0].Values)
	require.NoError(t, replies[0].Err)
	require.Equal(t, Corrupt, ClassOf(replies[1].Err))
	require.Equal(t, []any{"SHOWN", "0"}, replies[2].Values)
	server.Kill()
	replies, err = db.Runner.RunAll(t.Context(), show, []string{"counter", "counter"})
	if err == nil { // Then each has its own error.
		err = replies[1].Err
	}
	require.Equal(t, Unavailable, ClassOf(err))
}
