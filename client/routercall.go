package client

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"
	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/middleware"
	"github.com/go-kratos/kratos/v2/selector"
	"github.com/go-kratos/kratos/v2/transport"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
)

// call sends the request to the user's pod, and again while that is safe and RetryTimeout lasts.
func (r *Router) call(ctx context.Context, uid string, request any, next middleware.Handler) (any, error) {
	begun := time.Now()
	link, err := r.find(ctx, uid, begun)
	if err != nil && !r.options.Fallback {
		return nil, err
	}
	try := &podCall{link: link, anyPod: r.options.Fallback}
	reply, err := r.try(ctx, try, request, next)
	if link == nil {
		return reply, err
	}
	if err != nil {
		return r.again(ctx, uid, request, next, try, err)
	}
	r.succeeded(uid, try, begun)
	return reply, nil
}

// succeeded keeps what a try that began at that time says about the user's link and the pod.
func (r *Router) succeeded(uid string, try *podCall, begun time.Time) {
	try.answered(begun)
	if try.link.doubt != trusted && try.record.Load() != nil { // It has not gone to any other pod.
		r.links.trust(uid, try.link)
	}
}

// again goes on with a call whose first try has failed.
func (r *Router) again(ctx context.Context, uid string, request any, next middleware.Handler, try *podCall, err error) (any, error) {
	var (
		between  = rarePauses()
		begun    = time.Now()
		lost     error // of a try that may have been carried out
		disowned bool
	)
	for {
		how := r.classify(ctx, try, uid, err)
		moves := r.learn(uid, try, how)
		switch {
		case how == final, how == unjudged, how == answerLost && (lost != nil || !r.idempotent[operationOf(ctx)]):
			return nil, err
		case how == answerLost:
			lost = err
		}
		wait := between.NextBackOff()
		if how == wasDisowned && !disowned || moves {
			disowned, wait = true, 0 // Another pod has the user, and podlink knows it, or chooses it.
		}
		if time.Since(begun)+wait > r.options.RetryTimeout || !pause(ctx, wait) {
			return nil, gaveUp(ctx, try, how, err, lost)
		}
		link, findErr := r.findAgain(ctx, uid, begun)
		if findErr != nil && !r.options.Fallback {
			return nil, gaveUp(ctx, try, how, err, lost)
		}
		other := r.options.Fallback && how == wasUnreached && link != nil && link.same(try.link)
		try = &podCall{link: link, anyPod: r.options.Fallback, other: other}
		var reply any
		reply, err = r.try(ctx, try, request, next)
		switch {
		case link == nil:
			return reply, err
		case err == nil:
			r.succeeded(uid, try, begun)
			return reply, nil
		}
	}
}

// learn keeps what a failed try says about the user's link and the pod. It reports whether podlink may choose another pod for the
// user now.
func (r *Router) learn(uid string, try *podCall, how outcome) (moves bool) {
	now := time.Now()
	switch how {
	case wasDisowned:
		r.links.doubt(uid, try.link, disowned)
		try.answered(now)
	case wasUncertain:
		r.links.markStale(uid, try.link)
		try.answered(now)
	case answerLost: // The pod may be dead, and the next call must not hang there too.
		r.links.markStale(uid, try.link)
	case wasUnreached:
		r.pods.unreached(try.link.ordinal, now)
		if moves = r.mayAvoid(uid, try.link, now); moves {
			r.links.doubt(uid, try.link, avoided)
		} else {
			r.links.markStale(uid, try.link)
		}
	case final:
		try.answered(now)
	case unjudged:
	}
	return moves
}

// gaveUp is the error of a call that can't be repeated any longer: the pod's own, unless no pod was reached.
func gaveUp(ctx context.Context, try *podCall, how outcome, err, lost error) error {
	switch {
	case lost != nil:
		return lost
	case how == wasUnreached:
		unreachable := kerrors.FromError(withCause(ErrPodUnreachable, err, MetadataPodID, try.link.ordinal))
		unreachable.Message += ": " + try.whyUnreached(ctx)
		return unreachable
	}
	return withCause(err, err) // Over gRPC it is a status, which errors.Is does not take for ErrLinkUncertain.
}

// find returns the user's link. A caller that can do without it waits for podlink no longer than a third of its time.
func (r *Router) find(ctx context.Context, uid string, now time.Time) (*entry, error) {
	if link, ok := r.links.peekAt(uid, now); ok {
		return link, nil
	}
	end, bounded := ctx.Deadline()
	if _, known := r.links.known(uid); !bounded || known || !r.options.Fallback {
		return r.links.get(ctx, uid)
	}
	ctx, cancel := context.WithDeadline(ctx, now.Add(end.Sub(now)/3))
	defer cancel()
	return r.links.get(ctx, uid)
}

// findAgain returns the user's link after a failure. It waits for podlink no longer than RetryTimeout lasts.
func (r *Router) findAgain(ctx context.Context, uid string, failed time.Time) (*entry, error) {
	ctx, cancel := context.WithDeadline(ctx, failed.Add(r.options.RetryTimeout))
	defer cancel()
	return r.find(ctx, uid, time.Now())
}

// rarePauses returns the pauses between the tries of a call whose pod is unreachable: each try asks podlink, and many users may have
// lost their pod at once.
func rarePauses() *backoff.ExponentialBackOff {
	growing := pauses()
	growing.Multiplier = 3
	return growing
}

// try sends the request once.
func (r *Router) try(ctx context.Context, to *podCall, request any, next middleware.Handler) (any, error) {
	// What an earlier try has left is not this one's: the instance that was chosen, and over HTTP a body that was read.
	if peer, ok := selector.FromPeerContext(ctx); ok {
		peer.Node = nil
	}
	if t, ok := transport.FromClientContext(ctx); ok {
		if over, ok := t.(*khttp.Transport); ok {
			ctx = to.trace(ctx, over.Request())
			if over.Request().GetBody != nil {
				body, err := over.Request().GetBody()
				if err != nil {
					return nil, err
				}
				over.Request().Body = body
			}
		}
	}
	reply, err := next(context.WithValue(ctx, podCallKey{r}, to), request)
	if to.bypassed(ctx) {
		return nil, withCause(errMiswired, err)
	}
	return reply, err
}

func operationOf(ctx context.Context) string {
	if t, ok := transport.FromClientContext(ctx); ok {
		return t.Operation()
	}
	return ""
}
