package inproc

import (
	"context"
	"net"
	"net/http/httptrace"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Conn is one caller's connection to podlink. It implements grpc.ClientConnInterface for unary calls.
type Conn struct {
	timeout time.Duration // of a try; 0: none
	servers []*Server

	mu   sync.Mutex
	cut  chan struct{} // nil: it is not cut
	next int           // the server of the next call
}

// Dial returns a connection to the servers. Its calls take turns over those that can be reached. The timeout bounds each call;
// 0: it does not.
func Dial(timeout time.Duration, servers ...*Server) *Conn {
	return &Conn{timeout: timeout, servers: servers}
}

// Cut separates the caller from podlink: its packets are lost, so that calls have no answer.
func (c *Conn) Cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut == nil {
		c.cut = make(chan struct{})
	}
}

// Mend undoes Cut.
func (c *Conn) Mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut != nil {
		close(c.cut)
	}
	c.cut = nil
}

// refusedError is what a client sees when no server can be reached: nothing was sent.
type refusedError struct{ *net.OpError }

var errRefused = refusedError{&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}}

// GRPCStatus gives the error the code that gRPC's has.
func (e refusedError) GRPCStatus() *status.Status {
	return status.New(codes.Unavailable, "connection error: "+e.Error())
}

// Unwrap returns the failure to dial.
func (e refusedError) Unwrap() error { return e.OpError }

// Invoke implements grpc.ClientConnInterface.
func (c *Conn) Invoke(ctx context.Context, method string, request, reply any, _ ...grpc.CallOption) error {
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.GetConn != nil {
		trace.GetConn("inproc")
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	server, cut := c.pick()
	if server == nil && cut == nil {
		return errRefused
	}
	data, err := proto.Marshal(request.(proto.Message))
	if err != nil {
		return status.Errorf(codes.Internal, "grpc: error while marshaling: %v", err)
	}
	if trace != nil && trace.GotConn != nil { // The call has been sent: this is how net/http tells it.
		trace.GotConn(httptrace.GotConnInfo{})
	}
	if cut != nil {
		<-ctx.Done() // What was sent arrives nowhere.
		return status.FromContextError(ctx.Err()).Err()
	}
	answer, err := server.roundTrip(ctx, method, data)
	if err != nil {
		return err
	}
	return proto.Unmarshal(answer, reply.(proto.Message))
}

// pick returns the server for the next call, nil if none can be reached.
func (c *Conn) pick() (server *Server, cut chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range c.servers {
		server = c.servers[c.next]
		c.next = (c.next + 1) % len(c.servers)
		if c.cut != nil || server.up() {
			return server, c.cut
		}
	}
	return nil, c.cut
}

// NewStream implements grpc.ClientConnInterface: podlink has no streams.
func (c *Conn) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "inproc carries unary calls only")
}
