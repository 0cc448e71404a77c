package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/go-kratos/kratos/v2/middleware"
	"github.com/go-kratos/kratos/v2/selector"
	"github.com/go-kratos/kratos/v2/transport"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

// The defaults of RouterOptions.
const (
	DefaultLinkTTL      = time.Minute
	DefaultCacheTTL     = 10 * time.Second
	DefaultCacheSize    = 100_000
	DefaultRetryTimeout = time.Second
)

// RouterOptions configures a Router. The zero value takes the uid from the context (WithUID), and fails a call whose pod can't be
// called.
type RouterOptions struct {
	// UID returns the user that a request is about; for a stream the request is nil. Nil: the one of the context.
	UID UIDFunc
	// Fallback sends a call to any pod that serves when podlink can't name the right one, discovery has no instance of it, or no
	// connection to it is got. It is for services whose pods can answer for users of other pods; a Guard refuses such calls.
	Fallback bool
	// Idempotent names the operations, as in /chat.v1.Chat/Say, that may be carried out twice: when their answer was lost they are
	// repeated once.
	Idempotent []string
	// RetryTimeout is how long a call that certainly was not carried out is repeated: because the pod has refused the user, could
	// not say whether it holds them, or was not reached. 0 is DefaultRetryTimeout.
	RetryTimeout time.Duration
	// LinkTTL is how long the link lives that podlink makes for a user without one; the pod makes it persistent when a session
	// starts. Whole seconds; 0 is DefaultLinkTTL.
	LinkTTL time.Duration
	// CacheTTL is how long a link is used without asking podlink again. While podlink does not answer, a persistent link is used for
	// up to an hour; a temporary one never beyond its end. 0 is DefaultCacheTTL.
	CacheTTL time.Duration
	// CacheSize is how many links are kept. 0 is DefaultCacheSize.
	CacheSize int
}

// Router sends each call of a Kratos client, over gRPC or HTTP, to the pod that holds its user. It is safe for concurrent use.
//
// The client needs both its parts, and all instances: Kratos shows a client only 25 of them unless WithSubset says otherwise.
//
//	kgrpc.WithMiddleware(router.Middleware()), // the last one, if there are others
//	kgrpc.WithNodeFilter(router.NodeFilter()),
//	kgrpc.WithSubset(0),
//	kgrpc.WithStreamInterceptor(router.StreamInterceptor()), // if the client opens streams
//
// A link that is known never costs a call its pod's time: its refresh gets at most a third of the call's time, and 300 ms, and then
// the known link is used. So a podlink that is away fails no call for such a user.
type Router struct {
	options    RouterOptions
	namespace  string
	service    string
	idempotent map[string]bool
	links      *linkCache
	misses     *misses
	pods       *podTable
	moves      moves
	avoidAfter time.Duration
	sendsUID   bool // in a header, as there is no UIDFunc
}

// NewRouter returns a router to the pods of the service, whose links are in the namespace.
func (c *Client) NewRouter(namespace, service string, o RouterOptions) (*Router, error) {
	orDefault(&o.RetryTimeout, DefaultRetryTimeout)
	orDefault(&o.LinkTTL, DefaultLinkTTL)
	orDefault(&o.CacheTTL, DefaultCacheTTL)
	if o.CacheSize == 0 {
		o.CacheSize = DefaultCacheSize
	}
	if o.RetryTimeout < 0 || o.CacheTTL < 0 || o.CacheSize < 0 || !wholeSeconds(o.LinkTTL) {
		return nil, fmt.Errorf("podlink: a router's RetryTimeout, CacheTTL and CacheSize must not be negative, and LinkTTL whole seconds: "+
			"%s, %s, %d, %s", o.RetryTimeout, o.CacheTTL, o.CacheSize, o.LinkTTL)
	}
	r := &Router{
		options: o, namespace: namespace, service: service, idempotent: map[string]bool{}, pods: newPodTable(),
		avoidAfter: min(avoidAfter, o.RetryTimeout/4),
	}
	if o.UID == nil {
		r.options.UID, r.sendsUID = sendUID, true
	}
	for _, operation := range o.Idempotent {
		r.idempotent[operation] = true
	}
	var err error
	if r.moves, err = newMoves(o.LinkTTL); err != nil {
		return nil, fmt.Errorf("podlink: %w", err)
	}
	cache, err := newLinkCache(cachePolicy{
		size: o.CacheSize, ttl: o.CacheTTL, lookup: r.lookup,
		// The link is a hint: it is the pod that says whose user it is.
		keeps: func(string, *entry, error) bool { return true },
	})
	if err != nil {
		return nil, fmt.Errorf("podlink: %w", err)
	}
	context.AfterFunc(cache.open, r.moves.close)
	r.links = c.closing(cache)
	r.misses = newMisses(cache.open, c, &v1.ComputeLinkedPodRequest{
		Namespace: namespace, Service: service, PersistSeconds: proto.Int32(int32(o.LinkTTL / time.Second)),
	}, c.timeout, c.retries.wait)
	return r, nil
}

// wholeSeconds reports whether podlink's API can express the duration.
func wholeSeconds(d time.Duration) bool {
	return d >= time.Second && d%time.Second == 0 && d/time.Second <= math.MaxInt32
}

func orDefault(d *time.Duration, standard time.Duration) {
	if *d == 0 {
		*d = standard
	}
}

// lookup asks podlink for the user's link, or to make one. It says which link is known, so that podlink puts it back if its store
// has lost it, unless a pod has refused the user since; and which pods are unreachable, so that they get no new users.
func (r *Router) lookup(ctx context.Context, uid string, known *entry) (*v1.Link, error) {
	asked := time.Now()
	item := &v1.BatchComputeLinkedPodRequest_Item{Uid: uid, AvoidPods: r.pods.unreachable(asked, r.avoidAfter)}
	switch {
	case known == nil, known.doubt == disowned:
	case known.doubt == avoided:
		item.AvoidEpoch = known.epoch
	default:
		item.Known = &v1.ComputeLinkedPodRequest_Known{PodId: &known.pod, Epoch: known.epoch}
	}
	found, err := r.misses.compute(ctx, item)
	if item.Known != nil && errors.Is(err, ErrInvalidArgument) {
		// An epoch far ahead of the store's clock, which was set back, is no reason to lose the user.
		item.Known = nil
		found, err = r.misses.compute(ctx, item)
	}
	if err != nil {
		return nil, err
	}
	r.pods.named(found.pod, asked)
	return found.link, nil
}

// Middleware finds the user's pod for each call. It goes with NodeFilter.
func (r *Router) Middleware() middleware.Middleware {
	return func(next middleware.Handler) middleware.Handler {
		return func(ctx context.Context, request any) (any, error) {
			uid := r.options.UID(ctx, request)
			if uid == "" {
				return next(ctx, request)
			}
			return r.call(ctx, uid, request, next)
		}
	}
}

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
	if try.link.doubt != trusted {
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
			return nil, gaveUp(try, how, err, lost)
		}
		link, findErr := r.findAgain(ctx, uid, begun)
		if findErr != nil && !r.options.Fallback {
			return nil, firstOf(lost, findErr)
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
	}
	return moves
}

// gaveUp is the error of a call that can't be repeated any longer: the pod's own, unless no pod was reached.
func gaveUp(try *podCall, how outcome, err, lost error) error {
	switch {
	case lost != nil:
		return lost
	case how == wasUnreached:
		return withCause(ErrPodUnreachable, err, MetadataPodID, try.link.ordinal)
	}
	return withCause(err, err) // Over gRPC it is a status, which errors.Is does not take for ErrLinkUncertain.
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
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
			ctx = to.trace(ctx)
			if over.Request().GetBody != nil {
				body, err := over.Request().GetBody()
				if err != nil {
					return nil, err
				}
				over.Request().Body = body
			}
		}
	}
	return next(context.WithValue(ctx, podCallKey{r}, to), request)
}

func operationOf(ctx context.Context) string {
	if t, ok := transport.FromClientContext(ctx); ok {
		return t.Operation()
	}
	return ""
}
