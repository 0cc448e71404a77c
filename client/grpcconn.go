package client

import (
	"context"
	"time"

	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
)

func dialGRPC(target string, o Options, use usage) (grpc.ClientConnInterface, func() error, error) {
	under := []grpc.DialOption{
		grpc.WithStatsHandler(stageWatcher{}),
		grpc.WithDisableRetry(), // What may be repeated is decided in conn.
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(maxRequestBytes)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: use.redialPause / 10, Multiplier: 2, Jitter: .2, MaxDelay: use.redialPause},
			MinConnectTimeout: use.redialPause,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true}),
	}
	if o.NoProxy {
		under = append(under, grpc.WithNoProxy())
	}
	if o.files != nil {
		under = append(under, grpc.WithTransportCredentials(o.files.Credentials()))
	}
	if o.Credentials != nil {
		under = append(under, grpc.WithPerRPCCredentials(o.Credentials))
	}
	options := []kgrpc.ClientOption{
		kgrpc.WithEndpoint(target), kgrpc.WithMiddleware(propagate), kgrpc.WithStreamInterceptor(openThrough(propagate)),
		kgrpc.WithTimeout(o.Timeout / time.Duration(use.attempts)), kgrpc.WithPrintDiscoveryDebugLog(false),
		// Calls go to podlink also while it is not ready: it serves what it can, and its errors have reasons.
		kgrpc.WithHealthCheck(false),
		kgrpc.WithOptions(under...),
	}
	if o.Discovery != nil {
		options = append(options, kgrpc.WithDiscovery(o.Discovery))
	}
	dial := kgrpc.DialInsecure
	switch {
	case o.files != nil: // Their credentials are among the options.
		dial = kgrpc.Dial
	case o.TLS != nil:
		options, dial = append(options, kgrpc.WithTLSConfig(o.TLS)), kgrpc.Dial
	}
	made, err := dial(context.Background(), options...)
	if err != nil {
		return nil, nil, err
	}
	return grpcConn{made}, made.Close, nil
}

// grpcConn carries out calls over gRPC.
type grpcConn struct{ *grpc.ClientConn }

// Invoke implements grpc.ClientConnInterface.
func (c grpcConn) Invoke(ctx context.Context, method string, request, reply any, options ...grpc.CallOption) error {
	return c.ClientConn.Invoke(withoutMetadata(ctx), method, request, reply, options...)
}

// NewStream implements grpc.ClientConnInterface.
func (c grpcConn) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	return c.ClientConn.NewStream(withoutMetadata(ctx), desc, method, options...)
}

// withoutMetadata returns a context without the metadata that the caller has meant for calls of other services. Podlink reads none,
// and too much of it would make the call fail.
func withoutMetadata(ctx context.Context) context.Context {
	if _, ok := metadata.FromOutgoingContext(ctx); !ok {
		return ctx
	}
	return metadata.NewOutgoingContext(ctx, nil)
}

// stageWatcher is a stats.Handler that notes how far attempts over gRPC have come.
type stageWatcher struct{}

func (stageWatcher) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (stageWatcher) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (stageWatcher) HandleConn(context.Context, stats.ConnStats)                       {}
func (stageWatcher) HandleRPC(ctx context.Context, s stats.RPCStats) {
	a := attemptOf(ctx)
	if a == nil {
		return
	}
	switch s.(type) {
	case *stats.Begin: // A second time for a call that the server, as it says itself, has not looked at.
		a.stage.Store(stageLocal)
	case *stats.OutPayload: // A call without its message is none.
		a.stage.Store(stageSent)
	}
}
