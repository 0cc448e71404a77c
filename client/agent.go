package client

import (
	"context"
	"fmt"
	"maps"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/go-kratos/kratos/v2/transport"
)

// Defaults of AgentOptions.
const (
	DefaultPodTTL       = 15 * time.Second
	DefaultState        = "running"
	DefaultDrainTimeout = 30 * time.Second
	// DefaultReleaseAfter is how long users of an earlier process of the pod have to come back.
	DefaultReleaseAfter = 10 * time.Minute
	// DefaultGuardCacheTTL is how long a Guard uses a link without asking podlink.
	DefaultGuardCacheTTL = 5 * time.Second
)

// AgentOptions configures an Agent. The zero value is right for a pod of a StatefulSet whose users are named by the header of a
// Router without a UIDFunc; in an app that has a registry, set Registrar too.
type AgentOptions struct {
	// PodName is the pod's name, which ends with its ordinal, as in chat-2. Empty: the environment's POD_NAME, or else the host
	// name, which is the pod's name in a StatefulSet. A name that is hardly a StatefulSet's is refused.
	PodName string
	// PodOrdinal is the pod's ordinal, whatever its name is. Nil: the one in the name.
	PodOrdinal *int32
	// InstanceID names the process; a random text is added to it at each start, so that two processes of one pod never have the
	// same. At most 100 characters A-Z a-z 0-9 . _ : -. Empty: the environment's POD_UID, if it is set.
	InstanceID string
	// Registrar is the app's registry. Agent.AppOptions registers the app there, and the agent deregisters it when another process
	// has taken over the pod. Nil: the app is in no registry.
	Registrar registry.Registrar
	// UID finds the user of a request, for the Guard. Nil: the user that a Router without a UIDFunc has sent.
	UID UIDFunc
	// Public names the operations that the Guard lets pass although they name no user, as in /chat.v1.Chat/Rooms.
	Public []string
	// Match finds the user of a request in a second place; a request in which both differ, or in which it finds none, is refused. Nil: UID
	// decides alone.
	Match UIDFunc
	// TTL is the lifetime of a report: a pod that is silent for longer, while others of its service are heard, is dead, and its users
	// are linked to others. Three reports are made in that time. Whole seconds; 0 is DefaultPodTTL.
	TTL time.Duration
	// State returns the pod's state for a report, 1 to 1024 bytes of text. It is called beside the reports: one that blocks or panics
	// delays none, and its last value is reported. Nil: DefaultState.
	State func() string
	// Load returns the pod's load for a report, and is called as State: new users go to the pod with the lowest. Nil: the number of
	// its sessions.
	Load func() int32
	// Capacity is the load at which the pod takes no new users. 0: none.
	Capacity int32
	// Labels are what a caller's selector chooses pods by: at most 16, with names like a service's and values of at most 128 bytes.
	Labels map[string]string
	// Address is the host:port at which the pod is reached, for callers without discovery. Empty: none.
	Address string
	// DrainTimeout bounds a drain, whatever podlink and OnDrain do. The links of sessions that are left then stay; podlink moves
	// their users to other pods when they are asked for. 0 is DefaultDrainTimeout.
	DrainTimeout time.Duration
	// ReleaseAfter is how long after its start the pod asks podlink to release the links that earlier processes of the pod have claimed and
	// left behind: they would last for ever. 0 is DefaultReleaseAfter; negative: never.
	ReleaseAfter time.Duration
	// OnDrain is called when the pod begins to drain, and when an operator cordons it: it may save what the sessions hold and end
	// them. Its context ends in time for the rest of the drain, or when the cordon is lifted; calls do not overlap. Nil: the sessions
	// end by themselves.
	OnDrain func(ctx context.Context)
	// OnLost is called once for each session that this process has lost: what the pod holds for it is out of date, and must not be
	// saved. The calls come one after the other, and not from a request: it may start and end sessions, and wait for locks that
	// handlers hold. By then the user may have a new session on this pod, with a greater epoch.
	OnLost func(uid string, epoch int64)
	// CacheTTL is how long the Guard uses a link without asking podlink. 0 is DefaultGuardCacheTTL.
	CacheTTL time.Duration
	// Logger is the agent's. Nil: Kratos' own.
	Logger log.Logger
}

// Agent is the part of podlink in one pod: it reports the pod, keeps the links of the pod's sessions, refuses users of other pods
// (Guard), and empties the pod before it stops. ServerOptions and AppOptions wire it into a kratos.App.
//
// It neither waits for podlink nor ends without it. It is safe for concurrent use.
type Agent struct {
	client             *Client
	namespace, service string
	pod                int32
	options            AgentOptions
	log                *log.Helper
	lease              *lease
	reporter           *reporter
	health             *healthService
	sessions           *sessions
	guard              *guard

	started    atomic.Bool
	ready      chan struct{} // closed by Ready
	readied    sync.Once
	handing    chan struct{} // has an element while OnDrain runs
	drainBegun chan struct{} // closed when the drain begins
	drainEnded chan struct{} // closed when it has ended
	stop       chan struct{} // closed by Stop
	stopped    sync.Once

	mu       sync.Mutex
	app      kratos.AppInfo // nil: it is not a Kratos app, or it has not started
	miswired error          // that Start returns
}

var _ transport.Server = (*Agent)(nil)

// NewAgent returns the agent of this pod of the service. It is an error when the pod's name is not that of a StatefulSet's pod.
func (c *Client) NewAgent(namespace, service string, o AgentOptions) (*Agent, error) {
	a, err := c.newAgent(namespace, service, o)
	if err != nil {
		return nil, fmt.Errorf("podlink: %w", err)
	}
	return a, nil
}

func (c *Client) newAgent(namespace, service string, o AgentOptions) (*Agent, error) {
	pod, err := podOrdinal(o)
	if err != nil {
		return nil, err
	}
	orDefault(&o.TTL, DefaultPodTTL)
	orDefault(&o.DrainTimeout, DefaultDrainTimeout)
	orDefault(&o.ReleaseAfter, DefaultReleaseAfter)
	orDefault(&o.CacheTTL, DefaultGuardCacheTTL)
	if err := o.validate(namespace, service); err != nil {
		return nil, err
	}
	id, err := newInstanceID(o.InstanceID)
	if err != nil {
		return nil, err
	}
	if o.State == nil {
		o.State = func() string { return DefaultState }
	}
	if o.Logger == nil {
		o.Logger = log.GetLogger()
	}
	a := &Agent{
		client: c, namespace: namespace, service: service, pod: pod, options: o,
		log: log.NewHelper(log.With(o.Logger, "module", "podlink")), lease: newLease(o.TTL), health: newHealthService(),
		ready: make(chan struct{}), handing: make(chan struct{}, 1), stop: make(chan struct{}),
		drainBegun: make(chan struct{}), drainEnded: make(chan struct{}),
	}
	if a.options.Load == nil {
		a.options.Load = func() int32 { return int32(a.Sessions()) }
	}
	a.reporter = newReporter(reporterOptions{
		states: c.reports, lease: a.lease, namespace: namespace, service: service, pod: pod, instance: id, ttl: o.TTL,
		state: a.options.State, load: a.options.Load, capacity: o.Capacity, labels: maps.Clone(o.Labels), address: o.Address, log: a.log,
	})
	a.sessions = newSessions(sessionOptions{
		links: c.LinkServiceClient, lease: a.lease, namespace: namespace, service: service, pod: pod, timeout: c.timeout,
		cacheTTL: o.CacheTTL, onLost: o.OnLost, log: a.log, draining: a.draining, report: a.reporter.reportNow,
		forget: func(uid string) { a.guard.forget(uid) },
		revoke: func(uid string, epoch int64) { a.guard.lost(uid, epoch) },
	})
	a.guard, err = newGuard(guardOptions{
		links: c.LinkServiceClient, lease: a.lease, sessions: a.sessions, namespace: namespace, service: service, pod: pod,
		uid: o.UID, match: o.Match, public: o.Public, cacheTTL: o.CacheTTL, timeout: c.timeout, log: a.log,
	})
	if err != nil {
		return nil, err
	}
	c.closing(a.guard.cache)
	return a, nil
}

// validName matches the names of namespaces, services and labels.
var validName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$`)

const nameRule = "must be 1 to 128 characters A-Z a-z 0-9 . _ -, the first and last a letter or digit"

// Limits of podlink.
const (
	maxLabels, maxLabelValueLen = 16, 128
	maxAddressLen               = 255
)

// validate refuses what podlink would refuse with each report.
func (o *AgentOptions) validate(namespace, service string) error {
	for what, name := range map[string]string{"namespace": namespace, "service": service} {
		if !validName.MatchString(name) {
			return fmt.Errorf("the agent's %s %s, is %q", what, nameRule, name)
		}
	}
	if !wholeSeconds(o.TTL) {
		return fmt.Errorf("AgentOptions.TTL must be whole seconds, at least one, is %s", o.TTL)
	}
	if o.DrainTimeout < 0 || o.CacheTTL < 0 {
		return fmt.Errorf("AgentOptions.DrainTimeout and CacheTTL must not be negative, are %s and %s", o.DrainTimeout, o.CacheTTL)
	}
	if o.Capacity < 0 {
		return fmt.Errorf("AgentOptions.Capacity must not be negative, is %d", o.Capacity)
	}
	if o.Address != "" {
		if host, port, err := net.SplitHostPort(o.Address); err != nil || host == "" || !isPort(port) || len(o.Address) > maxAddressLen {
			return fmt.Errorf("AgentOptions.Address must be host:port, at most %d bytes, is %q", maxAddressLen, o.Address)
		}
	}
	return o.validateLabels()
}

func isPort(text string) bool {
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && port > 0
}

func (o *AgentOptions) validateLabels() error {
	if len(o.Labels) > maxLabels {
		return fmt.Errorf("AgentOptions.Labels must be at most %d, are %d", maxLabels, len(o.Labels))
	}
	for name, value := range o.Labels {
		if !validName.MatchString(name) {
			return fmt.Errorf("AgentOptions.Labels: a name %s, is %q", nameRule, name)
		}
		if len(value) > maxLabelValueLen || !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
			return fmt.Errorf("AgentOptions.Labels: the value of %q must be at most %d bytes of text without control characters, is %q",
				name, maxLabelValueLen, value)
		}
	}
	return nil
}

// PodID returns the pod's ordinal.
func (a *Agent) PodID() int32 { return a.pod }

// Metadata returns what a registered instance of the pod needs for routers to find it.
func (a *Agent) Metadata() map[string]string {
	return map[string]string{MetadataPodID: number(a.pod), MetadataInstanceID: a.reporter.instance.id}
}

// Sessions returns how many users have a session on this pod.
func (a *Agent) Sessions() int {
	running, _ := a.sessions.count()
	return running
}

// StartSession starts a session of the user, whose state this pod holds from now on: the user's link is persistent, and this
// process's own. Where the user has a session on this pod already, it returns a further handle of it. It takes as long as ctx
// and the client's timeout allow.
//
// The error is ErrWrongPod if the user is another pod's, or the pod is about to stop or cordoned: whoever asks for the user next
// reaches another pod. It is ErrLinkUncertain while the pod can't know, and ErrSuperseded if another process has taken over.
func (a *Agent) StartSession(ctx context.Context, uid string) (*Session, error) {
	return a.sessions.start(ctx, uid, a.guard.seen(ctx, uid))
}

// Report makes the pod's next report at once, because its state or its load has changed. It does not wait for it.
func (a *Agent) Report() { a.reporter.reportNow() }

// Start implements transport.Server: it reports the pod until Stop, or until ctx ends. It fails with ErrSuperseded when another
// process has taken over the pod and has been silent for three TTLs: no process serves the pod then, and the app should end with that
// error, so that Kubernetes starts its container again. A kratos.App does.
func (a *Agent) Start(ctx context.Context) error {
	select {
	case <-a.stop: // The app has failed to start.
		return nil
	default:
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	app, _ := kratos.FromContext(ctx)
	a.mu.Lock()
	a.app = app
	err := a.miswired
	a.mu.Unlock()
	if err != nil {
		return err
	}
	a.started.Store(true)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	beside.Go(func() {
		select {
		case <-a.stop:
			cancel()
		case <-ctx.Done():
		}
	})
	beside.Go(func() { a.followCordon(ctx) })
	beside.Go(func() { a.retire(ctx) })
	beside.Go(func() { a.logLapses(ctx) })
	beside.Go(func() { a.awaitReady(ctx) })
	beside.Go(func() { a.releaseEarlier(ctx) })
	beside.Go(func() { a.sessions.run(ctx) })
	return a.reporter.run(ctx)
}

// logLapses says when the lease ends: from then on the pod refuses its users, which is hard to find otherwise.
func (a *Agent) logLapses(ctx context.Context) {
	for {
		state, changed := a.lease.state()
		timer := time.NewTimer(time.Until(state.until))
		if !state.holds() { // It has ended, or has not begun.
			timer.Stop()
		}
		select {
		case <-timer.C:
			if now, _ := a.lease.state(); now.until.Equal(state.until) && !now.superseded {
				a.log.Warnf("pod %d of %s: the lease has ended, as podlink has stored no report for %s: users get LINK_UNCERTAIN until it does",
					a.pod, a.service, a.options.TTL)
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		case <-changed:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// Stop implements transport.Server: it drains the pod, unless that has been done, and ends the reports.
func (a *Agent) Stop(ctx context.Context) error {
	err := a.Drain(ctx)
	a.stopped.Do(func() { close(a.stop) })
	return err
}
