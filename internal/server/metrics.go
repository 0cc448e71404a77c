package server

import (
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/transport"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/health/grpc_health_v1"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/telemetry/histogram"
	"podlink/internal/version"
)

// Metrics counts requests and shows the process. No label ever holds what a caller chose: no uid, namespace or service.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	streams  *prometheus.HistogramVec
	known    map[called]observers // of the API, looked up once; read only
}

// Collectors are the metrics of the other layers.
type Collectors []prometheus.Collector

// NewMetrics returns the metrics of this process, with those of the other layers.
func NewMetrics(others Collectors) (*Metrics, error) {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		known:    make(map[called]observers),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "server_requests_code_total",
			Help: "Requests, by transport, operation, code and reason.",
		}, []string{"kind", "operation", "code", "reason"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "server_requests_seconds",
			Help:    "How long requests took, by transport and operation.",
			Buckets: histogram.SecondsBuckets(),
		}, []string{"kind", "operation"}),
		streams: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "server_streams_seconds",
			Help:    "How long streams lasted, by transport and operation.",
			Buckets: streamBuckets(),
		}, []string{"kind", "operation"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "podlink_build_info",
		Help:        "Always 1; the labels tell which build this is.",
		ConstLabels: prometheus.Labels{"version": version.Version, "go": runtime.Version()},
	})
	build.Set(1)
	for _, collector := range append(Collectors{
		m.requests, m.seconds, m.streams, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}, others...) {
		if err := m.registry.Register(collector); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	for what, of := range calls() {
		m.known[what] = m.observersOf(what, of)
		// From the start: rate() misses the first increment of a new series, and the first of these has to be seen.
		for _, reason := range []v1.ErrorReason{v1.ErrorReason_INTERNAL, v1.ErrorReason_STORE_DATA_CORRUPT} {
			m.requests.WithLabelValues(what.kind, what.operation, strconv.Itoa(http.StatusInternalServerError), reason.String())
		}
	}
	return m, nil
}

// streamBuckets are from a tenth of a second to a day.
func streamBuckets() []float64 { return []float64{.1, 1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600} }

// called is an operation over a transport.
type called struct{ kind, operation string }

// observers are what an answered call of an operation is noted with.
type observers struct {
	succeeded prometheus.Counter
	seconds   prometheus.Observer
}

func (m *Metrics) observersOf(what called, of callType) observers {
	seconds := m.seconds
	if of == streamCall {
		seconds = m.streams
	}
	return observers{
		succeeded: m.requests.WithLabelValues(what.kind, what.operation, strconv.Itoa(http.StatusOK), ""),
		seconds:   seconds.WithLabelValues(what.kind, what.operation),
	}
}

// count notes a call that has ended, how long it took, and its trace if that is recorded.
func (m *Metrics) count(t transport.Transporter, of callType, span trace.SpanContext, took time.Duration, err error) {
	what := called{t.Kind().String(), t.Operation()}
	to, known := m.known[what]
	if !known {
		to = m.observersOf(what, of)
	}
	if public := kerrors.FromError(err); public != nil {
		m.requests.WithLabelValues(what.kind, what.operation, strconv.Itoa(int(public.Code)), public.Reason).Inc()
	} else {
		to.succeeded.Inc()
	}
	histogram.ObserveSeconds(to.seconds, took.Seconds(), span)
}

// calls returns all calls that pass the chain: the API's, its streams over gRPC only, and the health watch.
func calls() map[called]callType {
	all := map[called]callType{{transport.KindGRPC.String(), grpc_health_v1.Health_Watch_FullMethodName}: streamCall}
	for _, method := range v1.Methods() {
		if method.IsStreamingClient() || method.IsStreamingServer() {
			all[called{transport.KindGRPC.String(), v1.Operation(method)}] = streamCall
			continue
		}
		all[called{transport.KindGRPC.String(), v1.Operation(method)}] = unaryCall
		all[called{transport.KindHTTP.String(), v1.Operation(method)}] = unaryCall
	}
	return all
}

// handler answers with the metrics, in the OpenMetrics format with traces as exemplars where the scraper asks for it.
func (m *Metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}
