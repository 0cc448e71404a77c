package server

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/middleware"
	"github.com/go-kratos/kratos/v2/transport"
	"go.opentelemetry.io/otel/trace"

	"podlink/internal/service"
)

// Chain is the middleware of both transports, outermost first.
type Chain []middleware.Middleware

// NewChain returns the chain. Recovery stands inside tracing, metrics and logging, so that a panic shows in all three;
// errors are mapped inside them, so that all three see the reason.
func NewChain(tracer trace.TracerProvider, metrics *Metrics, logger log.Logger) Chain {
	return Chain{
		traceRequests(tracer),
		metrics.countRequests,
		logFailures(logger),
		recoverPanics,
		mapErrors,
		refuseUndecoded,
	}
}

// callOf names the transport and the operation of a request; they are empty outside one.
func callOf(ctx context.Context) (kind, operation string) {
	if t, ok := transport.FromServerContext(ctx); ok {
		return t.Kind().String(), t.Operation()
	}
	return "", ""
}

// logFailures writes a line for each request that failed: as an error when podlink or its store is at fault, else for
// debugging. It names the operation, never what the request holds.
func logFailures(logger log.Logger) middleware.Middleware {
	return func(next middleware.Handler) middleware.Handler {
		return func(ctx context.Context, request any) (any, error) {
			start := time.Now()
			reply, err := next(ctx, request)
			if err == nil {
				return reply, nil
			}
			public := kerrors.FromError(err)
			level := log.LevelDebug
			if public.Code >= 500 {
				level = log.LevelError
			}
			kind, operation := callOf(ctx)
			_ = log.WithContext(ctx, logger).Log(level,
				log.DefaultMessageKey, "request failed",
				"transport", kind,
				"operation", operation,
				"code", public.Code,
				"reason", public.Reason,
				"took", time.Since(start).String(),
				"cause", causeText(public),
			)
			return reply, err
		}
	}
}

// causeText is what stands behind an error: its cause, or the text that the caller got.
func causeText(err *kerrors.Error) string {
	if cause := err.Unwrap(); cause != nil {
		return cause.Error()
	}
	return err.Message
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
