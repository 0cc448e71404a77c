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

// gauge returns the value of a metric without labels.
func gauge(t *testing.T, db *DB, name string) float64 {
	t.Helper()
	text, err := testutil.CollectAndFormat(db.Metrics, expfmt.TypeTextPlain, name)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return map[string]float64{name + " 0": 0, name + " 1": 1}[lines[len(lines)-1]]
}

// testLogger is a Logger that writes every line to a logwatch.Log.
type testLogger struct{ *logwatch.Log }

func (l testLogger) Infof(format string, args ...any)  { fmt.Fprintf(l, format+"\n", args...) }
func (l testLogger) Warnf(format string, args ...any)  { l.Infof(format, args...) }
func (l testLogger) Errorf(format string, args ...any) { l.Infof(format, args...) }

// TestHealthChangesAreReportedOnce: in the log and by the metric; a canceled check changes nothing.
func TestHealthChangesAreReportedOnce(t *testing.T) {
	server := redistest.Start(t)
	db, lines := open(t, server)
	expect := func(ready float64, want ...string) {
		t.Helper()
		require.InDelta(t, ready, gauge(t, db, "podlink_store_ready"), 0)
		var got []string
		for line := range strings.Lines(lines.String()) {
			text, _, _ := strings.Cut(line, ":")
			got = append(got, strings.TrimSpace(text))
		}
		require.Equal(t, want, got, lines.String())
	}
	expect(0)
	require.NoError(t, db.Health.Check(t.Context()))
	require.NoError(t, db.Health.Check(t.Context()))
	expect(1, "the store is ready")
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, db.Health.Check(canceled))
	expect(1, "the store is ready")
	server.Kill()
	require.Error(t, db.Health.Check(t.Context()))
	require.Error(t, db.Health.Check(t.Context()))
	expect(0, "the store is ready", "the store is not ready")
	server.Restart()
	require.Eventually(t, func() bool { return db.Health.Check(context.Background()) == nil }, 30*time.Second, 10*time.Millisecond)
	expect(1, "the store is ready", "the store is not ready", "the store is ready again")
}

// TestLastAsksNothing: the last result is known without the store, and counts for seconds.
func TestLastAsksNothing(t *testing.T) {
	server := redistest.Start(t)
	db, _ := open(t, server)
	hurry, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorContains(t, db.Health.Last(hurry), "not been checked")
	waited := make(chan error)
	go func() { waited <- db.Health.Last(t.Context()) }()
	require.NoError(t, db.Health.Check(t.Context()))
	require.NoError(t, <-waited, "the first check")
	before := commands(t, server)
	for range 1000 {
		require.NoError(t, db.Health.Last(t.Context()))
	}
	require.Less(t, commands(t, server)-before, 100)
	db.Health.checked = time.Now().Add(-lastCounts - time.Second)
	require.ErrorContains(t, db.Health.Last(t.Context()), "the last check of the store was 6s ago")
	server.Kill()
	require.Error(t, db.Health.Check(t.Context()))
	require.ErrorContains(t, db.Health.Last(t.Context()), "refused")
	db.Health.checked = time.Now().Add(-time.Hour)
	require.ErrorContains(t, db.Health.Last(t.Context()), "refused", "a failure says more than its age")
}

// commands returns how many commands the server has executed.
func commands(t *testing.T, server *redistest.Server) (n int) {
	t.Helper()
	stats, err := server.Client(t).Info(t.Context(), "stats").Result()
	require.NoError(t, err)
	_, after, _ := strings.Cut(stats, "total_commands_processed:")
	_, err = fmt.Sscan(after, &n)
	require.NoError(t, err)
	return n
}

// TestStartReportsHealthChanges: without a call of Check, the log still shows that the store failed and recovered.
func TestStartReportsHealthChanges(t *testing.T) {
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
	require.Less(t, time.Since(begin), time.Second, "Stop does not wait for the next check")
	require.NoError(t, db.Health.Stop(t.Context()), "a second Stop is a no-op")
}

// TestMayEvict: the metric reports it, allowed or not.
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
