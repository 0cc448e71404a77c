package client

import (
	"context"
	"errors"
	"time"

	"github.com/go-kratos/kratos/v2/middleware"

	v1 "podlink/api/podlink/v1"
)

// owned is a user that a Guard has found to be the pod's.
type owned struct {
	by    *Agent
	uid   string
	epoch int64
}

type ownedKey struct{}

// Epoch returns the epoch of the link of the user whom a request that has passed a Guard is about; 0: none, or no Guard. The
// pod passes it on with everything that it writes for the user, so that its storage can refuse a stale owner's writes.
func Epoch(ctx context.Context) int64 {
	of, _ := ctx.Value(ownedKey{}).(owned)
	return of.epoch
}

// Guard is the middleware of a pod's servers that lets only requests pass whose user is linked to the pod, and those that
// are about no user. Others are answered with ErrWrongPod, which says whose the user is, or with ErrLinkUncertain.
//
// What podlink has said is believed for AgentOptions.CacheTTL; and, if podlink does not answer, for as long as the pod's
// last report counts: until then podlink links no user of the pod to another one by itself.
func (a *Agent) Guard() middleware.Middleware {
	return func(next middleware.Handler) middleware.Handler {
		return func(ctx context.Context, request any) (any, error) {
			uid := a.options.UID(ctx, request)
			if uid == "" {
				return next(ctx, request)
			}
			if state, _ := a.lease.state(); state.superseded {
				return nil, ErrLinkUncertain // The users of the pod are another process's, with the same ordinal.
			}
			link, err := a.ask(ctx, uid)
			switch {
			case errors.Is(err, ErrWrongPod):
				_ = a.verify(ctx, uid) // The next request tries again.
				return nil, err
			case err != nil && silent(err):
				return nil, explain(ErrLinkUncertain, err)
			case err != nil:
				return nil, err
			}
			return next(context.WithValue(ctx, ownedKey{}, owned{a, uid, link.epoch}), request)
		}
	}
}

// ask finds the user's link in half the time that the request has, so that its caller hears of a podlink that hangs.
func (a *Agent) ask(ctx context.Context, uid string) (*entry, error) {
	if link, ok := a.links.peek(uid); ok {
		return link, nil
	}
	if end, ok := ctx.Deadline(); ok {
		half, cancel := context.WithTimeout(ctx, time.Until(end)/2)
		defer cancel()
		return a.links.get(half, uid)
	}
	return a.links.get(ctx, uid)
}

// mine asks podlink for the user's link. The error is ErrWrongPod when it is not this pod's.
func (a *Agent) mine(ctx context.Context, uid string) (*v1.Link, error) {
	reply, err := a.client.GetLinkedPod(ctx, &v1.GetLinkedPodRequest{Namespace: a.namespace, Uid: uid, Service: a.service})
	if err != nil {
		return nil, err
	}
	link := reply.GetLink()
	if link.GetPodId() != a.pod {
		return nil, wrongPod(number(link.GetPodId()), number(link.GetEpoch()))
	}
	return link, nil
}
