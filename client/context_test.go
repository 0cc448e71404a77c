package client

import (
	"context"
	"crypto/tls"
	nethttp "net/http"
	"strings"
	"testing"
	"time"

	kmetadata "github.com/go-kratos/kratos/v2/metadata"
	"github.com/go-kratos/kratos/v2/middleware/metadata"
	"github.com/go-kratos/kratos/v2/middleware/tracing"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	grpcmetadata "google.golang.org/grpc/metadata"

	v1 "podlink/api/podlink/v1"
	"podlink/test/kit/proc"
	tlstest "podlink/test/kit/tls"
)

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	private = "nobodys-business"
)

// sentByCaller are the headers of a request to a service that calls podlink for it.
var sentByCaller = map[string]string{
	"traceparent":        "00-" + traceID + "-00f067aa0ba902b7-01",
	"tracestate":         "vendor=1",
	"baggage":            "user=" + private,
	"x-md-global-tenant": private,
	"x-md-local-secret":  private,
	"authorization":      "Bearer " + private,
	"cookie":             "session=" + private,
	"x-forwarded-for":    "203.0.113.7",
	"x-request-id":       private,
}

// traced makes a provider the one of the process until the test ends, and returns what records its spans.
func traced(t *testing.T) (*tracetest.SpanRecorder, *sdktrace.TracerProvider) {
	t.Helper()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	before := otel.GetTracerProvider()
	otel.SetTracerProvider(provider)
	t.Cleanup(func() {
		otel.SetTracerProvider(before)
		require.NoError(t, provider.Shutdown(context.Background()))
	})
	return recorder, provider
}

// ask calls the service as anybody would, with the headers.
func ask(t *testing.T, s *kratosServer, http bool, headers map[string]string) {
	t.Helper()
	if http {
		request, err := nethttp.NewRequestWithContext(t.Context(), nethttp.MethodGet,
			"http://"+s.addr+"/v1/namespaces/game/links/alice/services/room", nethttp.NoBody)
		require.NoError(t, err)
		for name, value := range headers {
			request.Header.Set(name, value)
		}
		request.Close = true
		response, err := nethttp.DefaultTransport.RoundTrip(request)
		require.NoError(t, err)
		defer response.Body.Close()
		require.Equal(t, nethttp.StatusOK, response.StatusCode)
		return
	}
	conn, err := grpc.NewClient(s.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	ctx := grpcmetadata.NewOutgoingContext(t.Context(), grpcmetadata.New(headers))
	_, err = v1.NewLinkServiceClient(conn).GetLinkedPod(ctx, &v1.GetLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "room"})
	require.NoError(t, err)
}

// TestWhatGoesWithACall: of the request that a service serves, the trace goes on to podlink, and nothing else.
func TestWhatGoesWithACall(t *testing.T) {
	recorder, provider := traced(t)
	everything := propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}, tracing.Metadata{})
	for front, frontHTTP := range transports {
		t.Run("a service over "+front, func(t *testing.T) {
			overBoth(t, func(t *testing.T, http bool) {
				podlink := served(t, http, nil, func(context.Context) error { return nil })
				c := dialed(t, podlink.addr, Options{HTTP: http})
				service := served(t, frontHTTP, nil, func(ctx context.Context) error {
					_, err := readLink(ctx, c)
					return err
				}, tracing.Server(tracing.WithTracerProvider(provider), tracing.WithPropagator(everything)), metadata.Server())
				ask(t, service, frontHTTP, sentByCaller)

				seen := <-podlink.arrived
				parent := strings.Split(seen.Get("traceparent"), "-")
				require.Len(t, parent, 4)
				require.Equal(t, traceID, parent[1])
				for _, name := range []string{"baggage", "x-md-global-tenant", "x-md-local-secret", "authorization", "cookie", "x-forwarded-for", "x-request-id"} {
					require.Empty(t, seen.Values(name), name)
				}
				for _, name := range seen.Keys() {
					require.NotContains(t, strings.Join(seen.Values(name), " "), private, name)
				}
				requireSpan(t, recorder, parent[2])
			})
		})
	}
}

// requireSpan: podlink is called under a span of the client, which names the call, and no user.
func requireSpan(t *testing.T, recorder *tracetest.SpanRecorder, id string) {
	t.Helper()
	for _, span := range recorder.Ended() {
		if span.SpanContext().SpanID().String() != id {
			continue
		}
		require.Contains(t, span.Name(), "podlink.v1.LinkService/GetLinkedPod")
		require.Equal(t, trace.SpanKindClient, span.SpanKind())
		for _, attribute := range span.Attributes() {
			require.NotContains(t, attribute.Value.String(), "alice", attribute.Key)
		}
		return
	}
	require.Failf(t, "podlink's parent is no span of the client", "%s", id)
}

// TestAttemptsHaveTheSameHeaders: a call that is repeated says everything once.
func TestAttemptsHaveTheSameHeaders(t *testing.T) {
	_, provider := traced(t)
	overBoth(t, func(t *testing.T, http bool) {
		first := true
		s := served(t, http, nil, func(context.Context) error {
			if first {
				first = false
				return ErrStoreUnavailable
			}
			return nil
		})
		ctx, caller := provider.Tracer("test").Start(t.Context(), "caller")
		defer caller.End()
		_, err := readLink(ctx, dialed(t, s.addr, Options{HTTP: http, Timeout: soon, Credentials: token{value: secret}}))
		require.NoError(t, err)
		require.Len(t, s.arrived, 2)
		for len(s.arrived) > 0 {
			headers := <-s.arrived
			require.Equal(t, []string{"Bearer " + secret}, headers.Values("authorization"))
			require.Len(t, headers.Values("traceparent"), 1)
		}
	})
}

// TestMetadataOfTheCallerStaysHere: what the caller's context has for other services does not go to podlink, and does no harm to its
// calls however large it is.
func TestMetadataOfTheCallerStaysHere(t *testing.T) {
	large := strings.Repeat(private, 3000)
	ctx := kmetadata.NewServerContext(t.Context(), kmetadata.New(map[string][]string{"x-md-global-large": {large}, "x-md-local-large": {large}}))
	ctx = kmetadata.NewClientContext(ctx, kmetadata.New(map[string][]string{"x-md-global-own": {large}, "x-md-local-own": {large}}))
	ctx = grpcmetadata.AppendToOutgoingContext(ctx, "x-for-others", large)
	p := start(t)
	overBoth(t, func(t *testing.T, http bool) {
		s := served(t, http, nil, always(nil))
		for name, c := range map[string]*Client{
			"podlink": dialed(t, addr(p, http), Options{HTTP: http}), "a server that looks at it": dialed(t, s.addr, Options{HTTP: http}),
		} {
			for _, call := range []apiCall{readLink, setLink} {
				_, err := call(ctx, c)
				require.NoError(t, err, name)
			}
		}
		require.Len(t, s.arrived, 2)
		for len(s.arrived) > 0 {
			headers := <-s.arrived
			for _, header := range headers.Keys() {
				require.NotContains(t, strings.Join(headers.Values(header), " "), private, header)
			}
		}
	})
}

// TestFailedCallMarksItsSpan with the reason, and with nothing that only podlink's log should say.
func TestFailedCallMarksItsSpan(t *testing.T) {
	recorder, _ := traced(t)
	overBoth(t, func(t *testing.T, http bool) {
		_, err := setLink(t.Context(), dialed(t, proc.FreeAddr(t), Options{HTTP: http, Timeout: 100 * time.Millisecond}))
		requireError(t, wantError{is: ErrUnavailable}, err)
		ended := recorder.Ended()
		span := ended[len(ended)-1]
		require.Equal(t, "PODLINK_UNAVAILABLE", span.Status().Description)
		require.Empty(t, span.Events())
	})
}

// TestTLS: podlink is called over TLS only when it shows a certificate of an authority that is trusted; otherwise nothing is
// sent.
func TestTLS(t *testing.T) {
	t.Parallel()
	const host = "podlink.test"
	authority, stranger := tlstest.New(t, t.TempDir(), "authority"), tlstest.New(t, t.TempDir(), "stranger")
	authority.Sign(t, "server", host, time.Now().Add(time.Hour))
	certificate, err := tls.LoadX509KeyPair(authority.Path("server.crt"), authority.Path("server.key"))
	require.NoError(t, err)
	// One configuration for all clients: none of them may change it.
	trusting := &tls.Config{RootCAs: authority.Pool(), ServerName: host, MinVersion: tls.VersionTLS12}
	for name, row := range map[string]struct {
		config *tls.Config
		want   error
	}{
		"trusted":           {trusting, nil},
		"another authority": {&tls.Config{RootCAs: stranger.Pool(), ServerName: host, MinVersion: tls.VersionTLS12}, ErrUnavailable},
		"another name":      {&tls.Config{RootCAs: authority.Pool(), ServerName: "other.test", MinVersion: tls.VersionTLS12}, ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, http bool) {
				t.Parallel()
				s := served(t, http, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
					func(context.Context) error { return nil })
				o := Options{HTTP: http, TLS: row.config}
				if row.want != nil {
					o.Timeout = time.Second
				}
				c := dialed(t, s.addr, o)
				for _, call := range []apiCall{readLink, setLink} {
					_, err := call(t.Context(), c)
					if row.want == nil {
						require.NoError(t, err)
						continue
					}
					requireError(t, wantError{is: row.want}, err)
					require.Empty(t, s.arrived)
				}
			})
		})
	}
	require.Empty(t, trusting.NextProtos)
}
