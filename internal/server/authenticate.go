package server

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/auth"
)

// Authenticator finds out who calls: internal/auth's.
type Authenticator interface {
	// Authenticate returns who has sent a call with this proof. The error is auth.ErrUndecided if podlink can't know it yet, and
	// auth.ErrTooMany if it has not looked.
	Authenticate(ctx context.Context, proof auth.Proof) (auth.Identity, error)
	// Ready returns why callers can't be authenticated now.
	Ready() error
}

// Policy says what callers may do: internal/auth's.
type Policy interface {
	Rates
	// Decide returns what allows a call, or auth.ErrDenied. Even then Grant.Right is the right that was needed.
	Decide(who auth.Identity, need auth.Need) (auth.Grant, error)
	// Admin reports whether a caller may use the admin listener.
	Admin(who auth.Identity) bool
}

// Access authenticates calls and limits their rate, before they are decoded. Nil, with auth.mode off, it lets every call pass.
//
// A refusal is no reply yet: it is the first error of the call's decoding, so that the chain traces, counts and logs it with
// its operation, and nothing more of the call is read.
type Access struct {
	callers Authenticator
	policy  Policy
	rates   *rates
	prices  prices
	metrics *DoorMetrics
}

// NewAccess returns the access of callers that the authenticator knows, each within the rate that the policy gives it, or else the
// usual one.
func NewAccess(callers Authenticator, policy Policy, usual float64, metrics *DoorMetrics) *Access {
	return &Access{callers: callers, policy: policy, rates: newRates(policy, usual, metrics), prices: pricesOf(v1.Methods()), metrics: metrics}
}

// errUnauthenticated is the reply to a call whose caller is not known, whatever the cause.
var errUnauthenticated = v1.ErrorUnauthenticated("valid credentials are required")

// The outcomes of an authentication, for the metrics.
const (
	authenticated = "ok"
	refused       = "refused"
	undecided     = "undecided"
)

// caller is the context of a call whose caller was asked for.
type caller struct {
	auth.Call

	peer *peerAddr // nil outside podlink's listeners
	at   time.Time // when it was asked for
}

// identify sets the caller of the call. If the caller is not known, the error says so.
func (a *Access) identify(c *caller, proof auth.Proof) error {
	err := a.authenticate(c, proof)
	if err == nil {
		a.metrics.Authenticated(c.Identity.Kind(), authenticated)
	}
	return err
}

// proofOf returns the proof of a call that comes now.
func (a *Access) proofOf(c *caller, authorization []string, chains [][]*x509.Certificate) auth.Proof {
	c.at = a.rates.now()
	proof := auth.Proof{Authorization: authorization, Chains: chains, From: c.Peer.Addr(), At: c.at}
	if c.peer != nil {
		proof.Holder = &c.peer.holder
	}
	return proof
}

// authenticate is identify that does not count a caller who is known.
func (a *Access) authenticate(c *caller, proof auth.Proof) error {
	who, err := a.callers.Authenticate(c.Context, proof)
	switch {
	case err == nil:
		c.Identity = who
		return nil
	case errors.Is(err, auth.ErrUndecided):
		a.metrics.Authenticated(who.Kind(), undecided)
		return v1.ErrorNotReady("podlink can't check credentials yet; nothing was carried out; it is safe to retry").WithCause(err)
	case errors.Is(err, auth.ErrTooMany):
		a.metrics.Authenticated(who.Kind(), refused)
		a.metrics.Refused(RefusedByAuthentication)
		var refusal *auth.RefusedError
		errors.As(err, &refusal)
		return rateLimited(refusal.Wait, "too many tokens from this address were refused; nothing was carried out; "+
			"it is safe to retry after a pause").WithCause(err)
	default:
		a.metrics.Authenticated(who.Kind(), refused)
		a.metrics.Refused(RefusedByAuthentication)
		return errUnauthenticated.WithCause(err)
	}
}

// filter authenticates requests before their body is read.
func (a *Access) filter(next http.Handler) http.Handler {
	if a == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d := decodingFrom(r.Context())
		c, err := a.identifyHTTP(d.Context, r) //nolint:contextcheck // The request's own, which d wraps.
		if err != nil && r.ContentLength != 0 && r.ProtoMajor == 1 {
			// Otherwise net/http would read up to 256 KiB of the body before it sends the reply.
			w.Header().Set("Connection", "close")
		}
		d.admit(a, c, err)
		next.ServeHTTP(w, r)
	})
}

// identifyHTTP returns the caller of a request, whose body is not read yet. Its context is that of its call.
func (a *Access) identifyHTTP(ctx context.Context, r *http.Request) (*caller, error) {
	c := new(caller)
	c.Context = ctx
	return c, a.identify(c, a.proofHTTP(c, r))
}

func (a *Access) proofHTTP(c *caller, r *http.Request) auth.Proof {
	var chains [][]*x509.Certificate
	if r.TLS != nil {
		chains = r.TLS.VerifiedChains
	}
	c.peer, c.Peer = httpPeer(c.Context, r)
	return a.proofOf(c, r.Header["Authorization"], chains)
}

// httpPeer returns the address from which a request came, and what podlink knows about it; nil outside podlink's listeners.
func httpPeer(ctx context.Context, r *http.Request) (*peerAddr, netip.AddrPort) {
	if known, ok := ctx.Value(peerAddrKey{}).(*peerAddr); ok {
		return known, known.from
	}
	from, _ := netip.ParseAddrPort(r.RemoteAddr)
	return nil, from
}

// identifyGRPC authenticates a call, whose message is not received yet.
func (a *Access) identifyGRPC(c *caller) error { return a.identify(c, a.proofGRPC(c)) }

func (a *Access) proofGRPC(c *caller) auth.Proof {
	var chains [][]*x509.Certificate
	if p, ok := peer.FromContext(c.Context); ok {
		c.peer, _ = p.Addr.(*peerAddr)
		c.Peer = addrPort(p.Addr)
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			chains = info.State.VerifiedChains
		}
	}
	return a.proofOf(c, metadata.ValueFromIncomingContext(c.Context, "authorization"), chains)
}

// grpcPeer returns the address from which a gRPC call came; the zero AddrPort outside podlink's listeners.
func grpcPeer(ctx context.Context) netip.AddrPort {
	if p, ok := peer.FromContext(ctx); ok {
		return addrPort(p.Addr)
	}
	return netip.AddrPort{}
}

// guarded returns ctx with a new decoding, and that decoding, of a gRPC call with that price. Unless a is nil, its caller was asked for.
func (a *Access) guarded(ctx context.Context, cost *price) (context.Context, *decoding) {
	if a == nil {
		return withDecoding(ctx)
	}
	both := new(struct { // One allocation instead of two.
		decoding
		caller
	})
	d, c := &both.decoding, &both.caller
	c.Context = ctx
	d.admit(a, c, a.identifyGRPC(c))
	d.pay(cost)
	return d, d
}

// latest is how long a caller that was authenticated may take to send its message, without being asked again.
const latest = time.Second

// late reports whether it is too long ago that the caller was asked for.
func (a *Access) late(c *caller) bool { return a.rates.now().Sub(c.at) >= latest }

// again authenticates a gRPC call once more, and takes its price again, if its first message has come late: its caller may have lost its
// rights since, and calls must not be saved up.
func (d *decoding) again() {
	if d.access == nil || d.err != nil || !d.access.late(d.caller) {
		return
	}
	d.fail(d.access.identifyGRPC(d.caller))
	cost := d.price
	d.price = nil
	d.pay(cost)
}

// review returns why the caller of a stream may no longer have it: its proof does not count any more, or the policy has changed. The
// proof is that with which the stream was opened, message what it has asked for.
func (a *Access) review(c *caller, proof auth.Proof, operation string, message any) error {
	if err := a.authenticate(c, proof); err != nil {
		return err
	}
	return a.allow(&c.Call, operation, leastRight(operation), message)
}

// priceOf returns the price of an operation; nil without an access.
func (a *Access) priceOf(operation string) *price {
	if a == nil {
		return nil
	}
	return a.prices.operation(operation)
}

// ready returns why podlink can only refuse calls; nil if it does not.
func (a *Access) ready() error {
	if a == nil {
		return nil
	}
	return a.callers.Ready()
}
