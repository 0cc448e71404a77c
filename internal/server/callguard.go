package server

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
)

const (
	// abandonedRate is how many calls a second the peers of an address may begin and give up, and maxAbandoned how many at once.
	// To begin a call costs a peer that resets it at once far less than podlink.
	abandonedRate, maxAbandoned = 1000, 1000
	// fullConnections is how many connections of the peers of an address may be full of open calls. A call that is open costs
	// memory even if its message never comes.
	fullConnections = 8
	// abandonedPause is how long a peer waits that was refused.
	abandonedPause = 100 * time.Millisecond
	// longestRefused is the longest deadline of a call that can be refused by its headers alone: gRPC keeps the timer of the
	// deadline of such a call until it fires, and callers choose it, up to many years.
	longestRefused = time.Minute
)

// callGuard bounds what gRPC calls cost before podlink knows who calls. It looks at a call when its headers have arrived, before
// gRPC gives it a goroutine, and lets it in if it names a method that was registered through the guard, unless the peers of its
// address have too many calls open, or give up too many. A call that ends by itself costs its peer nothing, however many there
// are: all calls may come from the address of one proxy.
type callGuard struct {
	grpc.ServiceRegistrar

	methods   map[string]bool
	mostCalls int64 // open, of an address
}

func newCallGuard(maxStreams int32) *callGuard {
	return &callGuard{methods: make(map[string]bool), mostCalls: fullConnections * int64(maxStreams)}
}

// RegisterService implements grpc.ServiceRegistrar. Kratos registers other services, past it: they expose internals of the
// process to callers.
func (g *callGuard) RegisterService(desc *grpc.ServiceDesc, impl any) {
	wrapped := *desc
	wrapped.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	for i, method := range desc.Methods {
		g.methods["/"+desc.ServiceName+"/"+method.MethodName] = true
		wrapped.Methods[i] = grpc.MethodDesc{MethodName: method.MethodName, Handler: countCall(method.Handler)}
	}
	for _, stream := range desc.Streams {
		g.methods["/"+desc.ServiceName+"/"+stream.StreamName] = true
	}
	g.ServiceRegistrar.RegisterService(&wrapped, impl)
}

// tap is gRPC's InTapHandle. It holds a lock of the connection, so it must not wait.
func (g *callGuard) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	deadline, limited := ctx.Deadline()
	refusable := !limited || time.Until(deadline) <= longestRefused
	if refusable && !g.methods[info.FullMethodName] {
		return nil, unknownMethod(info.FullMethodName)
	}
	from := peerOf(ctx)
	if from == nil || from.peer.calls.Load() < g.mostCalls && from.peer.abandoned.Tokens() >= 1 {
		return ctx, nil
	}
	if !refusable {
		_ = from.conn.Close()
		return ctx, nil
	}
	return nil, rateLimited(abandonedPause, "this address has too many open calls, or gives up too many; nothing has changed")
}

func unknownMethod(name string) error {
	return status.Errorf(codes.Unimplemented, "unknown method %s", name)
}

// unary is the interceptor that refuses the methods that tap could not refuse.
func (g *callGuard) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if !g.methods[info.FullMethod] {
		return nil, unknownMethod(info.FullMethod)
	}
	return next(ctx, request)
}

// stream is unary for streams, and counts them.
func (g *callGuard) stream(impl any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if !g.methods[info.FullMethod] {
		return unknownMethod(info.FullMethod)
	}
	ctx := stream.Context()
	from := peerOf(ctx)
	from.begin()
	defer from.end(ctx)
	return next(impl, stream)
}

// countCall wraps a handler so that its calls count as open until they end. gRPC calls it before it has received the message.
func countCall(handle grpc.MethodHandler) grpc.MethodHandler {
	return func(impl any, ctx context.Context, receive func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		from := peerOf(ctx)
		from.begin()
		defer from.end(ctx)
		return handle(impl, ctx, receive, intercept)
	}
}

// peerState is what the guard knows about the peers that share an address.
type peerState struct {
	connections int           // guarded by their listener
	calls       atomic.Int64  // open
	abandoned   *rate.Limiter // one token for each call that the peer gave up
}

func newPeerState() *peerState {
	return &peerState{abandoned: rate.NewLimiter(abandonedRate, maxAbandoned)}
}

// forgiven reports whether the state is that of a new peer.
func (p *peerState) forgiven() bool {
	return p.calls.Load() == 0 && p.abandoned.Tokens() >= maxAbandoned
}

// peerOf returns the address of a call's peer, nil if it did not come through a listener of Connections.
func peerOf(ctx context.Context) *peerAddr {
	if p, ok := peer.FromContext(ctx); ok {
		from, _ := p.Addr.(*peerAddr)
		return from
	}
	return nil
}

func (a *peerAddr) begin() {
	if a != nil {
		a.peer.calls.Add(1)
	}
}

// end counts the end of a call, and whether its caller gave it up, which cancels the context of its stream.
func (a *peerAddr) end(ctx context.Context) {
	if a == nil {
		return
	}
	a.peer.calls.Add(-1)
	if errors.Is(ctx.Err(), context.Canceled) {
		a.peer.abandoned.Allow()
	}
}
