package server

import (
	"context"
	"strings"
	"time"

	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/conf"
	"podlink/internal/service"
)

// NewGRPCServer returns the gRPC listener of the API.
func NewGRPCServer(
	c *conf.Server, chain Chain, drain *Drain,
	links *service.LinkService, states *service.StateService, workloads *service.WorkloadService,
) *kgrpc.Server {
	srv := kgrpc.NewServer(
		kgrpc.Address(c.GetGrpc().GetAddr()),
		kgrpc.Timeout(c.GetGrpc().GetTimeout().AsDuration()),
		kgrpc.Middleware(chain...),
		kgrpc.DisableReflection(),
		kgrpc.UnaryInterceptor(denyUnary),
		kgrpc.StreamInterceptor(denyStream, endWhenDraining(drain)),
		kgrpc.Options(
			grpc.MaxRecvMsgSize(maxBodyBytes),
			grpc.MaxHeaderListSize(maxHeaderBytes),
			grpc.ConnectionTimeout(readTimeout),
			grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTimeout, Time: idleTimeout, Timeout: readTimeout}),
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		),
	)
	api := lenient{srv}
	v1.RegisterLinkServiceServer(api, links)
	v1.RegisterStateServiceServer(api, states)
	v1.RegisterWorkloadServiceServer(api, workloads)
	return srv
}

// lenient registers services so that a message that can't be decoded reaches the middleware chain: gRPC itself would
// answer it with Internal, as if podlink were at fault.
type lenient struct{ grpc.ServiceRegistrar }

// RegisterService implements grpc.ServiceRegistrar.
func (l lenient) RegisterService(desc *grpc.ServiceDesc, impl any) {
	wrapped := *desc
	wrapped.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	for i, method := range desc.Methods {
		wrapped.Methods[i] = grpc.MethodDesc{MethodName: method.MethodName, Handler: lenientHandler(method.Handler)}
	}
	l.ServiceRegistrar.RegisterService(&wrapped, impl)
}

func lenientHandler(handle grpc.MethodHandler) grpc.MethodHandler {
	return func(impl any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		d := &decoding{}
		return handle(impl, withDecoding(ctx, d), func(message any) error {
			if err := decode(message); err != nil {
				d.fail(explainWire(err, message))
			}
			return nil
		}, intercept)
	}
}

// explainWire finds the field that the protobuf decoder did not like: it names one only for text that is not UTF-8.
func explainWire(err error, message any) error {
	fields := message.(proto.Message).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if strings.Contains(err.Error(), string(fields.Get(i).FullName())+" ") {
			return invalid(string(fields.Get(i).Name()), "must be valid UTF-8")
		}
	}
	return invalid("body", "must be a protobuf message of this request's type")
}

// denied are services that Kratos registers without a switch; they tell strangers about the process.
var denied = []string{"/grpc.channelz.", "/kratos.api."}

func deny(method string) error {
	for _, prefix := range denied {
		if strings.HasPrefix(method, prefix) {
			return status.Errorf(codes.Unimplemented, "unknown method %s", method)
		}
	}
	return nil
}

func denyUnary(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := deny(info.FullMethod); err != nil {
		return nil, err
	}
	return next(ctx, request)
}

func denyStream(impl any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := deny(info.FullMethod); err != nil {
		return err
	}
	return next(impl, stream)
}

// endWhenDraining ends streams, that is health watches, when podlink drains: one that stays open would hold up the stop.
func endWhenDraining(drain *Drain) grpc.StreamServerInterceptor {
	return func(impl any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		go func() {
			select {
			case <-drain.Started():
				cancel()
			case <-ctx.Done():
			}
		}()
		return next(impl, endingStream{stream, ctx})
	}
}

type endingStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // It is the stream's own.
}

// Context implements grpc.ServerStream.
func (s endingStream) Context() context.Context { return s.ctx }
