package server

import (
	"bytes"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/expfmt"
)

const (
	// scrapeShare bounds the share of a processor that answering scrapes takes, however many there are: after an answer, the
	// next one waits for this many times as long as that one took, but for maxScrapePause at most.
	scrapeShare    = 4
	maxScrapePause = 200 * time.Millisecond
)

// sharedScrapes serves the metrics with one answer at a time. Scrapes that arrive while it is made share the next one: everyone
// gets values of a moment after the request, and a flood of scrapes costs as much as a few.
type sharedScrapes struct {
	handler http.Handler
	turn    chan struct{} // full while an answer is made, and in the pause after it

	mu   sync.Mutex
	next map[scrapeFormat]*scrapeAnswer // those that are not begun
}

// scrapeFormat is what answers of scrapes differ by. The scrapers' own headers would be different for each of them.
type scrapeFormat struct{ accept, encoding string }

// scrapeAnswer is an answer, complete when done is closed. It is an http.ResponseWriter.
type scrapeAnswer struct {
	done   chan struct{}
	header http.Header
	code   int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (a *scrapeAnswer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *scrapeAnswer) WriteHeader(code int) { a.code = code }

// Write implements http.ResponseWriter.
func (a *scrapeAnswer) Write(text []byte) (int, error) { return a.body.Write(text) }

func newSharedScrapes(handler http.Handler) *sharedScrapes {
	return &sharedScrapes{handler: handler, turn: make(chan struct{}, 1), next: make(map[scrapeFormat]*scrapeAnswer)}
}

// ServeHTTP implements http.Handler.
func (s *sharedScrapes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	format := scrapeFormat{accept: string(expfmt.NegotiateAccept(r.Header, expfmt.DefaultOpenMetricsAcceptedFormats()...))}
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		format.encoding = "gzip"
	}
	answer := s.join(format)
	select {
	case <-answer.done:
	case <-r.Context().Done():
		return
	}
	for name, values := range answer.header {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.code)
	_, _ = w.Write(answer.body.Bytes()) // On failure the connection is gone.
}

// join returns the next answer in the format, which is not begun.
func (s *sharedScrapes) join(format scrapeFormat) *scrapeAnswer {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer, ok := s.next[format]
	if !ok {
		answer = &scrapeAnswer{done: make(chan struct{}), header: make(http.Header), code: http.StatusInternalServerError}
		s.next[format] = answer
		go s.make(format, answer)
	}
	return answer
}

// make makes an answer when it is its turn.
func (s *sharedScrapes) make(format scrapeFormat, answer *scrapeAnswer) {
	s.turn <- struct{}{}
	s.mu.Lock()
	delete(s.next, format)
	s.mu.Unlock()
	start := time.Now()
	defer func() {
		if recover() != nil { // A collector's fault.
			answer.code = http.StatusInternalServerError
		}
		close(answer.done)
		pause := min(scrapeShare*time.Since(start), maxScrapePause)
		time.AfterFunc(pause, func() { <-s.turn })
	}()
	answer.code = http.StatusOK
	request := &http.Request{Method: http.MethodGet, Header: http.Header{"Accept": {format.accept}}}
	if format.encoding != "" {
		request.Header.Set("Accept-Encoding", format.encoding)
	}
	s.handler.ServeHTTP(answer, request)
}
