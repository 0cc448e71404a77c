package server

import (
	"context"
	"net/http"
	"strings"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/middleware"
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

// traceRequests puts each request into a span. Kratos' own tracing would write the path, and with it the uid, and the
// cause of an error to the span, and would gather all of it for spans that nobody records too.
func traceRequests(provider trace.TracerProvider) middleware.Middleware {
	tracer := provider.Tracer("podlink")
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}
	var caller propagation.TraceContext // Only the trace context is taken from a caller; its baggage is not trusted.
	return func(next middleware.Handler) middleware.Handler {
		return func(ctx context.Context, request any) (any, error) {
			t, ok := transport.FromServerContext(ctx)
			if !ok {
				return next(ctx, request)
			}
			ctx, span := tracer.Start(caller.Extract(ctx, t.RequestHeader()), t.Operation(), options...)
			reply, err := next(ctx, request)
			if err != nil || span.IsRecording() {
				t.ReplyHeader().Set(traceResponse, traceParent(span.SpanContext()))
			}
			if span.IsRecording() {
				describe(span, t, err)
			}
			span.End()
			return reply, err
		}
	}
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
