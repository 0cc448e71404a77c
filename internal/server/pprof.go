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

// addProfiles adds Go's profiles to routes, without the command line. Handlers of profiles that take a duration extend the
// write timeout by it themselves.
func addProfiles(routes *http.ServeMux) {
	runtime.SetMutexProfileFraction(mutexFraction)
	runtime.SetBlockProfileRate(int(blockRate.Nanoseconds()))
	routes.HandleFunc("GET /debug/pprof/", pprof.Index)
	routes.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	routes.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	routes.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	routes.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
}
