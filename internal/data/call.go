package data

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"podlink/internal/observe"
)

// call is one call of the store under way, for the metrics and for the trace of its request.
type call struct {
	metrics *storeMetrics
	command string
	start   time.Time
	span    trace.Span // nil unless the request is traced
}

// begin notes that a call of the store begins: a script or a command, on keys of that kind. The span names neither a key
// nor a value.
func (m *storeMetrics) begin(ctx context.Context, command, kind string) call {
	c := call{metrics: m, command: command, start: time.Now()}
	if parent := trace.SpanFromContext(ctx); parent.IsRecording() {
		_, c.span = parent.TracerProvider().Tracer("podlink/data").Start(ctx, command,
			trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(c.start),
			trace.WithAttributes(semconv.DBSystemNameRedis, attribute.String("podlink.key_kind", kind)))
	}
	return c
}

// describe adds to the span what is known of the call in the end.
func (c call) describe(attributes ...attribute.KeyValue) {
	if c.span != nil {
		c.span.SetAttributes(attributes...)
	}
}

// end notes what became of the call.
func (c call) end(err error) {
	end := time.Now()
	observe.Seconds(c.metrics.seconds[c.command], end.Sub(c.start).Seconds(), c.trace())
	kind := ""
	if err == nil {
		c.metrics.lastSuccess.Store(end.UnixNano())
	} else {
		kind = errorKind(err)
		c.metrics.failures.WithLabelValues(c.command, kind).Inc()
	}
	if c.span == nil {
		return
	}
	if err != nil {
		c.span.SetAttributes(semconv.ErrorTypeKey.String(kind))
		c.span.SetStatus(codes.Error, kind)
	}
	c.span.End(trace.WithTimestamp(end))
}

// trace names the call in the trace of its request; it is not valid where there is none.
func (c call) trace() trace.SpanContext {
	if c.span == nil {
		return trace.SpanContext{}
	}
	return c.span.SpanContext()
}
