package rdb

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/extra/redisprometheus/v9"
	"github.com/redis/go-redis/v9"

	"podlink/internal/telemetry/histogram"
)

// Metrics is the prometheus.Collector of the store's metrics. No label value comes from a caller.
type Metrics struct {
	seconds     map[string]prometheus.Observer // by command
	failures    *prometheus.CounterVec
	batchSizes  prometheus.Histogram
	lastSuccess atomic.Int64 // Unix time in ns; 0: none yet
	collectors  []prometheus.Collector
}

func newMetrics(scripts []*Script) *Metrics {
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "podlink_store_seconds",
		Help:    "How long calls of the store took, by script or command, including their wait for a round trip.",
		Buckets: histogram.SecondsBuckets(),
	}, []string{"command"})
	m := &Metrics{
		seconds: make(map[string]prometheus.Observer),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "podlink_store_errors_total",
			Help: "Calls of the store that failed, by script or command and by kind.",
		}, []string{"command", "kind"}),
		batchSizes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "podlink_store_batch_commands",
			Help:    "How many calls shared a round trip.",
			Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512},
		}),
	}
	commands := []string{commandHGet, commandRead, commandPipeline}
	for _, script := range scripts {
		commands = append(commands, script.Name)
	}
	for _, command := range commands {
		m.seconds[command] = seconds.WithLabelValues(command)
		for _, class := range classNames { // Pre-create the series: rate() misses the first increment of a new one.
			m.failures.WithLabelValues(command, class)
		}
	}
	m.collectors = []prometheus.Collector{seconds, m.failures, m.batchSizes}
	return m
}

// addGauges adds the collectors that read their value at each scrape: from the driver, the coalescers and the health.
func (m *Metrics) addGauges(driver redis.UniversalClient, coalescers *coalescers, health *Health) {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	m.collectors = append(m.collectors,
		redisprometheus.NewCollector("podlink", "redis", driver),
		gauge("podlink_store_last_success_timestamp_seconds", "When a call of the store last succeeded; 0: not yet.",
			func() float64 { return time.Duration(m.lastSuccess.Load()).Seconds() }),
		gauge("podlink_store_ready", "1 when the last check of the store passed, 0 when not.",
			func() float64 { return oneIf(health.isReady()) }),
		gauge("podlink_store_may_evict", "1 when Redis may drop links to make room, also where that is allowed.",
			func() float64 { return oneIf(health.mayEvict.Load()) }),
		gauge("podlink_store_waiting_calls", "Calls that wait for a round trip to share.",
			func() float64 { queuedCalls, _ := coalescers.load(); return float64(queuedCalls) }),
		gauge("podlink_store_round_trips", "Round trips in flight.",
			func() float64 { _, inFlight := coalescers.load(); return float64(inFlight) }),
	)
}

func oneIf(condition bool) float64 {
	if condition {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(descriptions chan<- *prometheus.Desc) {
	for _, collector := range m.collectors {
		collector.Describe(descriptions)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(metrics chan<- prometheus.Metric) {
	for _, collector := range m.collectors {
		collector.Collect(metrics)
	}
}
