package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/auth"
	"podlink/internal/biz"
)

// guests is an Authenticator that knows everyone whose token is a name: "Bearer router", or "Bearer chat@chat-2" for a pod.
type guests struct{ away error }

var errStranger = errors.New("nobody knows this token")

// Authenticate implements Authenticator.
func (g guests) Authenticate(_ context.Context, proof auth.Proof) (auth.Identity, error) {
	if g.away != nil {
		return auth.Identity{}, fmt.Errorf("%w: no keys", auth.ErrUndecided)
	}
	if len(proof.Authorization) != 1 {
		return auth.Identity{}, errStranger
	}
	token, ok := strings.CutPrefix(proof.Authorization[0], "Bearer ")
	if !ok || token == "stranger" {
		return auth.Identity{}, errStranger
	}
	name, pod, _ := strings.Cut(token, "@")
	return auth.Identity{Name: "token:" + name, Pod: pod}, nil
}

// Ready implements Authenticator.
func (g guests) Ready() error { return g.away }

// fixedRates is a policy that gives the rate of a name, and allows everything.
type fixedRates struct {
	of         map[string]float64
	generation uint64
}

// Rate implements Rates.
func (f *fixedRates) Rate(who auth.Identity) float64 { return f.of[who.Name] }

// Decide implements Policy.
func (*fixedRates) Decide(_ auth.Identity, need auth.Need) (auth.Grant, error) {
	return auth.Grant{Right: need.Right}, nil
}

// Admin implements Policy.
func (*fixedRates) Admin(who auth.Identity) bool { return who.Name == "token:admin" }

// Generation implements Rates.
func (f *fixedRates) Generation() uint64 { return f.generation }

// admitting is an access that knows guests, with a rate that no test reaches.
func admitting(g guests) *Access { return NewAccess(g, &fixedRates{}, 1e6, nil) }

// asking is a store that asks who calls before it answers a Get.
type asking struct {
	biz.LinkRepo
	calls chan *auth.Call
}

// Get implements biz.LinkRepo.
func (a asking) Get(ctx context.Context, key biz.LinkKey) (biz.Link, error) {
	a.calls <- auth.From(ctx)
	return biz.Link{Key: key, Pod: 7, TTL: biz.Forever, Epoch: 5}, nil
}

// TestCallsHaveACaller: on both transports the use case finds who calls and from where.
func TestCallsHaveACaller(t *testing.T) {
	store := asking{calls: make(chan *auth.Call, 1)}
	p := newParts(t)
	p.links = linksOn(store)
	w := serveGuarded(t, admitting(guests{}), p)
	check := func(pod string) {
		t.Helper()
		call := <-store.calls
		require.Equal(t, auth.Identity{Name: "token:chat", Pod: pod}, call.Identity)
		require.True(t, call.Peer.Addr().IsLoopback(), call.Peer)
		require.NotZero(t, call.Peer.Port())
	}
	_, err := v1.NewLinkServiceClient(w.conn).GetLinkedPod(as(t, "chat@chat-2"), aGet)
	require.NoError(t, err)
	check("chat-2")

	server := httptest.NewServer(w.http)
	defer server.Close()
	code, _, body := ask(t, server.URL, http.MethodGet, linkPath, "Bearer chat")
	require.Equal(t, http.StatusOK, code, body)
	check("")
}

// TestRefusals: a caller that is not known gets one and the same answer, whatever it asks and however it is wrong. The answer is
// traced, counted and logged with its cause.
func TestRefusals(t *testing.T) {
	for name, row := range map[string]struct {
		authorization []string
		guests        guests
		code          int
		reason        string
		grpc          codes.Code
		cause         string
	}{
		"no credentials":  {nil, guests{}, 401, "UNAUTHENTICATED", codes.Unauthenticated, "nobody knows this token"},
		"a wrong token":   {[]string{"Bearer stranger"}, guests{}, 401, "UNAUTHENTICATED", codes.Unauthenticated, "nobody knows this token"},
		"two tokens":      {[]string{"Bearer a", "Bearer b"}, guests{}, 401, "UNAUTHENTICATED", codes.Unauthenticated, "nobody knows this token"},
		"another scheme":  {[]string{"Basic a"}, guests{}, 401, "UNAUTHENTICATED", codes.Unauthenticated, "nobody knows this token"},
		"keys not loaded": {[]string{"Bearer a"}, guests{errors.New("away")}, 503, "NOT_READY", codes.Unavailable, "undecided: no keys"},
	} {
		t.Run(name, func(t *testing.T) {
			w := serveGuarded(t, admitting(row.guests), newParts(t))
			ctx := t.Context()
			for _, value := range row.authorization {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", value)
			}
			_, err := v1.NewLinkServiceClient(w.conn).GetLinkedPod(ctx, aGet)
			require.Equal(t, row.grpc, status.Code(err), err)
			require.Equal(t, row.reason, kerrors.Reason(err))
			grpcText := status.Convert(err).Message()

			server := httptest.NewServer(w.http)
			defer server.Close()
			paths := map[string]string{ // method and path -> operation
				"GET " + linkPath:                v1.OperationLinkServiceGetLinkedPod,
				"DELETE " + linkPath:             v1.OperationLinkServiceRemoveLinkedPod,
				"GET /unknown":                   unroutedOperation,
				"PATCH " + linkPath:              unroutedOperation,
				"GET /a//b":                      unroutedOperation,
				"GET " + linkPath + "?unknown=1": v1.OperationLinkServiceGetLinkedPod,
			}
			bodies := make(map[string]bool)
			for request, operation := range paths {
				method, path, _ := strings.Cut(request, " ")
				code, header, body := ask(t, server.URL, method, path, row.authorization...)
				require.Equal(t, row.code, code, request)
				require.Empty(t, header.Get("Allow"), request)
				require.Equal(t, row.code == 401, header.Get("WWW-Authenticate") == "Bearer", request)
				require.NotEmpty(t, header.Get(traceResponse), request)
				if row.code < 500 { // Lines of podlink's own failures are collapsed.
					require.Contains(t, w.lines.String(), strings.Split(header.Get(traceResponse), "-")[1], "the log has the trace")
				}
				require.Contains(t, w.lines.String(), `"operation":"`+operation+`"`)
				bodies[body] = true
			}
			require.Len(t, bodies, 1, "one text")
			for body := range bodies {
				var reply errorBody
				require.NoError(t, json.Unmarshal([]byte(body), &reply))
				require.Equal(t, row.reason, reply.Reason)
				require.Equal(t, grpcText, reply.Message)
				require.Empty(t, reply.Metadata)
			}
			require.Contains(t, w.lines.String(), `"cause":"`+row.cause+`"`)
			require.Regexp(t, fmt.Sprintf(`(?m)^server_requests_code_total\{code="%d",kind="http",operation="unknown",reason="%s"\} 3$`,
				row.code, row.reason), w.page(t))
			require.Regexp(t, fmt.Sprintf(`(?m)^server_requests_code_total\{code="%d",kind="grpc",operation="%s",reason="%s"\} 1$`,
				row.code, v1.OperationLinkServiceGetLinkedPod, row.reason), w.page(t))
		})
	}
}

// TestManyRefusedTokens: beyond a bound the tokens of an address are not checked, which its callers are told, but for those that podlink
// has verified.
func TestManyRefusedTokens(t *testing.T) {
	w := serveGuarded(t, realAccess(t), newParts(t))
	server := httptest.NewServer(w.http)
	defer server.Close()
	ask := func(token string) (int, http.Header, string) {
		return ask(t, server.URL, http.MethodGet, linkPath, "Bearer "+token)
	}
	code, _, body := ask(benchToken)
	require.Equal(t, http.StatusOK, code, body)
	var header http.Header
	for n := 0; code != http.StatusTooManyRequests; n++ {
		require.Less(t, n, 100_000)
		code, header, body = ask(strings.Repeat("eve-", 16))
	}
	require.Contains(t, body, `"reason":"RATE_LIMITED"`)
	require.Contains(t, body, "too many tokens from this address were refused")
	require.Equal(t, "1", header.Get("Retry-After"))
	code, _, body = ask(benchToken)
	require.Equal(t, http.StatusOK, code, body)
	require.Contains(t, w.lines.String(), "not checked: too many tokens from this address were refused")
}

// TestRefusedBeforeTheBody: a body that never comes delays no refusal, and its connection is closed.
func TestRefusedBeforeTheBody(t *testing.T) {
	w := serveGuarded(t, admitting(guests{}), newParts(t))
	server := httptest.NewServer(w.http)
	defer server.Close()
	for name, headers := range map[string]string{
		"a short body":    "Content-Length: 1000\r\n",
		"a long body":     "Content-Length: 1048576\r\n",
		"chunks":          "Transfer-Encoding: chunked\r\n",
		"100-continue":    "Content-Length: 1000\r\nExpect: 100-continue\r\n",
		"a wrong token":   "Content-Length: 1048576\r\nAuthorization: Bearer stranger\r\n",
		"an unknown type": "Content-Length: 1048576\r\nContent-Type: text/plain\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
			_, err = io.WriteString(conn, "PUT "+linkPath+" HTTP/1.1\r\nHost: localhost\r\n"+headers+"\r\n")
			require.NoError(t, err)
			reply, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			require.Equal(t, http.StatusUnauthorized, reply.StatusCode)
			require.True(t, reply.Close)
			require.NoError(t, reply.Body.Close())
		})
	}
	// The same over gRPC: a unary call of which the headers come alone.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := w.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, v1.OperationLinkServiceSetLinkedPod)
	require.NoError(t, err)
	require.Equal(t, codes.Unauthenticated, status.Code(stream.RecvMsg(new(v1.SetLinkedPodReply))))
}

// TestStreamsHaveACaller: a stream is authenticated before its first message is received.
func TestStreamsHaveACaller(t *testing.T) {
	callers := make(chan *auth.Call, 1)
	w := serveGuarded(t, admitting(guests{}), newParts(t), testServiceDesc(func(ctx context.Context) error {
		callers <- auth.From(ctx)
		return nil
	}))
	open := func(ctx context.Context) error {
		_, err := w.ask(ctx, t, watchMethod)
		return err
	}
	require.NoError(t, open(as(t, "chat@chat-2")))
	require.Equal(t, auth.Identity{Name: "token:chat", Pod: "chat-2"}, (<-callers).Identity)

	require.Equal(t, codes.Unauthenticated, status.Code(open(as(t, "stranger"))))
	require.Empty(t, callers, "the handler was not called")
	require.Eventually(t, func() bool {
		return strings.Contains(w.page(t), `server_requests_code_total{code="401",kind="grpc",operation="`+watchMethod+
			`",reason="UNAUTHENTICATED"} 1`)
	}, 10*time.Second, 10*time.Millisecond)
	require.Contains(t, w.lines.String(), `"cause":"nobody knows this token"`)
}

// TestHealthIsOpen: probes have no credentials. While callers can't be authenticated podlink is not ready. To watch is to hold a
// stream, so it takes a caller who is known, with any right or none.
func TestHealthIsOpen(t *testing.T) {
	for name, row := range map[string]struct {
		guests guests
		want   grpc_health_v1.HealthCheckResponse_ServingStatus
	}{
		"ready":     {guests{}, serving},
		"not ready": {guests{errors.New("issuer example: no keys were loaded")}, notServing},
	} {
		t.Run(name, func(t *testing.T) {
			w := serveGuarded(t, admitting(row.guests), newParts(t))
			client := grpc_health_v1.NewHealthClient(w.conn)
			_, err := client.List(t.Context(), new(grpc_health_v1.HealthListRequest))
			require.Contains(t, []codes.Code{codes.Unauthenticated, codes.Unavailable}, status.Code(err), "not open")
			require.Eventually(t, func() bool {
				return strings.Contains(w.page(t), `kind="grpc",operation="`+grpc_health_v1.Health_List_FullMethodName+`",reason="`)
			}, 10*time.Second, 10*time.Millisecond, "a refusal passes the chain, which logs and audits it")
			reply, err := client.Check(t.Context(), new(grpc_health_v1.HealthCheckRequest))
			require.NoError(t, err)
			require.Equal(t, row.want, reply.GetStatus())
			for token, want := range map[string]codes.Code{"stranger": codes.Unauthenticated, "caller": codes.OK} {
				watch, err := client.Watch(as(t, token), new(grpc_health_v1.HealthCheckRequest))
				require.NoError(t, err)
				reply, err = watch.Recv()
				if row.guests.away != nil {
					want = codes.Unavailable
				}
				require.Equal(t, want, status.Code(err))
				if err == nil {
					require.Equal(t, row.want, reply.GetStatus())
				}
			}
		})
	}
}

var aGet = &v1.GetLinkedPodRequest{Namespace: "game", Uid: "user-000042", Service: "room"}

// as returns a context with a caller's token.
func as(t *testing.T, token string) context.Context {
	t.Helper()
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
}

// ask sends an HTTP request with Authorization headers.
func ask(t *testing.T, base, method, path string, authorization ...string) (int, http.Header, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, base+path, http.NoBody)
	require.NoError(t, err)
	request.Header["Authorization"] = authorization
	reply, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	require.NoError(t, err)
	return reply.StatusCode, reply.Header, string(body)
}

// TestLateMessages: a caller whose message comes long after its headers is asked again who it is, and pays again.
func TestLateMessages(t *testing.T) {
	access := realAccess(t)
	now := time.Now()
	access.rates.now = func() time.Time { return now }
	handle := deferErrors(access, v1.OperationLinkServiceGetLinkedPod, func(
		_ any, ctx context.Context, receive func(any) error, _ grpc.UnaryServerInterceptor,
	) (any, error) {
		require.NoError(t, receive(new(v1.GetLinkedPodRequest)))
		return nil, decodingFrom(ctx).err
	})
	authorized := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+benchToken))
	call := func(wait time.Duration, meanwhile func()) error {
		_, err := handle(nil, authorized, func(any) error {
			now = now.Add(wait)
			meanwhile()
			return nil
		}, nil)
		return err
	}
	require.NoError(t, call(time.Hour, func() {}))
	require.NoError(t, call(0, func() { access.callers = guests{errors.New("away")} }), "one that comes at once is not asked twice")
	access.callers = realAccess(t).callers
	err := call(latest, func() { access.callers = guests{} })
	require.NoError(t, err, "guests know this token")
	access.callers = realAccess(t).callers
	err = call(latest, func() { access.callers = new(nobody) })
	require.True(t, v1.IsUnauthenticated(err), "%v", err)
}

// TestLateStreams: the same for a stream whose first message comes late.
func TestLateStreams(t *testing.T) {
	for name, row := range map[string]struct {
		wait    time.Duration
		callers Authenticator
		refused bool
	}{
		"at once":                      {0, new(nobody), false},
		"late, and known":              {latest, guests{}, false},
		"late, and not known any more": {latest, new(nobody), true},
	} {
		t.Run(name, func(t *testing.T) {
			access := realAccess(t)
			now := time.Now()
			access.rates.now = func() time.Time { return now }
			ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+benchToken))
			known, d := access.guarded(ctx, access.priceOf(grpc_health_v1.Health_Watch_FullMethodName))
			require.NoError(t, d.err)
			now, access.callers = now.Add(row.wait), row.callers
			stream := &serverStream{
				ServerStream: silentStream{}, ctx: known, chain: &Chain{access: access}, decoding: d,
				operation: grpc_health_v1.Health_Watch_FullMethodName,
			}
			err := stream.RecvMsg(new(grpc_health_v1.HealthCheckRequest))
			require.Equal(t, row.refused, v1.IsUnauthenticated(err), "%v", err)
			require.Equal(t, !row.refused, stream.authorized.Load())
		})
	}
}

// silentStream is a stream whose messages are empty.
type silentStream struct{ grpc.ServerStream }

// RecvMsg implements grpc.ServerStream.
func (silentStream) RecvMsg(any) error { return nil }

// nobody is an Authenticator that knows no one.
type nobody struct{}

// Authenticate implements Authenticator.
func (*nobody) Authenticate(context.Context, auth.Proof) (auth.Identity, error) {
	return auth.Identity{}, errStranger
}

// Ready implements Authenticator.
func (*nobody) Ready() error { return nil }

// TestHeldHealthChecks: a health check whose message does not come ends, so that strangers can't keep all calls of an address open.
func TestHeldHealthChecks(t *testing.T) {
	w := serveGuarded(t, nil, newParts(t))
	both := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	stream, err := w.conn.NewStream(t.Context(), both, grpc_health_v1.Health_Check_FullMethodName)
	require.NoError(t, err)
	begin := time.Now()
	err = stream.RecvMsg(new(grpc_health_v1.HealthCheckResponse))
	require.Equal(t, codes.DeadlineExceeded, status.Code(err), err)
	require.GreaterOrEqual(t, time.Since(begin), readTimeout-time.Second)
}
