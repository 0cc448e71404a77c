package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/transport"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

// What AgentOptions says where it is zero.
const (
	DefaultPodTTL       = 15 * time.Second
	DefaultState        = "running"
	DefaultDrainTimeout = 30 * time.Second
	// DefaultGuardCacheTTL is how long a Guard believes what podlink has said about a user.
	DefaultGuardCacheTTL = 5 * time.Second
)

const (
	// reportsPerTTL is how many reports are made while one counts: two may be lost.
	reportsPerTTL = 3
	// jitter is by which part an interval may be shorter, so that the pods of a service do not report all at once.
	jitter = .1
	// progressInterval is between two lines about a drain.
	progressInterval = 5 * time.Second
	// asksAtOnce is how many users podlink is asked about at a time, where it is asked about all.
	asksAtOnce = 16
)

// AgentOptions are how a pod shows itself to podlink. The zero value is right for a StatefulSet whose users are named by the
// header of a Router without a UIDFunc.
type AgentOptions struct {
	// PodName is the pod's name, which ends with its ordinal, as in chat-2. Empty: the environment's POD_NAME, or else the host
	// name, which is the pod's in a StatefulSet.
	PodName string
	// UID finds the user of a request, for the Guard. Nil: the one that a Router without a UIDFunc has sent.
	UID UIDFunc
	// Match finds the user of a request a second time: the Guard refuses requests at which it and UID differ. With UID nil and
	// Match: client.Field("uid") a caller can't name one user in the header and another in the request. Nil: UID alone decides.
	Match UIDFunc
	// Public are the operations, as in /chat.v1.Chat/ListRooms, that may name no user. The Guard refuses others without one.
	Public []string
	// TTL is how long a report counts: a pod that was silent for that long, while others of its service were heard, is dead, and
	// its users are linked to others. Three reports are made in that time. Whole seconds; 0 is DefaultPodTTL.
	TTL time.Duration
	// State is what the pod reports about itself, in words of its own. Nil: DefaultState.
	State func() string
	// Load is what the pod reports as its load: new users go to the pod with the lowest. Nil: the number of its sessions.
	Load func() int32
	// DrainTimeout is how long a pod that stops waits for its sessions to end. What is left then is linked to other pods when
	// somebody asks for it. 0 is DefaultDrainTimeout.
	DrainTimeout time.Duration
	// OnDrain is called once when the pod begins to stop: it may save what its sessions hold and end them (Agent.EndSession).
	// The context ends with DrainTimeout. Nil: the sessions end by themselves.
	OnDrain func(ctx context.Context)
	// OnLost is called when the session of that user and epoch is another pod's by now: what the pod holds for it is out of date,
	// and must not be saved. It must not start or end sessions. Nil: nobody is told.
	OnLost func(uid string, epoch int64)
	// CacheTTL is how long the Guard believes what podlink has said about a user. 0 is DefaultGuardCacheTTL.
	CacheTTL time.Duration
	// Logger is for what the agent has to say. Nil: Kratos' own.
	Logger log.Logger
}

// Agent is the podlink of one pod. As a transport.Server of a kratos.App it reports the pod at once and again and again until
// it stops:
//
//	kratos.Server(grpcServer, agent),
//	kratos.Metadata(agent.Metadata()),
//	kratos.BeforeStop(agent.Drain), // before the other servers stop
//
// It neither waits for podlink nor ends without it. It is safe for concurrent use.
type Agent struct {
	client             *Client
	namespace, service string
	pod                int32
	options            AgentOptions
	log                *log.Helper
	links              *linkCache
	guard              *guard
	reports            *lease

	turn    chan struct{} // held by the one who reports: podlink shall believe the latest report
	lapsed  bool          // podlink may have linked sessions to other pods, and was not asked yet; who has the turn may change it
	kick    chan struct{} // asks for a report now
	stop    chan struct{} // closed by Stop
	stopped sync.Once
	drained sync.Once

	mu       sync.Mutex
	routing  v1.Routing
	lease    time.Time // until when podlink takes the pod for live; zero: never yet
	sessions map[string]*session
}

var _ transport.Server = (*Agent)(nil)

// NewAgent returns the agent of this pod of the service. It is an error when the pod's name has no ordinal.
func (c *Client) NewAgent(namespace, service string, o AgentOptions) (*Agent, error) {
	pod, err := ordinal(o.PodName)
	if err != nil {
		return nil, err
	}
	orDefault(&o.TTL, DefaultPodTTL)
	orDefault(&o.DrainTimeout, DefaultDrainTimeout)
	orDefault(&o.CacheTTL, DefaultGuardCacheTTL)
	if !wholeSeconds(o.TTL) || o.DrainTimeout < 0 || o.CacheTTL < 0 {
		return nil, fmt.Errorf("podlink: an agent's TTL must be whole seconds, and no duration negative: %s, %s, %s",
			o.TTL, o.DrainTimeout, o.CacheTTL)
	}
	if o.State == nil {
		o.State = func() string { return DefaultState }
	}
	if o.Logger == nil {
		o.Logger = log.GetLogger()
	}
	a := &Agent{
		client: c, namespace: namespace, service: service, pod: pod, options: o,
		log:  log.NewHelper(log.With(o.Logger, "module", "podlink")),
		turn: make(chan struct{}, 1), kick: make(chan struct{}, 1), stop: make(chan struct{}), sessions: map[string]*session{},
	}
	a.reports = newLease(o.TTL)
	a.guard, err = newGuard(guardOptions{
		links: c, lease: a.reports, sessions: agentSessions{a}, namespace: namespace, service: service, pod: pod,
		uid: o.UID, match: o.Match, public: o.Public, cacheTTL: o.CacheTTL, timeout: c.timeout, log: a.log,
	})
	if err != nil {
		return nil, fmt.Errorf("podlink: %w", err)
	}
	if a.options.Load == nil {
		a.options.Load = func() int32 { return int32(a.Sessions()) }
	}
	a.links = c.closing(a.guard.cache)
	return a, nil
}

// ordinal is the number that a pod's name ends with.
func ordinal(name string) (int32, error) {
	from := "AgentOptions.PodName"
	if name == "" {
		name, from = os.Getenv("POD_NAME"), "POD_NAME"
	}
	if name == "" {
		var err error
		from = "the host name"
		if name, err = os.Hostname(); err != nil {
			return 0, fmt.Errorf("podlink: neither POD_NAME nor a host name: %w", err)
		}
	}
	number, err := strconv.ParseUint(name[strings.LastIndexByte(name, '-')+1:], 10, 31)
	if err != nil || !strings.Contains(name, "-") {
		return 0, fmt.Errorf("podlink: %s is %q, and does not end with a pod's ordinal as chat-2 does", from, name)
	}
	return int32(number), nil
}

// PodID is the pod's ordinal.
func (a *Agent) PodID() int32 { return a.pod }

// Metadata is what a registered instance of the pod has to have for routers to find it.
func (a *Agent) Metadata() map[string]string {
	return map[string]string{MetadataPodID: number(a.pod)}
}

// Start implements transport.Server: it reports the pod until Stop, or until ctx ends. It does not fail.
func (a *Agent) Start(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-a.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	away := a.retries()
	told := false // that podlink is away
	for {
		err := a.report(ctx)
		next := time.Duration((1 - jitter*rand.Float64()) * float64(a.options.TTL/reportsPerTTL)) //nolint:gosec // It is no secret.
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			if !told {
				a.log.Warnf("pod %d of %s: report failed, retrying: %v", a.pod, a.service, err)
			}
			told, next = true, away.NextBackOff()
		default:
			if told {
				a.log.Infof("pod %d of %s: reporting again", a.pod, a.service)
			}
			told, away = false, a.retries()
			a.settle(ctx)
		}
		select {
		case <-time.After(next):
		case <-a.kick:
		case <-ctx.Done():
			return nil
		}
	}
}

// retries are the pauses while podlink is away: never longer than between two reports.
func (a *Agent) retries() *backoff.ExponentialBackOff {
	growing := pauses()
	growing.MaxInterval = time.Duration(float64(a.options.TTL/reportsPerTTL) / (1 + growing.RandomizationFactor))
	return growing
}

// report tells podlink what the pod is like now. While it succeeds the pod has a lease on its users: podlink links none of
// them to another pod by itself before a report has aged by the TTL.
func (a *Agent) report(ctx context.Context) error {
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	a.mu.Lock()
	routing := a.routing
	a.mu.Unlock()
	load := a.options.Load()
	begin := time.Now()
	_, err := a.client.SetServiceState(ctx, &v1.SetServiceStateRequest{
		Namespace: a.namespace, Service: a.service, PodId: &a.pod, State: a.options.State(), Load: &load, Routing: &routing,
		TtlSeconds: proto.Int32(int32(a.options.TTL / time.Second)),
	})
	if err != nil {
		return err
	}
	a.links.reachable()
	a.reports.renew(renewal{begun: begin})
	if !a.lease.IsZero() && time.Now().After(a.lease) { // Also if the report began in time: it may have come too late.
		a.log.Warnf("pod %d of %s: no report for longer than %s: its users may be linked to other pods", a.pod, a.service, a.options.TTL)
		a.links.invalidateAll() // The new lease is not for what was known under the old one.
		a.lapsed = true
	}
	a.mu.Lock()
	a.lease = begin.Add(a.options.TTL)
	a.mu.Unlock()
	if a.lapsed {
		if err := a.review(ctx); err != nil {
			a.log.Warnf("pod %d of %s: checking its sessions failed, retrying: %v", a.pod, a.service, err)
			return nil
		}
		a.lapsed = false
	}
	return nil
}

// Report makes the pod's next report at once, because its state or its load has changed. It does not wait for it.
func (a *Agent) Report() {
	select {
	case a.kick <- struct{}{}:
	default: // One is asked for already.
	}
}

func (a *Agent) draining() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.routing != v1.Routing_READY
}

// setRouting reports that the pod takes calls in another way, and tries on until podlink knows or ctx ends.
func (a *Agent) setRouting(ctx context.Context, routing v1.Routing) error {
	a.mu.Lock()
	a.routing = routing
	a.mu.Unlock()
	for between := a.retries(); ; {
		err := a.report(ctx)
		if err == nil || !pause(ctx, between.NextBackOff()) {
			return err
		}
	}
}

// Drain empties the pod: it takes no new users (DENY_NEW), waits until its sessions have ended, for DrainTimeout at most, and
// then serves nobody any more (SHUTDOWN). It is for kratos.BeforeStop, and returns when the pod's servers may stop; a second
// call waits for the first. It fails only if ctx ends.
func (a *Agent) Drain(ctx context.Context) error {
	a.drained.Do(func() { a.drain(ctx) })
	return ctx.Err()
}

func (a *Agent) drain(ctx context.Context) {
	begin := time.Now()
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, a.options.DrainTimeout)
	defer cancel()
	a.log.Infof("pod %d of %s: draining %d sessions, for at most %s", a.pod, a.service, a.Sessions(), a.options.DrainTimeout)
	first, cancelFirst := context.WithTimeout(ctx, a.client.timeout) // Later reports say it too.
	if err := a.setRouting(first, v1.Routing_DENY_NEW); err != nil {
		a.log.Warnf("pod %d of %s: reporting the drain failed, the next report repeats it: %v", a.pod, a.service, err)
	}
	cancelFirst()
	handing := make(chan struct{})
	go func() {
		defer close(handing)
		if a.options.OnDrain != nil {
			a.options.OnDrain(ctx)
		}
	}()
	a.waitEmpty(ctx)
	cancel()
	<-handing
	if left := a.Sessions(); left > 0 {
		a.log.Warnf("pod %d of %s: stopping with %d sessions left after %s", a.pod, a.service, left, time.Since(begin).Round(time.Millisecond))
	} else {
		a.log.Infof("pod %d of %s: drained after %s", a.pod, a.service, time.Since(begin).Round(time.Millisecond))
	}
	last, cancelLast := context.WithTimeout(whole, a.client.timeout)
	defer cancelLast()
	if err := a.setRouting(last, v1.Routing_SHUTDOWN); err != nil {
		a.log.Warnf("pod %d of %s: reporting the shutdown failed, its last report expires within %s: %v", a.pod, a.service, a.options.TTL, err)
	}
}

// waitEmpty waits until no session is left of which podlink knows.
func (a *Agent) waitEmpty(ctx context.Context) {
	look := time.NewTicker(firstPause)
	defer look.Stop()
	for told := time.Now(); !a.empty(); {
		if time.Since(told) > progressInterval {
			told = time.Now()
			a.log.Infof("pod %d of %s: draining, %d sessions left", a.pod, a.service, a.Sessions())
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

func (a *Agent) empty() bool {
	running, ending := a.count()
	return running+ending == 0
}

// Stop implements transport.Server: it drains the pod, unless that has been done, and ends the reports.
func (a *Agent) Stop(ctx context.Context) error {
	err := a.Drain(ctx)
	a.stopped.Do(func() { close(a.stop) })
	return err
}
