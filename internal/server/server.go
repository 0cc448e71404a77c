// Package server is podlink's outside: the HTTP and the gRPC listener with one middleware chain for both, unary calls and
// streams alike, and the admin listener.
//
// Two things to know before changing anything here. Kratos decodes an HTTP request before its middleware runs, and gRPC
// decodes a message before its interceptors run; so a decoder that fails notes the error in the context (decode.go), and
// the chain refuses the request: every failure is traced, counted, logged and mapped alike. And Kratos'
// router falls back to http.DefaultServeMux, past all middleware, unless both fallback handlers are set (http.go).
package server

import (
	"github.com/google/wire"
)

// ProviderSet is what Wire needs of this package.
var ProviderSet = wire.NewSet(NewHTTPServer, NewGRPCServer, NewAdminServer, NewMetrics, NewDrain, NewChain, NewAPI)

// maxBodyBytes bounds a request's body, and a gRPC message.
const maxBodyBytes = 1 << 20

// maxHeaderBytes bounds a request's headers.
const maxHeaderBytes = 32 << 10
