package server

import (
	"net/http"
	"net/http/pprof" // No listener serves http.DefaultServeMux, where this import registers: http.go.
	"runtime"
	"time"
)

const (
	// mutexFraction is the mutex profile's sampling rate: one in this many lock contentions.
	mutexFraction = 100
	// blockRate is the block profile's sampling rate: on average one sample per this much time blocked.
	blockRate = time.Millisecond
)

// addProfiles adds Go's profiles to routes, without the command line, each wrapped. Handlers of profiles that take a duration extend
// the write timeout by it themselves.
func addProfiles(routes *http.ServeMux, wrap func(http.Handler) http.Handler) {
	runtime.SetMutexProfileFraction(mutexFraction)
	runtime.SetBlockProfileRate(int(blockRate.Nanoseconds()))
	for pattern, profile := range map[string]http.HandlerFunc{
		"GET /debug/pprof/": pprof.Index, "GET /debug/pprof/profile": pprof.Profile, "GET /debug/pprof/trace": pprof.Trace,
		"GET /debug/pprof/symbol": pprof.Symbol, "POST /debug/pprof/symbol": pprof.Symbol,
	} {
		routes.Handle(pattern, wrap(profile))
	}
}
