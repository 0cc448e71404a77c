// Package server has podlink's listeners: HTTP and gRPC, which share one middleware chain for unary calls and streams, and the
// admin listener.
//
// Two things to know before changing anything here. Kratos decodes HTTP requests before its middleware runs, and gRPC decodes
// messages before its interceptors run. So decoders record an error in the context (decode.go) and the chain rejects the
// request: every failure is traced, counted, logged and mapped in the same way. And Kratos' router falls back to
// http.DefaultServeMux, past all middleware, unless both fallback handlers are set (http.go).
package server

import (
	"github.com/google/wire"

	"podlink/internal/service"
)

// ProviderSet is this package's Wire providers.
var ProviderSet = wire.NewSet(NewHTTPServer, NewGRPCServer, NewAdminServer, NewListenerTLS, NewMetrics, NewDoorMetrics, NewDrain, NewChain,
	NewAPI, NewConnections, wire.Struct(new(ChainOptions), "*"), wire.Struct(new(AdminOptions), "*"),
	wire.Bind(new(service.Problems), new(*Chain)))

// maxBodyBytes bounds the body of an HTTP request, and a gRPC message.
const maxBodyBytes = 1 << 20

// maxHeaderBytes bounds a request's headers.
const maxHeaderBytes = 32 << 10
