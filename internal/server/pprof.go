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

// goProfiles serves Go's profiles, without the command line, one at a time: some stop the process for a moment. Handlers of profiles
// that take a duration extend the write timeout by it themselves.
func goProfiles() http.Handler {
	runtime.SetMutexProfileFraction(mutexFraction)
	runtime.SetBlockProfileRate(int(blockRate.Nanoseconds()))
	routes := http.NewServeMux()
	routes.HandleFunc("GET /debug/pprof/", pprof.Index)
	routes.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	routes.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	routes.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	routes.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	return oneAtATime(routes)
}

// oneAtATime refuses requests while another one is being served. After it, the next one waits for a few times as long as that one
// took: profiles without a duration that are taken in a loop leave the processors to the calls.
func oneAtATime(next http.Handler) http.Handler {
	busy, pausing := make(chan struct{}, 1), make(chan struct{}, 1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case busy <- struct{}{}:
			defer func() { <-busy }()
		default:
			refuseSlowly(w, r, "podlink is taking another profile")
			return
		}
		select {
		case pausing <- struct{}{}:
		case <-r.Context().Done():
			return
		}
		start := time.Now()
		defer func() { time.AfterFunc(min(scrapeShare*time.Since(start), maxScrapePause), func() { <-pausing }) }()
		next.ServeHTTP(w, r)
	})
}
