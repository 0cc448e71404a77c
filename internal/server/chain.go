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

	"podlink/internal/audit"
	"podlink/internal/conf"
	"podlink/internal/service"
)

// Chain is the middleware of both transports, for unary calls and streams. serve has the steps; Unary and Stream adapt it to
// Kratos and to gRPC.
type Chain struct {
	access  *Access
	tracer  *requestTracer
	metrics *Metrics
	doors   *DoorMetrics
	audit   *audit.Log // nil: none
	log     *requestLog
	calls   *inFlight
	watches *watchLimit
}

// ChainOptions is what a Chain is made of.
type ChainOptions struct {
	Server  *conf.Server
	Log     *conf.Log
	Access  *Access // nil: everyone may do everything
	Tracer  trace.TracerProvider
	Metrics *Metrics
	Doors   *DoorMetrics
	Audit   *audit.Log // nil: none
	Logger  log.Logger
}

// NewChain returns the chain, and a function that flushes its log.
func NewChain(o ChainOptions) (*Chain, func()) {
	requests := newRequestLog(o.Log, o.Logger)
	return &Chain{
		access: o.Access, tracer: newRequestTracer(o.Tracer), metrics: o.Metrics, doors: o.Doors, audit: o.Audit, log: requests,
		calls: newInFlight(o.Server.GetMaxInFlight(), o.Doors), watches: newWatchLimit(o.Server.GetMaxWatchesPerCaller(), o.Doors),
	}, requests.repeats.Close
}

// callType distinguishes unary calls from streams: a stream can last for days, so its duration is not a latency.
type callType int

const (
	unaryCall callType = iota
	streamCall
)

// serve runs a call inside the chain. The span is outermost, so that every step has the trace id. Recovery and error mapping
// are innermost, so that a panic is traced, counted and logged like any other failure, with its reason.
func (c *Chain) serve(
	ctx context.Context, t transport.Transporter, typ callType, m *messages, handle func(context.Context) error,
) error {
	start := time.Now()
	ctx, span := c.tracer.begin(ctx, t)
	err := recoverAndMap(ctx, handle)
	took := time.Since(start)
	c.log.record(ctx, t, typ, took, err)
	c.record(ctx, t, *m, err)
	c.metrics.count(t, typ, span.SpanContext(), took, err)
	c.tracer.end(span, t, err)
	return err
}

// Unary is the chain as Kratos middleware. It rejects requests that could not be decoded, and those above server.max_in_flight;
// validating decoded requests is up to the use cases.
func (c *Chain) Unary(next middleware.Handler) middleware.Handler {
	return func(ctx context.Context, request any) (any, error) {
		t, _ := transport.FromServerContext(ctx) // Kratos' servers always set it.
		m := messages{request: request}
		err := c.serve(ctx, t, unaryCall, &m, func(ctx context.Context) (err error) {
			d := decodingFrom(ctx)
			if d.err != nil {
				return d.err
			}
			if err := d.payRest(request); err != nil {
				return err
			}
			if err := c.authorize(ctx, t.Operation(), d, request); err != nil {
				return err
			}
			if err := c.calls.begin(); err != nil {
				return err
			}
			defer c.calls.end()
			m.reply, err = next(ctx, request)
			return err
		})
		if err != nil {
			return nil, err
		}
		return m.reply, nil
	}
}

// authorize decides whether a call is allowed. What its decoding knows need not be looked up again.
func (c *Chain) authorize(ctx context.Context, operation string, d *decoding, request any) error {
	if c.access == nil || d.caller == nil || d.price == nil {
		return c.access.authorize(ctx, operation, request)
	}
	return c.access.allow(&d.caller.Call, operation, d.price.right, request)
}

// Problem logs and counts an item of a batch that failed, as serve does it for a request. It implements service.Problems.
func (c *Chain) Problem(ctx context.Context, problem *kerrors.Error) {
	t, ok := transport.FromServerContext(ctx)
	if !ok {
		return // A call within the process.
	}
	c.log.itemFailed(ctx, t, problem)
	c.metrics.problems.WithLabelValues(t.Operation(), problem.Reason).Inc()
}

// recoverAndMap calls handle, maps its error to the API's, and turns a panic into INTERNAL with the stack as its cause.
// Kratos' recovery middleware is no alternative: it logs the request, which contains the uid.
func recoverAndMap(ctx context.Context, handle func(context.Context) error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = panicError(cause)
		}
	}()
	if err := handle(ctx); err != nil {
		return service.PublicError(err)
	}
	return nil
}

func panicError(cause any) error {
	return service.Internal(fmt.Errorf("panic: %v\n%s", cause, debug.Stack()))
}
