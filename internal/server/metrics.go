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
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"podlink/internal/version"
)

// Metrics counts requests and shows the process. No label ever holds what a caller chose: no uid, namespace or service.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

// NewMetrics returns the metrics of this process, with those of the store.
func NewMetrics(store prometheus.Collector) (*Metrics, error) {
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
	for _, collector := range []prometheus.Collector{
		m.requests, m.seconds, build, store,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := m.registry.Register(collector); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
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
		m.seconds.WithLabelValues(kind, operation).Observe(time.Since(start).Seconds())
		return reply, err
	}
}

func (m *Metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
