package client

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/selector"
	"github.com/go-kratos/kratos/v2/transport"
)

// podCall is one try to call a pod: where it goes, and how far it has come. What the error of a try says about that may be the error
// of another call, which the pod's handler has passed on after its work.
type podCall struct {
	link   *entry // nil: to any pod
	anyPod bool   // to any pod, if that one has no instance
	other  bool   // to any other pod

	choice     atomic.Int32              // of instances, by the node filter
	record     atomic.Pointer[podRecord] // of the pod that was chosen
	connection atomic.Int32              // over HTTP
}

// podCallKey is by router: a context may hold the calls of several, to several services.
type podCallKey struct{ by *Router }

// What is known of a choice, and of a connection.
const (
	notAsked int32 = iota // yet
	without               // there is none
	with
)

func (c *podCall) chose(found bool, record *podRecord) {
	c.choice.Store(without)
	if found {
		c.choice.Store(with)
		c.record.Store(record)
	}
}

// trace returns a context that notes the connection of a call over HTTP.
func (c *podCall) trace(ctx context.Context, request *http.Request) context.Context {
	replayed := isReplayed(request)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) {
			// net/http takes another connection only if nothing went over the last one, or if it takes the request for idempotent.
			if !replayed || c.connection.Load() != with {
				c.connection.Store(without)
			}
		},
		GotConn: func(httptrace.GotConnInfo) { c.connection.Store(with) },
	})
}

// isReplayed reports whether net/http sends the request again when a connection breaks that has been used before, though the pod may
// have carried it out.
func isReplayed(request *http.Request) bool {
	switch request.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	_, has := request.Header["Idempotency-Key"]
	_, hasX := request.Header["X-Idempotency-Key"]
	return has || hasX
}

// mayBeSent returns false if the call was certainly not sent to any pod: no instance was chosen, or no connection got.
func (c *podCall) mayBeSent(ctx context.Context) bool {
	switch {
	case c.choice.Load() == without, c.connection.Load() == without:
		return false
	case c.choice.Load() == with || !overGRPC(ctx):
		return true
	}
	// Over gRPC no choice was needed where there was no connection to choose from.
	peer, ok := selector.FromPeerContext(ctx)
	return !ok || peer.Node != nil
}

// bypassed reports whether the call has gone to an instance that the node filter did not choose.
func (c *podCall) bypassed(ctx context.Context) bool {
	if c.link == nil || c.choice.Load() != notAsked {
		return false
	}
	peer, ok := selector.FromPeerContext(ctx)
	return ok && peer.Node != nil || c.connection.Load() == with
}

// whyUnreached says why no instance of the pod was called. Kratos shows a router over gRPC no instances but those that are connected.
func (c *podCall) whyUnreached(ctx context.Context) string {
	switch {
	case c.choice.Load() == with || c.connection.Load() == without:
		return "discovery has an instance of it, which can't be connected"
	case c.choice.Load() == notAsked:
		return "no pod of the service is connected: discovery has none, or none can be connected"
	case overGRPC(ctx):
		return "discovery has no instance of it, or it can't be connected"
	}
	return "discovery has no instance of it"
}

// answered notes that the pod has answered the call.
func (c *podCall) answered(now time.Time) {
	if record := c.record.Load(); record != nil {
		record.answered(now)
	}
}

// outcome is what the error of a try means for another one.
type outcome int

const (
	unjudged     outcome = iota // it says nothing about the pod: the caller has left, or the error is this process's
	final                       // the pod has answered
	wasDisowned                 // the pod does not hold the user; not carried out
	wasUncertain                // the pod can't say whether it holds the user; not carried out
	wasUnreached                // no pod was called; not carried out
	answerLost                  // perhaps carried out
)

// classify says what the error of a try means.
func (r *Router) classify(ctx context.Context, try *podCall, uid string, err error) outcome {
	var carried *url.Error
	cause := kerrors.FromError(err)
	nameless := cause.Reason == kerrors.UnknownReason // It is no pod's: those of Kratos servers have reasons, or are their statuses.
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return unjudged
	case !try.mayBeSent(ctx):
		if noInstance(cause) || nameless && (cause.Code == 503 || cause.Code == 504 || errors.As(err, &carried)) {
			return wasUnreached
		}
		return unjudged // A middleware's, or the codec's.
	case r.refusedBy(try, uid, cause, ErrWrongPod):
		return wasDisowned
	case r.refusedBy(try, uid, cause, ErrLinkUncertain):
		return wasUncertain
	case nameless && (cause.Code == 503 || cause.Code == 504 || errors.As(err, &carried)):
		return answerLost
	}
	return final
}

// refusedBy reports whether the error is the refusal of this try by the guard of the link's pod.
func (r *Router) refusedBy(try *podCall, uid string, err *kerrors.Error, refusal error) bool {
	if !errors.Is(err, refusal) {
		return false
	}
	says := err.Metadata
	return says[metadataNamespace] == r.namespace && says[metadataService] == r.service && says[metadataUID] == uid &&
		says[metadataRefusedBy] == try.link.ordinal
}

func overGRPC(ctx context.Context) bool {
	t, ok := transport.FromClientContext(ctx)
	return ok && t.Kind() == transport.KindGRPC
}
