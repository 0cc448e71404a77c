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

// Call records a call of the store in the metrics and in the trace of its request.
type Call struct {
	metrics *Metrics
	command string
	start   time.Time
	span    trace.Span // nil unless the request is traced
}

// begin starts a call of a script or a command on a key of the kind. The span contains neither keys nor values.
func (m *Metrics) begin(ctx context.Context, command, kind string) Call {
	c := Call{metrics: m, command: command, start: time.Now()}
	if parent := trace.SpanFromContext(ctx); parent.IsRecording() {
		_, c.span = parent.TracerProvider().Tracer("podlink/data").Start(ctx, command,
			trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(c.start),
			trace.WithAttributes(semconv.DBSystemNameRedis, attribute.String("podlink.key_kind", kind)))
	}
	return c
}

// Decoded ends the call. err is the caller's error of decoding the value; it counts as Corrupt.
func (c Call) Decoded(err error) {
	if err != nil {
		err = withClass(Corrupt, err)
	}
	c.end(err)
}

// replied ends the call of a script.
func (c Call) replied(reply Reply, err error) {
	if err == nil {
		c.describe(semconv.DBResponseStatusCode(reply.Status()))
	}
	if err == nil && reply.Unconfirmed != nil {
		err = unconfirmedError(reply.Unconfirmed)
	}
	c.end(err)
}

// describe adds attributes to the span.
func (c Call) describe(attributes ...attribute.KeyValue) {
	if c.span != nil {
		c.span.SetAttributes(attributes...)
	}
}

// end records the result of the call.
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

// trace returns the context of the call's span; it is not valid if the request is not traced.
func (c Call) trace() trace.SpanContext {
	if c.span == nil {
		return trace.SpanContext{}
	}
	return c.span.SpanContext()
}
