package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/go-kratos/kratos/v2/middleware"
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
	// CacheTTL is how long a link is used without asking podlink again, where no watch vouches for it (Options.Watch). While podlink does
	// not answer, a persistent link is used for up to an hour; a temporary one never beyond its end. 0 is DefaultCacheTTL.
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
		size: o.CacheSize, ttl: o.CacheTTL, watched: true, lookup: r.lookup,
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
	}, c.timeout, func(ctx context.Context, between *backoff.ExponentialBackOff) bool {
		return c.retries.wait(ctx, 0, between)
	})
	c.watches.join(namespace, service, cache)
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
