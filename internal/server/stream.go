package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/go-kratos/kratos/v2/transport"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
	"podlink/internal/service"
)

// errDraining is the context's cause in a stream that podlink ends, rather than its caller.
var errDraining = errors.New("podlink is draining")

// reviewEvery is how often podlink looks whether the caller of a stream may still have it.
const reviewEvery = time.Second

// Stream is the chain as a gRPC interceptor. It authenticates a stream's caller before the first message is received. It also ends
// streams when podlink drains: an open one would delay the stop.
// Kratos' StreamMiddleware is no alternative: it runs per message, not per stream, and never sees how a stream ends.
func (c *Chain) Stream(drain *Drain) grpc.StreamServerInterceptor {
	return func(impl any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx, cancel := context.WithCancelCause(stream.Context())
		defer cancel(nil)
		t, _ := transport.FromServerContext(ctx) // Kratos always sets it.
		known, d := c.access.guarded(ctx, c.access.priceOf(info.FullMethod))
		s := &serverStream{ServerStream: stream, chain: c, decoding: d, operation: info.FullMethod}
		go supervise(ctx, cancel, drain, s.review)
		err := c.serve(known, t, streamCall, &messages{}, func(ctx context.Context) error {
			if d.err != nil {
				return d.err
			}
			s.ctx = ctx
			return streamError(ctx, drain, next(impl, s))
		})
		// Kratos sets the reply's header only now; after the first message that is too late.
		if id := t.ReplyHeader().Get(traceResponse); id != "" {
			stream.SetTrailer(metadata.Pairs(traceResponse, id))
		}
		return err
	}
}

// supervise ends a stream when podlink drains, or its caller may no longer have it.
func supervise(ctx context.Context, cancel context.CancelCauseFunc, drain *Drain, review func() error) {
	again := time.NewTicker(reviewEvery)
	defer again.Stop()
	for {
		select {
		case <-drain.Started():
			cancel(errDraining)
			return
		case <-ctx.Done():
			return
		case <-again.C:
			if err := review(); err != nil {
				cancel(&revokedError{err})
				return
			}
		}
	}
}

// revokedError is the context's cause in a stream whose caller may no longer have it.
type revokedError struct{ refusal error }

// Error implements error.
func (e *revokedError) Error() string { return e.refusal.Error() }

// revoked returns why the caller may no longer have the stream, nil if it may.
func revoked(ctx context.Context) error {
	var e *revokedError
	if errors.As(context.Cause(ctx), &e) {
		return e.refusal
	}
	return nil
}

// streamError returns the error of a stream. After its context has ended every error counts as CANCELED, or is the refusal of its caller:
// neither a caller that leaves nor a drain is a failure of podlink. At a drain the handler may hear of it before the stream does.
func streamError(ctx context.Context, drain *Drain, err error) error {
	switch {
	case err == nil:
		return nil
	case revoked(ctx) != nil:
		return revoked(ctx)
	case errors.Is(context.Cause(ctx), errDraining), drain.Draining() && errors.Is(err, biz.ErrCanceled):
		return v1.ErrorCanceled("podlink is stopping; reopen the stream on another podlink").WithCause(errDraining)
	case ctx.Err() == nil:
		return err
	default:
		return fmt.Errorf("%w: %w", biz.ErrCanceled, err)
	}
}

// serverStream is a stream with the chain's context and deferred decoding errors, whose first message decides whether the caller may
// have it.
type serverStream struct {
	grpc.ServerStream

	ctx        context.Context //nolint:containedctx // A grpc.ServerStream has its context.
	chain      *Chain
	decoding   *decoding
	operation  string
	authorized atomic.Bool // A handler may send and receive at once.
	request    any         // the message that was authorized
}

// review returns why the caller may no longer have the stream.
func (s *serverStream) review() error {
	access := s.chain.access
	if access == nil || !s.authorized.Load() || s.request == nil {
		return nil
	}
	c := new(caller)
	c.Context = s.ServerStream.Context()
	return access.review(c, access.proofGRPC(c), s.operation, s.request)
}

// Context implements grpc.ServerStream.
func (s *serverStream) Context() context.Context { return s.ctx }

// RecvMsg implements grpc.ServerStream. For a message that can't be decoded, gRPC alone would answer INTERNAL.
func (s *serverStream) RecvMsg(target any) error {
	d := s.decoding
	if err := s.ServerStream.RecvMsg(deferredMessage{d, target.(proto.Message)}); err != nil {
		return receiveError(err)
	}
	if d.err != nil || s.authorized.Load() {
		return d.err
	}
	if d.again(); d.err != nil {
		return d.err
	}
	if err := s.chain.authorize(s.ctx, s.operation, d, target); err != nil {
		return err
	}
	if err := s.chain.watches.take(s.ctx, s.operation, d.caller, grpcPeer(s.ctx)); err != nil {
		return err
	}
	if !foreign[s.operation] {
		s.request = target
	}
	s.authorized.Store(true)
	return nil
}

// SendMsg implements grpc.ServerStream.
func (s *serverStream) SendMsg(message any) error {
	if !s.authorized.Load() {
		if err := s.chain.access.authorize(s.ctx, s.operation, nil); err != nil { // A handler must not answer what no one has asked for.
			return err
		}
	}
	if err := revoked(s.ctx); err != nil {
		return err
	}
	err := s.ServerStream.SendMsg(message)
	if callerLeft(err) {
		return fmt.Errorf("%w: %w", biz.ErrCanceled, err)
	}
	return err
}

// receiveError maps gRPC's error for a message that was not received. The caller is at fault each time, even where gRPC says
// Internal: counted as INTERNAL, any caller could fire alerts. gRPC has already answered the caller with its own error.
func receiveError(err error) error {
	switch {
	case errors.Is(err, io.EOF): // The caller sends no more.
		return err
	case callerLeft(err):
		return fmt.Errorf("%w: %w", biz.ErrCanceled, err)
	case status.Code(err) == codes.ResourceExhausted:
		return v1.ErrorBodyTooLarge("a message must not be over %d bytes", maxBodyBytes)
	case status.Code(err) == codes.Unimplemented: // Without gRPC's text, which quotes the header of the caller.
		return v1.ErrorUnsupportedMediaType("grpc-encoding must be absent: compressed messages are not supported")
	default:
		return service.PublicError(invalid("body", "must be one complete message")).WithCause(err)
	}
}

// callerLeft reports whether gRPC's error means that the stream has ended. The stream's context ends a little later.
func callerLeft(err error) bool {
	switch status.Code(err) {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable:
		return true
	default:
		return false
	}
}
