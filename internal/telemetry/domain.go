package telemetry

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"podlink/internal/biz"
)

// Domain is the biz.Observer: it collects the metrics of the use cases for Prometheus, and traces Compute. No label has a value
// that callers choose.
type Domain struct {
	computes *prometheus.CounterVec
	batches  *prometheus.HistogramVec
	roster   *podRoster

	pods, services, silent, age *prometheus.Desc
}

// NewDomain returns the observer.
func NewDomain() *Domain {
	d := &Domain{
		computes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "podlink_computes_total",
			Help: "Calls of ComputeLinkedPod, by outcome.",
		}, []string{"outcome"}),
		batches: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "podlink_batch_entries",
			Help:    "Distinct entries per batch request, by kind.",
			Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000},
		}, []string{"kind"}),
		roster: newPodRoster(),
		pods: prometheus.NewDesc("podlink_pods",
			"Pods that reported to this podlink, or that it read for ComputeLinkedPod, by state.", []string{"state"}, nil),
		services: prometheus.NewDesc("podlink_pod_services", "How many services those are of.", nil, nil),
		silent: prometheus.NewDesc("podlink_pod_services_silent",
			"Services with pods in doubt and no live one: none of their pods is heard.", nil, nil),
		age: prometheus.NewDesc("podlink_pod_view_age_seconds", "How old the oldest of those reports and readings is.", nil, nil),
	}
	for _, outcome := range computeOutcomes { // Pre-create the series: rate() misses the first increment of a new one.
		d.computes.WithLabelValues(outcome)
	}
	for _, kind := range batchKinds {
		d.batches.WithLabelValues(kind)
	}
	return d
}

// Describe implements prometheus.Collector.
func (d *Domain) Describe(descriptions chan<- *prometheus.Desc) {
	d.computes.Describe(descriptions)
	d.batches.Describe(descriptions)
	for _, desc := range []*prometheus.Desc{d.pods, d.services, d.silent, d.age} {
		descriptions <- desc
	}
}

// Collect implements prometheus.Collector.
func (d *Domain) Collect(metrics chan<- prometheus.Metric) {
	d.computes.Collect(metrics)
	d.batches.Collect(metrics)
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	count := d.roster.count()
	for state, name := range podStates {
		gauge(d.pods, float64(count.pods[state]), name)
	}
	gauge(d.services, float64(count.services))
	gauge(d.silent, float64(count.silent))
	gauge(d.age, count.age.Seconds())
}

// The values of the label outcome of podlink_computes_total, and of the span attribute podlink.outcome.
const (
	outcomeExisting  = "existing"
	outcomeCreated   = "created"
	outcomeRelinked  = "relinked"
	outcomeNoPod     = "no_available_pod"
	outcomeContended = "contended"
	outcomeFailed    = "failed"
)

var computeOutcomes = []string{
	outcomeExisting, outcomeCreated, outcomeRelinked, outcomeNoPod, outcomeContended, outcomeFailed,
}

// computeOutcome returns the outcome of a compute as a label. After a panic the result has neither outcome nor error.
func computeOutcome(result biz.ComputeResult) string {
	switch {
	case result.Outcome == biz.Existing:
		return outcomeExisting
	case result.Outcome == biz.Created:
		return outcomeCreated
	case result.Outcome == biz.Relinked:
		return outcomeRelinked
	case errors.Is(result.Err, biz.ErrNoAvailablePod):
		return outcomeNoPod
	case errors.Is(result.Err, biz.ErrContended):
		return outcomeContended
	default:
		return outcomeFailed
	}
}

// ComputeStarted implements biz.Observer. It starts a span if the request is recorded.
func (*Domain) ComputeStarted(ctx context.Context, service biz.ServiceKey) context.Context {
	return startSpan(ctx, "LinkUsecase.Compute", service)
}

func startSpan(ctx context.Context, name string, service biz.ServiceKey) context.Context {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx
	}
	ctx, _ = parent.TracerProvider().Tracer("podlink/biz").Start(ctx, name, trace.WithAttributes(
		attribute.String("podlink.namespace", service.Namespace), attribute.String("podlink.service", service.Service)))
	return ctx
}

// ComputeEnded implements biz.Observer. If the span in ctx is recording, it is ComputeStarted's, which ComputeEnded ends.
func (d *Domain) ComputeEnded(ctx context.Context, result biz.ComputeResult) {
	outcome := computeOutcome(result)
	d.computes.WithLabelValues(outcome).Inc()
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(attribute.String("podlink.outcome", outcome), attribute.Int("podlink.attempts", result.Attempts))
	if result.Outcome == 0 {
		span.SetStatus(codes.Error, outcome)
	}
	span.End()
}

// ComputesStarted implements biz.Observer. It starts a span if the request is recorded.
func (*Domain) ComputesStarted(ctx context.Context, service biz.ServiceKey) context.Context {
	return startSpan(ctx, "LinkUsecase.BatchCompute", service)
}

// ComputesEnded implements biz.Observer. The span has the number of items, and of those without a link.
func (d *Domain) ComputesEnded(ctx context.Context, results []biz.ComputeResult) {
	failed := 0
	for _, result := range results {
		d.computes.WithLabelValues(computeOutcome(result)).Inc()
		if result.Outcome == 0 {
			failed++
		}
	}
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(attribute.Int("podlink.items", len(results)), attribute.Int("podlink.failed_items", failed))
	if failed > 0 {
		span.SetStatus(codes.Error, "items failed")
	}
	span.End()
}

// batchKinds are the values of the label kind of podlink_batch_entries.
var batchKinds = [...]string{
	biz.LinkBatch: "links", biz.WorkloadBatch: "workloads", biz.ComputeBatch: "computes", biz.SetBatch: "sets",
	biz.RemoveBatch: "removals", biz.VerifyBatch: "checks",
}

// BatchStarted implements biz.Observer.
func (d *Domain) BatchStarted(kind biz.Batch, entries int) {
	d.batches.WithLabelValues(batchKinds[kind]).Observe(float64(entries))
}

// PodReported implements biz.Observer.
func (d *Domain) PodReported(service biz.ServiceKey, pod biz.Pod) {
	d.roster.report(service, pod, time.Now())
}

// PodRemoved implements biz.Observer.
func (d *Domain) PodRemoved(service biz.ServiceKey, pod biz.PodID) { d.roster.remove(service, pod) }

// PodsRead implements biz.Observer.
func (d *Domain) PodsRead(service biz.ServiceKey, pods []biz.Pod, asOf time.Time) {
	d.roster.read(service, pods, asOf)
}
