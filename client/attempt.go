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

// uncertain tells whether a mutation may have been carried out, or may be lost again.
func uncertain(err error) bool {
	return errors.Is(err, ErrOutcomeUnknown) || errors.Is(err, ErrReplicationUnconfirmed)
}

// untilCertain repeats a mutation that does no harm when it is carried out twice, until its outcome is certain or ctx ends.
func untilCertain(ctx context.Context, mutate func() error) error {
	for between := pauses(); ; {
		err := mutate()
		if !uncertain(err) || !pause(ctx, between.NextBackOff()) {
			return err
		}
	}
}

// conn is what the generated clients call: it gives each call its time and its span, repeats what is safe to repeat, and
// answers with errors of this package. NewStream does so for streams, which have no time and are not repeated.
type conn struct {
	grpc.ClientConnInterface // carries out one try
	timeout                  time.Duration
	open                     context.Context //nolint:containedctx // Its end is the client's, not a call's.
}

// Invoke implements grpc.ClientConnInterface.
func (c conn) Invoke(ctx context.Context, method string, request, reply any, options ...grpc.CallOption) error {
	if c.open.Err() != nil {
		return explain(ErrUnavailable, errClosed)
	}
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	defer context.AfterFunc(c.open, cancel)() //nolint:contextcheck // Close ends the calls, and has no context.
	ctx, span := otel.Tracer("podlink/client").Start(ctx, method, trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	var before error // of the try before
	var beforeSent bool
	for between := pauses(); ; {
		var watched atomic.Bool
		err := c.ClientConnInterface.Invoke(watchSent(ctx, &watched), method, request, reply, options...)
		if err == nil {
			return nil
		}
		sent := watched.Load()
		if !sent && before != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err, sent = before, beforeSent // A try without the time to be sent has learned nothing about podlink.
		}
		before, beforeSent = err, sent
		if !sent {
			if field := notText(request.(proto.Message)); field != "" {
				err = malformed(field, "must be valid UTF-8")
			}
		}
		again, err := judge(caller, err, operations[method].reads, sent)
		if again && !pause(ctx, between.NextBackOff()) {
			again = false
			if errors.Is(caller.Err(), context.Canceled) {
				err = explain(ErrCanceled, caller.Err())
			}
		}
		if !again {
			markFailed(span, err)
			return err
		}
	}
}

// markFailed says in the span with which reason a call has failed.
func markFailed(span trace.Span, err error) {
	reason := kerrors.Reason(err)
	span.SetAttributes(attribute.String("error.type", reason))
	span.SetStatus(codes.Error, reason)
}

// judge says what the error of a try means to the caller, and whether another try is safe and may help. An error without a
// reason is not podlink's: it comes from the transport, or from something between.
func judge(caller context.Context, err error, reads, sent bool) (again bool, meaning error) {
	cause, why := kerrors.FromError(err), errors.Join(caller.Err(), err)
	switch {
	case cause.Reason == v1.ErrorReason_STORE_UNAVAILABLE.String():
		return true, explain(cause, caller.Err())
	case cause.Reason == v1.ErrorReason_DEADLINE_EXCEEDED.String():
		return reads, explain(cause, caller.Err())
	case noInstance(cause):
		return true, explain(ErrUnavailable, why)
	case cause.Reason != kerrors.UnknownReason:
		return false, explain(cause, caller.Err())
	case sent && !reads && !refused(cause):
		return false, explain(ErrOutcomeUnknown, why)
	case errors.Is(caller.Err(), context.Canceled):
		return false, explain(ErrCanceled, why)
	case refused(cause):
		return false, explain(cause, caller.Err())
	case sent && late(err):
		return true, explain(ErrDeadlineExceeded, why)
	}
	return true, explain(ErrUnavailable, why)
}

// late tells whether a try has run out of time.
func late(err error) bool {
	return kerrors.Code(err) == 504 || errors.Is(err, context.DeadlineExceeded)
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
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// Go takes another connection for a mutation only when nothing went over the one before.
		GetConn: func(string) { sent.Store(false) },
		GotConn: func(httptrace.GotConnInfo) { sent.Store(true) },
	})
	return context.WithValue(ctx, sentKey{}, sent)
}

// sentWatcher is a stats.Handler that does so for calls over gRPC.
type sentWatcher struct{}

func (sentWatcher) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (sentWatcher) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (sentWatcher) HandleConn(context.Context, stats.ConnStats)                       {}
func (sentWatcher) HandleRPC(ctx context.Context, s stats.RPCStats) {
	sent, ok := ctx.Value(sentKey{}).(*atomic.Bool)
	if !ok {
		return
	}
	switch s.(type) {
	case *stats.Begin: // Again for a call that the server, as it says itself, has not looked at.
		sent.Store(false)
	case *stats.OutPayload: // A call without its message is none.
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
