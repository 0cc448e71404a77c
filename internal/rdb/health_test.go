package rdb

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/require"

	"podlink/test/kit/logwatch"
	redistest "podlink/test/kit/redis"
)

// gauge returns the value of one of the store's metrics without labels.
func gauge(t *testing.T, db *DB, name string) float64 {
	t.Helper()
	text, err := testutil.CollectAndFormat(db.Metrics, expfmt.TypeTextPlain, name)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return map[string]float64{name + " 0": 0, name + " 1": 1}[lines[len(lines)-1]]
}

// testLogger is a Logger.
type testLogger struct{ *logwatch.Log }

func (l testLogger) Infof(format string, args ...any)  { fmt.Fprintf(l, format+"\n", args...) }
func (l testLogger) Warnf(format string, args ...any)  { l.Infof(format, args...) }
func (l testLogger) Errorf(format string, args ...any) { l.Infof(format, args...) }

// TestStateChangesOfTheStore: each is told once, in the log and by the metric, and a caller who has left changes nothing.
func TestStateChangesOfTheStore(t *testing.T) {
	server := redistest.Start(t)
	db, lines := open(t, server)
	told := func(ready float64, want ...string) {
		t.Helper()
		require.InDelta(t, ready, gauge(t, db, "podlink_store_ready"), 0)
		var got []string
		for line := range strings.Lines(lines.String()) {
			text, _, _ := strings.Cut(line, ":")
			got = append(got, strings.TrimSpace(text))
		}
		require.Equal(t, want, got, lines.String())
	}
	told(0)
	require.NoError(t, db.Health.Check(t.Context()))
	require.NoError(t, db.Health.Check(t.Context()))
	told(1, "the store is ready")
	left, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, db.Health.Check(left))
	told(1, "the store is ready")
	server.Kill()
	require.Error(t, db.Health.Check(t.Context()))
	require.Error(t, db.Health.Check(t.Context()))
	told(0, "the store is ready", "the store is not ready")
	server.Restart()
	require.Eventually(t, func() bool { return db.Health.Check(context.Background()) == nil }, 30*time.Second, 10*time.Millisecond)
	told(1, "the store is ready", "the store is not ready", "the store is ready again")
}

// TestStoreIsWatched: nobody asks for a check, and still it is told that the store went away and came back.
func TestStoreIsWatched(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	db, lines := open(t, server)
	ended := make(chan error, 1)
	go func() { ended <- db.Health.Start(context.Background()) }()
	lines.Wait(t, "the store is ready: ")
	server.Kill()
	lines.Wait(t, "the store is not ready: ")
	server.Restart()
	lines.Wait(t, "the store is ready again")
	begin := time.Now()
	require.NoError(t, db.Health.Stop(t.Context()))
	require.NoError(t, <-ended)
	require.Less(t, time.Since(begin), time.Second, "it does not wait for the next check")
	require.NoError(t, db.Health.Stop(t.Context()), "a second stop is none")
}

// TestMayEvict: the metric says so whether it is allowed or not.
func TestMayEvict(t *testing.T) {
	server := redistest.Start(t)
	refusing, _ := open(t, server)
	allowing, _ := open(t, server, func(o *Options) { o.AllowEviction = true })
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
		err := refusing.Health.Check(t.Context())
		if row.refused == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, row.refused)
		}
		require.NoError(t, allowing.Health.Check(t.Context()))
		for _, db := range []*DB{refusing, allowing} {
			require.InDelta(t, row.evict, gauge(t, db, "podlink_store_may_evict"), 0, row.policy)
		}
	}
}
