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
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// NewTracerProvider returns a provider that gives every request its trace id, the caller's where it sent one, for the
// log. Nothing is recorded or exported.
func NewTracerProvider() trace.TracerProvider {
	return sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))
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
