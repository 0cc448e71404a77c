package server

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-kratos/kratos/v2/transport"
	"github.com/stretchr/testify/require"

	"podlink/internal/service"
)

func TestRequestsAreCountedByOutcome(t *testing.T) {
	metrics, err := NewMetrics(nil)
	require.NoError(t, err)
	for _, failure := range []error{nil, nil, service.PublicError(invalid("uid", "is secret")), service.Internal(errors.New("secret"))} {
		_, err := metrics.countRequests(func(context.Context, any) (any, error) { return "reply", failure })(
			transport.NewServerContext(t.Context(), call{}), "request")
		require.Equal(t, failure, err)
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
