package biz

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Metrics are what the use-cases tell of themselves. It is a prometheus.Collector. No label ever holds what a caller
// chose.
type Metrics struct {
	computes *prometheus.CounterVec
	batches  *prometheus.HistogramVec
	pods     *PodViews

	podsByState, services, age *prometheus.Desc
}

// NewMetrics returns the metrics, with those of the views.
func NewMetrics(pods *PodViews) *Metrics {
	m := &Metrics{
		computes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "podlink_computes_total",
			Help: "What ComputeLinkedPod has decided, by outcome.",
		}, []string{"outcome"}),
		batches: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "podlink_batch_entries",
			Help:    "How many distinct entries batches asked for, by kind.",
			Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000},
		}, []string{"kind"}),
		pods: pods,
		podsByState: prometheus.NewDesc("podlink_pods",
			"Pods of the services for which ComputeLinkedPod has met a standing link, or no pod, within the last minute, as last read.",
			[]string{"state"}, nil),
		services: prometheus.NewDesc("podlink_pod_services", "How many services those are.", nil, nil),
		age:      prometheus.NewDesc("podlink_pod_view_age_seconds", "How old the oldest of those readings is.", nil, nil),
	}
	for _, outcome := range computeOutcomes { // From the start: an increase from nothing would not be one.
		m.computes.WithLabelValues(outcome)
	}
	for _, kind := range []string{batchOfLinks, batchOfWorkloads} {
		m.batches.WithLabelValues(kind)
	}
	return m
}

// The values of the label kind of podlink_batch_entries.
const (
	batchOfLinks     = "links"
	batchOfWorkloads = "workloads"
)

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(descriptions chan<- *prometheus.Desc) {
	m.computes.Describe(descriptions)
	m.batches.Describe(descriptions)
	for _, desc := range []*prometheus.Desc{m.podsByState, m.services, m.age} {
		descriptions <- desc
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(metrics chan<- prometheus.Metric) {
	m.computes.Collect(metrics)
	m.batches.Collect(metrics)
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	pods, services, age := m.pods.seen()
	for status, name := range podStatusNames {
		if name != "" {
			gauge(m.podsByState, float64(pods[status]), name)
		}
	}
	gauge(m.services, float64(services))
	gauge(m.age, age.Seconds())
}

// The values of the label outcome of podlink_computes_total, and of the span's attribute of that name.
const (
	decidedExisting  = "existing"
	decidedCreated   = "created"
	decidedRelinked  = "relinked"
	decidedNoPod     = "no_available_pod"
	decidedContended = "contended"
	decidedNothing   = "failed"
)

var computeOutcomes = []string{
	decidedExisting, decidedCreated, decidedRelinked, decidedNoPod, decidedContended, decidedNothing,
}

// decision is a call of Compute under way, for the metrics and for the trace of its request.
type decision struct {
	metrics  *Metrics
	span     trace.Span
	attempts int // to link
}

// decide notes that Compute begins. The span names the service, and never the uid.
func (m *Metrics) decide(ctx context.Context, key LinkKey) (context.Context, *decision) {
	d := &decision{metrics: m}
	if parent := trace.SpanFromContext(ctx); parent.IsRecording() {
		ctx, d.span = parent.TracerProvider().Tracer("podlink/biz").Start(ctx, "LinkUsecase.Compute", trace.WithAttributes(
			attribute.String("podlink.namespace", key.Namespace), attribute.String("podlink.service", key.Service)))
	}
	return ctx, d
}

// end notes what Compute has decided. It has neither an outcome nor an error when it panics.
func (d *decision) end(outcome Outcome, err error) {
	decided := decidedAs(outcome, err)
	d.metrics.computes.WithLabelValues(decided).Inc()
	if d.span == nil {
		return
	}
	d.span.SetAttributes(attribute.String("podlink.outcome", decided), attribute.Int("podlink.attempts", d.attempts))
	if outcome == 0 {
		d.span.SetStatus(codes.Error, decided)
	}
	d.span.End()
}

func decidedAs(outcome Outcome, err error) string {
	switch {
	case outcome == Existing:
		return decidedExisting
	case outcome == Created:
		return decidedCreated
	case outcome == Relinked:
		return decidedRelinked
	case errors.Is(err, ErrNoAvailablePod):
		return decidedNoPod
	case errors.Is(err, errContended):
		return decidedContended
	default:
		return decidedNothing
	}
}

// shownAge is how old a reading of a service's pods may be to be counted in the metrics: beyond it nobody asks for it.
const shownAge = time.Minute

// seen counts the pods, by status, and the services of the views that are younger than shownAge, and returns the age of
// the oldest of them.
func (v *PodViews) seen() (pods [statuses]int, services int, age time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	for _, view := range v.views {
		old := now.Sub(view.asOf)
		if view.pods == nil || old > shownAge {
			continue
		}
		services++
		age = max(age, old)
		for status, n := range view.counts {
			pods[status] += n
		}
	}
	return pods, services, age
}
