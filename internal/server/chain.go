package server

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/middleware"
	"github.com/go-kratos/kratos/v2/transport"
	"go.opentelemetry.io/otel/trace"

	"podlink/internal/conf"
	"podlink/internal/service"
)

// Chain is the middleware of both transports, outermost first.
type Chain []middleware.Middleware

// NewChain returns the chain. Recovery stands inside tracing, metrics and logging, so that a panic shows in all three;
// errors are mapped inside them, so that all three see the reason. The function writes what the log still holds back.
func NewChain(
	c *conf.Log, tracer trace.TracerProvider, metrics *Metrics, logger log.Logger,
) (Chain, func()) {
	requests := newRequestLog(c, logger)
	return Chain{
		watchRequests(newRequestTracer(tracer), metrics),
		requests.log,
		recoverPanics,
		mapErrors,
		refuseUndecoded,
	}, requests.repeats.Close
}

// watchRequests traces each request, and counts it. Both in one, for each look for the transport in a context costs as much
// as counting does.
func watchRequests(tracer *requestTracer, metrics *Metrics) middleware.Middleware {
	return func(next middleware.Handler) middleware.Handler {
		return func(ctx context.Context, request any) (any, error) {
			t, ok := transport.FromServerContext(ctx)
			if !ok {
				return next(ctx, request)
			}
			start := time.Now()
			ctx, span := tracer.begin(ctx, t)
			reply, err := next(ctx, request)
			metrics.count(t, span.SpanContext(), time.Since(start), err)
			tracer.end(span, t, err)
			return reply, err
		}
	}
}

// callOf names the transport and the operation of a request; they are empty outside one.
func callOf(ctx context.Context) (kind, operation string) {
	if t, ok := transport.FromServerContext(ctx); ok {
		return t.Kind().String(), t.Operation()
	}
	return "", ""
}

// recoverPanics turns a panic into INTERNAL, with the stack as its cause. Kratos' own recovery would write the request,
// and with it the uid, to the log.
func recoverPanics(next middleware.Handler) middleware.Handler {
	return func(ctx context.Context, request any) (reply any, err error) {
		defer func() {
			if cause := recover(); cause != nil {
				reply, err = nil, panicError(cause)
			}
		}()
		return next(ctx, request)
	}
}

func panicError(cause any) error {
	return service.Internal(fmt.Errorf("panic: %v\n%s", cause, debug.Stack()))
}

// mapErrors turns the domain's errors into the API's.
func mapErrors(next middleware.Handler) middleware.Handler {
	return func(ctx context.Context, request any) (any, error) {
		reply, err := next(ctx, request)
		if err != nil {
			return nil, service.PublicError(err)
		}
		return reply, nil
	}
}

// refuseUndecoded refuses a request that could not be decoded. What a decoded request may hold is the use-cases' to
// judge.
func refuseUndecoded(next middleware.Handler) middleware.Handler {
	return func(ctx context.Context, request any) (any, error) {
		if err := decodingFrom(ctx).err; err != nil {
			return nil, err
		}
		return next(ctx, request)
	}
}
