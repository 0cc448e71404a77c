package server

import (
	"net/http"
	"net/http/pprof" // What it registers on http.DefaultServeMux is served by no listener: http.go.
	"runtime"
	"time"
)

const (
	// mutexSample is of how many waits for a lock one is recorded.
	mutexSample = 100
	// blockSample is the time of waiting, for a lock, a channel or a select, of which one sample is recorded on average.
	blockSample = time.Millisecond
)

// profile adds Go's profiles to routes, without the command line. The profiles that take their time prolong the
// listener's write timeout by it themselves.
func profile(routes *http.ServeMux) {
	runtime.SetMutexProfileFraction(mutexSample)
	runtime.SetBlockProfileRate(int(blockSample.Nanoseconds()))
	routes.HandleFunc("GET /debug/pprof/", pprof.Index)
	routes.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	routes.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	routes.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	routes.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
}
