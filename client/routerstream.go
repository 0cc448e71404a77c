package client

import (
	"context"
	"errors"
	"io"
	"net/url"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Route returns a context whose calls and streams go to the pod that holds the user, for a client that has the NodeFilter without
// the Middleware or the StreamInterceptor. They are not repeated. A Router without a UIDFunc sends the uid along with them.
func (r *Router) Route(ctx context.Context, uid string) (context.Context, error) {
	link, err := r.find(ctx, uid, time.Now())
	if err != nil && !r.options.Fallback {
		return nil, err
	}
	return context.WithValue(r.withHeader(ctx, uid), podCallKey{r}, &podCall{link: link, anyPod: r.options.Fallback}), nil
}

// withHeader returns a context whose streams carry the uid, if it is the header that says it. Kratos sends its headers with calls only.
func (r *Router) withHeader(ctx context.Context, uid string) context.Context {
	if !r.sendsUID {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, uidHeader, url.PathEscape(uid))
}

// StreamInterceptor opens each stream of a gRPC client at the pod that holds its user: the user whom RouterOptions.UID finds without
// a request, or the one of the context (WithUID). It goes with NodeFilter. To open a stream is repeated as a call is, while no pod was
// reached; a stream that has been opened is not. When its pod refuses the user it ends with ErrWrongPod, and the next one is opened
// at the right pod.
func (r *Router) StreamInterceptor() grpc.StreamClientInterceptor {
	return func(
		ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		uid := r.options.UID(ctx, nil)
		if uid == "" {
			uid, _ = ctx.Value(uidKey{}).(string)
		}
		if uid == "" {
			return open(ctx, desc, cc, method, options...)
		}
		ctx = r.withHeader(ctx, uid)
		stream, err := r.call(ctx, uid, nil, func(ctx context.Context, _ any) (any, error) {
			opened, err := open(ctx, desc, cc, method, options...)
			if err != nil {
				return nil, err
			}
			try, _ := ctx.Value(podCallKey{r}).(*podCall)
			return &routedStream{ClientStream: opened, ctx: ctx, router: r, uid: uid, try: try}, nil
		})
		if err != nil {
			return nil, err
		}
		return stream.(*routedStream), nil
	}
}

// routedStream learns from the error that ends a stream where the next one is to be opened.
type routedStream struct {
	grpc.ClientStream

	ctx    context.Context //nolint:containedctx // The stream's.
	router *Router
	uid    string
	try    *podCall
}

// RecvMsg implements grpc.ClientStream.
func (s *routedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil && !errors.Is(err, io.EOF) && s.try.link != nil {
		s.router.learn(s.uid, s.try, s.router.classify(s.ctx, s.try, s.uid, err))
	}
	return err
}
