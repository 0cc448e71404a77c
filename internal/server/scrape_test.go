package server

import (
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// scrape returns the answer to a scrape with the headers.
func scrape(ctx context.Context, handler http.Handler, accept, encoding string) *httptest.ResponseRecorder {
	request := httptest.NewRequestWithContext(ctx, http.MethodGet, "/metrics", http.NoBody)
	request.Header.Set("Accept", accept)
	request.Header.Set("Accept-Encoding", encoding)
	reply := httptest.NewRecorder()
	handler.ServeHTTP(reply, request)
	return reply
}

// TestSharedScrapesAnswerAsBefore: every scraper gets the format that it would get alone.
func TestSharedScrapesAnswerAsBefore(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "x", Help: "x."}, func() float64 { return 1 })))
	metrics := &Metrics{registry: registry}
	shared := newSharedScrapes(metrics.handler())
	for _, accept := range []string{
		"", "*/*", "text/plain", "text/plain;version=0.0.4", "application/openmetrics-text",
		"application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", "nonsense", "text/html",
		"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8",
	} {
		alone, together := scrape(t.Context(), metrics.handler(), accept, ""), scrape(t.Context(), shared, accept, "")
		require.Equal(t, alone.Code, together.Code, accept)
		require.Equal(t, alone.Header(), together.Header(), accept)
		require.Equal(t, alone.Body.String(), together.Body.String(), accept)
		zipped := scrape(t.Context(), shared, accept, "deflate, gzip")
		require.Equal(t, "gzip", zipped.Header().Get("Content-Encoding"), accept)
		text, err := gzip.NewReader(zipped.Body)
		require.NoError(t, err)
		plain, err := io.ReadAll(text)
		require.NoError(t, err)
		require.Equal(t, alone.Body.String(), string(plain))
	}
}

// TestSharedScrapes: many scrapes at once cost a few answers, and each gets one that was begun after it came.
func TestSharedScrapes(t *testing.T) {
	var begun, answering atomic.Int64
	shared := newSharedScrapes(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		assert.EqualValues(t, 1, answering.Add(1), "one at a time")
		_, _ = io.WriteString(w, strconv.FormatInt(begun.Add(1), 10))
		time.Sleep(time.Millisecond)
		answering.Add(-1)
	}))
	var scrapers sync.WaitGroup
	for i := range 200 {
		scrapers.Go(func() {
			for range 5 {
				before := begun.Load()
				reply := scrape(t.Context(), shared, []string{"", "application/openmetrics-text"}[i%2], "")
				got, err := strconv.ParseInt(reply.Body.String(), 10, 64)
				assert.NoError(t, err)
				assert.Greater(t, got, before)
			}
		})
	}
	scrapers.Wait()
	require.LessOrEqual(t, begun.Load(), int64(200), "of 1000 scrapes")
	require.Empty(t, shared.next)
}

// TestScrapeThatFails: a collector that panics does not end podlink, nor the scrapes after it; a scraper that leaves takes no one's
// answer.
func TestScrapeThatFails(t *testing.T) {
	healthy := make(chan bool, 2)
	shared := newSharedScrapes(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !<-healthy {
			panic("a collector's fault")
		}
		_, _ = io.WriteString(w, "ok")
	}))
	gone, leave := context.WithCancel(t.Context())
	leave()
	require.Empty(t, scrape(gone, shared, "", "").Body.String())
	healthy <- false
	healthy <- true
	require.Eventually(t, func() bool {
		if reply := scrape(t.Context(), shared, "", ""); reply.Code == http.StatusOK {
			return reply.Body.String() == "ok"
		}
		return false
	}, 10*time.Second, time.Millisecond)
}

// TestBounded: of the requests at once, those above the bounds are refused, and a peer takes no place of another one.
func TestBounded(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	b := newBounded(3, 2, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		entered <- struct{}{}
		<-release
	}))
	ask := func(peer string) *httptest.ResponseRecorder {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
		request.RemoteAddr = peer
		reply := httptest.NewRecorder()
		b.ServeHTTP(reply, request)
		return reply
	}
	var held sync.WaitGroup
	hold := func(peer string) {
		held.Go(func() { assert.Equal(t, http.StatusOK, ask(peer).Code) })
		<-entered
	}
	hold("127.0.0.1:1")
	hold("127.0.0.1:2")
	refused := ask("127.0.0.1:3")
	require.Equal(t, http.StatusTooManyRequests, refused.Code, "of this peer")
	require.Equal(t, "1", refused.Header().Get("Retry-After"))
	hold("127.0.0.2:1")
	require.Equal(t, http.StatusTooManyRequests, ask("127.0.0.3:1").Code, "of all")
	close(release)
	held.Wait()
	require.Empty(t, b.peers)
	require.Zero(t, b.all)
}
