package client

import (
	"context"
	"errors"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"

	v1 "podlink/api/podlink/v1"
)

// check returns the epoch of the user's link if the pod may serve the user now. The uid of a request about no user is empty.
//
// Three things decide: what podlink has answered about this user, until when podlink takes the pod for live, and the session that
// the pod may have of the user.
//
// An answer counts for cacheTTL, but only while the lease holds: podlink moves no user of the pod by itself before the lease ends.
// While podlink does not answer it counts for as long as the lease holds. Without a lease podlink is asked about each request.
func (g *guard) check(ctx context.Context, uid string) (int64, error) {
	state, since := g.leaseNow()
	if state.superseded {
		return 0, g.superseded(uid)
	}
	if uid == "" {
		return 0, nil
	}
	held := g.sessions.holding(uid)
	if held.uncertain {
		return g.restore(ctx, uid)
	}
	link, fresh := g.cache.peek(uid)
	if !held.verified.IsZero() && (link == nil || link.asked.Before(held.verified)) { // What podlink has told the sessions.
		of := &v1.Link{PodId: g.pod, Epoch: held.epoch, Persistent: true}
		link = g.cache.store(uid, of, held.verified)
		fresh = link.isFresh(time.Now())
	}
	if fresh && state.holds() && !link.asked.Before(since) && link.epoch >= held.epoch {
		return link.epoch, nil
	}
	if fresh && (!state.holds() || link.asked.Before(since)) {
		g.cache.invalidateIf(uid, link)
	}
	return g.lookUp(ctx, uid)
}

// lookUp is check for a user about whom podlink has to be asked.
func (g *guard) lookUp(ctx context.Context, uid string) (int64, error) {
	if err := checkUID(uid); err != nil {
		return 0, err
	}
	ctx, cancel := halfTime(ctx)
	defer cancel()
	link, err := g.cache.get(ctx, uid)
	state, since := g.leaseNow()
	if err == nil && link.asked.Before(since) { // Another request has asked, before the lease began.
		g.cache.invalidateIf(uid, link)
		link, err = g.cache.get(ctx, uid)
	}
	held := g.sessions.holding(uid)
	switch {
	case state.superseded:
		return 0, g.superseded(uid)
	case errors.Is(err, ErrInvalidArgument), errors.Is(err, ErrCanceled):
		return 0, err
	case errors.Is(err, ErrWrongPod):
		if held.epoch == 0 || kerrors.FromError(err).Metadata[MetadataPodID] != noPod {
			return 0, err
		}
	case err != nil:
		return 0, g.uncertain(uid, held.epoch, err)
	case !held.uncertain && link.epoch >= held.epoch:
		return link.epoch, nil
	}
	return g.restore(ctx, uid) // The link is gone, or has an epoch from before the session: podlink's store may have lost it.
}

// halfTime is half of the time that a request has, so that its caller gets an answer even if podlink hangs.
func halfTime(ctx context.Context) (context.Context, context.CancelFunc) {
	if end, ok := ctx.Deadline(); ok {
		return context.WithTimeout(ctx, time.Until(end)/2)
	}
	return ctx, func() {}
}

// restore is check for a user whose session goes on, but whose link podlink may have lost. The sessions know whether that is
// decided already, and then put the link right at once.
func (g *guard) restore(ctx context.Context, uid string) (int64, error) {
	ctx, cancel := halfTime(ctx)
	defer cancel()
	held, err := g.sessions.restore(ctx, uid)
	switch {
	case err == nil && held.epoch != 0 && !held.uncertain:
		return held.epoch, nil
	case errors.Is(err, ErrWrongPod), errors.Is(err, ErrCanceled):
		return 0, err
	}
	return 0, g.uncertain(uid, held.epoch, err)
}

// fetch asks podlink for the user's link. The error is ErrWrongPod when it is not this pod's.
func (g *guard) fetch(ctx context.Context, uid string, _ *entry) (*v1.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	asked := time.Now()
	reply, err := g.links.GetLinkedPod(ctx, &v1.GetLinkedPodRequest{Namespace: g.namespace, Uid: uid, Service: g.service})
	if err != nil {
		return nil, err
	}
	link := reply.GetLink()
	g.sessions.saw(uid, link, asked)
	if link.GetPodId() != g.pod {
		return nil, g.refusal(ErrWrongPod, "", nil, uid, link.GetPodId(), link.GetEpoch())
	}
	return link, nil
}

// keeps reports whether a link that is not fresh counts: podlink does not answer, and the lease has held since the link was read.
func (g *guard) keeps(_ string, link *entry, err error) bool {
	state, since := g.leaseNow()
	return state.holds() && !link.asked.Before(since) && (err == nil || unanswered(err))
}

// leaseNow returns the lease, and when it began. What was known before that does not count: podlink may have moved users.
func (g *guard) leaseNow() (leaseState, time.Time) {
	state, _ := g.lease.state()
	leases := int64(state.lapses)
	if !state.until.IsZero() {
		leases++
	}
	if leases > g.leases.Load() {
		g.leaseMu.Lock()
		defer g.leaseMu.Unlock()
		if leases > g.leases.Load() {
			now := time.Now()
			g.leaseBegun.Store(&now)
			g.leases.Store(leases)
		}
	}
	return state, *g.leaseBegun.Load()
}

// noPod is the pod of a user without a link.
const noPod = "-1"

// forget makes the user's next request ask podlink: the pod has changed the user's link.
func (g *guard) forget(uid string) { g.cache.invalidate(uid) }

func (g *guard) superseded(uid string) error {
	return g.refusal(ErrWrongPod, "another process has taken over this pod", nil, uid, g.pod, 0)
}

// uncertain is ErrLinkUncertain with the epoch that the pod knows, and the reason.
func (g *guard) uncertain(uid string, epoch int64, cause error) error {
	because := ""
	switch answer := (*kerrors.Error)(nil); {
	case cause == nil, errors.Is(cause, ErrLinkUncertain):
		because = "podlink has not confirmed the user's link since it may have been lost or moved"
	case (!unanswered(cause) || denied(cause)) && errors.As(cause, &answer):
		because = "podlink answers " + answer.Reason + ", so this pod can't know whether it holds the user"
	}
	return g.refusal(ErrLinkUncertain, because, cause, uid, g.pod, epoch)
}

// refusal returns the error with its metadata. Because replaces its message, if it is not empty.
func (g *guard) refusal(of error, because string, cause error, uid string, pod int32, epoch int64) error {
	refusal := kerrors.FromError(withCause(of, cause, metadataNamespace, g.namespace, metadataService, g.service, metadataUID, uid,
		MetadataPodID, number(pod), metadataEpoch, number(epoch), metadataRefusedBy, number(g.pod)))
	if because != "" {
		refusal.Message = because
	}
	return refusal
}
