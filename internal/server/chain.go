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

// Chain is the middleware of both transports, for unary calls and for streams. serve has its steps, once for all of them;
// Unary and Stream fit it to a transport.
type Chain struct {
	tracer  *requestTracer
	metrics *Metrics
	log     *requestLog
}

// NewChain returns the chain. The function writes what the log still holds back.
func NewChain(
	c *conf.Log, tracer trace.TracerProvider, metrics *Metrics, logger log.Logger,
) (*Chain, func()) {
	requests := newRequestLog(c, logger)
	return &Chain{newRequestTracer(tracer), metrics, requests}, requests.repeats.Close
}

// callType is what distinguishes the two kinds of call for the chain: a stream may last for days, so its duration is no
// measure of podlink's speed.
type callType int

const (
	unaryCall callType = iota
	streamCall
)

// serve passes a call through the chain. The span is the outermost step, so that everything inside has the trace id.
// Recovery and the mapping of errors are the innermost, so that a panic is traced, counted and logged like any failure,
// with its reason.
func (c *Chain) serve(ctx context.Context, t transport.Transporter, of callType, handle func(context.Context) error) error {
	start := time.Now()
	ctx, span := c.tracer.begin(ctx, t)
	err := recoverAndMap(ctx, handle)
	took := time.Since(start)
	c.log.note(ctx, t, of, took, err)
	c.metrics.count(t, of, span.SpanContext(), took, err)
	c.tracer.end(span, t, err)
	return err
}

// Unary is the chain as Kratos' middleware. A request that could not be decoded is refused inside the chain; what a
// decoded request may hold is the use-cases' to judge.
func (c *Chain) Unary(next middleware.Handler) middleware.Handler {
	return func(ctx context.Context, request any) (any, error) {
		t, _ := transport.FromServerContext(ctx) // Kratos' servers put it into every context.
		var reply any
		err := c.serve(ctx, t, unaryCall, func(ctx context.Context) (err error) {
			if err := decodingFrom(ctx).err; err != nil {
				return err
			}
			reply, err = next(ctx, request)
			return err
		})
		if err != nil {
			return nil, err
		}
		return reply, nil
	}
}

// recoverAndMap carries out a call, and turns its error into the API's and a panic into INTERNAL, with the stack as its
// cause. Kratos' own recovery would write the request, and with it the uid, to the log.
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
