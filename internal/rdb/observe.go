package rdb

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"podlink/internal/telemetry/histogram"
)

// Call is a call of the store in progress, for the metrics and for the trace of its request.
type Call struct {
	metrics *Metrics
	command string
	start   time.Time
	span    trace.Span // nil unless the request is traced
}

// begin starts a call: a script or a command, on a key of that kind. The span names neither a key nor a value.
func (m *Metrics) begin(ctx context.Context, command, kind string) Call {
	c := Call{metrics: m, command: command, start: time.Now()}
	if parent := trace.SpanFromContext(ctx); parent.IsRecording() {
		_, c.span = parent.TracerProvider().Tracer("podlink/data").Start(ctx, command,
			trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(c.start),
			trace.WithAttributes(semconv.DBSystemNameRedis, attribute.String("podlink.key_kind", kind)))
	}
	return c
}

// Decoded ends the call. An err means that the caller could not decode the value: it counts as Corrupt.
func (c Call) Decoded(err error) {
	if err != nil {
		err = withClass(Corrupt, err)
	}
	c.end(err)
}

// describe adds attributes to the span.
func (c Call) describe(attributes ...attribute.KeyValue) {
	if c.span != nil {
		c.span.SetAttributes(attributes...)
	}
}

// end records the call's result.
func (c Call) end(err error) {
	end := time.Now()
	histogram.ObserveSeconds(c.metrics.seconds[c.command], end.Sub(c.start).Seconds(), c.trace())
	class := ClassOf(err)
	if err == nil {
		c.metrics.lastSuccess.Store(end.UnixNano())
	} else {
		c.metrics.failures.WithLabelValues(c.command, class.String()).Inc()
	}
	if c.span == nil {
		return
	}
	if err != nil {
		c.span.SetAttributes(semconv.ErrorTypeKey.String(class.String()))
		c.span.SetStatus(codes.Error, class.String())
	}
	c.span.End(trace.WithTimestamp(end))
}

// trace returns the call's place in the trace of its request; it is not valid where there is none.
func (c Call) trace() trace.SpanContext {
	if c.span == nil {
		return trace.SpanContext{}
	}
	return c.span.SpanContext()
}
