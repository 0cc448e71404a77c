package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/middleware"
	"github.com/go-kratos/kratos/v2/selector"
	"github.com/go-kratos/kratos/v2/transport"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

// What RouterOptions says where it is zero.
const (
	DefaultLinkTTL      = time.Minute
	DefaultCacheTTL     = 10 * time.Second
	DefaultCacheSize    = 100_000
	DefaultRetryTimeout = time.Second
)

// The keys of an instance's metadata that tell which pod it is. Agent.Metadata has the first.
const (
	// MetadataPodID is the pod's ordinal, as in 2.
	MetadataPodID = "pod_id"
	// MetadataPodName is the pod's name, which ends with its ordinal, as in chat-2.
	MetadataPodName = "pod_name"
)

// RouterOptions are how a Router routes. The zero value takes the uid from the context (WithUID), and fails where the pod of
// a user can't be called.
type RouterOptions struct {
	// UID tells which user a request is about. Nil: the one of the context.
	UID UIDFunc
	// Fallback sends a call to any pod that serves when podlink can't tell the right one, discovery has no instance of it, or it
	// is not to be reached. It is for services whose pods can answer for users of other pods; a Guard refuses such calls.
	Fallback bool
	// Idempotent names the operations, as in /chat.v1.Chat/Say, that may be carried out twice: when their answer was lost they
	// are repeated once.
	Idempotent []string
	// RetryTimeout is how long a call that certainly was not carried out is repeated: because the pod has disowned the user, or is
	// not to be reached. 0 is DefaultRetryTimeout.
	RetryTimeout time.Duration
	// LinkTTL is for how long a user without a link is linked to the pod that podlink has chosen; the pod makes the link
	// persistent when a session starts. Whole seconds; 0 is DefaultLinkTTL.
	LinkTTL time.Duration
	// CacheTTL is how long a link is used without asking podlink again. A temporary link is never used beyond its life, a
	// persistent one for up to an hour while podlink does not answer. 0 is DefaultCacheTTL.
	CacheTTL time.Duration
	// CacheSize is how many links are kept. 0 is DefaultCacheSize.
	CacheSize int
}

// Router sends each call of a Kratos client, over gRPC or HTTP, to the pod that holds its user. It is safe for concurrent
// use.
//
// The client needs both its parts, and all instances: Kratos shows a client only 25 of them unless told otherwise.
//
//	kgrpc.WithMiddleware(router.Middleware()), // the last one, if there are others
//	kgrpc.WithNodeFilter(router.NodeFilter()),
//	kgrpc.WithSubset(0),
//
// Streams pass no middleware: give theirs the context of Router.Route.
type Router struct {
	options    RouterOptions
	namespace  string
	service    string
	links      *linkCache
	idempotent map[string]bool
}

// NewRouter returns a router to the pods of the service, whose links are in the namespace.
func (c *Client) NewRouter(namespace, service string, o RouterOptions) (*Router, error) {
	if o.UID == nil {
		o.UID = sendUID
	}
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
	r := &Router{options: o, namespace: namespace, service: service, idempotent: map[string]bool{}}
	for _, operation := range o.Idempotent {
		r.idempotent[operation] = true
	}
	cache, err := newLinkCache(o.CacheSize, o.CacheTTL, func() bool { return true }, func(ctx context.Context, uid string) (*v1.Link, error) {
		return r.compute(ctx, c, uid)
	})
	if err != nil {
		return nil, fmt.Errorf("podlink: %w", err)
	}
	r.links = c.closing(cache)
	return r, nil
}

// wholeSeconds tells whether podlink's API can say that it is for so long.
func wholeSeconds(d time.Duration) bool {
	return d >= time.Second && d%time.Second == 0 && d/time.Second <= math.MaxInt32
}

func orDefault(d *time.Duration, standard time.Duration) {
	if *d == 0 {
		*d = standard
	}
}

// compute finds the user's link, or makes one. A compute whose answer was lost is repeated: it finds what that has made. If it
// stays lost the error is ErrUnavailable: for the caller of a pod, nothing was carried out.
func (r *Router) compute(ctx context.Context, c *Client, uid string) (*v1.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var reply *v1.ComputeLinkedPodReply
	err := untilCertain(ctx, func() (err error) {
		reply, err = c.ComputeLinkedPod(ctx, &v1.ComputeLinkedPodRequest{
			Namespace: r.namespace, Uid: uid, Service: r.service, PersistSeconds: proto.Int32(int32(r.options.LinkTTL / time.Second)),
		})
		return err
	})
	if uncertain(err) {
		return nil, explain(ErrUnavailable, err)
	}
	return reply.GetLink(), err
}

// route is where a call shall go.
type route struct {
	*entry      // nil: to any pod
	anyPod bool // to any pod, when that one has no instance
	avoid  bool // to any other pod
}

// routeKey is by router: a context may hold the routes of several, for the clients of several services.
type routeKey struct{ by *Router }

// NodeFilter leaves of a service's instances the one of the pod that the call shall go to. It goes with Middleware; each
// client has one of its own.
func (r *Router) NodeFilter() selector.NodeFilter {
	var index atomic.Pointer[podIndex]
	return func(ctx context.Context, nodes []selector.Node) []selector.Node {
		to, ok := ctx.Value(routeKey{r}).(route)
		if !ok || to.entry == nil {
			return nodes
		}
		known := index.Load()
		if known == nil || !slices.Equal(known.nodes, nodes) {
			known = indexPods(nodes)
			if known.comparable {
				index.Store(known)
			}
		}
		found := known.pods[to.ordinal]
		if to.avoid {
			found = slices.DeleteFunc(slices.Clone(nodes), func(node selector.Node) bool { return ordinalOf(node) == to.ordinal })
		}
		if len(found) > 1 {
			found = slices.Clone(found) // A filter that follows may work in place.
		}
		if len(found) == 0 && to.anyPod {
			return nodes
		}
		return found
	}
}

// podIndex is which instances are which pod's. To compare the instances with those of the last call is much faster than to
// look at the metadata of each.
type podIndex struct {
	nodes      []selector.Node
	comparable bool
	pods       map[string][]selector.Node
}

func indexPods(nodes []selector.Node) *podIndex {
	index := &podIndex{nodes: slices.Clone(nodes), comparable: true, pods: map[string][]selector.Node{}}
	for _, node := range nodes {
		index.comparable = index.comparable && reflect.TypeOf(node).Comparable()
		index.pods[ordinalOf(node)] = append(index.pods[ordinalOf(node)], node)
	}
	return index
}

// ordinalOf is which pod an instance is; empty: it does not say.
func ordinalOf(node selector.Node) string {
	metadata := node.Metadata()
	if id, ok := metadata[MetadataPodID]; ok {
		return id
	}
	name := metadata[MetadataPodName]
	if i := strings.LastIndexByte(name, '-'); i >= 0 {
		return name[i+1:]
	}
	return ""
}

// Route returns a context whose calls go to the pod that holds the user, for those that pass no middleware.
func (r *Router) Route(ctx context.Context, uid string) (context.Context, error) {
	link, err := r.links.get(ctx, uid)
	if err != nil && !r.options.Fallback {
		return nil, err
	}
	return context.WithValue(ctx, routeKey{r}, route{entry: link, anyPod: r.options.Fallback}), nil
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

// call sends the request to the user's pod, and again while that is safe and the patience lasts.
func (r *Router) call(ctx context.Context, uid string, request any, next middleware.Handler) (any, error) {
	var (
		between      = rarely()
		begin        time.Time // of the first failure
		lost         error     // of a try that may have been carried out
		disownedOnce bool
		avoid        bool // the pod is not to be reached, and another will do
	)
	for {
		link, err := r.find(ctx, uid, begin)
		if err != nil && lost != nil {
			return nil, lost
		}
		if err != nil && !r.options.Fallback {
			return nil, err
		}
		reply, err := r.try(ctx, route{link, r.options.Fallback, avoid}, request, next)
		if err == nil || link == nil {
			return reply, err
		}
		if begin.IsZero() {
			begin = time.Now()
		}
		failure := classify(ctx, err)
		switch {
		case failure == disowned && !disownedOnce:
			disownedOnce = true
			r.links.invalidateIf(uid, link)
			continue // Somebody else has the user, and podlink knows.
		case failure == disowned:
			r.links.invalidateIf(uid, link)
		case failure == notSent:
			r.links.markStale(uid, link)
			avoid = r.options.Fallback
		case failure == answerLost && lost == nil && r.idempotent[operationOf(ctx)]:
			lost = err
			r.links.markStale(uid, link)
		case failure == answerLost:
			r.links.markStale(uid, link) // The pod may be dead, and the next call shall not hang there too.
			return reply, err
		default:
			return reply, err
		}
		wait := between.NextBackOff()
		if time.Since(begin)+wait > r.options.RetryTimeout || !pause(ctx, wait) {
			if lost != nil {
				return nil, lost
			}
			return nil, explain(ErrPodUnreachable, err, MetadataPodID, link.ordinal)
		}
	}
}

// find returns the user's link. After a failure it waits for podlink no longer than the patience lasts.
func (r *Router) find(ctx context.Context, uid string, failed time.Time) (*entry, error) {
	if !failed.IsZero() {
		patient, cancel := context.WithDeadline(ctx, failed.Add(r.options.RetryTimeout))
		defer cancel()
		ctx = patient
	}
	return r.links.get(ctx, uid)
}

// rarely returns the pauses between tries of a call whose pod is not to be reached: each asks podlink, and many users may
// have lost their pod at once.
func rarely() *backoff.ExponentialBackOff {
	growing := pauses()
	growing.Multiplier, growing.MaxInterval = 3, 2*longestPause
	return growing
}

// try sends the request once.
func (r *Router) try(ctx context.Context, to route, request any, next middleware.Handler) (any, error) {
	// What an earlier try has left is not this one's: the instance that was chosen, and over HTTP a body that was read.
	if peer, ok := selector.FromPeerContext(ctx); ok {
		peer.Node = nil
	}
	if t, ok := transport.FromClientContext(ctx); ok {
		if over, ok := t.(*khttp.Transport); ok && over.Request().GetBody != nil {
			body, err := over.Request().GetBody()
			if err != nil {
				return nil, err
			}
			over.Request().Body = body
		}
	}
	return next(context.WithValue(ctx, routeKey{r}, to), request)
}

func operationOf(ctx context.Context) string {
	if t, ok := transport.FromClientContext(ctx); ok {
		return t.Operation()
	}
	return ""
}

// failure is what a failed try means for another one.
type failure int

const (
	final      failure = iota // the pod has answered
	disowned                  // the pod does not hold the user; not carried out
	notSent                   // the pod was not reached, or can't tell; not carried out
	answerLost                // perhaps carried out
)

func classify(ctx context.Context, err error) failure {
	var (
		dial    *net.OpError
		carried *url.Error
	)
	cause := kerrors.FromError(err)
	switch {
	case errors.Is(ctx.Err(), context.Canceled), ctx.Err() != nil && cause.Reason != kerrors.UnknownReason:
		return final
	case errors.Is(cause, ErrWrongPod):
		return disowned
	case noInstance(cause), errors.Is(cause, ErrLinkUncertain), errors.As(err, &dial) && dial.Op == "dial":
		return notSent
	case cause.Reason != kerrors.UnknownReason:
		return final
	case errors.As(err, &carried), cause.Code == 504: // net/http's, or a deadline's
		return answerLost
	case cause.Code != 503:
		return final
	}
	if peer, ok := selector.FromPeerContext(ctx); ok && peer.Node == nil && overGRPC(ctx) {
		return notSent // There was no connection to choose.
	}
	return answerLost
}

func overGRPC(ctx context.Context) bool {
	t, ok := transport.FromClientContext(ctx)
	return ok && t.Kind() == transport.KindGRPC
}
