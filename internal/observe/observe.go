// Package observe is what the layers share to tell what a call has cost: histograms of its time
// that name its trace.
package observe

import (
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
)

// SecondsBuckets are those of every histogram of how long something took: 0.1 ms to 1 s.
func SecondsBuckets() []float64 {
	return []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1}
}

// Seconds counts how long something took, with its trace as an exemplar where that is exported.
func Seconds(observer prometheus.Observer, seconds float64, span trace.SpanContext) {
	if !span.IsSampled() {
		observer.Observe(seconds)
		return
	}
	observer.(prometheus.ExemplarObserver).ObserveWithExemplar(seconds, prometheus.Labels{"trace_id": span.TraceID().String()})
}
