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

// traceResponse is the header that tells a caller in which trace its request is, and as which span: of one that failed, and
// of one that is recorded. It is written as traceparent is (W3C Trace Context, level 2).
const traceResponse = "traceresponse"

func traceParent(span trace.SpanContext) string {
	return "00-" + span.TraceID().String() + "-" + span.SpanID().String() + "-" + span.TraceFlags().String()
}

// requestTracer makes the spans of requests. Kratos' own tracing would write the path, and with it the uid, and the cause of
// an error to the span, and would gather all of it for spans that nobody records too.
type requestTracer struct {
	tracer  trace.Tracer
	options []trace.SpanStartOption
}

func newRequestTracer(provider trace.TracerProvider) *requestTracer {
	return &requestTracer{
		tracer: provider.Tracer("podlink"), options: []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)},
	}
}

// begin puts a request into a span under the caller's. Of a caller only the ids are taken, and whether it traces the
// request: its baggage and its trace state are texts of its own, and not trusted.
func (r *requestTracer) begin(ctx context.Context, t transport.Transporter) (context.Context, trace.Span) {
	ctx = propagation.TraceContext{}.Extract(ctx, t.RequestHeader())
	if caller := trace.SpanContextFromContext(ctx); caller.TraceState().Len() > 0 {
		ctx = trace.ContextWithRemoteSpanContext(ctx, caller.WithTraceState(trace.TraceState{}))
	}
	return r.tracer.Start(ctx, t.Operation(), r.options...)
}

// end tells the caller about the span, and the span about the request.
func (r *requestTracer) end(span trace.Span, t transport.Transporter, err error) {
	if err != nil || span.IsRecording() {
		t.ReplyHeader().Set(traceResponse, traceParent(span.SpanContext()))
	}
	if span.IsRecording() {
		describe(span, t, err)
	}
	span.End()
}

// describe says what a request was and how it ended, in words that are podlink's own: nothing of them is a caller's.
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

// methodOf is a request's method, "_OTHER" for one that is none: that is a caller's text.
func methodOf(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return r.Method
	default:
		return "_OTHER"
	}
}
