package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

// states is podlink's StateService with one pod, in memory, as the contract's table of instances has it.
type states struct {
	v1.StateServiceClient // nil: what the agent does not call

	links *fakeLinks // of the same podlink

	mu          sync.Mutex
	pod         *v1.Pod // nil: none has reported
	sequence    int64
	predecessor string
	storeID     string
	cordon      v1.Routing
	fault       func(ctx context.Context, execute func() error) error // nil: none
	reports     []sent
	inFlight    int
	most        int // in flight at once
}

// sent is a report, and when it arrived.
type sent struct {
	*v1.SetServiceStateRequest
	at time.Time
}

// The faults of podlink.
func isAway(context.Context, func() error) error { return ErrUnavailable }

func isHanging(ctx context.Context, _ func() error) error {
	<-ctx.Done()
	return withCause(ErrOutcomeUnknown, ctx.Err())
}

func losesReplies(ctx context.Context, execute func() error) error {
	_ = execute()
	return isHanging(ctx, nil)
}

func isUnconfirmed(_ context.Context, execute func() error) error {
	if err := execute(); err != nil {
		return err
	}
	return ErrReplicationUnconfirmed
}

func (s *states) set(fault func(context.Context, func() error) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// do carries out a call, unless a fault has it otherwise. Reads are not unconfirmed.
func (s *states) do(ctx context.Context, execute func() error) error {
	s.mu.Lock()
	fault := s.fault
	s.inFlight++
	s.most = max(s.most, s.inFlight)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.inFlight--
	}()
	locked := func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		return execute()
	}
	if fault == nil {
		return locked()
	}
	return fault(ctx, locked)
}

func superseded(generation int64, final bool) error {
	return withCause(ErrSuperseded, nil, "generation", number(generation), "final", fmt.Sprint(final))
}

func (s *states) SetServiceState(
	ctx context.Context, r *v1.SetServiceStateRequest, _ ...grpc.CallOption,
) (reply *v1.SetServiceStateReply, err error) {
	r = proto.CloneOf(r)
	s.mu.Lock()
	s.reports = append(s.reports, sent{r, time.Now()})
	s.mu.Unlock()
	err = s.do(ctx, func() error {
		stored := s.pod
		if stored == nil {
			stored = &v1.Pod{}
		}
		generation := r.GetGeneration()
		switch {
		case generation > 0 && generation < stored.GetGeneration():
			return superseded(stored.GetGeneration(), false)
		case generation == 0 && r.GetInstanceId() == stored.GetInstanceId():
			generation = stored.GetGeneration()
		case generation == 0 && r.GetInstanceId() == s.predecessor:
			return superseded(stored.GetGeneration(), true)
		case generation == 0 && r.GetSupersedes() != stored.GetGeneration():
			return superseded(stored.GetGeneration(), false)
		case generation == 0:
			generation = max(stored.GetGeneration()+1, time.Now().UnixMicro())
		}
		if generation == stored.GetGeneration() && r.GetSequence() <= s.sequence {
			reply = &v1.SetServiceStateReply{Pod: stored, StoreId: s.storeID}
			return nil
		}
		if r.GetInstanceId() != stored.GetInstanceId() {
			s.predecessor = stored.GetInstanceId()
		}
		s.sequence = r.GetSequence()
		s.pod = &v1.Pod{
			PodId: r.GetPodId(), State: r.GetState(), Load: r.GetLoad(), ReportedRouting: r.GetRouting(), Live: true,
			HeartbeatMs: time.Now().UnixMilli(), TtlSeconds: r.GetTtlSeconds(), InstanceId: r.GetInstanceId(), Generation: generation,
			Cordon: s.cordon, Routing: max(r.GetRouting(), s.cordon),
		}
		reply = &v1.SetServiceStateReply{Pod: proto.CloneOf(s.pod), Applied: true, StoreId: s.storeID}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return reply, nil
}

func (s *states) GetServicePod(
	ctx context.Context, _ *v1.GetServicePodRequest, _ ...grpc.CallOption,
) (reply *v1.GetServicePodReply, err error) {
	err = s.do(ctx, func() error {
		if s.pod == nil {
			return ErrPodNotFound
		}
		reply = &v1.GetServicePodReply{Pod: proto.CloneOf(s.pod)}
		return nil
	})
	if errors.Is(err, ErrReplicationUnconfirmed) {
		err = nil // A read is none.
	}
	return reply, err
}

// stored returns what podlink has of the pod.
func (s *states) stored() *v1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	return proto.CloneOf(s.pod)
}

// mostInFlight returns how many calls there were at once.
func (s *states) mostInFlight() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most
}

// since returns the reports that have arrived since then.
func (s *states) since(begin time.Time) (all []sent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, report := range s.reports {
		if !report.at.Before(begin) {
			all = append(all, report)
		}
	}
	return all
}

// setCordon cordons the pod.
func (s *states) setCordon(cordon v1.Routing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cordon = cordon
}

// process is a reporter that runs until the test ends, or until it is stopped.
type process struct {
	*reporter
	lease *lease
	stop  func() error // it returns what run has returned
}

// process returns a reporter of the pod, which does not run yet.
func (s *states) process(t *testing.T, ttl time.Duration, adapt func(*reporterOptions)) *process {
	t.Helper()
	id, err := newInstanceID("")
	require.NoError(t, err)
	p := &process{lease: newLease(ttl)}
	o := reporterOptions{
		states: s, lease: p.lease, namespace: testNamespace, service: testService, pod: 3, instance: id, ttl: ttl,
		state: func() string { return "here" }, load: func() int32 { return 7 }, log: log.NewHelper(log.NewStdLogger(io.Discard)),
	}
	if adapt != nil {
		adapt(&o)
	}
	p.reporter = newReporter(o)
	return p
}

// run starts the process.
func (p *process) begin(t *testing.T) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx) }()
	p.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = p.stop() })
	return p
}

func (p *process) holds() bool {
	state, _ := p.lease.state()
	return state.holds()
}

func (p *process) generation() int64 {
	state, _ := p.lease.state()
	return state.generation
}
