package client

import (
	"context"
	"errors"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

// report makes one report, and a second one where the first shows which process this one takes over from.
func (r *reporter) report(ctx context.Context) error {
	report, err := r.send(ctx)
	if errors.Is(err, ErrSuperseded) && !isFinal(report, err) {
		before, failure := r.readPod(ctx)
		if failure != nil {
			return failure
		}
		r.instance.takeOver(before.GetGeneration())
		report, err = r.send(ctx)
	}
	if errors.Is(err, ErrSuperseded) && isFinal(report, err) {
		r.supersede(err)
	}
	return err
}

// send sends one report and takes in podlink's answer.
func (r *reporter) send(ctx context.Context) (*v1.SetServiceStateRequest, error) {
	report := r.compose()
	begun := time.Now()
	limited, cancel := context.WithTimeout(ctx, r.callTimeout())
	defer cancel()
	reply, err := r.states.SetServiceState(limited, report)
	switch {
	case err == nil && !reply.GetApplied():
		r.learn(reply.GetPod())
		return report, errNotApplied
	case err == nil:
		r.learn(reply.GetPod())
		r.stored(report, renewal{
			begun: begun, generation: reply.GetPod().GetGeneration(), storeID: reply.GetStoreId(), cordon: reply.GetPod().GetCordon(),
		})
	case errors.Is(err, ErrReplicationUnconfirmed):
		r.stored(report, renewal{begun: begun, generation: report.GetGeneration(), unconfirmed: true})
		return report, r.learnUnconfirmed(ctx, begun)
	}
	return report, err
}

// callTimeout bounds a call so that it ends within its attempt.
func (r *reporter) callTimeout() time.Duration { return r.attemptTimeout * 19 / 20 }

// compose returns the next report.
func (r *reporter) compose() *v1.SetServiceStateRequest {
	over, cancel := context.WithTimeout(context.Background(), min(maxRefresh, r.attemptTimeout/2))
	defer cancel()
	stateReturned, loadReturned := r.lastState.refresh(), r.lastLoad.refresh()
	state := r.lastState.get(stateReturned, over.Done())
	load := r.lastLoad.get(loadReturned, over.Done())
	r.mu.Lock()
	routing := r.wanted
	r.mu.Unlock()
	report := &v1.SetServiceStateRequest{
		Namespace: r.namespace, Service: r.service, PodId: &r.pod, State: state, Load: &load, Routing: &routing,
		TtlSeconds: proto.Int32(int32(r.ttl / time.Second)), Labels: r.labels, Address: r.address,
	}
	if r.capacity > 0 {
		report.Capacity = &r.capacity
	}
	r.instance.sign(report)
	return report
}

// learn takes in the generation that podlink has given to this process.
func (r *reporter) learn(stored *v1.Pod) {
	if r.instance.learn(stored) {
		r.log.Infof("pod %d of %s: reporting, generation %d", r.pod, r.service, stored.GetGeneration())
	}
}

// learnUnconfirmed reads the generation of this process, which the answer to an unconfirmed report does not say.
func (r *reporter) learnUnconfirmed(ctx context.Context, begun time.Time) error {
	if r.instance.hasGeneration() {
		return nil
	}
	pod, err := r.readPod(ctx)
	if err != nil {
		return err
	}
	r.learn(pod)
	if r.instance.hasGeneration() {
		r.lease.renew(renewal{begun: begun, generation: pod.GetGeneration(), unconfirmed: true})
	}
	return nil
}

// stored renews the lease by a report that podlink has stored.
func (r *reporter) stored(report *v1.SetServiceStateRequest, by renewal) {
	r.mu.Lock()
	if report.GetSequence() > r.reportedBy {
		r.reported, r.reportedBy = report.GetRouting(), report.GetSequence()
	}
	r.mu.Unlock()
	if r.lease.renew(by) {
		r.log.Warnf("pod %d of %s: no report for longer than %s: its users may be linked to other pods", r.pod, r.service, r.ttl)
	}
}

// supersede ends the lease for good, and logs why once.
func (r *reporter) supersede(by error) {
	r.mu.Lock()
	logged := r.hasSuperseded
	r.hasSuperseded = true
	r.mu.Unlock()
	if !logged {
		r.log.Errorf("pod %d of %s: another process has taken over the pod (generation %s): this one has lost all sessions and "+
			"serves no user any more", r.pod, r.service, kerrors.FromError(by).Metadata["generation"])
	}
	r.lease.supersede()
}
