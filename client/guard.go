package client

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/middleware"
	"github.com/go-kratos/kratos/v2/transport"
	"google.golang.org/grpc"

	v1 "podlink/api/podlink/v1"
)

// Guard is the middleware of a pod's servers that serves only users who are linked to the pod. A request of another one is
// answered with ErrWrongPod, or with ErrLinkUncertain while the pod can't know; one that names no user with ErrUIDRequired, unless
// its operation is in AgentOptions.Public. What Kratos registers with each server, as for health, passes.
//
// It is routing, not authentication: it believes the user that the request names. Check who calls before a request reaches a
// router.
//
// What podlink has answered counts for AgentOptions.CacheTTL, and while podlink does not answer for as long as the pod's last
// report counts: before that podlink moves no user of the pod by itself.
func (a *Agent) Guard() middleware.Middleware { return a.guard.middleware }

// guard decides whether the pod may serve a request. Its requests are unary calls and streams (guardstream.go); what it knows
// about a user is in guardcheck.go.
type guard struct {
	guardOptions
	byHeader         bool // the user is in the header of a Router without a UIDFunc
	publicOperations map[string]bool
	cache            *linkCache
	streams          userStreams

	// The lease as the guard has seen it: how often it began, and when it did last.
	leases     atomic.Int64
	leaseBegun atomic.Pointer[time.Time]
	leaseMu    sync.Mutex // held by the one who changes both

	blamed sync.Map // operations at which a UIDFunc has panicked
}

// guardOptions configures a guard.
type guardOptions struct {
	links              v1.LinkServiceClient
	lease              *lease
	sessions           heldSessions
	namespace, service string
	pod                int32
	uid                UIDFunc // nil: the header of a Router without a UIDFunc
	match              UIDFunc // nil: uid alone decides
	public             []string
	cacheTTL           time.Duration
	timeout            time.Duration // of a question to podlink
	log                *log.Helper
}

// heldSessions is what a guard needs of the pod's sessions.
type heldSessions interface {
	// holding returns the session of the user.
	holding(uid string) holding
	// saw takes in the link that podlink has answered to a question that was asked then. It does not block.
	saw(uid string, link *v1.Link, asked time.Time)
	// restore claims a link of this pod's again whose epoch is lower than the session's.
	restore(ctx context.Context, uid string) (holding, error)
}

// newGuard returns a guard, to be closed.
func newGuard(o guardOptions) (*guard, error) {
	g := &guard{guardOptions: o, byHeader: o.uid == nil, publicOperations: make(map[string]bool, len(o.public))}
	if g.byHeader {
		g.uid = receiveUID
	}
	for _, operation := range o.public {
		g.publicOperations[operation] = true
	}
	g.leaseBegun.Store(new(time.Time))
	cache, err := newLinkCache(cachePolicy{size: DefaultCacheSize, ttl: o.cacheTTL, lookup: g.fetch, keeps: g.keeps})
	if err != nil {
		return nil, err
	}
	g.cache = cache
	return g, nil
}

func (g *guard) close() { g.cache.close() }

// middleware guards unary calls.
func (g *guard) middleware(next middleware.Handler) middleware.Handler {
	return func(ctx context.Context, request any) (any, error) {
		operation := ""
		if t, ok := transport.FromServerContext(ctx); ok {
			operation = t.Operation()
		}
		ctx, err := g.admit(ctx, operation, request)
		if err != nil {
			return nil, err
		}
		return next(ctx, request)
	}
}

// unary guards unary calls over gRPC.
func (g *guard) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	ctx, err := g.admit(ctx, info.FullMethod, request)
	if err != nil {
		return nil, err
	}
	return handle(ctx, request)
}

// admit returns the context of a request that the pod may serve.
func (g *guard) admit(ctx context.Context, operation string, request any) (context.Context, error) {
	if isBuiltIn(operation) {
		return ctx, nil
	}
	uid, err := g.identify(ctx, operation, request)
	if err != nil {
		return nil, err
	}
	epoch, err := g.check(ctx, uid)
	if err != nil || uid == "" {
		return ctx, err
	}
	guarded := &userContext{Context: ctx, by: g, first: guardedUser{uid, epoch}}
	guarded.user.Store(&guarded.first)
	return guarded, nil
}

// identify returns the user of a request. Empty: it is about none, and may be.
func (g *guard) identify(ctx context.Context, operation string, request any) (string, error) {
	uid, err := g.find(ctx, g.uid, operation, request)
	if err != nil {
		return "", err
	}
	if g.match != nil {
		other, err := g.find(ctx, g.match, operation, request)
		if err != nil {
			return "", err
		}
		if uid != other && uid != "" {
			return "", uidMismatch(operation, other)
		}
		if uid != other {
			return "", uidRequired(operation, "the request names a user, but not where AgentOptions.UID looks")
		}
	}
	if uid == "" && !g.publicOperations[operation] {
		return "", uidRequired(operation, "the request names no user")
	}
	return uid, nil
}

// isBuiltIn reports whether Kratos registers the operation with each server: for health, reflection and the like.
func isBuiltIn(operation string) bool {
	return strings.HasPrefix(operation, "/grpc.") || strings.HasPrefix(operation, "/kratos.api.")
}

// find calls a UIDFunc. One that panics, on a request that it did not expect, does not end the process.
func (g *guard) find(ctx context.Context, in UIDFunc, operation string, request any) (uid string, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = withCause(uidRequired(operation, "the user of the request can't be found"), fmt.Errorf("panic: %v", cause))
			if request == nil {
				return // A stream that opens: it may have been expected.
			}
			if _, before := g.blamed.LoadOrStore(operation, true); !before {
				g.log.Errorf("the function that finds the user of a request panicked at %s: %v\n%s", operation, cause, debug.Stack())
			}
		}
	}()
	return in(ctx, request), nil
}

// userContext is the context of a request that has passed a guard.
type userContext struct {
	context.Context //nolint:containedctx // It is one.

	by    *guard
	user  atomic.Pointer[guardedUser] // nil: a stream that has named none yet
	first guardedUser                 // what user points to at first
}

// guardedUser is the user of a request, and the epoch of the link as the guard knows it.
type guardedUser struct {
	uid   string
	epoch int64
}

type userContextKey struct{}

// Value implements context.Context.
func (c *userContext) Value(key any) any {
	if key == (userContextKey{}) {
		return c
	}
	return c.Context.Value(key)
}

// passed is what a guard has found for the request of that context; nil: none has, or the request is about no user.
func passed(ctx context.Context) (*guard, *guardedUser) {
	if guarded, ok := ctx.Value(userContextKey{}).(*userContext); ok {
		return guarded.by, guarded.user.Load()
	}
	return nil, nil
}

// Epoch returns the epoch of the user's link in a request that has passed a Guard; 0: the request is about no user, or there is no
// Guard. It tells pods apart, not two processes of one pod: a pod that holds a user's state starts a session, and writes with
// Session.Epoch. In a stream it is the epoch as of the Guard's last check.
func Epoch(ctx context.Context) int64 {
	if _, user := passed(ctx); user != nil {
		return user.epoch
	}
	return 0
}

// seen returns the epoch that the guard has found for the request, if the request is the user's; 0: unknown.
func (g *guard) seen(ctx context.Context, uid string) int64 {
	if by, user := passed(ctx); by == g && user != nil && user.uid == uid {
		return user.epoch
	}
	return 0
}
