package server

import (
	"fmt"
	"net/http"
	"runtime"

	"github.com/go-kratos/kratos/v2/middleware"
	kmetrics "github.com/go-kratos/kratos/v2/middleware/metrics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"podlink/internal/version"
)

// Metrics counts requests and shows the process. No label ever holds what a caller chose: no uid, namespace or service.
type Metrics struct {
	registry *prometheus.Registry
	requests metric.Int64Counter
	seconds  metric.Float64Histogram
}

// NewMetrics returns the metrics of this process.
func NewMetrics() (*Metrics, error) {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "podlink_build_info",
		Help:        "Always 1; the labels tell which build this is.",
		ConstLabels: prometheus.Labels{"version": version.Version, "go": runtime.Version()},
	})
	build.Set(1)
	registry.MustRegister(
		build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry), otelprometheus.WithoutScopeInfo())
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	meter := sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter)).Meter("podlink")
	requests, err := meter.Int64Counter("server_requests_code_total", metric.WithUnit("{call}"),
		metric.WithDescription("Requests, by transport, operation, code and reason."))
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	seconds, err := meter.Float64Histogram("server_requests_seconds", metric.WithUnit("s"),
		metric.WithDescription("How long requests took, by transport and operation."),
		metric.WithExplicitBucketBoundaries(.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1))
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return &Metrics{registry: registry, requests: requests, seconds: seconds}, nil
}

func (m *Metrics) middleware() middleware.Middleware {
	return kmetrics.Server(kmetrics.WithRequests(m.requests), kmetrics.WithSeconds(m.seconds))
}

func (m *Metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// NewTracerProvider returns a provider that gives every request its trace id, the caller's where it sent one, for the
// log. Nothing is recorded or exported.
func NewTracerProvider() trace.TracerProvider {
	return sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))
}
