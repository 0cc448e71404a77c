package data

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/require"

	"podlink/internal/conf"
	"podlink/test/kit/logwatch"
	redistest "podlink/test/kit/redis"
)

// gauge returns the value of one of the store's metrics without labels.
func gauge(t *testing.T, store *Store, name string) float64 {
	t.Helper()
	text, err := testutil.CollectAndFormat(store, expfmt.TypeTextPlain, name)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return map[string]float64{name + " 0": 0, name + " 1": 1}[lines[len(lines)-1]]
}

// logged opens a store that writes to the log that it returns.
func logged(t *testing.T, server *redistest.Server, change ...settings) (*Store, *logwatch.Log) {
	t.Helper()
	c, lines := conf.Default().Data, new(logwatch.Log)
	c.Redis.Mode, c.Redis.Addrs = conf.ModeStandalone, []string{server.Addr()}
	for _, f := range change {
		f(c.Redis)
	}
	store, closeStore, err := NewStore(c, log.NewFilter(log.NewStdLogger(lines), log.FilterLevel(log.LevelInfo)))
	require.NoError(t, err)
	t.Cleanup(closeStore)
	return store, lines
}

// TestStateChangesOfTheStore: each is told once, in the log and by the metric, and a caller who has left changes nothing.
func TestStateChangesOfTheStore(t *testing.T) {
	server := redistest.Start(t)
	store, lines := logged(t, server)
	told := func(ready float64, want ...string) {
		t.Helper()
		require.InDelta(t, ready, gauge(t, store, "podlink_store_ready"), 0)
		var got []string
		for line := range strings.Lines(lines.String()) {
			_, text, _ := strings.Cut(line, "msg=")
			text, _, _ = strings.Cut(text, ":")
			got = append(got, strings.TrimSpace(text))
		}
		require.Equal(t, want, got, lines.String())
	}
	told(0)
	require.NoError(t, store.Check(t.Context()))
	require.NoError(t, store.Check(t.Context()))
	told(1, "the store is ready")
	left, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, store.Check(left))
	told(1, "the store is ready")
	server.Kill()
	require.Error(t, store.Check(t.Context()))
	require.Error(t, store.Check(t.Context()))
	told(0, "the store is ready", "the store is not ready")
	server.Restart()
	ready(t, store)
	told(1, "the store is ready", "the store is not ready", "the store is ready again")
}

// TestStoreIsWatched: nobody asks for a check, and still it is told that the store went away and came back.
func TestStoreIsWatched(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	store, lines := logged(t, server)
	ended := make(chan error, 1)
	go func() { ended <- store.Start(context.Background()) }()
	lines.Wait(t, "the store is ready: ")
	server.Kill()
	lines.Wait(t, "the store is not ready: ")
	server.Restart()
	lines.Wait(t, "the store is ready again")
	begin := time.Now()
	require.NoError(t, store.Stop(t.Context()))
	require.NoError(t, <-ended)
	require.Less(t, time.Since(begin), time.Second, "it does not wait for the next check")
	require.NoError(t, store.Stop(t.Context()), "a second stop is none")
}

// TestMayEvict: the metric says so whether it is allowed or not.
func TestMayEvict(t *testing.T) {
	server := redistest.Start(t)
	refusing, _ := logged(t, server)
	allowing, _ := logged(t, server, func(c *conf.Data_Redis) { c.AllowEviction = true })
	for _, row := range []struct {
		policy  string
		evict   float64
		refused string
	}{
		{policy: "noeviction", evict: 0},
		{policy: "allkeys-lru", evict: 1, refused: "noeviction"},
		{policy: "noeviction", evict: 0},
	} {
		require.NoError(t, server.Client(t).ConfigSet(t.Context(), "maxmemory-policy", row.policy).Err())
		err := refusing.Check(t.Context())
		if row.refused == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, row.refused)
		}
		require.NoError(t, allowing.Check(t.Context()))
		for _, store := range []*Store{refusing, allowing} {
			require.InDelta(t, row.evict, gauge(t, store, "podlink_store_may_evict"), 0, row.policy)
		}
	}
}
