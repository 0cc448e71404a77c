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
	// To begin a call and to reset it at once costs a peer far less than podlink.
	abandonedRate, maxAbandoned = 1000, 1000
	// maxDebt is how many more may be held against an address, at most: they are forgiven in seconds.
	maxDebt = 10 * abandonedRate
	// slowRate is how many bytes a second podlink reads from all peers of an address that give up more: some 1000 calls. They are
	// not refused, because even that costs more than the calls cost them. slowRead is how many bytes it reads at once.
	slowRate, slowRead = 32 << 10, 1 << 10
	// slowLook is how often a connection that is read slowly looks whether it is its turn, and whether the peers have been forgiven.
	slowLook = 20 * time.Millisecond
	// fullConnections is how many connections of the peers of an address may be full of open calls. A call that is open costs
	// memory even if its message never comes.
	fullConnections = 8
	// openCallsPause is how long a peer waits whose call was refused.
	openCallsPause = 100 * time.Millisecond
	// longestRefused is the longest deadline of a call that can be refused by its headers alone. gRPC keeps the timer of a refused
	// call until its deadline, which callers choose: it may be years ahead.
	longestRefused = time.Minute
)

// callGuard bounds what gRPC calls cost before podlink knows who calls. It looks at a call when its headers have arrived, before
// gRPC gives it a goroutine, and lets it in if it names a method that was registered through the guard, unless the peers of its
// address have too many calls open. Peers that give up too many calls are read slowly. A call that ends by itself counts for
// neither, however many there are: all calls may come from the address of one proxy.
type callGuard struct {
	grpc.ServiceRegistrar

	methods   map[string]bool
	mostCalls int64 // open, of an address
	doors     *DoorMetrics
}

func newCallGuard(maxStreams int32, doors *DoorMetrics) *callGuard {
	return &callGuard{methods: make(map[string]bool), mostCalls: fullConnections * int64(maxStreams), doors: doors}
}

// RegisterService implements grpc.ServiceRegistrar. Kratos registers other services, past it: they expose internals of the
// process to callers.
func (g *callGuard) RegisterService(desc *grpc.ServiceDesc, impl any) {
	for _, stream := range desc.Streams {
		g.methods["/"+desc.ServiceName+"/"+stream.StreamName] = true
	}
	g.ServiceRegistrar.RegisterService(wrapMethods(desc, func(operation string, handle grpc.MethodHandler) grpc.MethodHandler {
		g.methods[operation] = true
		return countCall(handle)
	}), impl)
}

// wrapMethods returns desc with each method's handler wrapped.
func wrapMethods(desc *grpc.ServiceDesc, wrap func(operation string, handle grpc.MethodHandler) grpc.MethodHandler) *grpc.ServiceDesc {
	wrapped := *desc
	wrapped.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	for i, method := range desc.Methods {
		operation := "/" + desc.ServiceName + "/" + method.MethodName
		wrapped.Methods[i] = grpc.MethodDesc{MethodName: method.MethodName, Handler: wrap(operation, method.Handler)}
	}
	return &wrapped
}

// tap is gRPC's InTapHandle. It holds a lock of the connection, so it must not wait.
func (g *callGuard) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	deadline, limited := ctx.Deadline()
	refusable := !limited || time.Until(deadline) <= longestRefused
	from := peerOf(ctx)
	switch {
	case !g.methods[info.FullMethodName]:
		from.abandon()
		g.doors.Refused(RefusedByMethod)
		if !refusable {
			from.close()
			return ctx, nil // The interceptor refuses it, should its message still come.
		}
		return nil, unknownMethod(info.FullMethodName)
	case from == nil || from.peer.admit(g.mostCalls):
		return ctx, nil
	case !refusable:
		g.doors.Refused(RefusedByPeer)
		from.close()
		return ctx, nil
	default:
		from.abandon()
		g.doors.Refused(RefusedByPeer)
		return nil, rateLimited(openCallsPause, "the callers at this address have too many open calls; nothing has changed")
	}
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
	calls       atomic.Int64  // open: they have a goroutine
	admitted    atomic.Int64  // let in this second, but not open yet
	second      atomic.Int64  // since 1970, of admitted
	abandoned   *rate.Limiter // one token for each call that the peer gave up, below zero too
	slow        *rate.Limiter // one token for each byte that is read while there are no tokens in abandoned
	turn        chan struct{} // held by the connection that waits for tokens of slow; the others wait behind it
}

func newPeerState() *peerState {
	return &peerState{
		abandoned: rate.NewLimiter(abandonedRate, maxAbandoned), slow: rate.NewLimiter(slowRate, slowRead), turn: make(chan struct{}, 1),
	}
}

// admit counts a call that is let in, unless the peer has most. A few calls that are let in are never open, as those with an
// encoding that gRPC does not know: admitted is forgotten every second.
func (p *peerState) admit(most int64) bool {
	if now := time.Now().Unix(); p.second.Load() != now {
		p.second.Store(now)
		p.admitted.Store(0)
	}
	if p.calls.Load()+p.admitted.Load() >= most {
		return false
	}
	p.admitted.Add(1)
	return true
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
	if a == nil {
		return
	}
	a.peer.calls.Add(1)
	if a.peer.admitted.Add(-1) < 0 {
		a.peer.admitted.Add(1) // It was let in a second ago.
	}
}

// end counts the end of a call, and whether its caller gave it up, which cancels the context of its stream.
func (a *peerAddr) end(ctx context.Context) {
	if a == nil {
		return
	}
	a.peer.calls.Add(-1)
	if errors.Is(ctx.Err(), context.Canceled) {
		a.abandon()
	}
}

// close ends the connection of a call that can't be refused alone.
func (a *peerAddr) close() {
	if a != nil {
		_ = a.conn.Close()
	}
}

// abandon counts a call that was given up, or is refused in vain.
func (a *peerAddr) abandon() {
	if a != nil && a.peer.abandoned.Tokens() > -maxDebt {
		a.peer.abandoned.Reserve()
	}
}

// readSlowly returns how much to read from a connection of the peer, and waits for its turn, if it gives up too many calls.
func (p *peerState) readSlowly(size int, closed <-chan struct{}) int {
	if p.abandoned.Tokens() >= 1 {
		return size
	}
	var bytes rate.Reservation // once it is this connection's turn
	var ready <-chan time.Time
	turn := p.turn
	look := time.NewTicker(slowLook)
	defer look.Stop()
	for {
		select {
		case turn <- struct{}{}:
			defer func() { <-p.turn }()
			turn, bytes = nil, *p.slow.ReserveN(time.Now(), min(size, slowRead))
			ready = time.After(bytes.Delay())
		case <-ready:
			return min(size, slowRead)
		case <-look.C:
			if p.abandoned.Tokens() >= 1 {
				bytes.Cancel()
				return size
			}
		case <-closed: // Others need not wait for bytes that nobody reads.
			bytes.Cancel()
			return min(size, slowRead)
		}
	}
}

// promptRegistrar registers a service that everyone may call, and whose calls are few: it does not wait for their messages for longer
// than readTimeout. Calls that wait count for all peers of an address.
type promptRegistrar struct{ grpc.ServiceRegistrar }

// RegisterService implements grpc.ServiceRegistrar.
func (r promptRegistrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	r.ServiceRegistrar.RegisterService(wrapMethods(desc, func(_ string, handle grpc.MethodHandler) grpc.MethodHandler {
		return func(impl any, ctx context.Context, receive func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			return handle(impl, ctx, promptly(receive), intercept)
		}
	}), impl)
}

// promptly returns receive with a bound of the wait. After that the call ends, and with it what receive waits for.
func promptly(receive func(any) error) func(any) error {
	return func(target any) error {
		received := make(chan error, 1)
		go func() { received <- receive(target) }()
		late := time.NewTimer(readTimeout)
		defer late.Stop()
		select {
		case err := <-received:
			return err
		case <-late.C:
			return status.Errorf(codes.DeadlineExceeded, "no message has come within %s", readTimeout)
		}
	}
}
