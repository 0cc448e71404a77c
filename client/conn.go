package client

import (
	"context"
	"sync"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/middleware"
	"github.com/go-kratos/kratos/v2/transport"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
)

// conn is what the generated clients call: it gives each call its time and its span, repeats what is safe to repeat, and
// answers with errors of this package. NewStream does so for streams, which have no time and are not repeated.
type conn struct {
	grpc.ClientConnInterface // carries out one attempt
	timeout                  time.Duration
	retries                  *retryBudget    // nil: a call is one attempt
	open                     context.Context //nolint:containedctx // Its end is the client's, not a call's.
	proof                    proof
}

// Invoke implements grpc.ClientConnInterface.
func (c conn) Invoke(ctx context.Context, method string, request, reply any, options ...grpc.CallOption) error {
	if c.open.Err() != nil {
		return withCause(ErrUnavailable, errClosed)
	}
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	defer context.AfterFunc(c.open, cancel)() //nolint:contextcheck // Close ends the calls, and has no context.
	ctx, span := startSpan(ctx, method)
	defer span.End()
	if c.retries != nil {
		c.retries.earn()
	}
	err := c.invoke(ctx, caller, method, request, reply, options)
	if err != nil {
		markFailed(span, err)
	}
	return err
}

func startSpan(ctx context.Context, method string) (context.Context, trace.Span) {
	return otel.Tracer("podlink/client").Start(ctx, method, trace.WithSpanKind(trace.SpanKindClient))
}

// markFailed says in the span with which reason a call has failed.
func markFailed(span trace.Span, err error) {
	reason := kerrors.Reason(err)
	span.SetAttributes(attribute.String("error.type", reason))
	span.SetStatus(codes.Error, reason)
}

// propagate sends podlink the trace that a call is part of.
func propagate(next middleware.Handler) middleware.Handler {
	return func(ctx context.Context, request any) (any, error) {
		if t, ok := transport.FromClientContext(ctx); ok {
			propagation.TraceContext{}.Inject(ctx, t.RequestHeader())
		}
		return next(ctx, request)
	}
}

// lazyConn is a connection that is made with its first call.
type lazyConn struct {
	dial func() (grpc.ClientConnInterface, func() error, error)

	mu     sync.Mutex
	conn   grpc.ClientConnInterface
	hangUp func() error
	closed bool
}

func (l *lazyConn) get() (grpc.ClientConnInterface, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, withCause(ErrUnavailable, errClosed)
	}
	if l.conn == nil {
		conn, hangUp, err := l.dial()
		if err != nil {
			return nil, withCause(ErrUnavailable, err)
		}
		l.conn, l.hangUp = conn, hangUp
	}
	return l.conn, nil
}

// Invoke implements grpc.ClientConnInterface.
func (l *lazyConn) Invoke(ctx context.Context, method string, request, reply any, options ...grpc.CallOption) error {
	conn, err := l.get()
	if err != nil {
		return err
	}
	return conn.Invoke(ctx, method, request, reply, options...)
}

// NewStream implements grpc.ClientConnInterface.
func (l *lazyConn) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	conn, err := l.get()
	if err != nil {
		return nil, err
	}
	return conn.NewStream(ctx, desc, method, options...)
}

func (l *lazyConn) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.hangUp == nil {
		return nil
	}
	return l.hangUp()
}
