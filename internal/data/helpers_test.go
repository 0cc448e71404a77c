package data

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"maps"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"podlink/internal/conf"
	"podlink/internal/rdb"
	"podlink/internal/rdb/embedded"
	redistest "podlink/test/kit/redis"
)

func TestMain(m *testing.M) {
	flag.Parse()
	rdb.LogDriver(func(string, ...any) {}) // The tests inject faults; the driver's messages about them are noise.
	// Many tests only wait for an expiry: let them wait in parallel, however few cores there are.
	if err := flag.Set("test.parallel", "128"); err != nil {
		panic(err)
	}
	// After many failed dials the driver dials in the background; it checks once a second whether its client is closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// parallelSlots limits the number of tests with their own servers that run at once: too many servers would be slow.
var parallelSlots = make(chan struct{}, 4*runtime.GOMAXPROCS(0))

// parallel runs the test in parallel with others, once there is a free slot.
func parallel(t *testing.T) {
	t.Helper()
	t.Parallel()
	parallelSlots <- struct{}{}
	t.Cleanup(func() { <-parallelSlots })
}

// testOptions are the options of a testStore.
type testOptions struct {
	rdb.Options
	Prefix string
	Tls    *conf.TLS //nolint:revive // Named as in conf.

	embedded bool
}

// defaults returns podlink's defaults, with a unique prefix.
func defaults() testOptions {
	const timeout = 500 * time.Millisecond
	return testOptions{
		Options: rdb.Options{
			Mode: rdb.Standalone, MasterName: "mymaster", PoolSize: 64, MinIdleConns: 2, PoolTimeout: timeout, DialTimeout: timeout,
			ReadTimeout: timeout, WriteTimeout: timeout, Coalesce: true, WaitTimeout: 200 * time.Millisecond,
			Logger: log.NewHelper(log.NewStdLogger(io.Discard)),
		},
		Prefix: "test-" + rand.Text(), Tls: new(conf.TLS),
	}
}

// option changes the options of a testStore.
type option func(*testOptions)

// testStore is a store for tests, with a client that bypasses the runner.
type testStore struct {
	*rdb.DB
	client  redis.UniversalClient // of the same servers; retries once, as the store's driver does
	keys    Keyspace
	metrics *LinkMetrics
	fleet   *Fleet
}

func (s *testStore) Check(ctx context.Context) error { return s.Health.Check(ctx) }

// onServer connects to a single server, or to a proxy in front of one.
func onServer(addr string) option {
	return func(c *testOptions) { c.Mode, c.Addrs = rdb.Standalone, []string{addr} }
}

func onCluster(addrs []string) option {
	return func(c *testOptions) { c.Mode, c.Addrs = rdb.Cluster, addrs }
}

func onSentinel(set *redistest.Sentinel) option {
	return func(c *testOptions) {
		c.Mode, c.Addrs, c.MasterName = rdb.Sentinel, set.Addrs(), set.MasterName()
	}
}

func embeddedStore(o *testOptions) { o.embedded = true }

func password(text string) option { return func(c *testOptions) { c.Password = text } }

func prefix(text string) option { return func(c *testOptions) { c.Prefix = text } }

// openStore returns a store with the default options, changed by all.
func openStore(t testing.TB, all ...option) *testStore {
	t.Helper()
	o := defaults()
	for _, change := range all {
		change(&o)
	}
	secured, err := o.Tls.Config("data.redis.tls", nil)
	require.NoError(t, err)
	if secured != nil {
		o.TLS = secured.Config
	}
	if o.embedded {
		server, err := embedded.Start()
		require.NoError(t, err)
		t.Cleanup(server.Close)
		o.Options = server.Options(o.Options)
	}
	store := &testStore{keys: Keyspace(o.Prefix), metrics: NewLinkMetrics(), client: o.client()}
	t.Cleanup(func() { _ = store.client.Close() })
	store.DB = rdb.Open(o.Options, SelfTest(store.keys))
	t.Cleanup(store.Close)
	store.fleet = NewFleet(store.Runner, store.keys, FleetOptions{FeedMaxAge: testFeedMaxAge})
	return store
}

// testFeedMaxAge is podlink's default.
const testFeedMaxAge = 10 * time.Minute

// client returns a client of the servers that the options name.
func (o testOptions) client() redis.UniversalClient {
	universal := &redis.UniversalOptions{
		Addrs: o.Addrs, Username: o.Username, Password: o.Password, MaxRetries: 1,
		SentinelUsername: o.SentinelUsername, SentinelPassword: o.SentinelPassword,
		DialTimeout: o.DialTimeout, ReadTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout,
		DisableIdentity: true, MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if o.TLS != nil {
		universal.TLSConfig = o.TLS()
	}
	switch o.Mode {
	case rdb.Sentinel:
		universal.MasterName = o.MasterName
		return redis.NewFailoverClient(universal.Failover())
	case rdb.Cluster:
		return redis.NewClusterClient(universal.Cluster())
	default:
		return redis.NewClient(universal.Simple())
	}
}

// waitReady waits until the store is ready. On a busy machine the first self-test may time out.
func waitReady(t *testing.T, store *testStore) {
	t.Helper()
	const timeout = 30 * time.Second
	begin, err := time.Now(), store.Check(t.Context())
	for err != nil && time.Since(begin) < timeout {
		time.Sleep(10 * time.Millisecond)
		err = store.Check(t.Context())
	}
	require.NoError(t, err)
}

// storeKinds opens each kind of store on which the scripts must behave the same.
var storeKinds = map[string]func(t *testing.T) *testStore{
	"embedded": func(t *testing.T) *testStore { return openStore(t, embeddedStore, withLongTimeouts) },
	"redis": func(t *testing.T) *testStore {
		return openStore(t, onServer(redistest.Start(t).Addr()), withLongTimeouts)
	},
}

// onEachStore runs a test on each kind of store.
func onEachStore(t *testing.T, run func(t *testing.T, store *testStore)) {
	for name, open := range storeKinds {
		t.Run(name, func(t *testing.T) { run(t, open(t)) })
	}
}

// onEachRedis runs a test on a server, and on a cluster of one node, which uses other code paths of the driver.
func onEachRedis(t *testing.T, run func(t *testing.T, store *testStore, server *redistest.Server)) {
	t.Run("standalone", func(t *testing.T) {
		server := redistest.Start(t)
		run(t, openStore(t, onServer(server.Addr()), withLongTimeouts), server)
	})
	t.Run("cluster", func(t *testing.T) {
		cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 1})
		run(t, openStore(t, onCluster(cluster.Addrs()), withLongTimeouts), cluster.Nodes()[0])
	})
}

// keyContent is the type and value of a key, and whether it has a TTL. The TTL itself changes with time.
type keyContent struct {
	kind   string
	value  any
	hasTTL bool
}

// dump returns all keys with the store's prefix, except the one that names the layout.
func dump(t *testing.T, store *testStore) map[string]keyContent {
	t.Helper()
	ctx := context.Background()
	keys, err := store.client.Keys(ctx, string(store.keys)+":*").Result()
	require.NoError(t, err)
	all := make(map[string]keyContent)
	for _, key := range keys {
		if key != store.keys.layout() {
			all[key] = read(t, store, key)
		}
	}
	return all
}

// read returns the content of the key.
func read(t *testing.T, store *testStore, key string) keyContent {
	t.Helper()
	ctx := context.Background()
	kind, err := store.client.Type(ctx, key).Result()
	require.NoError(t, err)
	c := keyContent{kind: kind}
	switch kind {
	case "hash":
		c.value = maps.Clone(store.client.HGetAll(ctx, key).Val())
	case "zset":
		scores := make(map[string]string)
		for _, z := range store.client.ZRangeWithScores(ctx, key, 0, -1).Val() {
			scores[z.Member.(string)] = strconv.FormatFloat(z.Score, 'f', -1, 64)
		}
		c.value = scores
	case "string":
		c.value = store.client.Get(ctx, key).Val()
	case "list":
		c.value = store.client.LRange(ctx, key, 0, -1).Val()
	case "set":
		members := make(map[string]string)
		for _, member := range store.client.SMembers(ctx, key).Val() {
			members[member] = ""
		}
		c.value = members
	case "stream":
		entries := make(map[string]string)
		for _, entry := range store.client.XRange(ctx, key, "-", "+").Val() {
			entries[entry.ID] = fmt.Sprint(entry.Values)
		}
		c.value = entries
	case "none":
	default:
		t.Fatalf("a key of type %s", kind)
	}
	c.hasTTL = store.client.PTTL(ctx, key).Val() > 0
	return c
}

// withTimeout returns a context that ends after the timeout or with the test.
func withTimeout(t *testing.T, timeout time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	return ctx
}

// setConfig sets a value of the server's configuration.
func setConfig(t *testing.T, client *redis.Client, key, value string) {
	t.Helper()
	require.NoError(t, client.ConfigSet(context.Background(), key, value).Err())
}

// scriptSHA returns the SHA-1 by which Redis knows the script.
func scriptSHA(script *rdb.Script) string {
	sum := sha1.Sum([]byte(script.Source())) // Redis names scripts by their SHA-1.
	return hex.EncodeToString(sum[:])
}

// gauge returns the value of a series of the store's metrics: a name, with its labels as they are exported.
func gauge(t *testing.T, store *testStore, series string) float64 {
	t.Helper()
	name, _, _ := strings.Cut(series, "{")
	text, err := testutil.CollectAndFormat(store.Metrics, expfmt.TypeTextPlain, name)
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			require.NoError(t, err)
			return number
		}
	}
	require.Failf(t, "no such series", "%s in:\n%s", series, text)
	return 0
}
