package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/log"

	v1 "podlink/api/podlink/v1"
)

const (
	// reportsPerTTL is the number of reports in the lifetime of one: two may be lost.
	reportsPerTTL = 3
	// attemptsPerTTL and maxAttempt bound an attempt to report. While podlink is away, that is also the interval between the starts
	// of two attempts: when it is back, all pods of a service report within it, and none of them is taken for dead.
	attemptsPerTTL = 6
	maxAttempt     = time.Second
	// jitter is the part by which an interval may be shorter, so that the pods of a service do not report all at once.
	jitter = .1
	// minReportInterval bounds the rate of the reports that the app asks for.
	minReportInterval = 50 * time.Millisecond
	// maxRefresh bounds how long a report waits for AgentOptions.State and Load, once: as long as they block, no other one does.
	maxRefresh = 100 * time.Millisecond
	// maxHanging is the number of attempts that may outlive their time, in a call that does not end with its context.
	maxHanging = 4
)

var (
	errHanging    = errors.New("the report was not answered in time")
	errNotApplied = errors.New("podlink has a later report of this process already")
)

// reporterOptions configures a reporter.
type reporterOptions struct {
	states             v1.StateServiceClient
	lease              *lease
	namespace, service string
	pod                int32
	instance           string // the process's name
	ttl                time.Duration
	state              func() string
	load               func() int32
	capacity           int32 // 0: none
	labels             map[string]string
	address            string
	log                *log.Helper
}

// reporter tells podlink that the pod lives and what it is like, and renews the lease by podlink's answers. It waits for nothing
// but its own attempts, and for each of them a bounded time.
type reporter struct {
	reporterOptions
	instance       *instance
	attemptTimeout time.Duration
	lastState      *latest[string]
	lastLoad       *latest[int32]
	now            chan struct{} // asks for a report
	runs           chan struct{} // has an element while run reports
	spread         *rand.Rand    // of run; another one for each pod, and the same whenever a simulation repeats
	hanging        chan struct{} // has an element for each attempt that has not ended

	mu            sync.Mutex
	wanted        v1.Routing
	reported      v1.Routing // by the latest report that was stored
	reportedBy    int64      // its sequence; 0: none
	hasSuperseded bool       // it was logged
}

// newReporter returns a reporter of a pod that takes no new links before setRouting says so.
func newReporter(o reporterOptions) *reporter {
	return &reporter{
		spread:          rand.New(rand.NewPCG(uint64(o.pod), uint64(len(o.service)))), //nolint:gosec // It is no secret.
		reporterOptions: o, instance: &instance{id: o.instance}, attemptTimeout: min(maxAttempt, o.ttl/attemptsPerTTL),
		lastState: newLatest("State", o.state, DefaultState, repairState, o.log),
		lastLoad:  newLatest("Load", o.load, 0, repairLoad, o.log),
		now:       make(chan struct{}, 1), runs: make(chan struct{}, 1), hanging: make(chan struct{}, maxHanging), wanted: v1.Routing_DENY_NEW,
	}
}

// reportNow makes the next report at once. It does not wait for it.
func (r *reporter) reportNow() {
	select {
	case r.now <- struct{}{}:
	default: // One is asked for already.
	}
}

// setRouting makes the pod's reports say how it takes links, from now on and at once.
func (r *reporter) setRouting(routing v1.Routing) {
	r.mu.Lock()
	r.wanted = routing
	r.mu.Unlock()
	r.reportNow()
}

// routing returns how the pod's reports say that it takes links.
func (r *reporter) routing() v1.Routing {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wanted
}

// waitReported waits until podlink has stored a report with that routing.
func (r *reporter) waitReported(ctx context.Context, routing v1.Routing) error {
	state, err := r.lease.wait(ctx, func(s leaseState) bool { return s.superseded || r.hasReported(routing) })
	if state.superseded {
		return ErrSuperseded
	}
	return err
}

func (r *reporter) hasReported(routing v1.Routing) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reportedBy != 0 && r.reported == routing
}

// run reports the pod until ctx ends; then it returns nil. It also goes on when another process has taken over the pod: it
// reports no more, and returns ErrSuperseded when that process has fallen silent. Of two runs the second one begins when the first has
// ended.
func (r *reporter) run(ctx context.Context) error {
	select {
	case r.runs <- struct{}{}:
		defer func() { <-r.runs }()
	case <-ctx.Done():
		return nil
	}
	problem := "" // as logged
	for !r.superseded() {
		select {
		case <-r.now: // This is the report that was asked for.
		default:
		}
		begun := time.Now()
		err := r.attempt(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if r.superseded() {
			break
		}
		r.logChange(&problem, err)
		if !r.sleep(ctx, begun, r.interval(err)) {
			return nil
		}
	}
	return r.outlive(ctx)
}

func (r *reporter) superseded() bool {
	state, _ := r.lease.state()
	return state.superseded
}

// interval is the time between the starts of an attempt that had that outcome and the next one.
func (r *reporter) interval(err error) time.Duration {
	interval := r.ttl / reportsPerTTL
	if err != nil && (!isRefusal(err) || denied(err) || errors.Is(err, ErrRateLimited)) {
		interval = min(interval, max(r.attemptTimeout, retryAfter(err)))
	}
	return time.Duration((1 - jitter*r.spread.Float64()) * float64(interval))
}

// isRefusal reports whether podlink, or something between, has turned the report away for what it is. It will be again.
func isRefusal(err error) bool {
	code := kerrors.Code(err)
	return code >= 400 && code < 499 && !errors.Is(err, ErrSuperseded)
}

// logChange logs when reports begin to fail, fail in another way, or succeed again.
func (r *reporter) logChange(problem *string, err error) {
	before := *problem
	switch {
	case err == nil:
		*problem = ""
	case isRefusal(err):
		*problem = "refused: " + kerrors.Reason(err)
	default:
		*problem = "away"
	}
	switch {
	case *problem == before:
	case denied(err):
		r.log.Errorf("pod %d of %s: podlink refuses its reports, retrying; its users are served until the lease ends: %v", r.pod, r.service, err)
	case err != nil:
		r.log.Warnf("pod %d of %s: report failed, retrying: %v", r.pod, r.service, err)
	default:
		r.log.Infof("pod %d of %s: reporting again", r.pod, r.service)
	}
}

// sleep waits until that time has passed since the last attempt began, or a report is asked for. It returns false if ctx ends.
func (r *reporter) sleep(ctx context.Context, begun time.Time, interval time.Duration) bool {
	next := time.NewTimer(time.Until(begun.Add(interval)))
	defer next.Stop()
	select {
	case <-next.C:
		return ctx.Err() == nil
	case <-r.now:
		return pauseUntil(ctx, begun.Add(minReportInterval))
	case <-ctx.Done():
		return false
	}
}

func pauseUntil(ctx context.Context, t time.Time) bool {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// attempt reports once, and waits until that has ended or its time is over. One that does not end then goes on by itself, and
// holds up none.
func (r *reporter) attempt(ctx context.Context) error {
	select {
	case r.hanging <- struct{}{}:
	default:
		return errHanging
	}
	ended := make(chan error, 1)
	go func() {
		defer func() { <-r.hanging }()
		ended <- r.report(ctx)
	}()
	limit := r.attemptTimeout
	if !r.instance.hasGeneration() {
		limit *= 3 // The first report may take three calls.
	}
	over := time.NewTimer(limit)
	defer over.Stop()
	select {
	case err := <-ended:
		return err
	case <-over.C:
	case <-ctx.Done():
	}
	return errHanging
}
