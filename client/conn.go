package client

import (
	"context"
	"errors"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/middleware"
	"github.com/go-kratos/kratos/v2/selector"
	"github.com/go-kratos/kratos/v2/transport"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

const (
	// firstPause and longestPause are between the tries of a call.
	firstPause   = 20 * time.Millisecond
	longestPause = 250 * time.Millisecond
)

// pauses returns the pauses between tries, which grow and vary by half.
func pauses() *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{
		InitialInterval: firstPause, Multiplier: 2, MaxInterval: longestPause, RandomizationFactor: backoff.DefaultRandomizationFactor,
	}
}

// pause waits, unless ctx would end before that: then it returns false at once.
func pause(ctx context.Context, d time.Duration) bool {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// conn is what the generated clients call: it gives each call its time and its span, repeats what is safe to repeat, and
// answers with errors of this package.
type conn struct {
	grpc.ClientConnInterface // carries out one try
	timeout                  time.Duration
}

// Invoke implements grpc.ClientConnInterface.
func (c conn) Invoke(ctx context.Context, method string, request, reply any, options ...grpc.CallOption) error {
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	ctx, span := otel.Tracer("podlink/client").Start(ctx, method, trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	for between := pauses(); ; {
		var sent atomic.Bool
		err := c.ClientConnInterface.Invoke(watchSent(ctx, &sent), method, request, reply, options...)
		if err == nil {
			return nil
		}
		err, again := judge(caller, err, operations[method].reads, sent.Load())
		if !again || !pause(ctx, between.NextBackOff()) {
			reason := kerrors.Reason(err)
			span.SetAttributes(attribute.String("error.type", reason))
			span.SetStatus(codes.Error, reason)
			return err
		}
	}
}

// judge says what the error of a try means to the caller, and whether another try is safe and may help. An error without a
// reason is not podlink's: it comes from the transport, or from something between.
func judge(caller context.Context, err error, reads, sent bool) (meaning error, again bool) {
	cause := kerrors.FromError(err)
	switch {
	case cause.Reason == v1.ErrorReason_STORE_UNAVAILABLE.String():
		return cause, true
	case cause.Reason == v1.ErrorReason_DEADLINE_EXCEEDED.String():
		return cause, reads
	case noInstance(cause):
		return explain(ErrUnavailable, err), true
	case cause.Reason != kerrors.UnknownReason:
		return cause, false
	case sent && !reads && !refused(cause):
		return explain(ErrOutcomeUnknown, err), false
	case context.Cause(caller) != nil && !errors.Is(caller.Err(), context.DeadlineExceeded):
		return explain(ErrCanceled, caller.Err()), false
	case refused(cause):
		return cause, false
	case sent && caller.Err() != nil:
		return explain(ErrDeadlineExceeded, caller.Err()), false
	}
	return explain(ErrUnavailable, errors.Join(caller.Err(), err)), true
}

// refused tells whether somebody between, who knows no reasons, has turned the call away.
func refused(err *kerrors.Error) bool {
	return err.Code >= 400 && err.Code < 499 || err.Code == 501
}

// noInstance tells whether a Kratos client has found no instance to call: over gRPC, or over HTTP.
func noInstance(err *kerrors.Error) bool {
	return err.Reason == selector.ErrNoAvailable.Reason || err.Reason == "NODE_NOT_FOUND"
}

type sentKey struct{}

// watchSent returns a context whose call notes when it may have left this process.
func watchSent(ctx context.Context, sent *atomic.Bool) context.Context {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }})
	return context.WithValue(ctx, sentKey{}, sent)
}

// sentWatcher is a stats.Handler that does so for calls over gRPC.
type sentWatcher struct{}

func (sentWatcher) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (sentWatcher) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (sentWatcher) HandleConn(context.Context, stats.ConnStats)                       {}
func (sentWatcher) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutHeader); !ok {
		return
	}
	if sent, ok := ctx.Value(sentKey{}).(*atomic.Bool); ok {
		sent.Store(true)
	}
}

// propagate tells podlink in which trace a call is.
func propagate(next middleware.Handler) middleware.Handler {
	return func(ctx context.Context, request any) (any, error) {
		if t, ok := transport.FromClientContext(ctx); ok {
			propagation.TraceContext{}.Inject(ctx, t.RequestHeader())
		}
		return next(ctx, request)
	}
}

// httpConn carries out calls over HTTP.
type httpConn struct {
	client *khttp.Client
}

// Invoke implements grpc.ClientConnInterface.
func (c httpConn) Invoke(ctx context.Context, method string, request, reply any, _ ...grpc.CallOption) error {
	op := operations[method]
	path, err := op.path(request.(proto.Message))
	if err != nil {
		return err
	}
	var body any
	if op.body {
		body = request
	}
	return c.client.Invoke(ctx, op.method, path, body, reply, khttp.Operation(method), khttp.PathTemplate(op.template))
}

// NewStream implements grpc.ClientConnInterface. The API has no streams.
func (c httpConn) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.ErrUnsupported
}
