// Package telemetry is the process' logger, its tracer provider, and the metrics and spans of the domain.
//
// Two things to know. Without a receiver of traces nothing is recorded, but every request still has a trace id, for the
// log. And no metric, span or line ever holds a uid; no metric holds a namespace or a service.
package telemetry

import (
	"github.com/google/wire"

	"podlink/internal/biz"
)

// ProviderSet is what Wire needs of this package.
var ProviderSet = wire.NewSet(NewTracerProvider, NewDomain, wire.Bind(new(biz.Observer), new(*Domain)))
