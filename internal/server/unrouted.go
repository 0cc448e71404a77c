package server

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"github.com/go-kratos/kratos/v2/transport"
)

// refuser answers a request with an error.
type refuser func(w http.ResponseWriter, r *http.Request, err error)

// refuseThrough returns what refuses the requests that never reach an operation. Kratos' middleware does not run for
// them; here it does, so that they are traced, counted and logged like all others.
func refuseThrough(chain *Chain) refuser {
	return func(w http.ResponseWriter, r *http.Request, err error) {
		refuse := func(context.Context) error { return err }
		encodeError(w, r, chain.serve(r.Context(), unrouted{r, w.Header()}, unaryCall, refuse))
	}
}

// unroutedOperation is the operation of requests that have none.
const unroutedOperation = "unknown"

// unrouted is the transport of a request that has no operation.
type unrouted struct {
	request *http.Request
	reply   http.Header
}

// Kind implements transport.Transporter.
func (unrouted) Kind() transport.Kind { return transport.KindHTTP }

// Endpoint implements transport.Transporter.
func (unrouted) Endpoint() string { return "" }

// Operation implements transport.Transporter.
func (unrouted) Operation() string { return unroutedOperation }

// RequestHeader implements transport.Transporter.
func (u unrouted) RequestHeader() transport.Header { return headers{u.request.Header} }

// ReplyHeader implements transport.Transporter.
func (u unrouted) ReplyHeader() transport.Header { return headers{u.reply} }

// Request implements khttp.Transporter.
func (u unrouted) Request() *http.Request { return u.request }

// PathTemplate implements khttp.Transporter: no route matched.
func (unrouted) PathTemplate() string { return "" }

// headers are a transport.Header.
type headers struct{ http.Header }

// Keys implements transport.Header.
func (h headers) Keys() []string { return slices.Sorted(maps.Keys(h.Header)) }
