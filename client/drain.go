package client

import (
	"context"
	"runtime/debug"
	"sync"
	"time"

	v1 "podlink/api/podlink/v1"
)

const (
	// progressInterval is the interval of the lines about a drain.
	progressInterval = 5 * time.Second
	// reportsPerDrain bounds the time that a drain waits for podlink to store its report, at its begin and at its end, by that part
	// of the drain's.
	reportsPerDrain = 4
)

// Drain empties the pod: it takes no new users (DENY_NEW), calls OnDrain and waits until the sessions have ended, and then serves
// nobody any more (SHUTDOWN). All of that takes at most DrainTimeout, whatever podlink and OnDrain do. It is for
// kratos.BeforeStop, and returns when the pod's servers may stop; a second call waits for the first. It fails only if ctx ends.
func (a *Agent) Drain(ctx context.Context) error {
	a.mu.Lock() // Ready is either before the drain, or does nothing.
	first := !a.isDraining()
	if first {
		close(a.drainBegun)
	}
	a.mu.Unlock()
	if first {
		defer close(a.drainEnded)
		a.drain(ctx)
		return ctx.Err()
	}
	select {
	case <-a.drainEnded:
	case <-ctx.Done():
	}
	return ctx.Err()
}

func (a *Agent) drain(ctx context.Context) {
	begun := time.Now()
	end := begun.Add(a.options.DrainTimeout)
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	defer a.health.end()
	if state, _ := a.lease.state(); state.superseded {
		return // Its sessions are lost, and podlink takes no report of it.
	}
	if a.started.Load() {
		var reports sync.WaitGroup
		defer reports.Wait()
		defer cancel()
		// If Start ends before the drain does, as when the app's context has.
		reports.Go(func() { _ = a.reporter.run(ctx) })
		go a.sessions.run(ctx) // It may wait for an OnLost that does not return.
	}
	a.log.Infof("pod %d of %s: draining %d sessions, for at most %s", a.pod, a.service, a.Sessions(), a.options.DrainTimeout)
	reporting := min(a.options.DrainTimeout/reportsPerDrain, 2*a.reporter.attemptTimeout)
	a.reportDrain(ctx, v1.Routing_DENY_NEW, reporting) // First: a user whose session ends could be linked to this pod again.

	handing, stopHanding := context.WithDeadline(ctx, end.Add(-reporting))
	defer stopHanding()
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		a.handOver(handing)
	}()
	a.waitEmpty(handing)
	select {
	case <-returned:
	case <-handing.Done():
	}
	a.logDrained(begun)
	a.reporter.setRouting(v1.Routing_SHUTDOWN)
	select { // An OnDrain that ends with its context may be about to.
	case <-returned:
	case <-ctx.Done():
		a.log.Warnf("pod %d of %s: stopping although AgentOptions.OnDrain has not returned", a.pod, a.service)
	}
	a.reportDrain(ctx, v1.Routing_SHUTDOWN, reporting)
}

// reportDrain reports the routing, and waits until podlink has stored that, for so long at most.
func (a *Agent) reportDrain(ctx context.Context, routing v1.Routing, limit time.Duration) {
	a.reporter.setRouting(routing)
	if !a.started.Load() {
		return // Nobody hears of a pod that has never reported.
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := a.reporter.waitReported(ctx, routing); err != nil {
		a.log.Warnf("pod %d of %s: podlink has not stored %s yet: %v", a.pod, a.service, routing, err)
	}
}

func (a *Agent) logDrained(begun time.Time) {
	running, ending := a.sessions.count()
	if running+ending == 0 {
		a.log.Infof("pod %d of %s: drained after %s", a.pod, a.service, time.Since(begun).Round(time.Millisecond))
		return
	}
	a.log.Warnf("pod %d of %s: stopping after %s with %d sessions left, and %d ended ones that podlink does not know of",
		a.pod, a.service, time.Since(begun).Round(time.Millisecond), running, ending)
}

// handOver calls OnDrain, after an earlier call has returned.
func (a *Agent) handOver(ctx context.Context) {
	if a.options.OnDrain == nil {
		return
	}
	select {
	case a.handing <- struct{}{}:
		defer func() { <-a.handing }()
	case <-ctx.Done():
		return
	}
	defer func() {
		if cause := recover(); cause != nil {
			a.log.Errorf("pod %d of %s: AgentOptions.OnDrain panicked: %v\n%s", a.pod, a.service, cause, debug.Stack())
		}
	}()
	a.options.OnDrain(ctx)
}

// waitEmpty waits until all sessions have ended, and podlink knows it.
func (a *Agent) waitEmpty(ctx context.Context) {
	for {
		waiting, cancel := context.WithTimeout(ctx, progressInterval)
		running, ending := a.sessions.handOver(waiting)
		cancel()
		if running+ending == 0 || ctx.Err() != nil {
			return
		}
		a.log.Infof("pod %d of %s: draining, %d sessions left", a.pod, a.service, running)
	}
}

// isDraining reports whether the pod is about to stop.
func (a *Agent) isDraining() bool {
	select {
	case <-a.drainBegun:
		return true
	default:
		return false
	}
}

// draining reports whether the pod hands over its sessions: it is about to stop, or cordoned. It starts none then.
func (a *Agent) draining() bool { return a.isDraining() || a.Cordoned() != v1.Routing_READY }
