package server

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-kratos/kratos/v2/transport"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
	"podlink/internal/conf"
)

const (
	traceID     = "4bf92f3577b34da6a3ce929d0e0e4736"
	traceparent = "00-" + traceID + "-00f067aa0ba902b7-01"
)

// record returns parts with a recorder of their spans.
func record(t *testing.T) (parts, *tracetest.SpanRecorder) {
	t.Helper()
	p, spans := newParts(t), tracetest.NewSpanRecorder()
	metrics, err := NewMetrics(nil)
	require.NoError(t, err)
	var closeChain func()
	p.chain, closeChain = NewChain(ChainOptions{
		Server: p.config, Log: conf.Default().Log, Tracer: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)), Metrics: metrics,
		Logger: p.logger,
	})
	t.Cleanup(closeChain)
	return p, spans
}

func attributes(span sdktrace.ReadOnlySpan) map[string]string {
	out := make(map[string]string)
	for _, a := range span.Attributes() {
		out[string(a.Key)] = a.Value.String()
	}
	return out
}

func TestSpans(t *testing.T) {
	const method = "podlink.v1.LinkService/GetLinkedPod"
	for name, row := range map[string]struct {
		err    error
		status codes.Code
		reason string
	}{
		"reply":   {nil, codes.Unset, ""},
		"refused": {invalid("uid", "secret"), codes.Unset, "INVALID_ARGUMENT"},
		"failed":  {fmt.Errorf("%w: secret", biz.ErrDeadlineExceeded), codes.Error, "DEADLINE_EXCEEDED"},
	} {
		t.Run(name, func(t *testing.T) {
			p, spans := record(t)
			header := http.Header{}
			header.Set("Traceparent", traceparent)
			header.Set("Baggage", "secret=1")
			answer := http.Header{}
			ctx := transport.NewServerContext(t.Context(), call{header: header, reply: answer})
			_, err := p.chain.Unary(func(ctx context.Context, _ any) (any, error) {
				require.Equal(t, traceID, trace.SpanContextFromContext(ctx).TraceID().String())
				return nil, row.err
			})(ctx, &v1.GetLinkedPodRequest{Uid: "secret"})
			require.Equal(t, row.err == nil, err == nil)

			require.Len(t, spans.Ended(), 1)
			span := spans.Ended()[0]
			require.Equal(t, "/"+method, span.Name())
			require.Equal(t, "00-"+traceID+"-"+span.SpanContext().SpanID().String()+"-01", answer.Get("traceresponse"))
			require.Equal(t, trace.SpanKindServer, span.SpanKind())
			require.Equal(t, traceID, span.Parent().TraceID().String())
			want := map[string]string{"rpc.system.name": "grpc", "rpc.method": method}
			if row.reason != "" {
				want["error.type"] = row.reason
			}
			require.Equal(t, want, attributes(span))
			require.Equal(t, row.status, span.Status().Code)
			require.Empty(t, span.Events())
			require.NotContains(t, fmt.Sprint(span), "secret")
		})
	}
}

func TestSpansOverHTTPNameTheRouteAndNotThePath(t *testing.T) {
	p, spans := record(t)
	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/namespaces/game/links/a%2Fb/services/room", http.NoBody)
	reply := httptest.NewRecorder()
	p.http().ServeHTTP(reply, request)
	require.Equal(t, http.StatusOK, reply.Code, reply.Body)
	require.Len(t, spans.Ended(), 1)
	require.Equal(t, map[string]string{
		"rpc.method":          "podlink.v1.LinkService/GetLinkedPod",
		"http.request.method": "GET",
		"http.route":          "/v1/namespaces/{namespace}/links/{uid}/services/{service}",
	}, attributes(spans.Ended()[0]))
}
