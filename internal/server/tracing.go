package server

import (
	"context"
	"net/http"
	"strings"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/transport"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// traceResponse is the header with the trace and span id of a request that failed or is recorded, in the format of
// traceparent (W3C Trace Context, level 2).
const traceResponse = "traceresponse"

func traceParent(span trace.SpanContext) string {
	return "00-" + span.TraceID().String() + "-" + span.SpanID().String() + "-" + span.TraceFlags().String()
}

// requestTracer creates the spans of requests. Kratos' tracing middleware is no alternative: it puts the path, which contains
// the uid, and error causes into spans, and collects them even for spans that are not recorded.
type requestTracer struct {
	tracer  trace.Tracer
	options []trace.SpanStartOption
}

func newRequestTracer(provider trace.TracerProvider) *requestTracer {
	return &requestTracer{
		tracer: provider.Tracer("podlink"), options: []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)},
	}
}

// begin starts a request's span as a child of the caller's. It takes the caller's ids and sampling flag only: baggage and
// trace state are arbitrary text, and not trusted.
func (r *requestTracer) begin(ctx context.Context, t transport.Transporter) (context.Context, trace.Span) {
	ctx = propagation.TraceContext{}.Extract(ctx, t.RequestHeader())
	if caller := trace.SpanContextFromContext(ctx); caller.TraceState().Len() > 0 {
		ctx = trace.ContextWithRemoteSpanContext(ctx, caller.WithTraceState(trace.TraceState{}))
	}
	return r.tracer.Start(ctx, t.Operation(), r.options...)
}

// end ends a request's span. It sets traceresponse for requests that failed or are recorded.
func (r *requestTracer) end(span trace.Span, t transport.Transporter, err error) {
	if err != nil || span.IsRecording() {
		t.ReplyHeader().Set(traceResponse, traceParent(span.SpanContext()))
	}
	if span.IsRecording() {
		describe(span, t, err)
	}
	span.End()
}

// describe adds the request and its outcome to its span. No attribute has a text that callers choose.
func describe(span trace.Span, t transport.Transporter, err error) {
	span.SetAttributes(semconv.RPCMethod(strings.TrimPrefix(t.Operation(), "/")))
	if h, ok := t.(khttp.Transporter); ok {
		span.SetAttributes(semconv.HTTPRequestMethodKey.String(methodOf(h.Request())))
		if route := h.PathTemplate(); route != "" {
			span.SetAttributes(semconv.HTTPRoute(route))
		}
	} else {
		span.SetAttributes(semconv.RPCSystemNameGRPC)
	}
	if public := kerrors.FromError(err); public != nil {
		span.SetAttributes(semconv.ErrorTypeKey.String(public.Reason))
		if public.Code >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, public.Reason)
		}
	}
}

// methodOf returns the HTTP method, "_OTHER" for an unknown one: that is a caller's text.
func methodOf(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return r.Method
	default:
		return "_OTHER"
	}
}
