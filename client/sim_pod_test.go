package client_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/middleware"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/go-kratos/kratos/v2/selector"
	"github.com/go-kratos/kratos/v2/transport"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "podlink/api/podlink/v1"
	"podlink/client"
	"podlink/test/kit/inproc"
	"podlink/test/kit/sim"
)

// process is a process of a pod: its agent and guard, and the state of the users whose sessions it has.
type process struct {
	sim     *simulation
	ordinal int32
	name    string // unique: chat-2#5 is the fifth process of the service
	conn    *inproc.Conn
	podlink *client.Client
	agent   sim.Agent
	guarded middleware.Handler
	node    selector.Node
	ended   context.Context //nolint:containedctx // Its end is that of the process.
	end     context.CancelFunc
	served  sync.WaitGroup
	service *sim.Service

	stopping atomic.Bool // it has drained: its users may be moved

	mu         sync.Mutex
	thaw       chan struct{} // nil: it is not frozen
	queued     int           // handlers that have stopped since it froze
	registered bool
	cuts       int // reasons why it is cut off from podlink
}

// startProcess starts a process of the pod and registers it.
func (s *simulation) startProcess(ordinal int32) *process {
	s.mu.Lock()
	s.started++
	p := &process{sim: s, ordinal: ordinal, name: fmt.Sprintf("chat-%d#%d", ordinal, s.started)}
	s.mu.Unlock()
	p.ended, p.end = context.WithCancel(context.Background())
	p.conn = inproc.Dial(simTry, s.podlinks...)
	p.podlink = client.NewOver(s.variant.carrier(p.conn), simTimeout)
	var err error
	p.agent, err = sim.NewAgent(p.podlink, sim.AgentOptions{
		Ordinal: ordinal, TTL: s.o.ttl, CacheTTL: cmp.Or(s.variant.guardCacheTTL, s.o.guardCacheTTL), OnLost: p.lost,
		Registrar: processRegistrar{p}, Logger: s.logger(p.name),
	})
	if err != nil {
		s.violate("%s: %v", p.name, err)
		return p
	}
	p.service = &sim.Service{
		Name: p.name, Storage: s.storage, Start: s.variant.starting(p.agent.StartSession), Running: p.running, Keep: 2 * s.o.ttl,
		Wrote: func(uid string, session sim.Session) { s.check.wrote(p, uid, session) },
	}
	p.registered = true
	p.guarded = p.agent.Guard()(p.handle)
	p.node = selector.NewNode("grpc", p.name, &registry.ServiceInstance{
		ID: p.name, Name: sim.ServiceName, Metadata: p.agent.Metadata(), Endpoints: []string{"grpc://" + p.name},
	})
	s.mu.Lock()
	if s.allCut {
		p.cut(+1)
	}
	s.processes = append(s.processes, p)
	s.nodes = nil
	s.mu.Unlock()
	p.served.Go(func() { p.agent.Run(p.ended, p.name) })
	return p
}

// kill ends the process as SIGKILL does: what it has sent may arrive, but it does nothing more.
func (p *process) kill() {
	p.cut(+1)
	p.end()
	p.unfreeze()
	p.deregister()
	_ = p.podlink.Close()
	p.served.Wait()
}

// stop drains the process and ends it, as SIGTERM does.
func (p *process) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p.stopping.Store(true)
	_ = p.agent.Drain(ctx)
	p.deregister()
	_ = p.agent.Stop(ctx)
	p.end()
	_ = p.podlink.Close()
	p.served.Wait()
}

// processRegistrar is the registry as the agent of a process uses it.
type processRegistrar struct{ *process }

// Register implements registry.Registrar.
func (r processRegistrar) Register(context.Context, *registry.ServiceInstance) error { return nil }

// Deregister implements registry.Registrar.
func (r processRegistrar) Deregister(context.Context, *registry.ServiceInstance) error {
	r.deregister()
	return nil
}

func (p *process) deregister() {
	p.mu.Lock()
	p.registered = false
	p.mu.Unlock()
	p.sim.mu.Lock()
	p.sim.nodes = nil
	p.sim.mu.Unlock()
}

// freeze stops the process as SIGSTOP does. Its agent can't be stopped in this process; it is cut off from podlink instead.
func (p *process) freeze() {
	p.cut(+1)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.thaw, p.queued = make(chan struct{}), 0
}

func (p *process) unfreeze() {
	p.mu.Lock()
	thaw := p.thaw
	p.thaw = nil
	p.mu.Unlock()
	if thaw != nil {
		close(thaw)
		p.cut(-1)
	}
}

// cut counts for how many reasons the process is cut off from podlink.
func (p *process) cut(reasons int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts += reasons
	if p.cuts > 0 || p.ended.Err() != nil {
		p.conn.Cut()
	} else {
		p.conn.Mend()
	}
}

// running waits while the process is frozen. It returns false if it has ended.
func (p *process) running() bool {
	for {
		p.mu.Lock()
		thaw, queued := p.thaw, p.queued
		p.queued++
		p.mu.Unlock()
		if thaw == nil || p.ended.Err() != nil {
			return p.ended.Err() == nil
		}
		select {
		case <-thaw:
			time.Sleep(time.Duration(queued) * time.Microsecond) // One after the other, in the order of their arrivals.
		case <-p.ended.Done():
		}
	}
}

// errBroken is what a caller sees of a pod whose connection broke after the call was sent.
var errBroken = status.Error(codes.Unavailable, "error reading from server: connection reset by peer")

// serve carries out a call to the process as a server of gRPC does: nothing of the caller's context but its end reaches it.
func (p *process) serve(caller context.Context, t *simTransport, request any) (any, error) {
	type answer struct {
		reply any
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		if !p.running() {
			return
		}
		ctx, cancel := context.WithCancel(p.ended)
		defer cancel()
		if end, ok := caller.Deadline(); ok {
			var earlier context.CancelFunc
			ctx, earlier = context.WithDeadline(ctx, end)
			defer earlier()
		}
		defer context.AfterFunc(caller, cancel)()
		arrived := &simTransport{operation: t.operation, request: t.request.clone(), reply: simHeader{}}
		reply, err := p.guarded(transport.NewServerContext(ctx, arrived), request)
		if p.running() {
			answered <- answer{reply, overTheWire(err)}
		}
	}()
	select {
	case a := <-answered:
		return a.reply, a.err
	case <-p.ended.Done():
		return nil, errBroken
	case <-caller.Done():
		return nil, status.FromContextError(caller.Err()).Err()
	}
}

// overTheWire returns the error as a caller over gRPC gets it.
func overTheWire(err error) error {
	if err == nil {
		return nil
	}
	sent, ok := status.FromError(err)
	if !ok {
		sent = status.FromContextError(err)
	}
	return sent.Err() // Without its cause.
}

// handle is the service's handler. The request names the user and what to do.
func (p *process) handle(ctx context.Context, request any) (any, error) {
	r := request.(*v1.ListLinkedServicesRequest)
	p.sim.check.served(p, r.GetUid())
	return r, p.service.Handle(ctx, r.GetNamespace(), r.GetUid())
}

// lost is the agent's OnLost.
func (p *process) lost(uid string, epoch int64) {
	p.sim.check.lost(p, uid, epoch)
}

// errors that a caller may see while something is at fault.
func expected(err error) bool {
	cause := kerrors.FromError(err)
	switch cause.Reason {
	case "WRONG_POD", "LINK_UNCERTAIN", "POD_UNREACHABLE", "PODLINK_UNAVAILABLE", "NO_AVAILABLE_POD", "STORE_UNAVAILABLE",
		"OUTCOME_UNKNOWN", "DEADLINE_EXCEEDED", "STORE_DATA_CORRUPT", "EPOCH_MISMATCH", "SUPERSEDED", "FENCED", "CANCELED",
		"REPLICATION_UNCONFIRMED", selector.ErrNoAvailable.Reason:
		return true
	case kerrors.UnknownReason:
		return errors.Is(err, context.DeadlineExceeded) || cause.Code == 504 || cause.Code == 503 || cause.Code == 499
	}
	return false
}
