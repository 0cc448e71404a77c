package server

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"github.com/go-kratos/kratos/v2/transport"
)

// rejectFunc answers a request with an error.
type rejectFunc func(w http.ResponseWriter, r *http.Request, err error)

// rejectVia returns a rejectFunc that passes requests through the chain. It is for requests that match no operation, for which
// Kratos runs no middleware: they are traced, counted and logged like all others.
func rejectVia(chain *Chain) rejectFunc {
	return func(w http.ResponseWriter, r *http.Request, err error) {
		fail := func(context.Context) error { return err }
		encodeError(w, r, chain.serve(r.Context(), unrouted{r, w.Header()}, unaryCall, &messages{}, fail))
	}
}

// unroutedOperation is the operation of requests that match none.
const unroutedOperation = "unknown"

// unrouted is the transport of a request that matches no operation.
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

// headers adapts an http.Header to transport.Header.
type headers struct{ http.Header }

// Keys implements transport.Header.
func (h headers) Keys() []string { return slices.Sorted(maps.Keys(h.Header)) }
