// Package telemetry has the process' logger, its tracer provider, and the metrics and spans of the domain.
//
// Two things to know. Without a trace receiver nothing is recorded, but every request still has a trace id, for the log. And no
// metric, span or log line contains a uid; no metric contains a namespace or service.
package telemetry

import (
	"github.com/google/wire"

	"podlink/internal/biz"
)

// ProviderSet is this package's Wire providers.
var ProviderSet = wire.NewSet(NewTracerProvider, NewDomain, NewFleet, NewJobs, wire.Bind(new(biz.Observer), new(*Domain)))
