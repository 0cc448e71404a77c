package server

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"podlink/internal/conf"
	"podlink/internal/telemetry"
	"podlink/test/kit/logwatch"
)

// TestUnroutedRequests: requests that match no operation are traced, counted and logged like all others, without any text of
// the caller.
func TestUnroutedRequests(t *testing.T) {
	const link = "/v1/namespaces/ns/links/secret/services/svc"
	for name, row := range map[string]struct {
		method, path string
		code         int
		reason       string
		traced       string // the method in the span
	}{
		"unknown path":   {http.MethodGet, "/secret", http.StatusNotFound, "NOT_FOUND", "GET"},
		"path with dots": {http.MethodGet, "/v1/../secret", http.StatusNotFound, "NOT_FOUND", "GET"},
		"wrong method":   {http.MethodPatch, link, http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED", "PATCH"},
		"invalid method": {"SECRET", link, http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED", "_OTHER"},
		"profile":        {http.MethodGet, "/debug/pprof/", http.StatusNotFound, "NOT_FOUND", "GET"},
	} {
		t.Run(name, func(t *testing.T) {
			p, spans, lines := newParts(t), tracetest.NewSpanRecorder(), new(logwatch.Log)
			metrics, err := NewMetrics(nil)
			require.NoError(t, err)
			chain, closeChain := NewChain(ChainOptions{
				Server: p.config, Log: conf.Default().Log, Tracer: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)),
				Metrics: metrics, Logger: telemetry.NewLogger(&conf.Log{Format: "json"}, telemetry.NewLogLevel("debug"), lines),
			})
			t.Cleanup(closeChain)
			p.chain = chain

			request := httptest.NewRequestWithContext(t.Context(), row.method, row.path, http.NoBody)
			request.Header.Set("Traceparent", traceparent)
			reply := httptest.NewRecorder()
			p.http().ServeHTTP(reply, request)
			require.Equal(t, row.code, reply.Code)
			require.Contains(t, reply.Body.String(), row.reason)

			require.Len(t, spans.Ended(), 1)
			span := spans.Ended()[0]
			require.Equal(t, traceID, span.SpanContext().TraceID().String())
			require.Equal(t, unroutedOperation, span.Name())
			require.Equal(t, map[string]string{
				"rpc.method": unroutedOperation, "http.request.method": row.traced, "error.type": row.reason,
			}, attributes(span))
			page := httptest.NewRecorder()
			metrics.handler().ServeHTTP(page, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
			require.Regexp(t, `(?m)^server_requests_code_total\{code="`+strconv.Itoa(row.code)+`",kind="http",operation="unknown",reason="`+
				row.reason+`"\} 1$`, page.Body.String())
			require.Contains(t, lines.String(), `"operation":"unknown"`)
			require.NotContains(t, page.Body.String()+lines.String(), "secret")
			require.NotContains(t, page.Body.String()+lines.String(), "SECRET")
		})
	}
}
