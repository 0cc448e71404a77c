package server

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"podlink/internal/conf"
)

// streamWorkers are the goroutines that calls run on; further ones at once get one of their own. A call needs a deep stack:
// a new goroutine would grow it step by step, which costs a tenth of the call's CPU time.
const streamWorkers = 128

// NewGRPCServer returns the gRPC listener of the API. The function ends its workers, also of one that was never started.
func NewGRPCServer(c *conf.Server, api API, chain *Chain, drain *Drain) (*kgrpc.Server, func()) {
	srv := kgrpc.NewServer(
		kgrpc.Address(c.GetGrpc().GetAddr()),
		kgrpc.Timeout(c.GetGrpc().GetTimeout().AsDuration()),
		kgrpc.DisableReflection(),
		kgrpc.CustomHealth(),
		kgrpc.UnaryInterceptor(denyUnary),
		kgrpc.StreamInterceptor(denyStream, chain.Stream(drain)),
		kgrpc.Options(
			grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(grpcproto.Name)}),
			grpc.NumStreamWorkers(streamWorkers),
			grpc.MaxRecvMsgSize(maxBodyBytes),
			grpc.MaxHeaderListSize(maxHeaderBytes),
			grpc.ConnectionTimeout(readTimeout),
			grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTimeout, Time: idleTimeout, Timeout: readTimeout}),
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		),
	)
	// All streams pass the chain, but of the unary calls only the API's. A health check is a probe like /readyz: it is
	// answered from memory, and so many of them would hide the share of the API's requests that fail.
	srv.Use("/podlink.v1.*", chain.Unary)
	// Unlike Kratos' own health service, this one tells as soon as podlink drains.
	grpc_health_v1.RegisterHealthServer(srv, drainingHealth{health.NewServer(), drain})
	for _, one := range api {
		one.overGRPC(lenient{srv})
	}
	return srv, srv.Server.Stop
}

// codec is the only one, also for a content subtype such as grpc+json, for which Kratos registers a codec that drops
// unknown fields. It notes that a message of the API can't be decoded instead of failing: when a codec fails, gRPC has
// already answered with Internal, as if podlink were at fault.
type codec struct{ encoding.CodecV2 }

// noting is a message to decode, and where to note that it can't be.
type noting struct {
	*decoding
	message proto.Message
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, target any) error {
	n, ok := target.(noting)
	if !ok {
		return c.CodecV2.Unmarshal(data, target)
	}
	if c.CodecV2.Unmarshal(data, n.message) != nil {
		n.fail(explainWire(data.Materialize(), n.message.ProtoReflect().Descriptor().Fields()))
	}
	return nil
}

// lenient registers services so that a message that can't be decoded reaches the middleware chain.
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
	return func(impl any, ctx context.Context, receive func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		ctx, d := withDecoding(ctx)
		return handle(impl, ctx, func(target any) error { return receive(noting{d, target.(proto.Message)}) }, intercept)
	}
}

// explainWire finds what the protobuf decoder did not like in raw: the first text that is not UTF-8, or the syntax.
func explainWire(raw []byte, fields protoreflect.FieldDescriptors) error {
	for len(raw) > 0 {
		number, kind, tagLen := protowire.ConsumeTag(raw)
		if tagLen < 0 {
			break
		}
		valueLen := protowire.ConsumeFieldValue(number, kind, raw[tagLen:])
		if valueLen < 0 {
			break
		}
		field := fields.ByNumber(number)
		if field != nil && field.Kind() == protoreflect.StringKind && kind == protowire.BytesType {
			if text, _ := protowire.ConsumeBytes(raw[tagLen:]); !utf8.Valid(text) {
				return invalid(string(field.Name()), "must be valid UTF-8")
			}
		}
		raw = raw[tagLen+valueLen:]
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

// drainingHealth is gRPC's health service, which says NOT_SERVING once podlink drains.
type drainingHealth struct {
	*health.Server
	drain *Drain
}

// Check implements grpc_health_v1.HealthServer.
func (h drainingHealth) Check(
	ctx context.Context, request *grpc_health_v1.HealthCheckRequest,
) (*grpc_health_v1.HealthCheckResponse, error) {
	if h.drain.Draining() {
		return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_NOT_SERVING}, nil
	}
	return h.Server.Check(ctx, request)
}
