package telemetry

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	"podlink/internal/conf"
)

// newFleet returns the observer with the default configuration, and its log.
func newFleet() (*Fleet, *bytes.Buffer) {
	lines := new(bytes.Buffer)
	return NewFleet(conf.Default().GetFleet(), log.NewStdLogger(lines)), lines
}

// value returns the value of a series, such as `podlink_feed_gaps_total{reason="STORE"}`.
func value(t *testing.T, f *Fleet, series string) float64 {
	t.Helper()
	name, label, _ := strings.Cut(strings.TrimSuffix(series, `"}`), "{")
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(f))
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			labels := ""
			for _, pair := range metric.GetLabel() {
				labels = pair.GetName() + `="` + pair.GetValue()
			}
			if family.GetName() != name || labels != label {
				continue
			}
			return metric.GetGauge().GetValue() + metric.GetCounter().GetValue() + float64(metric.GetHistogram().GetSampleCount())
		}
	}
	require.Failf(t, "no series", "%s", series)
	return 0
}

// TestFleetEvents: each event changes its series, and only what makes lists incomplete or complete has a line in the log.
func TestFleetEvents(t *testing.T) {
	for name, row := range map[string]struct {
		event  func(f *Fleet)
		series map[string]float64
		line   string
	}{
		"nothing yet": {
			func(*Fleet) {}, map[string]float64{
				`podlink_feed_queue`: 0, `podlink_feed_oldest_seconds`: 0, `podlink_feed_gaps_total{reason="WRITER_DIED"}`: 0,
				`podlink_index_complete`: 0, `podlink_watchers`: 0, `podlink_watch_resyncs_total{reason="SLOW"}`: 0,
			}, "",
		},
		"a queue": {func(f *Fleet) { f.Queued(7, time.Now()) }, map[string]float64{`podlink_feed_queue`: 7}, ""},
		"a flush": {
			func(f *Fleet) { f.Flushed(5, 20*time.Millisecond, time.Millisecond) },
			map[string]float64{`podlink_feed_changes_total`: 5, `podlink_feed_lag_seconds`: 1, `podlink_feed_flush_seconds`: 1}, "",
		},
		"a queue that is full": {func(f *Fleet) { f.Dropped(3) }, map[string]float64{`podlink_feed_dropped_total`: 3}, ""},
		"a gap, by what was dropped": {
			func(f *Fleet) { f.Dropped(3); f.Dropped(1); f.GapWritten(biz.GapDropped) },
			map[string]float64{`podlink_feed_dropped_total`: 4, `podlink_feed_gaps_total{reason="DROPPED"}`: 1},
			"WARN module=fleet msg=a gap in the change feeds: the feeds or the index lack changes of this podlink reason=DROPPED count=4",
		},
		"a gap, by a death": {
			func(f *Fleet) { f.GapWritten(biz.GapWriterDied) }, map[string]float64{`podlink_feed_gaps_total{reason="WRITER_DIED"}`: 1},
			"WARN module=fleet msg=a gap in the change feeds: a podlink has died, or was not heard for too long, and may have lost changes " +
				"reason=WRITER_DIED",
		},
		"a gap, by the store": {
			func(f *Fleet) { f.GapWritten(biz.GapStore) }, map[string]float64{`podlink_feed_gaps_total{reason="STORE"}`: 1},
			"WARN module=fleet msg=a gap in the change feeds: the store has failed over or lost data reason=STORE",
		},
		"a complete index": {func(f *Fleet) { f.IndexChecked(true) }, map[string]float64{`podlink_index_complete`: 1}, ""},
		"an incomplete index": {
			func(f *Fleet) { f.IndexChecked(true); f.IndexChecked(false) }, map[string]float64{`podlink_index_complete`: 0}, "",
		},
		"a census begins": {
			func(f *Fleet) { f.CensusBegan() }, nil, "INFO module=fleet msg=a census of the links has begun",
		},
		"a census reads": {func(f *Fleet) { f.CensusWent(10); f.CensusWent(5) }, map[string]float64{`podlink_census_links_total`: 15}, ""},
		"a census ends": {
			func(f *Fleet) { f.CensusEnded(1000, time.Minute, nil) },
			map[string]float64{`podlink_censuses_total{outcome="covered"}`: 1, `podlink_censuses_total{outcome="broken_off"}`: 0},
			"INFO module=fleet msg=the census of the links has ended: the index has all of them links=1000 took=1m0s",
		},
		"a census is broken off": {
			func(f *Fleet) { f.CensusEnded(10, time.Second, errors.New("lost")) },
			map[string]float64{`podlink_censuses_total{outcome="covered"}`: 0, `podlink_censuses_total{outcome="broken_off"}`: 1},
			"WARN module=fleet msg=the census of the links was broken off: another one begins by itself links=10 took=1s cause=lost",
		},
		"a sweep": {
			func(f *Fleet) { f.Swept(10, 3) },
			map[string]float64{`podlink_sweep_entries_total{outcome="kept"}`: 7, `podlink_sweep_entries_total{outcome="dropped"}`: 3}, "",
		},
		"watches":  {func(f *Fleet) { f.Watching(1); f.Watching(1); f.Watching(-1) }, map[string]float64{`podlink_watchers`: 1}, ""},
		"a resync": {func(f *Fleet) { f.Resynced(biz.ResyncSlow) }, map[string]float64{`podlink_watch_resyncs_total{reason="SLOW"}`: 1}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f, lines := newFleet()
			row.event(f)
			for series, want := range row.series {
				require.InDelta(t, want, value(t, f, series), 0, series)
			}
			if row.line != "" {
				row.line += "\n"
			}
			require.Equal(t, row.line, lines.String())
		})
	}
}

// TestOldestChangeAges: the gauge of the oldest waiting change grows by itself, also while no flush is answered, and is 0 without one.
func TestOldestChangeAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := newFleet()
		f.Queued(1, time.Now())
		time.Sleep(3 * time.Second)
		require.InDelta(t, 3, value(t, f, "podlink_feed_oldest_seconds"), 0.001)
		f.Queued(0, time.Time{})
		require.Zero(t, value(t, f, "podlink_feed_oldest_seconds"))
	})
}

// TestDroppedChangesAreSaidOnce: each line about dropped changes counts those since the one before.
func TestDroppedChangesAreSaidOnce(t *testing.T) {
	f, lines := newFleet()
	f.Dropped(2)
	f.GapWritten(biz.GapDropped)
	lines.Reset()
	f.Dropped(5)
	f.GapWritten(biz.GapDropped)
	require.Contains(t, lines.String(), "count=5")
}

// TestWithoutAnIndex: a podlink without an index exports no metrics of one, so that no alert on them fires.
func TestWithoutAnIndex(t *testing.T) {
	with, _ := newFleet()
	without := NewFleet(&conf.Fleet{Index: false}, log.NewStdLogger(new(bytes.Buffer)))
	for _, name := range []string{
		"podlink_index_complete", "podlink_census_links_total", "podlink_censuses_total", "podlink_sweep_entries_total",
	} {
		require.Positive(t, testutil.CollectAndCount(with, name), name)
		require.Zero(t, testutil.CollectAndCount(without, name), name)
	}
	without.IndexChecked(true)
	require.Equal(t, 1, testutil.CollectAndCount(without, "podlink_feed_queue"))
}
