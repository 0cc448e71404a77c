// Package histogram observes latencies with traces as exemplars.
//
// It imports no other package of podlink, because internal/rdb uses it, which must not depend on the domain or the configuration.
package histogram

import (
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
)

// SecondsBuckets returns the buckets of all latency histograms: 0.1 ms to 1 s.
func SecondsBuckets() []float64 {
	return []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1}
}

// ObserveSeconds observes a latency. A sampled trace becomes its exemplar; others are not exported.
func ObserveSeconds(observer prometheus.Observer, seconds float64, span trace.SpanContext) {
	if !span.IsSampled() {
		observer.Observe(seconds)
		return
	}
	observer.(prometheus.ExemplarObserver).ObserveWithExemplar(seconds, prometheus.Labels{"trace_id": span.TraceID().String()})
}
