package telemetry

import (
	"sync/atomic"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/prometheus/client_golang/prometheus"

	"podlink/internal/biz"
	"podlink/internal/conf"
	"podlink/internal/telemetry/histogram"
)

// Fleet hears of the change feed, the index and the watches: it is the biz.FeedObserver, biz.FleetObserver and biz.WatchObserver.
// It collects their metrics for Prometheus, and logs what makes lists incomplete and watchers read again.
type Fleet struct {
	log *log.Helper

	queued       prometheus.Gauge
	oldest       atomic.Int64 // when the oldest waiting change was noted, in ns since 1970; 0: none waits
	changes      prometheus.Counter
	lag, flushes prometheus.Histogram
	dropped      prometheus.Counter
	unsaid       atomic.Int64 // changes that were dropped since the last gap that says so
	gaps         *prometheus.CounterVec

	complete    prometheus.Gauge
	censusLinks prometheus.Counter
	censuses    *prometheus.CounterVec
	swept       *prometheus.CounterVec

	watchers prometheus.Gauge
	resyncs  *prometheus.CounterVec

	collectors []prometheus.Collector
}

// The values of the label outcome of podlink_censuses_total and of podlink_sweep_entries_total.
const (
	censusCovered   = "covered"
	censusBrokenOff = "broken_off"
	sweepKept       = "kept"
	sweepDropped    = "dropped"
)

var (
	gapReasons    = []biz.GapReason{biz.GapWriterDied, biz.GapStore, biz.GapDropped}
	resyncReasons = []biz.ResyncReason{biz.ResyncStart, biz.ResyncGap, biz.ResyncTrimmed, biz.ResyncSlow}
)

// NewFleet returns the observer. Without an index it has no metrics of one.
func NewFleet(c *conf.Fleet, logger log.Logger) *Fleet {
	f := &Fleet{log: log.NewHelper(log.With(logger, "module", "fleet"))}
	f.addFeed()
	f.addIndex(c.GetIndex())
	f.addWatches()
	return f
}

// addFeed makes the metrics of the change feed.
func (f *Fleet) addFeed() {
	f.queued = gauge("podlink_feed_queue", "Changes that wait to be written to the change feed.")
	f.changes = counter("podlink_feed_changes_total", "Changes that were written to the change feed.")
	f.dropped = counter("podlink_feed_dropped_total", "Changes that were dropped, because too many waited for the store, or it holds foreign data.")
	f.gaps = counters("podlink_feed_gaps_total", "Gaps that this podlink has written into the change feeds, by reason.", "reason", gapReasons)
	f.lag = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "podlink_feed_lag_seconds",
		Help:    "Time from a change to its entry in the change feed: of the oldest one of each flush.",
		Buckets: append(histogram.SecondsBuckets()[5:], 2.5, 5, 10, 30),
	})
	f.flushes = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "podlink_feed_flush_seconds",
		Help:    "How long flushes of changes to the store took.",
		Buckets: histogram.SecondsBuckets(),
	})
	oldest := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "podlink_feed_oldest_seconds",
		Help: "Age of the oldest change that waits to be written to the change feed; 0: none waits.",
	}, func() float64 {
		if noted := f.oldest.Load(); noted != 0 {
			return max(0, time.Since(time.Unix(0, noted)).Seconds())
		}
		return 0
	})
	f.collectors = append(f.collectors, f.queued, f.changes, f.dropped, f.gaps, f.lag, f.flushes, oldest)
}

// addIndex makes the metrics of the index, which are exported if there is one.
func (f *Fleet) addIndex(exported bool) {
	f.complete = gauge("podlink_index_complete", "1 when a census has covered every gap, so that lists of links are complete, else 0.")
	f.censusLinks = counter("podlink_census_links_total", "Links that censuses of this podlink have read.")
	f.censuses = counters("podlink_censuses_total", "Censuses of this podlink that have ended, by outcome.",
		"outcome", []string{censusCovered, censusBrokenOff})
	f.swept = counters("podlink_sweep_entries_total", "Entries of the index that this podlink has compared with their links, by outcome.",
		"outcome", []string{sweepKept, sweepDropped})
	if exported {
		f.collectors = append(f.collectors, f.complete, f.censusLinks, f.censuses, f.swept)
	}
}

// addWatches makes the metrics of the watches.
func (f *Fleet) addWatches() {
	f.watchers = gauge("podlink_watchers", "Watches of links that are open.")
	f.resyncs = counters("podlink_watch_resyncs_total", "Times that a watcher was told to read again what it knows, by reason.",
		"reason", resyncReasons)
	f.collectors = append(f.collectors, f.watchers, f.resyncs)
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

// counters returns a counter for each value of a label. The series exist from the start: rate() misses the first increment of a new one.
func counters[T ~string](name, help, label string, values []T) *prometheus.CounterVec {
	all := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	for _, value := range values {
		all.WithLabelValues(string(value))
	}
	return all
}

// Describe implements prometheus.Collector.
func (f *Fleet) Describe(descriptions chan<- *prometheus.Desc) {
	for _, collector := range f.collectors {
		collector.Describe(descriptions)
	}
}

// Collect implements prometheus.Collector.
func (f *Fleet) Collect(metrics chan<- prometheus.Metric) {
	for _, collector := range f.collectors {
		collector.Collect(metrics)
	}
}

// Queued implements biz.FeedObserver.
func (f *Fleet) Queued(changes int, oldest time.Time) {
	f.queued.Set(float64(changes))
	if oldest.IsZero() {
		f.oldest.Store(0)
		return
	}
	f.oldest.Store(oldest.UnixNano())
}

// Flushed implements biz.FeedObserver.
func (f *Fleet) Flushed(changes int, lag, took time.Duration) {
	f.changes.Add(float64(changes))
	f.lag.Observe(lag.Seconds())
	f.flushes.Observe(took.Seconds())
}

// Dropped implements biz.FeedObserver. The log has one line for all that are dropped before a gap: that of the gap.
func (f *Fleet) Dropped(changes int) {
	f.dropped.Add(float64(changes))
	f.unsaid.Add(int64(changes))
}

// gapLines say why lists are incomplete until a census, and watchers read again.
var gapLines = map[biz.GapReason]string{
	biz.GapWriterDied: "a gap in the change feeds: a podlink has died, or was not heard for too long, and may have lost changes",
	biz.GapStore:      "a gap in the change feeds: the store has failed over or lost data",
	biz.GapDropped:    "a gap in the change feeds: the feeds or the index lack changes of this podlink",
}

// GapWritten implements biz.FeedObserver.
func (f *Fleet) GapWritten(reason biz.GapReason) {
	f.gaps.WithLabelValues(string(reason)).Inc()
	line := []any{log.DefaultMessageKey, gapLines[reason], "reason", string(reason)}
	if reason == biz.GapDropped {
		line = append(line, "count", f.unsaid.Swap(0))
	}
	f.log.Warnw(line...)
}

// IndexChecked implements biz.FleetObserver.
func (f *Fleet) IndexChecked(complete bool) {
	if complete {
		f.complete.Set(1)
		return
	}
	f.complete.Set(0)
}

// CensusBegan implements biz.FleetObserver.
func (f *Fleet) CensusBegan() {
	f.log.Info("a census of the links has begun")
}

// CensusWent implements biz.FleetObserver.
func (f *Fleet) CensusWent(links int) { f.censusLinks.Add(float64(links)) }

// CensusEnded implements biz.FleetObserver.
func (f *Fleet) CensusEnded(links int64, took time.Duration, err error) {
	if err != nil {
		f.censuses.WithLabelValues(censusBrokenOff).Inc()
		f.log.Warnw(log.DefaultMessageKey, "the census of the links was broken off: another one begins by itself",
			"links", links, "took", took.String(), "cause", err.Error())
		return
	}
	f.censuses.WithLabelValues(censusCovered).Inc()
	f.log.Infow(log.DefaultMessageKey, "the census of the links has ended: the index has all of them", "links", links, "took", took.String())
}

// Swept implements biz.FleetObserver.
func (f *Fleet) Swept(verified, stale int) {
	f.swept.WithLabelValues(sweepKept).Add(float64(verified - stale))
	f.swept.WithLabelValues(sweepDropped).Add(float64(stale))
}

// Watching implements biz.WatchObserver.
func (f *Fleet) Watching(delta int) { f.watchers.Add(float64(delta)) }

// Resynced implements biz.WatchObserver.
func (f *Fleet) Resynced(reason biz.ResyncReason) { f.resyncs.WithLabelValues(string(reason)).Inc() }
