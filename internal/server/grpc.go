package server

import (
	"context"
	"time"
	"unicode/utf8"

	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"podlink/internal/conf"
	"podlink/internal/service"
)

// streamWorkers is the number of goroutines that are reused for calls; more concurrent calls get new ones. A call needs a deep
// stack, and a new goroutine grows it step by step, which costs a tenth of the call's CPU time.
const streamWorkers = 128

// ageGrace is how long calls have to end after their timeout on a connection that has reached its greatest age. Streams end then:
// callers open them again, perhaps on another podlink.
const ageGrace = 10 * time.Second

// NewGRPCServer returns the gRPC listener of the API, and a function that ends its workers. Call it even if the server was
// never started.
func NewGRPCServer(
	c *conf.Server, api API, chain *Chain, store Checker, drain *Drain, secured ListenerTLS,
) (*kgrpc.Server, func()) {
	guard := newCallGuard(c.GetGrpc().GetMaxStreams(), chain.doors)
	srv := kgrpc.NewServer(
		kgrpc.Address(c.GetGrpc().GetAddr()),
		kgrpc.TLSConfig(secured.GRPC),
		kgrpc.Timeout(c.GetGrpc().GetTimeout().AsDuration()),
		kgrpc.DisableReflection(),
		kgrpc.CustomHealth(),
		kgrpc.UnaryInterceptor(guard.unary),
		kgrpc.StreamInterceptor(guard.stream, chain.Stream(drain)),
		kgrpc.Options(
			grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(grpcproto.Name)}),
			grpc.NumStreamWorkers(streamWorkers),
			grpc.MaxRecvMsgSize(maxBodyBytes),
			grpc.MaxHeaderListSize(maxHeaderBytes),
			grpc.ConnectionTimeout(readTimeout),
			grpc.InTapHandle(guard.tap),
			grpc.MaxConcurrentStreams(uint32(c.GetGrpc().GetMaxStreams())),
			grpc.KeepaliveParams(keepalive.ServerParameters{
				MaxConnectionIdle: idleTimeout, Time: idleTimeout, Timeout: readTimeout,
				MaxConnectionAge:      c.GetGrpc().GetMaxConnectionAge().AsDuration(),
				MaxConnectionAgeGrace: c.GetGrpc().GetTimeout().AsDuration() + ageGrace,
			}),
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		),
	)
	// All streams pass the chain, but only the API's unary calls: health checks are as frequent as probes of /readyz, and would
	// dilute the API's error rate.
	srv.Use("/podlink.v1.*", chain.Unary)
	guard.ServiceRegistrar = srv
	grpc_health_v1.RegisterHealthServer(promptRegistrar{guard}, newHealthServer(store, drain, chain))
	for _, svc := range api {
		svc.overGRPC(deferringRegistrar{guard, chain.access})
	}
	return srv, srv.Server.Stop
}

// codec is protobuf for every content subtype: for grpc+json Kratos registers a codec that drops unknown fields. For a
// deferredMessage it records a decoding error instead of returning it: gRPC answers a codec's error with Internal, past the
// interceptors, as if podlink were at fault.
type codec struct{ encoding.CodecV2 }

// deferredMessage is a message to decode, with the decoding that gets the error.
type deferredMessage struct {
	*decoding
	message proto.Message
}

// Marshal implements encoding.CodecV2. A message for many callers is encoded once.
func (c codec) Marshal(message any) (mem.BufferSlice, error) {
	shared, ok := message.(*service.SharedReply)
	if !ok {
		return c.CodecV2.Marshal(message)
	}
	text, err := shared.Encoded(service.Wire, proto.Marshal)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(text)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, target any) error {
	deferred, ok := target.(deferredMessage)
	if !ok {
		return c.CodecV2.Unmarshal(data, target)
	}
	if c.CodecV2.Unmarshal(data, deferred.message) != nil {
		deferred.fail(protoError(data.Materialize(), deferred.message.ProtoReflect().Descriptor().Fields()))
	}
	return nil
}

// deferringRegistrar registers services whose calls are authenticated before their message is received, and whose refusals and
// decoding errors are deferred to the middleware chain.
type deferringRegistrar struct {
	grpc.ServiceRegistrar

	access *Access
}

// RegisterService implements grpc.ServiceRegistrar.
func (r deferringRegistrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	r.ServiceRegistrar.RegisterService(wrapMethods(desc, func(operation string, handle grpc.MethodHandler) grpc.MethodHandler {
		return deferErrors(r.access, operation, handle)
	}), impl)
}

// deferErrors wraps a handler so that refusals and decoding errors are recorded in its context, where the chain finds them. A call
// is authenticated, if there is an access, before its message is waited for.
func deferErrors(access *Access, operation string, handle grpc.MethodHandler) grpc.MethodHandler {
	cost := access.priceOf(operation)
	return func(impl any, ctx context.Context, receive func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		ctx, d := access.guarded(ctx, cost)
		return handle(impl, ctx, func(target any) error {
			if d.err != nil {
				return nil //nolint:nilerr // The chain returns it.
			}
			err := receive(deferredMessage{d, target.(proto.Message)})
			if err == nil {
				d.again()
			}
			return err
		}, intercept)
	}
}

// protoError returns why the protobuf decoder rejected raw: the first string that is not UTF-8, or the syntax.
func protoError(raw []byte, fields protoreflect.FieldDescriptors) error {
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
