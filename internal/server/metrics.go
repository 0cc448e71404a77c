package server

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/middleware"
	"github.com/go-kratos/kratos/v2/transport"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/version"
)

// Metrics counts requests and shows the process. No label ever holds what a caller chose: no uid, namespace or service.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

// Collectors are the metrics of the other layers.
type Collectors []prometheus.Collector

// NewMetrics returns the metrics of this process, with those of the other layers.
func NewMetrics(others Collectors) (*Metrics, error) {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "server_requests_code_total",
			Help: "Requests, by transport, operation, code and reason.",
		}, []string{"kind", "operation", "code", "reason"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "server_requests_seconds",
			Help:    "How long requests took, by transport and operation.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1},
		}, []string{"kind", "operation"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "podlink_build_info",
		Help:        "Always 1; the labels tell which build this is.",
		ConstLabels: prometheus.Labels{"version": version.Version, "go": runtime.Version()},
	})
	build.Set(1)
	for _, collector := range append(Collectors{
		m.requests, m.seconds, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}, others...) {
		if err := m.registry.Register(collector); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	for _, operation := range operations() {
		for _, kind := range []transport.Kind{transport.KindHTTP, transport.KindGRPC} {
			// From the start: an increase from nothing would not be one, and each of these is a fault of podlink's.
			m.requests.WithLabelValues(kind.String(), operation, codeInternal, v1.ErrorReason_INTERNAL.String())
		}
	}
	return m, nil
}

// countRequests counts each request, and measures its time.
func (m *Metrics) countRequests(next middleware.Handler) middleware.Handler {
	return func(ctx context.Context, request any) (any, error) {
		start := time.Now()
		reply, err := next(ctx, request)
		kind, operation := callOf(ctx)
		code, reason := strconv.Itoa(http.StatusOK), ""
		if public := kerrors.FromError(err); public != nil {
			code, reason = strconv.Itoa(int(public.Code)), public.Reason
		}
		m.requests.WithLabelValues(kind, operation, code, reason).Inc()
		observe(ctx, m.seconds.WithLabelValues(kind, operation), time.Since(start).Seconds())
		return reply, err
	}
}

// observe notes how long a request took, with its trace if that is recorded.
func observe(ctx context.Context, observer prometheus.Observer, seconds float64) {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsSampled() {
		observer.Observe(seconds)
		return
	}
	observer.(prometheus.ExemplarObserver).ObserveWithExemplar(seconds, prometheus.Labels{"trace_id": span.TraceID().String()})
}

// codeInternal is the code of INTERNAL.
var codeInternal = strconv.Itoa(http.StatusInternalServerError)

// operations lists those of the API, as requests name them.
func operations() []string {
	var names []string
	for _, service := range []grpc.ServiceDesc{
		v1.LinkService_ServiceDesc, v1.StateService_ServiceDesc, v1.WorkloadService_ServiceDesc,
	} {
		for _, method := range service.Methods {
			names = append(names, "/"+service.ServiceName+"/"+method.MethodName)
		}
	}
	return names
}

// handler answers with the metrics, in the OpenMetrics format with traces as exemplars where the scraper asks for it.
func (m *Metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}
