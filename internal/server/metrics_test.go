package server

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"podlink/internal/service"
)

func TestRequestsAreCountedByOutcome(t *testing.T) {
	metrics, err := NewMetrics(nil)
	require.NoError(t, err)
	for _, failure := range []error{nil, nil, service.PublicError(invalid("uid", "is secret")), service.Internal(errors.New("secret"))} {
		metrics.count(call{}, unaryCall, trace.SpanContext{}, time.Millisecond, failure)
	}
	reply := httptest.NewRecorder()
	metrics.handler().ServeHTTP(reply, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
	const labels = `kind="grpc",operation="/podlink.v1.LinkService/GetLinkedPod"`
	for _, line := range []string{
		"# TYPE server_requests_code_total counter",
		`server_requests_code_total{code="200",` + labels + `,reason=""} 2`,
		`server_requests_code_total{code="400",` + labels + `,reason="INVALID_ARGUMENT"} 1`,
		`server_requests_code_total{code="500",` + labels + `,reason="INTERNAL"} 1`,
		"# TYPE server_requests_seconds histogram",
		`server_requests_seconds_bucket{` + labels + `,le="0.0001"} `,
		`server_requests_seconds_bucket{` + labels + `,le="1"} 4`,
		`server_requests_seconds_count{` + labels + `} 4`,
		"podlink_build_info{", "go_goroutines ", "process_resident_memory_bytes ",
	} {
		require.Contains(t, reply.Body.String(), "\n"+line)
	}
	require.NotContains(t, reply.Body.String(), "secret")
}

// TestSeriesOfGraveErrorsArePreCreated: for every operation, so that rate() sees the first error.
func TestSeriesOfGraveErrorsArePreCreated(t *testing.T) {
	metrics, err := NewMetrics(nil)
	require.NoError(t, err)
	require.Equal(t, 3*(2*33+1), testutil.CollectAndCount(metrics.requests))
	require.InDelta(t, 0, testutil.ToFloat64(metrics.requests.WithLabelValues(
		"http", "/podlink.v1.WorkloadService/BatchGetWorkloadState", "500", "INTERNAL")), 0)
	require.InDelta(t, 0, testutil.ToFloat64(metrics.requests.WithLabelValues(
		"grpc", "/podlink.v1.LinkService/GetLinkedPod", "500", "STORE_DATA_CORRUPT")), 0)
	require.Equal(t, 3*(2*33+1), testutil.CollectAndCount(metrics.requests))
}

// TestExemplars: only a recorded request has its trace as an exemplar, in OpenMetrics only.
func TestExemplars(t *testing.T) {
	for name, row := range map[string]struct {
		sampler sdktrace.Sampler
		accept  string
		want    bool
	}{
		"recorded":                     {sdktrace.AlwaysSample(), "application/openmetrics-text", true},
		"not recorded":                 {sdktrace.NeverSample(), "application/openmetrics-text", false},
		"recorded, in the text format": {sdktrace.AlwaysSample(), "text/plain", false},
		"recorded, without Accept":     {sdktrace.AlwaysSample(), "", false},
	} {
		t.Run(name, func(t *testing.T) {
			metrics, err := NewMetrics(nil)
			require.NoError(t, err)
			_, span := sdktrace.NewTracerProvider(sdktrace.WithSampler(row.sampler)).Tracer("test").Start(t.Context(), "request")
			defer span.End()
			metrics.count(call{}, unaryCall, span.SpanContext(), time.Millisecond, nil)
			request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody)
			request.Header.Set("Accept", row.accept)
			reply := httptest.NewRecorder()
			metrics.handler().ServeHTTP(reply, request)
			exemplar := `# {trace_id="` + span.SpanContext().TraceID().String() + `"}`
			require.Equal(t, row.want, strings.Contains(reply.Body.String(), exemplar))
		})
	}
}
