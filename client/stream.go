package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/go-kratos/kratos/v2/middleware"
	"github.com/go-kratos/kratos/v2/transport"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// NewStream implements grpc.ClientConnInterface. A stream lasts until its caller's context ends, podlink ends it, or the
// client is closed; it is never repeated. As in gRPC, the caller must read it to its end, or end its context.
func (c conn) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	if c.open.Err() != nil {
		return nil, withCause(ErrUnavailable, errClosed)
	}
	caller := ctx
	ctx, cancel := context.WithCancel(ctx)
	keep := context.AfterFunc(c.open, cancel) //nolint:contextcheck // Close ends the streams, and has no context.
	ctx, span := startSpan(ctx, method)
	s := stream{caller: caller, proof: c.proof, attempt: &attempt{reads: true}}
	ctx = context.WithValue(ctx, attemptKey{}, s.attempt)
	finish := func(err error) {
		if err != nil && caller.Err() == nil {
			markFailed(span, s.meaning(err, stageSent, nil))
		}
		span.End()
		keep()
		cancel()
	}
	made, err := c.ClientConnInterface.NewStream(ctx, desc, method, append(slices.Clip(options), grpc.OnFinish(finish))...)
	if err != nil {
		finish(err) // gRPC does, but not everything that fails comes from it. A second time does nothing.
		return nil, s.meaning(err, stageLocal, nil)
	}
	s.ClientStream = made
	return s, nil
}

// stream is a stream whose errors are this package's.
type stream struct {
	grpc.ClientStream

	caller  context.Context //nolint:containedctx // It says why the stream has ended.
	proof   proof
	attempt *attempt // to open it
}

// Header implements grpc.ClientStream.
func (s stream) Header() (metadata.MD, error) {
	header, err := s.ClientStream.Header()
	return header, s.meaning(err, stageSent, nil)
}

// SendMsg implements grpc.ClientStream.
func (s stream) SendMsg(m any) error {
	err := s.ClientStream.SendMsg(m)
	if err == nil || errors.Is(err, io.EOF) { // Why it has ended is what RecvMsg returns.
		return err
	}
	message, _ := m.(proto.Message)
	return s.meaning(err, stageLocal, message)
}

// CloseSend implements grpc.ClientStream.
func (s stream) CloseSend() error {
	return s.meaning(s.ClientStream.CloseSend(), stageSent, nil)
}

// RecvMsg implements grpc.ClientStream.
func (s stream) RecvMsg(m any) error {
	return s.meaning(s.ClientStream.RecvMsg(m), stageSent, nil)
}

// meaning is what the error of the stream, which has come so far, means to its caller. io.EOF is none: it is the end. After a refused
// token the next stream sends one that is read again.
func (s stream) meaning(err error, so stage, message proto.Message) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if token := s.proof.refused(s.attempt, err); token != "" {
		s.proof.tokens.expire(token)
	}
	a := attempt{reads: true, err: err}
	a.stage.Store(so)
	_, meaning := a.classify(s.caller, message)
	return s.proof.explain(s.attempt, meaning)
}

// openThrough passes a stream through middleware when it opens, as a unary call. Kratos' own middleware for streams runs
// for each message, when the headers have long been sent.
func openThrough(with ...middleware.Middleware) grpc.StreamClientInterceptor {
	return func(
		ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		var made grpc.ClientStream
		_, err := middleware.Chain(with...)(func(ctx context.Context, _ any) (any, error) {
			t, _ := transport.FromClientContext(ctx) // Kratos puts it into every context.
			for _, key := range t.RequestHeader().Keys() {
				ctx = metadata.AppendToOutgoingContext(ctx, key, t.RequestHeader().Get(key))
			}
			var err error
			made, err = open(ctx, desc, cc, method, options...)
			return nil, err
		})(ctx, nil)
		return made, err
	}
}

// NewStream implements grpc.ClientConnInterface: HTTP with JSON has no streams.
func (httpConn) NewStream(_ context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, fmt.Errorf("podlink: %s is a stream, which is served over gRPC only: %w", method, errors.ErrUnsupported)
}
