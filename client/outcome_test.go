package client

import (
	"context"
	"errors"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

// answersHTTP starts a server, also of HTTP/2 without TLS as gRPC needs it, that answers everything so, and counts it.
func answersHTTP(t *testing.T, answer nethttp.HandlerFunc) (addr string, requests *atomic.Int32) {
	t.Helper()
	requests = new(atomic.Int32)
	server := httptest.NewUnstartedServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		requests.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		answer(w, r)
	}))
	server.Config.Protocols = new(nethttp.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), requests
}

// answersGRPC starts a gRPC server that answers every call with the status, and counts them.
func answersGRPC(t *testing.T, answer error) (addr string, requests *atomic.Int32) {
	t.Helper()
	requests = new(atomic.Int32)
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		requests.Add(1)
		_ = stream.RecvMsg(new(v1.SetLinkedPodRequest)) // So that the request has been sent.
		return answer
	}))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		require.NoError(t, <-ended)
	})
	return listener.Addr().String(), requests
}

// packageErrors are what errors.Is can find.
var packageErrors = []error{
	ErrInvalidArgument, ErrPodNotFound, ErrWorkloadNotFound, ErrEpochMismatch, ErrNoAvailablePod, ErrStoreUnavailable, ErrStoreFull,
	ErrSuperseded, ErrLimitExceeded, ErrUnauthenticated, ErrPermissionDenied, ErrRateLimited, ErrOutcomeUnknown,
	ErrReplicationUnconfirmed, ErrDeadlineExceeded, ErrCanceled, ErrUnavailable, ErrWrongPod, ErrLinkUncertain, ErrPodUnreachable,
}

// requireForeign: the error is what something between has answered, and none of this package.
func requireForeign(t *testing.T, code int, err error) {
	t.Helper()
	require.EqualValues(t, code, kerrors.Code(err))
	for _, own := range packageErrors {
		require.NotErrorIs(t, err, own)
	}
}

// TestAnswersOfOthers: a mutation that was answered by a proxy or another server may have been carried out, unless
// the code of the answer proves that podlink has not got it. It is sent once.
func TestAnswersOfOthers(t *testing.T) {
	t.Parallel()
	proved := map[int]bool{401: true, 404: true, 405: true, 407: true, 413: true, 414: true, 415: true, 431: true, 501: true}
	for _, code := range []int{
		301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 423, 424,
		425, 426, 428, 429, 431, 451, 460, 499, 500, 501, 502, 503, 504, 505, 507, 511, 520, 599,
	} {
		t.Run("HTTP "+strconv.Itoa(code), func(t *testing.T) {
			t.Parallel()
			for name, body := range map[string]string{
				"text": "upstream says no", "JSON": `{"error":"no"}`, "a reason that is not podlink's": `{"code":429,"reason":"RATELIMIT","message":"no"}`,
				"Kratos' reason of a client without instances": `{"code":503,"reason":"NODE_NOT_FOUND","message":"no"}`,
			} {
				addr, requests := answersHTTP(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
					w.Header().Set("Location", "/elsewhere")
					w.WriteHeader(code)
					_, _ = io.WriteString(w, body)
				})
				_, err := setLink(t.Context(), dialed(t, addr, Options{HTTP: true}))
				require.EqualValues(t, 1, requests.Load(), name)
				if proved[code] {
					requireForeign(t, code, err)
				} else {
					requireError(t, wantError{is: ErrOutcomeUnknown}, err)
				}
			}
		})
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		t.Run("gRPC "+code.String(), func(t *testing.T) {
			t.Parallel()
			ratelimit, _ := status.FromError(kerrors.New(429, "RATELIMIT", "no"))
			foreign, err := status.New(code, "no").WithDetails(ratelimit.Proto().GetDetails()[0])
			if code != codes.OK {
				require.NoError(t, err)
			}
			for _, answer := range []error{status.Error(code, "no"), foreign.Err()} {
				addr, requests := answersGRPC(t, answer)
				_, err = setLink(t.Context(), dialed(t, addr, Options{}))
				require.EqualValues(t, 1, requests.Load())
				switch code {
				case codes.Unauthenticated:
					requireForeign(t, 401, err)
				case codes.NotFound:
					requireForeign(t, 404, err)
				case codes.Unimplemented:
					requireForeign(t, 501, err)
				default:
					requireError(t, wantError{is: ErrOutcomeUnknown}, err)
				}
			}
		})
	}
	// A proxy of HTTP that knows nothing of gRPC. gRPC makes a code of its own of some of them.
	for code, proof := range map[int]int{401: 401, 404: 501, 403: 0, 408: 0, 413: 0, 429: 0, 502: 0, 503: 0, 504: 0} {
		t.Run("HTTP to gRPC "+strconv.Itoa(code), func(t *testing.T) {
			t.Parallel()
			addr, requests := answersHTTP(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) { w.WriteHeader(code) })
			_, err := setLink(t.Context(), dialed(t, addr, Options{}))
			require.EqualValues(t, 1, requests.Load())
			if proof != 0 {
				requireForeign(t, proof, err)
			} else {
				requireError(t, wantError{is: ErrOutcomeUnknown}, err)
			}
		})
	}
}

// TestReadsAnsweredByOthers: a read that something between has turned away is not repeated, one that is lost is.
func TestReadsAnsweredByOthers(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		code int
		body string
		want error // nil: what it said
	}{
		"a proxy that lost podlink":        {502, "<html>Bad Gateway</html>", ErrUnavailable},
		"a proxy that waited too long":     {504, "upstream timeout", ErrDeadlineExceeded},
		"a proxy that was too slow":        {408, "", ErrDeadlineExceeded},
		"a proxy that forbids":             {403, "no", nil},
		"a proxy that limits":              {429, "no", nil},
		"another server":                   {404, "404 page not found", nil},
		"a portal":                         {302, "", nil},
		"a portal that says yes to all":    {200, "<html>Welcome</html>", ErrUnavailable},
		"an answer that ends in its midst": {200, `{"link":{"podId":`, ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, requests := answersHTTP(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(row.code)
				_, _ = io.WriteString(w, row.body)
			})
			timeout := hangTimeout
			if row.want == nil {
				timeout = soon // An attempt that runs out of time would be repeated.
			}
			c := dialed(t, addr, Options{HTTP: true, Timeout: timeout})
			err := atItsEnd(row.want, func() error {
				_, err := readLink(t.Context(), c)
				return err
			})
			if row.want == nil {
				requireForeign(t, row.code, err)
				require.EqualValues(t, 1, requests.Load(), "not repeated")
				return
			}
			requireError(t, wantError{is: row.want}, err)
			require.Greater(t, requests.Load(), int32(1), "repeated")
			if row.code == 200 {
				_, err := setLink(t.Context(), c)
				requireError(t, wantError{is: ErrOutcomeUnknown}, err)
			}
		})
	}
}

// TestProxyThatExecutes: the change was made, and the proxy's answer does not say that it was not.
func TestProxyThatExecutes(t *testing.T) {
	t.Parallel()
	p := start(t, unhurried...)
	direct := dialed(t, p.GRPC, Options{Timeout: time.Minute})
	executes := func(t *testing.T, c *Client) {
		t.Helper()
		uid := t.Name()
		_, err := c.SetLinkedPod(t.Context(), &v1.SetLinkedPodRequest{Namespace: "game", Uid: uid, Service: "room", PodId: proto.Int32(3)})
		requireError(t, wantError{is: ErrOutcomeUnknown}, err)
		got, err := direct.GetLinkedPod(t.Context(), &v1.GetLinkedPodRequest{Namespace: "game", Uid: uid, Service: "room"})
		require.NoError(t, err)
		require.EqualValues(t, 3, got.GetLink().GetPodId())
	}
	for _, code := range []int{403, 408, 429} {
		t.Run("HTTP "+strconv.Itoa(code), func(t *testing.T) {
			relay := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: p.HTTP})
			relay.ModifyResponse = func(r *nethttp.Response) error {
				_ = r.Body.Close()
				r.StatusCode, r.Body, r.ContentLength = code, io.NopCloser(strings.NewReader("no")), 2
				r.Header.Set("Content-Length", "2")
				return nil
			}
			server := httptest.NewServer(relay)
			t.Cleanup(server.Close)
			executes(t, dialed(t, server.URL, Options{HTTP: true, Timeout: time.Minute}))
		})
	}
	for _, code := range []codes.Code{codes.ResourceExhausted, codes.Aborted, codes.PermissionDenied} {
		t.Run("gRPC "+code.String(), func(t *testing.T) {
			server := grpc.NewServer()
			v1.RegisterLinkServiceServer(server, executingRelay{to: direct, answer: status.Error(code, "no")})
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			ended := make(chan error, 1)
			go func() { ended <- server.Serve(listener) }()
			t.Cleanup(func() {
				server.Stop()
				require.NoError(t, <-ended)
			})
			executes(t, dialed(t, listener.Addr().String(), Options{Timeout: time.Minute}))
		})
	}
}

// executingRelay passes a call on, and answers for itself.
type executingRelay struct {
	v1.UnimplementedLinkServiceServer
	to     *Client
	answer error
}

func (r executingRelay) SetLinkedPod(ctx context.Context, request *v1.SetLinkedPodRequest) (*v1.SetLinkedPodReply, error) {
	if _, err := r.to.SetLinkedPod(ctx, request); err != nil {
		return nil, errors.Join(err, r.answer)
	}
	return nil, r.answer
}

// TestUnsendable: what can't be sent at all, on a connection that is up, is the request's fault: it is not repeated, and nothing
// arrives.
func TestUnsendable(t *testing.T) {
	t.Parallel()
	many := make([]string, 1000)
	for i := range many {
		many[i] = strings.Repeat("u", 2000)
	}
	for name, row := range map[string]struct {
		call  apiCall
		field string
	}{
		"a read, too large": {calling((*Client).BatchGetLinkedPod, &v1.BatchGetLinkedPodRequest{Namespace: "game", Service: "room", Uids: many}), ""},
		"a mutation, too large": {calling((*Client).SetWorkloadState, &v1.SetWorkloadStateRequest{
			Namespace: "game", Service: "room", State: strings.Repeat("s", maxRequestBytes),
		}), ""},
		"not text": {calling((*Client).SetWorkloadState, &v1.SetWorkloadStateRequest{Namespace: "game", Service: "room", State: "\xff"}), "state"},
		"not text in an item": {calling((*Client).BatchSetLinkedPod, &v1.BatchSetLinkedPodRequest{
			Namespace: "game", Service: "room", Items: []*v1.BatchSetLinkedPodRequest_Item{{Uid: "alice"}, {Uid: "\xff"}},
		}), "items[1].uid"},
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, http bool) {
				p := start(t)
				c := dialed(t, addr(p, http), Options{HTTP: http, Timeout: time.Minute})
				_, err := readLink(t.Context(), c)
				require.NoError(t, err)
				begin := time.Now()
				_, err = row.call(t.Context(), c)
				want := wantError{is: ErrInvalidArgument}
				if row.field != "" {
					want.metadata = map[string]string{"field": row.field}
				}
				requireError(t, want, err)
				require.Less(t, time.Since(begin), 10*time.Second, "not repeated")
				require.Zero(t, requests(t, p, "SetWorkloadState", "")+requests(t, p, "BatchGetLinkedPod", "")+requests(t, p, "BatchSetLinkedPod", ""))
				_, err = readLink(t.Context(), c)
				require.NoError(t, err, "the connection is as it was")
			})
		})
	}
}

// TestHeadersThatCantBeSent: credentials that are larger than podlink's headers may be, or are no header.
func TestHeadersThatCantBeSent(t *testing.T) {
	for name, row := range map[string]struct {
		token string
		http  []bool
	}{
		"too large": {strings.Repeat("x", 100_000), []bool{false}}, // HTTP/1 has no limit that the client knows: the server answers.
		"no header": {"two\nlines", []bool{false, true}},
	} {
		for _, http := range row.http {
			t.Run(name, func(t *testing.T) {
				p := start(t)
				c := dialed(t, addr(p, http), Options{HTTP: http, Timeout: time.Minute, Credentials: token{value: row.token}})
				require.Eventually(t, func() bool { // The server tells its limit a moment after the connection is up.
					_, err := setLink(t.Context(), c)
					return errors.Is(err, ErrInvalidArgument)
				}, soon, time.Millisecond)
				_, err := setLink(t.Context(), c)
				requireError(t, wantError{is: ErrInvalidArgument}, err)
				require.NotContains(t, err.Error(), row.token)
				require.Zero(t, requests(t, p, "SetLinkedPod", ""))
			})
		}
	}
}
