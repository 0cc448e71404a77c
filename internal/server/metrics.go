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
	"podlink/internal/service"
	"podlink/internal/telemetry/histogram"
	"podlink/internal/version"
)

// Metrics is podlink's Prometheus registry and the metrics of requests. No label has a value that callers choose: no uid,
// namespace or service.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	streams  *prometheus.HistogramVec
	problems *prometheus.CounterVec
	calls    map[callKey]callMetrics // of the API, looked up once; read only
}

// Collectors are the metrics of the other layers.
type Collectors []prometheus.Collector

// NewMetrics returns the metrics of requests and of this process, together with those of the other layers.
func NewMetrics(others Collectors) (*Metrics, error) {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		calls:    make(map[callKey]callMetrics),
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
		problems: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "podlink_batch_problems_total",
			Help: "Items of batch requests that failed, by operation and reason.",
		}, []string{"operation", "reason"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "podlink_build_info",
		Help:        "Always 1; the labels identify the build.",
		ConstLabels: prometheus.Labels{"version": version.Version, "go": runtime.Version()},
	})
	build.Set(1)
	for _, collector := range append(Collectors{
		m.requests, m.seconds, m.streams, m.problems, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}, others...) {
		if err := m.registry.Register(collector); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	for key, typ := range apiCalls() {
		m.calls[key] = m.metricsOf(key, typ)
		// Pre-create the series: rate() misses the first increment of a new one, and for these it matters.
		for _, reason := range []v1.ErrorReason{v1.ErrorReason_INTERNAL, v1.ErrorReason_STORE_DATA_CORRUPT} {
			m.requests.WithLabelValues(key.kind, key.operation, strconv.Itoa(http.StatusInternalServerError), reason.String())
			if service.HasProblems(key.operation) {
				m.problems.WithLabelValues(key.operation, reason.String())
			}
		}
	}
	return m, nil
}

// streamBuckets returns the buckets of stream durations: 0.1 s to a day.
func streamBuckets() []float64 { return []float64{.1, 1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600} }

// callKey is an operation on a transport.
type callKey struct{ kind, operation string }

// callMetrics are the metrics of successful calls of an operation.
type callMetrics struct {
	succeeded prometheus.Counter
	seconds   prometheus.Observer
}

func (m *Metrics) metricsOf(key callKey, typ callType) callMetrics {
	seconds := m.seconds
	if typ == streamCall {
		seconds = m.streams
	}
	return callMetrics{
		succeeded: m.requests.WithLabelValues(key.kind, key.operation, strconv.Itoa(http.StatusOK), ""),
		seconds:   seconds.WithLabelValues(key.kind, key.operation),
	}
}

// count records the outcome and duration of a call that has ended, with its trace as the exemplar if it is sampled.
func (m *Metrics) count(t transport.Transporter, typ callType, span trace.SpanContext, took time.Duration, err error) {
	key := callKey{t.Kind().String(), t.Operation()}
	of, ok := m.calls[key]
	if !ok {
		of = m.metricsOf(key, typ)
	}
	if public := kerrors.FromError(err); public != nil {
		m.requests.WithLabelValues(key.kind, key.operation, strconv.Itoa(int(public.Code)), public.Reason).Inc()
	} else {
		of.succeeded.Inc()
	}
	histogram.ObserveSeconds(of.seconds, took.Seconds(), span)
}

// apiCalls returns all operations that pass the chain: the API's, and the health watch.
func apiCalls() map[callKey]callType {
	all := map[callKey]callType{{transport.KindGRPC.String(), grpc_health_v1.Health_Watch_FullMethodName}: streamCall}
	for _, method := range v1.Methods() {
		typ := unaryCall
		if method.IsStreamingClient() || method.IsStreamingServer() {
			typ = streamCall
		}
		all[callKey{transport.KindGRPC.String(), v1.Operation(method)}] = typ
		all[callKey{transport.KindHTTP.String(), v1.Operation(method)}] = typ
	}
	return all
}

// handler serves the metrics, in the OpenMetrics format with trace exemplars to scrapers that accept it.
func (m *Metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}
