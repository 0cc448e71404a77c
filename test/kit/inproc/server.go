// Package inproc runs podlink in the process of a test, without a socket: the real services and use cases on the model store of
// test/kit/model. In a bubble of testing/synctest all of it runs in virtual time.
//
// Clients reach it by a Conn, which carries the messages and errors as gRPC does. A Server can be killed and frozen, can lose
// replies and be slow, and a Conn can be cut.
package inproc

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
	"podlink/internal/service"
	"podlink/test/kit/model"
)

// Defaults of podlink's configuration.
const (
	defaultTimeout = time.Second // server.grpc.timeout
	defaultPodTTL  = 30          // state.pod_ttl, in seconds
	maxBatch       = 1000        // limits.max_batch
	jobRate        = 2000        // fleet.job_rate
)

// Server is one podlink. It is safe for concurrent use.
type Server struct {
	store *model.Store

	mu      sync.Mutex
	process *process      // nil: it was killed
	thaw    chan struct{} // nil: it is not frozen; closed when it thaws
	queued  int           // calls that have arrived meanwhile
	latency func() time.Duration
	drop    func(method string) bool
	calls   map[string]int // by method, executed or not
}

// process is what a start of podlink makes and its end takes with it.
type process struct {
	methods map[string]method
	views   *biz.PodViews
	ended   context.Context //nolint:containedctx // Its end is the process's, not a call's.
	end     context.CancelFunc
}

type method struct {
	service any
	handle  grpc.MethodHandler
}

// NewServer starts a podlink on the store. Stop it before the bubble ends.
func NewServer(store *model.Store) *Server {
	s := &Server{
		store: store, calls: make(map[string]int),
		latency: func() time.Duration { return 0 }, drop: func(string) bool { return false },
	}
	s.Start()
	return s
}

// Start starts a podlink that was killed: a new process, which has cached nothing.
func (s *Server) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		s.process = newProcess(s.store.Podlink())
	}
}

func newProcess(store *model.Podlink) *process {
	views := biz.NewPodViews(store.Pods(), biz.NopObserver{})
	limits := biz.Limits{MaxBatch: maxBatch}
	p := &process{methods: make(map[string]method), views: views}
	p.ended, p.end = context.WithCancel(context.Background())
	p.register(&v1.LinkService_ServiceDesc,
		service.NewLinkService(biz.NewLinkUsecase(store.Links(), views, limits, biz.NopObserver{}), service.NopProblems{}))
	p.register(&v1.StateService_ServiceDesc, service.NewStateService(biz.NewPodUsecase(views, defaultPodTTL)))
	p.register(&v1.WorkloadService_ServiceDesc,
		service.NewWorkloadService(biz.NewWorkloadUsecase(store.Workloads(), limits, biz.NopObserver{})))
	p.register(&v1.FleetService_ServiceDesc, // Only its jobs, which are asked for, and which nobody runs.
		service.NewFleetService(nil, nil, biz.NewJobUsecase(store.Jobs(), views, biz.JobOptions{Index: true, Rate: jobRate})))
	return p
}

func (p *process) register(desc *grpc.ServiceDesc, implementation any) {
	for _, m := range desc.Methods {
		p.methods["/"+desc.ServiceName+"/"+m.MethodName] = method{implementation, m.Handler}
	}
}

// Kill ends podlink as SIGKILL does: it can't be reached, and the calls that it was executing have no answer.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		s.process.end()
		s.process.views.Stop()
	}
	s.process = nil
	s.unfreeze()
}

// Freeze stops podlink as SIGSTOP does: it accepts calls, and executes them when it thaws.
func (s *Server) Freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.thaw == nil && s.process != nil {
		s.thaw, s.queued = make(chan struct{}), 0
	}
}

// Unfreeze makes podlink go on. It executes the calls that have arrived meanwhile, even if their callers have left.
func (s *Server) Unfreeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unfreeze()
}

func (s *Server) unfreeze() {
	if s.thaw != nil {
		close(s.thaw)
	}
	s.thaw = nil
}

// SetLatency sets how long the network takes for a call, there and back. Nil: no time.
func (s *Server) SetLatency(latency func() time.Duration) {
	if latency == nil {
		latency = func() time.Duration { return 0 }
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latency = latency
}

// DropReplies breaks the connection after the execution of each call for which drop returns true. Nil: of none.
func (s *Server) DropReplies(drop func(method string) bool) {
	if drop == nil {
		drop = func(string) bool { return false }
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop = drop
}

// Calls returns how many calls of the method have reached podlink.
func (s *Server) Calls(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

// up reports whether the server accepts connections.
func (s *Server) up() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process != nil
}

// errBroken is what a client sees of a connection that broke after the call was sent.
var errBroken = status.Error(codes.Unavailable, "error reading from server: connection reset by peer")

// roundTrip carries out a call that has been sent. ctx is the client's.
func (s *Server) roundTrip(ctx context.Context, method string, request []byte) ([]byte, error) {
	s.mu.Lock()
	p, way, frozen := s.process, s.latency(), s.thaw != nil
	s.calls[method]++
	s.mu.Unlock()
	if p == nil {
		return nil, errBroken
	}
	if way == 0 && !frozen {
		reply, err := s.serve(ctx, p, method, request)
		if ctx.Err() != nil {
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		return reply, err
	}
	type answer struct {
		reply []byte
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		if !sleep(p.ended, way/2) {
			return
		}
		s.mu.Lock()
		thaw, queued := s.thaw, s.queued
		s.queued++
		s.mu.Unlock()
		serving := ctx
		if thaw != nil {
			select {
			case <-thaw:
			case <-p.ended.Done():
				return
			}
			if !sleep(p.ended, time.Duration(queued)*time.Microsecond) { // One after the other, in the order of their arrivals.
				return
			}
			if ctx.Err() != nil {
				// The call was already in the socket. podlink reads that its caller has left only after it.
				late, cancel := context.WithTimeout(p.ended, time.Millisecond)
				defer cancel()
				serving = late
			}
		}
		reply, err := s.serve(serving, p, method, request)
		if sleep(p.ended, way/2) {
			answered <- answer{reply, err}
		}
	}()
	select {
	case a := <-answered:
		return a.reply, a.err
	case <-p.ended.Done():
		return nil, errBroken
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

// sleep returns false if the context ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// serve executes a call in the process.
func (s *Server) serve(client context.Context, p *process, name string, request []byte) ([]byte, error) {
	m, ok := p.methods[name]
	if !ok {
		return nil, status.Errorf(codes.Unimplemented, "unknown method %s", name)
	}
	// Nothing of the client but its deadline and its end reaches the server.
	ctx, cancel := context.WithTimeout(p.ended, defaultTimeout)
	defer cancel()
	if end, ok := client.Deadline(); ok {
		var earlier context.CancelFunc
		ctx, earlier = context.WithDeadline(ctx, end)
		defer earlier()
	}
	defer context.AfterFunc(client, cancel)()
	reply, err := handle(ctx, m, request)
	s.mu.Lock()
	dropped := s.drop(name)
	s.mu.Unlock()
	if p.ended.Err() != nil || dropped {
		return nil, errBroken
	}
	return reply, err
}

// handle calls the service as podlink's chain does, and returns what goes over the wire.
func handle(ctx context.Context, m method, request []byte) (_ []byte, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = overTheWire(service.Internal(fmt.Errorf("panic: %v\n%s", cause, debug.Stack())))
		}
	}()
	decode := func(message any) error { return proto.Unmarshal(request, message.(proto.Message)) }
	reply, err := m.handle(m.service, ctx, decode, nil)
	if err != nil {
		return nil, overTheWire(service.PublicError(err))
	}
	return proto.Marshal(reply.(proto.Message))
}

// overTheWire returns the error as a client of gRPC gets it: its status, without its cause.
func overTheWire(err error) error {
	sent, failure := proto.Marshal(status.Convert(err).Proto())
	if failure != nil {
		return status.Error(codes.Internal, failure.Error())
	}
	received := status.New(codes.OK, "").Proto()
	if err := proto.Unmarshal(sent, received); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	return status.ErrorProto(received)
}
