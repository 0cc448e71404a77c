package server

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-kratos/kratos/v2/transport"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
)

// errDraining is why the context of a stream has ended while its caller is still there.
var errDraining = errors.New("podlink drains")

// Stream is the chain as gRPC's interceptor, and ends streams when podlink drains: one that stays open would hold up the
// stop. Kratos' StreamMiddleware will not do: it runs for each message instead of each stream, and never sees how a stream
// ends.
func (c *Chain) Stream(drain *Drain) grpc.StreamServerInterceptor {
	return func(impl any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx, end := context.WithCancelCause(stream.Context())
		defer end(nil)
		go func() {
			select {
			case <-drain.Started():
				end(errDraining)
			case <-ctx.Done():
			}
		}()
		t, _ := transport.FromServerContext(ctx) // Kratos puts it into every context.
		err := c.serve(ctx, t, streamCall, func(ctx context.Context) error {
			return causeOfEnd(ctx, next(impl, serverStream{stream, ctx}))
		})
		// Kratos sends the reply's header only now, which is too late after a first message.
		if id := t.ReplyHeader().Get(traceResponse); id != "" {
			stream.SetTrailer(metadata.Pairs(traceResponse, id))
		}
		return err
	}
}

// causeOfEnd returns why a stream has failed: once its context has ended, whatever fails then fails for that. Neither a
// caller that leaves nor a drain is a failure of podlink's.
func causeOfEnd(ctx context.Context, err error) error {
	switch {
	case err == nil || ctx.Err() == nil:
		return err
	case errors.Is(context.Cause(ctx), errDraining):
		return v1.ErrorCanceled("podlink is stopping; open the stream again, at another podlink").WithCause(errDraining)
	default:
		return fmt.Errorf("%w: %w", biz.ErrCanceled, err)
	}
}

// serverStream is a stream inside the chain.
type serverStream struct {
	grpc.ServerStream

	ctx context.Context //nolint:containedctx // It is the stream's own.
}

// Context implements grpc.ServerStream.
func (s serverStream) Context() context.Context { return s.ctx }

// RecvMsg implements grpc.ServerStream. A message that can't be decoded is the caller's fault; gRPC would call it INTERNAL.
func (s serverStream) RecvMsg(target any) error {
	var d decoding
	if err := s.ServerStream.RecvMsg(noting{&d, target.(proto.Message)}); err != nil {
		return err
	}
	return d.err
}
