package client

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"podlink/test/kit/proc"

	kmetadata "github.com/go-kratos/kratos/v2/metadata"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	grpccodes "google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	grpcmetadata "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// dialedConn returns what the generated clients call, and what closes it, which the end of the test does too.
func dialedConn(t *testing.T, target string, o Options) (conn, func()) {
	t.Helper()
	require.NoError(t, o.complete(target))
	shown, err := o.proof(target, "")
	require.NoError(t, err)
	o.Credentials = shown.headers
	made, hangUp, err := dial(target, o, forCalls)
	require.NoError(t, err)
	open, shut := context.WithCancel(context.Background())
	closeConn := sync.OnceFunc(func() {
		shut()
		shown.close()
		require.NoError(t, hangUp())
	})
	t.Cleanup(closeConn)
	return conn{made, o.Timeout, new(retryBudget), open, shown}, closeConn
}

// watchHealth opens a health watch, and waits until podlink says that it serves.
func watchHealth(ctx context.Context, t *testing.T, c conn) grpc_health_v1.Health_WatchClient {
	t.Helper()
	watch, err := grpc_health_v1.NewHealthClient(c).Watch(ctx, new(grpc_health_v1.HealthCheckRequest))
	require.NoError(t, err)
	first, err := watch.Recv()
	require.NoError(t, err)
	require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, first.GetStatus())
	return watch
}

// watchSpan waits for the span of the stream to end.
func watchSpan(t *testing.T, recorder *tracetest.SpanRecorder) sdktrace.ReadOnlySpan {
	t.Helper()
	require.Eventually(t, func() bool { return len(recorder.Ended()) > 0 }, 10*time.Second, time.Millisecond)
	require.Len(t, recorder.Ended(), 1)
	span := recorder.Ended()[0]
	require.Equal(t, "/grpc.health.v1.Health/Watch", span.Name())
	require.Equal(t, trace.SpanKindClient, span.SpanKind())
	return span
}

// TestStreamEnds: whoever ends a stream, its caller is told so in this package's errors, its span ends, and nothing of it
// stays behind. A stream outlasts the time of calls.
func TestStreamEnds(t *testing.T) {
	for name, row := range map[string]struct {
		end    func(t *testing.T, cancel, closeConn, stop func())
		want   error
		failed string // what the span says
	}{
		"the caller leaves":    {func(_ *testing.T, cancel, _, _ func()) { cancel() }, ErrCanceled, ""},
		"the client is closed": {func(_ *testing.T, _, closeConn, _ func()) { closeConn() }, ErrUnavailable, "PODLINK_UNAVAILABLE"},
		"podlink drains":       {func(_ *testing.T, _, _, stop func()) { stop() }, ErrCanceled, "CANCELED"},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t)
			recorder, _ := traced(t)
			before := goleak.IgnoreCurrent()
			const timeout = 100 * time.Millisecond
			c, closeConn := dialedConn(t, p.GRPC, Options{Timeout: timeout})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			watch := watchHealth(ctx, t, c)
			time.Sleep(3 * timeout)
			require.Empty(t, recorder.Ended())
			row.end(t, cancel, closeConn, func() { require.Equal(t, 0, p.Stop(t)) })
			last, err := watch.Recv()
			if name == "podlink drains" {
				require.NoError(t, err)
				require.Equal(t, grpc_health_v1.HealthCheckResponse_NOT_SERVING, last.GetStatus())
				_, err = watch.Recv()
			}
			requireError(t, wantError{is: row.want}, err)
			span := watchSpan(t, recorder)
			require.Equal(t, row.failed, span.Status().Description)
			require.Equal(t, row.failed != "", span.Status().Code == codes.Error)
			closeConn()
			goleak.VerifyNone(t, before)
		})
	}
}

// TestStreamOpens only where podlink is, over gRPC, and by a client that is open.
func TestStreamOpens(t *testing.T) {
	p := start(t)
	for name, row := range map[string]struct {
		target string
		http   bool
		closed bool
		want   error
		says   string
	}{
		"over HTTP":         {p.HTTP, true, false, errors.ErrUnsupported, "/grpc.health.v1.Health/Watch is a stream, which is served over gRPC only"},
		"of a closed one":   {p.GRPC, false, true, ErrUnavailable, "the client is closed"},
		"where nothing is":  {proc.FreeAddr(t), false, false, ErrUnavailable, "connection refused"},
		"of a closed, HTTP": {p.HTTP, true, true, ErrUnavailable, "the client is closed"},
	} {
		t.Run(name, func(t *testing.T) {
			c, closeConn := dialedConn(t, row.target, Options{HTTP: row.http, Timeout: time.Second})
			if row.closed {
				closeConn()
			}
			_, err := grpc_health_v1.NewHealthClient(c).Watch(t.Context(), new(grpc_health_v1.HealthCheckRequest))
			require.ErrorIs(t, err, row.want)
			require.ErrorContains(t, err, row.says)
		})
	}
}

// streamServer starts a server of Kratos with the gRPC health service, and returns the headers of each stream.
func streamServer(t *testing.T, secured *tls.Config) (addr string, arrived chan grpcmetadata.MD) {
	t.Helper()
	arrived = make(chan grpcmetadata.MD, 10)
	options := []kgrpc.ServerOption{
		kgrpc.Address("127.0.0.1:0"),
		kgrpc.StreamInterceptor(func(impl any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			headers, _ := grpcmetadata.FromIncomingContext(stream.Context())
			arrived <- headers
			return next(impl, stream)
		}),
	}
	if secured != nil {
		options = append(options, kgrpc.TLSConfig(secured))
	}
	server := kgrpc.NewServer(options...)
	endpoint, err := server.Endpoint()
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- server.Start(context.Background()) }()
	t.Cleanup(func() {
		require.NoError(t, server.Stop(context.Background()))
		require.NoError(t, <-ended)
	})
	return endpoint.Host, arrived
}

// TestWhatGoesWithAStream is what goes with a call: the trace once, the credentials, and nothing else of the caller's.
func TestWhatGoesWithAStream(t *testing.T) {
	recorder, provider := traced(t)
	server, trusting := tlsPair(t)
	addr, arrived := streamServer(t, server)
	c, closeConn := dialedConn(t, addr, Options{Timeout: time.Second, TLS: trusting, Credentials: token{value: secret, secure: true}})

	ctx, caller := provider.Tracer("test").Start(t.Context(), "caller")
	ctx = kmetadata.NewServerContext(ctx, kmetadata.New(map[string][]string{
		"x-md-global-tenant": {private}, "x-md-local-secret": {private}, "authorization": {private},
	}))
	ctx = grpcmetadata.AppendToOutgoingContext(ctx, "x-for-others", strings.Repeat(private, 10_000))
	ctx, cancel := context.WithCancel(ctx)
	watchHealth(ctx, t, c)
	seen := <-arrived
	cancel()
	span := watchSpan(t, recorder)
	require.Equal(t, caller.SpanContext().TraceID(), span.SpanContext().TraceID())
	require.Equal(t, []string{"00-" + span.SpanContext().TraceID().String() + "-" + span.SpanContext().SpanID().String() + "-01"}, seen.Get("traceparent"))
	require.Equal(t, []string{"Bearer " + secret}, seen.Get("authorization"))
	for name, values := range seen {
		require.NotContains(t, strings.Join(values, " "), private, name)
	}
	closeConn()
}

// TestStreamErrors are those of a call.
func TestStreamErrors(t *testing.T) {
	t.Run("credentials that fail", func(t *testing.T) {
		addr, arrived := streamServer(t, nil)
		c, _ := dialedConn(t, addr, Options{Timeout: time.Second, Credentials: token{value: secret, err: errors.New("no file")}})
		_, err := grpc_health_v1.NewHealthClient(c).Watch(t.Context(), new(grpc_health_v1.HealthCheckRequest))
		requireError(t, wantError{is: ErrUnauthenticated}, err)
		require.Empty(t, arrived)
	})
	t.Run("not text", func(t *testing.T) {
		addr, _ := streamServer(t, nil)
		c, _ := dialedConn(t, addr, Options{Timeout: time.Second})
		_, err := grpc_health_v1.NewHealthClient(c).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "\xff"})
		requireError(t, wantError{ErrInvalidArgument, map[string]string{"field": "service"}}, err)
	})
	t.Run("too large", func(t *testing.T) {
		addr, _ := streamServer(t, nil)
		c, _ := dialedConn(t, addr, Options{Timeout: time.Second})
		_, err := grpc_health_v1.NewHealthClient(c).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: strings.Repeat("s", maxRequestBytes+1)})
		requireError(t, wantError{is: ErrInvalidArgument}, err)
	})
	for name, answer := range map[string]error{"podlink says no": ErrPermissionDenied, "podlink has no such rpc": nil} {
		t.Run(name, func(t *testing.T) {
			said := answer
			if said == nil {
				said = status.Error(grpccodes.Unimplemented, "no")
			}
			addr, _ := answersGRPC(t, said)
			c, _ := dialedConn(t, addr, Options{Timeout: time.Second})
			watch, err := grpc_health_v1.NewHealthClient(c).Watch(t.Context(), new(grpc_health_v1.HealthCheckRequest))
			require.NoError(t, err)
			_, err = watch.Recv()
			if answer == nil {
				requireForeign(t, 501, err)
				return
			}
			requireError(t, wantError{is: answer}, err)
		})
	}
}
