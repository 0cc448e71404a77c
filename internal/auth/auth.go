// Package auth decides who calls podlink and what it may do: identities by token, JWT or certificate, and the policy. It knows
// nothing of the API's messages, of transports or of the store.
package auth

import (
	"context"
	"net/netip"
)

// Identity is who calls.
type Identity struct {
	// Name is what policies match, logs show and limits count: jwt:<issuer>:<sub>, spiffe://…, dns:… or token:<name>.
	Name string
	// Pod is the name of the pod that the caller has proven to be, as in chat-2. Empty: none.
	Pod string
}

// Right is what a call needs. Each rpc has one (the option podlink.v1.right), which its message may raise.
type Right int

// The rights. Which roles have which: role.go.
const (
	None    Right = iota
	Read          // see links, pods and workloads
	Place         // let podlink choose a pod
	Bind          // change links under a condition
	Report        // report a pod
	Operate       // change pods and workloads, and what others have
	Force         // change links without a condition
)

// String returns the right's name in policies, logs and the audit log.
func (r Right) String() string {
	return [...]string{"none", "read", "place", "bind", "report", "operate", "force"}[r]
}

// Grant is why a call is allowed, and within which bounds.
type Grant struct {
	Right Right
	Rule  string // which rule of the policy allows it; empty with auth.mode off
	// Own is the only pod whose links the call may change: those of the caller, a pod, itself. Nil: any.
	Own *int32

	seen []*rule // of a call about all services: the rules that allow it
}

// Call is the context of a call whose caller is known.
type Call struct {
	context.Context //nolint:containedctx // It is a context: one allocation instead of two.

	Identity Identity
	Peer     netip.AddrPort // the address from which it came; zero if it is none, as in tests
	Grant    Grant          // set when the call is authorized
}

// Host returns the address that stands for a peer: of IPv6 the first 64 bits, because a host has as many addresses as it likes.
func Host(peer netip.Addr) netip.Addr {
	peer = peer.Unmap()
	if !peer.Is6() {
		return peer
	}
	prefix, _ := peer.WithZone("").Prefix(64) // Of an IPv6 address it is always one.
	return prefix.Addr()
}

type callKey struct{}

// Value implements context.Context.
func (c *Call) Value(key any) any {
	if key == (callKey{}) {
		return c
	}
	return c.Context.Value(key)
}

// From returns the call of a context, nil with auth.mode off.
func From(ctx context.Context) *Call {
	call, _ := ctx.Value(callKey{}).(*Call)
	return call
}
