package data

import (
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/extra/redisprometheus/v9"

	"podlink/internal/biz"
	"podlink/internal/telemetry/histogram"
)

// What the store's metrics call a command that is no script.
const (
	commandGet   = "HGET"     // of one link
	commandBatch = "pipeline" // of many reads
)

// Two values of the label kind that no row of errorKinds stands for.
const (
	kindUnconfirmed = "unconfirmed"
	kindOther       = "other"
)

// errorKinds are the others, and which errors they stand for.
var errorKinds = []struct {
	kind string
	err  error
}{
	{"outcome_unknown", biz.ErrOutcomeUnknown},
	{"unavailable", biz.ErrStoreUnavailable},
	{"full", biz.ErrStoreFull},
	{"corrupt", biz.ErrStoreDataCorrupt},
	{"deadline", biz.ErrDeadlineExceeded},
	{"canceled", biz.ErrCanceled},
}

// storeMetrics are what the store tells of itself. No label ever holds what a caller chose.
type storeMetrics struct {
	seconds     map[string]prometheus.Observer // by command; every one is there from the start
	failures    *prometheus.CounterVec
	links       *prometheus.CounterVec
	batches     prometheus.Histogram
	lastSuccess atomic.Int64 // in ns since 1970; 0: none yet
	all         []prometheus.Collector
}

// newStoreMetrics returns the metrics of the store, whose client and pipelines may be set later.
func newStoreMetrics(s *Store) *storeMetrics {
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "podlink_store_seconds",
		Help:    "How long calls of the store took, by script or command, with their wait for a round trip.",
		Buckets: histogram.SecondsBuckets(),
	}, []string{"command"})
	m := &storeMetrics{
		seconds: make(map[string]prometheus.Observer),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "podlink_store_errors_total",
			Help: "Calls of the store that failed, by script or command and by kind.",
		}, []string{"command", "kind"}),
		links: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "podlink_links_total",
			Help: "What became of links by calls that may change one, and reads of links that had expired, by script and outcome.",
		}, []string{"command", "outcome"}),
		batches: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "podlink_store_batch_commands",
			Help:    "How many calls shared a round trip.",
			Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512},
		}),
	}
	for _, command := range append([]string{commandGet, commandBatch}, scriptNames()...) {
		m.seconds[command] = seconds.WithLabelValues(command)
		for _, kind := range kindNames() { // From the start: an increase from nothing would not be one.
			m.failures.WithLabelValues(command, kind)
		}
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	m.all = []prometheus.Collector{
		seconds, m.failures, m.links, m.batches,
		gauge("podlink_store_last_success_timestamp_seconds", "When a call of the store last succeeded; 0: not yet.",
			func() float64 { return time.Duration(m.lastSuccess.Load()).Seconds() }),
		gauge("podlink_store_ready", "1 when the last check of the store was in order, 0 when not.",
			func() float64 { return oneIf(s.watch.isReady()) }),
		gauge("podlink_store_may_evict", "1 when Redis may drop links to make room, also where that is allowed.",
			func() float64 { return oneIf(s.watch.mayEvict.Load()) }),
		gauge("podlink_store_waiting_calls", "Calls that wait for a round trip to share.",
			func() float64 { waiting, _ := s.load(); return float64(waiting) }),
		gauge("podlink_store_round_trips", "Round trips under way.",
			func() float64 { _, underWay := s.load(); return float64(underWay) }),
	}
	return m
}

func errorKind(err error) string {
	var unconfirmed *biz.UnconfirmedError
	if errors.As(err, &unconfirmed) {
		return kindUnconfirmed
	}
	for _, row := range errorKinds {
		if errors.Is(err, row.err) {
			return row.kind
		}
	}
	return kindOther
}

// kindNames lists every value of the label kind.
func kindNames() []string {
	names := []string{kindUnconfirmed, kindOther}
	for _, row := range errorKinds {
		names = append(names, row.kind)
	}
	return names
}

// count notes what a script that may change a link answered.
func (m *storeMetrics) count(command, status string, change biz.LinkChange) {
	m.links.WithLabelValues(command, linkOutcome(status, change)).Inc()
}

// countRead notes that a read has found a link of the past.
func (m *storeMetrics) countRead(sc *script, status string) {
	if status == "EXPIRED" {
		m.links.WithLabelValues(sc.name, "expired").Inc()
	}
}

// linkOutcome is what became of the link, as the label outcome has it.
func linkOutcome(status string, change biz.LinkChange) string {
	switch {
	case status != "LINKED" && status != "REMOVED":
		return strings.ToLower(status)
	case !change.Link.Exists():
		return "removed"
	case change.Previous == biz.NoPod:
		return "created"
	case change.Previous != change.Link.Pod:
		return "moved"
	default:
		return "kept"
	}
}

func oneIf(condition bool) float64 {
	if condition {
		return 1
	}
	return 0
}

// load is how many calls wait for a round trip, and how many round trips are under way, on all servers.
func (s *Store) load() (waiting, underWay int) {
	s.pipelines.Range(func(_, known any) bool {
		for _, p := range []*pipeline{known.(*pipelines).plain, known.(*pipelines).confirmed} {
			p.mu.Lock()
			waiting += len(p.queue)
			underWay += p.underWay
			p.mu.Unlock()
		}
		return true
	})
	return waiting, underWay
}

// collectors are the store's metrics, and the driver's of its connections.
func (s *Store) collectors() []prometheus.Collector {
	return append([]prometheus.Collector{redisprometheus.NewCollector("podlink", "redis", s.client)}, s.metrics.all...)
}

// Describe implements prometheus.Collector.
func (s *Store) Describe(descriptions chan<- *prometheus.Desc) {
	for _, collector := range s.collectors() {
		collector.Describe(descriptions)
	}
}

// Collect implements prometheus.Collector.
func (s *Store) Collect(metrics chan<- prometheus.Metric) {
	for _, collector := range s.collectors() {
		collector.Collect(metrics)
	}
}
