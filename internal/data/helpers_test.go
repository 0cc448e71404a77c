package data

import (
	"context"
	"crypto/rand"
	"flag"
	"io"
	"maps"
	"runtime"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"podlink/internal/conf"
	redistest "podlink/test/kit/redis"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests that wait for an expiry do nothing else meanwhile: let them wait together, on however few cores.
	if err := flag.Set("test.parallel", "128"); err != nil {
		panic(err)
	}
	// After many failed dials the driver dials on by itself; it looks once a second whether its client is closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// room is for the tests that run together because each of them waits for its servers most of the time: for a few, so that
// no server is slow for want of a processor.
var room = make(chan struct{}, 4*runtime.GOMAXPROCS(0))

// together runs the test in parallel with others, once there is room.
func together(t *testing.T) {
	t.Helper()
	t.Parallel()
	room <- struct{}{}
	t.Cleanup(func() { <-room })
}

// settings changes what a test's store is configured with.
type settings func(*conf.Data_Redis)

// on is a store on the server, or on a proxy in front of one.
func on(addr string) settings {
	return func(c *conf.Data_Redis) { c.Mode, c.Addrs = conf.ModeStandalone, []string{addr} }
}

func onCluster(addrs []string) settings {
	return func(c *conf.Data_Redis) { c.Mode, c.Addrs = conf.ModeCluster, addrs }
}

func onSentinel(set *redistest.Sentinel) settings {
	return func(c *conf.Data_Redis) {
		c.Mode, c.Addrs, c.MasterName = conf.ModeSentinel, set.Addrs(), set.MasterName()
	}
}

func embeddedStore(*conf.Data_Redis) {}

func password(text string) settings { return func(c *conf.Data_Redis) { c.Password = text } }

func prefix(text string) settings { return func(c *conf.Data_Redis) { c.Prefix = text } }

// openStore returns a store with the default configuration, but for a prefix of its own and the settings.
func openStore(t testing.TB, all ...settings) *Store {
	t.Helper()
	c := conf.Default().GetData()
	c.Redis.Prefix = "test-" + rand.Text()
	for _, change := range all {
		change(c.GetRedis())
	}
	store, closeStore, err := NewStore(c, log.NewStdLogger(io.Discard))
	require.NoError(t, err)
	t.Cleanup(closeStore)
	return store
}

// ready waits until the store can be used. A machine that is busy may not let the first self-test end in time.
func ready(t *testing.T, store *Store) {
	t.Helper()
	const limit = 30 * time.Second
	begin, err := time.Now(), store.Check(t.Context())
	for err != nil && time.Since(begin) < limit {
		time.Sleep(10 * time.Millisecond)
		err = store.Check(t.Context())
	}
	require.NoError(t, err)
}

// everyStore are the stores that every script has to work on alike.
var everyStore = map[string]func(t *testing.T) *Store{
	"embedded": func(t *testing.T) *Store { return openStore(t, embeddedStore) },
	"redis":    func(t *testing.T) *Store { return openStore(t, on(redistest.Start(t).Addr())) },
}

// onEachStore runs a test on every store.
func onEachStore(t *testing.T, run func(t *testing.T, store *Store)) {
	for name, open := range everyStore {
		t.Run(name, func(t *testing.T) { run(t, open(t)) })
	}
}

// onEachRedis runs a test on a server, and on a cluster of one node: the driver takes different ways to them.
func onEachRedis(t *testing.T, run func(t *testing.T, store *Store, server *redistest.Server)) {
	t.Run("standalone", func(t *testing.T) {
		server := redistest.Start(t)
		run(t, openStore(t, on(server.Addr()), patient), server)
	})
	t.Run("cluster", func(t *testing.T) {
		cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 1})
		run(t, openStore(t, onCluster(cluster.Addrs()), patient), cluster.Nodes()[0])
	})
}

// content is a key: what it holds, and whether it has a TTL. Times to live run, so their amount is none of it.
type content struct {
	kind   string
	value  any
	hasTTL bool
}

// dump returns all that is under the store's prefix.
func dump(t *testing.T, store *Store) map[string]content {
	t.Helper()
	ctx := context.Background()
	keys, err := store.client.Keys(ctx, string(store.keys)+":*").Result()
	require.NoError(t, err)
	all := make(map[string]content)
	for _, key := range keys {
		all[key] = read(t, store, key)
	}
	return all
}

// read returns what the key is.
func read(t *testing.T, store *Store, key string) content {
	t.Helper()
	ctx := context.Background()
	kind, err := store.client.Type(ctx, key).Result()
	require.NoError(t, err)
	c := content{kind: kind}
	switch kind {
	case "hash":
		c.value = maps.Clone(store.client.HGetAll(ctx, key).Val())
	case "string":
		c.value = store.client.Get(ctx, key).Val()
	case "list":
		c.value = store.client.LRange(ctx, key, 0, -1).Val()
	case "none":
	default:
		t.Fatalf("a key of type %s", kind)
	}
	c.hasTTL = store.client.PTTL(ctx, key).Val() > 0
	return c
}

// limited is a context that ends soon.
func limited(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// setConfig sets a server's configuration.
func setConfig(t *testing.T, client *redis.Client, key, value string) {
	t.Helper()
	require.NoError(t, client.ConfigSet(context.Background(), key, value).Err())
}
