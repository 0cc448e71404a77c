package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	v1 "podlink/api/podlink/v1"
)

// doorkeeper is a podlink that judges each request by its token, and answers the others with an empty reply.
type doorkeeper struct {
	addr string

	mu    sync.Mutex
	judge func(authorization string) error
	seen  []string // the authorization of each request; empty: none
}

// now lets the others in.
func (d *doorkeeper) now(judge func(authorization string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.judge, d.seen = judge, nil
}

func (d *doorkeeper) asked(authorization []string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	shown := ""
	if len(authorization) > 0 {
		shown = authorization[0]
	}
	d.seen = append(d.seen, shown)
	if len(authorization) > 1 {
		return kerrors.New(500, "TWO_TOKENS", "two tokens")
	}
	return d.judge(shown)
}

// requests returns the authorization of the requests since the last call.
func (d *doorkeeper) requests() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	seen := d.seen
	d.seen = nil
	return seen
}

// guarded starts a doorkeeper until the test ends. Without secured it has no TLS.
func guarded(t *testing.T, http bool, secured *tls.Config, judge func(authorization string) error) *doorkeeper {
	t.Helper()
	d := &doorkeeper{judge: judge}
	if http {
		server := httptest.NewUnstartedServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
			w.Header().Set("Content-Type", "application/json")
			if err := d.asked(r.Header["Authorization"]); err != nil {
				answer := kerrors.FromError(err)
				w.WriteHeader(int(answer.Code))
				_ = json.NewEncoder(w).Encode(&answer.Status)
				return
			}
			_, _ = w.Write([]byte("{}"))
		}))
		if server.TLS = secured; secured != nil {
			server.StartTLS()
		} else {
			server.Start()
		}
		t.Cleanup(server.Close)
		d.addr = server.Listener.Addr().String()
		return d
	}
	options := []grpc.ServerOption{grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		headers, _ := metadata.FromIncomingContext(stream.Context())
		if err := d.asked(headers.Get("authorization")); err != nil {
			return err
		}
		return stream.SendMsg(new(emptypb.Empty))
	})}
	if secured != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(secured)))
	}
	server := grpc.NewServer(options...)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		require.NoError(t, <-ended)
	})
	d.addr = listener.Addr().String()
	return d
}

func everyone(string) error { return nil }

// only lets in who has one of the tokens.
func only(tokens ...string) func(string) error {
	return func(authorization string) error {
		for _, token := range tokens {
			if authorization == "Bearer "+token {
				return nil
			}
		}
		return v1.ErrorUnauthenticated("valid credentials are required")
	}
}

// tokenFile is a file with a token.
func tokenFile(t *testing.T, token string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	replaceToken(t, path, token)
	return path
}

// replaceToken does so at once, as Kubernetes does.
func replaceToken(t *testing.T, path, token string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", []byte(token+"\n"), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

// reportPod is a call of the connection of the agents' reports.
func reportPod(ctx context.Context, c *Client) error {
	_, err := c.reports.SetServiceState(ctx, &v1.SetServiceStateRequest{Namespace: "game", Service: "room", PodId: new(int32), State: "up"})
	return err
}

// kindsOfCalls are a read, a mutation and a report.
var kindsOfCalls = map[string]func(ctx context.Context, c *Client) error{
	"read":   func(ctx context.Context, c *Client) error { _, err := readLink(ctx, c); return err },
	"set":    func(ctx context.Context, c *Client) error { _, err := setLink(ctx, c); return err },
	"report": reportPod,
}

// TestRotatedToken: a call whose token is refused is sent once more, with the token that the file has by now. The next calls have that
// one at once.
func TestRotatedToken(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, http bool) {
		for name, call := range kindsOfCalls {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				server, trusting := tlsPair(t)
				d := guarded(t, http, server, only("one"))
				path := tokenFile(t, "one")
				c := dialed(t, d.addr, Options{HTTP: http, TLS: trusting, TokenFile: path})
				require.NoError(t, call(t.Context(), c))
				replaceToken(t, path, "two")
				d.now(only("two"))
				require.NoError(t, call(t.Context(), c))
				require.NoError(t, call(t.Context(), c))
				require.Contains(t, [][]string{
					{"Bearer one", "Bearer two", "Bearer two"},
					{"Bearer two", "Bearer two"}, // The machine was busy for a second.
				}, d.requests())

				d.now(only("three"))
				err := call(t.Context(), c)
				requireError(t, wantError{is: ErrUnauthenticated}, err)
				require.Equal(t, []string{"Bearer two"}, d.requests(), "there is no other one")
				require.ErrorContains(t, err, "valid credentials are required: podlink does not accept the token file "+path)
			})
		}
	})
}

// TestFreshTokenThatIsRefused: that is final, and the calls that follow do not all ask for another token.
func TestFreshTokenThatIsRefused(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, http bool) {
		for name, call := range kindsOfCalls {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				d := guarded(t, http, nil, only())
				made := 0
				c := dialed(t, d.addr, Options{HTTP: http, Token: func(context.Context) (string, error) {
					made++
					return "token-" + strconv.Itoa(made), nil
				}})
				begun := time.Now()
				for range 5 {
					err := call(t.Context(), c)
					requireError(t, wantError{is: ErrUnauthenticated}, err)
					require.ErrorContains(t, err, "podlink does not accept the token of Options.Token")
				}
				seconds := int(time.Since(begun) / tokenAge)
				require.InDelta(t, 6, len(d.requests()), float64(seconds))
			})
		}
	})
}

// TestRefusalsAreFinal: what is not about the token is not sent again, and says what to do.
func TestRefusalsAreFinal(t *testing.T) {
	t.Parallel()
	path := tokenFile(t, secret)
	for name, row := range map[string]struct {
		answer error
		o      Options
		says   string
	}{
		"not permitted": {
			v1.ErrorPermissionDenied("the caller may not call SetLinkedPod here"), Options{TokenFile: path},
			"the caller may not call SetLinkedPod here: no rule of podlink's auth.policy_file permits it",
		},
		"limited": {ErrRateLimited, Options{TokenFile: path}, "call less often, or raise podlink's auth.rate"},
		"no credentials": {
			ErrUnauthenticated, Options{}, "the client has sent no credentials: set Options.TokenFile, Token or a client certificate",
		},
		"other credentials": {
			ErrUnauthenticated, Options{Credentials: token{value: secret}}, "podlink does not accept what Options.Credentials returns",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			overBoth(t, func(t *testing.T, http bool) {
				d := guarded(t, http, nil, func(string) error { return row.answer })
				o := row.o
				o.HTTP = http
				c := dialed(t, d.addr, o)
				for _, call := range kindsOfCalls {
					err := call(t.Context(), c)
					requireError(t, wantError{is: row.answer}, err)
					require.ErrorContains(t, err, row.says)
					require.NotContains(t, err.Error(), secret)
				}
				require.Len(t, d.requests(), len(kindsOfCalls))
			})
		})
	}
}

// TestStreamToken goes with a stream. After a refused one the next stream sends a token that is read again.
func TestStreamToken(t *testing.T) {
	t.Parallel()
	server, trusting := tlsPair(t)
	d := guarded(t, false, server, only("two"))
	path := tokenFile(t, "one")
	c, _ := dialedConn(t, d.addr, Options{Timeout: soon, TLS: trusting, TokenFile: path})
	watch := func() error {
		stream, err := grpc_health_v1.NewHealthClient(c).Watch(t.Context(), new(grpc_health_v1.HealthCheckRequest))
		require.NoError(t, err)
		_, err = stream.Recv()
		return err
	}
	err := watch()
	requireError(t, wantError{is: ErrUnauthenticated}, err)
	require.ErrorContains(t, err, "podlink does not accept the token file "+path)
	replaceToken(t, path, "two")
	require.NoError(t, watch())
	require.Equal(t, []string{"Bearer one", "Bearer two"}, d.requests())
}

// TestTokensNeedTLS, unless the target is this machine, whatever a name server says. At most one of the options is set.
func TestTokensNeedTLS(t *testing.T) {
	t.Parallel()
	secured := &tls.Config{MinVersion: tls.VersionTLS12}
	certified := &tls.Config{Certificates: []tls.Certificate{{}}, MinVersion: tls.VersionTLS12}
	const plain, several = "only over TLS", "only one of Options.TokenFile, Token and Credentials"
	found := newInstances()
	for name, row := range map[string]struct {
		target string
		o      Options
		says   string // empty: nothing is wrong
	}{
		"this machine":               {target: "127.0.0.1:9000"},
		"this machine, IPv6":         {target: "[::1]:9000"},
		"this machine by name":       {target: "localhost:9000"},
		"this machine, resolved":     {target: "dns:///127.0.0.1:9000"},
		"this machine, as it is":     {target: "passthrough:///127.0.0.2:9000"},
		"this machine over HTTP":     {target: "http://127.0.0.1:8000", o: Options{HTTP: true}},
		"a socket":                   {target: "unix:///run/podlink.sock"},
		"another machine":            {target: "10.0.0.1:9000", says: plain},
		"a name":                     {target: "podlink:9000", says: plain},
		"a name, resolved":           {target: "dns:///podlink:9000", says: plain},
		"a name like this machine":   {target: "localhost.example:9000", says: plain},
		"this machine's name server": {target: "dns://127.0.0.1/podlink:9000", says: plain},
		"all addresses":              {target: "0.0.0.0:9000", says: plain},
		"another over HTTP":          {target: "http://podlink:8000", o: Options{HTTP: true}, says: plain},
		"a user like this machine":   {target: "http://127.0.0.1:8000@example.org", o: Options{HTTP: true}, says: plain},
		"discovery":                  {target: "discovery:///podlink", o: Options{Discovery: found}, says: plain},
		"another, over TLS":          {target: "10.0.0.1:9000", o: Options{TLS: secured}},
		"discovery, over TLS":        {target: "discovery:///podlink", o: Options{Discovery: found, TLS: secured}},
		"another, over TLS by files": {target: "10.0.0.1:9000", o: Options{ServerName: "podlink.test"}},
		"HTTPS":                      {target: "https://podlink:8000", o: Options{HTTP: true}},
		"two of them":                {target: "127.0.0.1:9000", o: Options{Token: constant(secret)}, says: several},
		"credentials too":            {target: "127.0.0.1:9000", o: Options{Credentials: token{value: secret}}, says: several},
		"a certificate too":          {target: "podlink:9000", o: Options{TLS: certified}},
	} {
		t.Run(name, func(t *testing.T) {
			row.o.TokenFile = tokenFile(t, secret)
			c, err := New(row.target, row.o)
			if row.says != "" {
				require.ErrorContains(t, err, row.says)
				require.NotContains(t, err.Error(), secret)
				return
			}
			require.NoError(t, err)
			require.NoError(t, c.Close())
		})
	}
	for advice, o := range map[string]Options{
		"the client certificate of Options.TLS": {TLS: certified}, "the client certificate in own.crt": {CertFile: "own.crt", KeyFile: "own.key"},
		"the client has sent no credentials": {TLS: secured},
	} {
		shown, err := o.proof("podlink:9000", "")
		require.NoError(t, err)
		require.Contains(t, shown.advice, advice)
	}
}

// TestMountedToken is sent by whoever has not set another way to prove who it is.
func TestMountedToken(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		o    Options
		want string
	}{
		"nothing is set":       {Options{}, "Bearer mounted"},
		"a file is set":        {Options{TokenFile: tokenFile(t, "file")}, "Bearer file"},
		"a function is set":    {Options{Token: constant("function")}, "Bearer function"},
		"credentials are set":  {Options{Credentials: token{value: "other"}}, "Bearer other"},
		"nothing is mounted":   {Options{}, ""},
		"a folder is mounted":  {Options{}, ""},
		"podlink is elsewhere": {Options{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			overBoth(t, func(t *testing.T, http bool) {
				d := guarded(t, http, nil, everyone)
				mounted, target := tokenFile(t, "mounted"), d.addr
				switch name {
				case "nothing is mounted":
					mounted += "-not"
				case "a folder is mounted":
					mounted = filepath.Dir(mounted)
				case "podlink is elsewhere": // New does not fail: a token may be mounted before podlink has TLS.
					target = "podlink.invalid:9000"
				}
				row.o.HTTP, row.o.Timeout = http, soon
				c, err := open(target, row.o, mounted)
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, c.Close()) })
				if target != d.addr {
					return
				}
				for _, call := range kindsOfCalls {
					require.NoError(t, call(t.Context(), c))
				}
				require.Equal(t, []string{row.want, row.want, row.want}, d.requests())
			})
		})
	}
}

// TestTokenStaysOnItsWay: whoever podlink's address redirects to does not get it.
func TestTokenStaysOnItsWay(t *testing.T) {
	t.Parallel()
	other := guarded(t, true, nil, everyone)
	redirecting := httptest.NewServer(nethttp.RedirectHandler("http://"+other.addr, nethttp.StatusTemporaryRedirect))
	t.Cleanup(redirecting.Close)
	c := dialed(t, redirecting.URL, Options{HTTP: true, TokenFile: tokenFile(t, secret)})
	for _, call := range kindsOfCalls {
		err := call(t.Context(), c)
		require.Error(t, err)
		require.NotContains(t, err.Error(), secret)
	}
	require.Empty(t, other.requests())
}

// TestTokenThatIsMissing: the call is not sent and not repeated, says which file, and works as soon as the file is there.
func TestTokenThatIsMissing(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, http bool) {
		d := guarded(t, http, nil, only("here"))
		path := filepath.Join(t.TempDir(), "token")
		c := dialed(t, d.addr, Options{HTTP: http, TokenFile: path})
		for _, call := range kindsOfCalls {
			err := call(t.Context(), c)
			requireError(t, wantError{is: ErrUnauthenticated}, err)
			require.ErrorContains(t, err, "the token file "+path+" can't be had, so the call was not sent")
			require.ErrorContains(t, err, "no such file")
		}
		require.Empty(t, d.requests())
		replaceToken(t, path, "here")
		for _, call := range kindsOfCalls {
			require.NoError(t, call(t.Context(), c))
		}
	})
}

// TestRateLimitedCalls wait as long as podlink says, if they have the time. Reports are not repeated: the next one comes soon.
func TestRateLimitedCalls(t *testing.T) {
	t.Parallel()
	const wait = 50 * time.Millisecond
	limited := v1.ErrorRateLimited("the rate limit is exceeded").WithMetadata(map[string]string{"retry_after_ms": "50"})
	overBoth(t, func(t *testing.T, http bool) {
		for name, call := range kindsOfCalls {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				var until time.Time
				d := guarded(t, http, nil, func(string) error {
					if until.IsZero() {
						until = time.Now().Add(wait)
					}
					if time.Now().Before(until) {
						return limited
					}
					return nil
				})
				err := call(t.Context(), dialed(t, d.addr, Options{HTTP: http}))
				if name == "report" {
					requireError(t, wantError{is: ErrRateLimited}, err)
					require.Len(t, d.requests(), 1)
					return
				}
				require.NoError(t, err)
				require.Len(t, d.requests(), 2)

				d.now(func(string) error { return limited.WithMetadata(map[string]string{"retry_after_ms": "3600000"}) })
				begun := time.Now()
				err = call(t.Context(), dialed(t, d.addr, Options{HTTP: http, Timeout: time.Minute}))
				requireError(t, wantError{is: ErrRateLimited, metadata: map[string]string{"retry_after_ms": "3600000"}}, err)
				require.Less(t, time.Since(begun), soon)
				require.Len(t, d.requests(), 1)
			})
		}
	})
}

// TestRateLimitedCallsHaveTheBudget of all that is repeated.
func TestRateLimitedCallsHaveTheBudget(t *testing.T) {
	t.Parallel()
	d := guarded(t, false, nil, func(string) error {
		return withCause(ErrRateLimited, nil, metadataRetryAfter, "1")
	})
	c := dialed(t, d.addr, Options{Timeout: 200 * time.Millisecond})
	begun := time.Now()
	var calls sync.WaitGroup
	for range 50 {
		calls.Go(func() { _, _ = readLink(t.Context(), c) })
	}
	calls.Wait()
	require.LessOrEqual(t, len(d.requests()), 50+50/callsPerRetry+1+int(time.Since(begun)/retryInterval))
}

// TestNotReady: a podlink that can't decide yet who calls has carried out nothing.
func TestNotReady(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, http bool) {
		ready := time.Now().Add(100 * time.Millisecond)
		d := guarded(t, http, nil, func(string) error {
			if time.Now().Before(ready) {
				return kerrors.New(503, "NOT_READY", "not ready")
			}
			return nil
		})
		_, err := setLink(t.Context(), dialed(t, d.addr, Options{HTTP: http}))
		require.NoError(t, err)
		d.now(func(string) error { return kerrors.New(503, "NOT_READY", "not ready") })
		c := dialed(t, d.addr, Options{HTTP: http, Timeout: hangTimeout})
		err = atItsEnd(ErrUnavailable, func() error {
			_, err := setLink(t.Context(), c)
			return err
		})
		requireError(t, wantError{is: ErrUnavailable}, err)
	})
}

// TestTokensStaySecret: whatever goes wrong, they are in no error and in no log.
func TestTokensStaySecret(t *testing.T) {
	var written bytes.Buffer
	before := log.GetLogger()
	log.SetLogger(log.NewStdLogger(&written))
	t.Cleanup(func() { log.SetLogger(before) })
	overBoth(t, func(t *testing.T, http bool) {
		for name, answer := range map[string]error{
			"refused": ErrUnauthenticated, "not permitted": ErrPermissionDenied, "limited": ErrRateLimited, "unavailable": ErrStoreUnavailable,
		} {
			d := guarded(t, http, nil, func(string) error { return answer })
			c := dialed(t, d.addr, Options{HTTP: http, Timeout: 100 * time.Millisecond, TokenFile: tokenFile(t, secret)})
			for _, call := range kindsOfCalls {
				err := call(t.Context(), c)
				require.Error(t, err, name)
				require.NotContains(t, fmt.Sprintf("%v %+v %q", err, err, errors.Unwrap(err)), secret, name)
			}
			require.Contains(t, d.requests(), "Bearer "+secret)
		}
	})
	require.NotContains(t, written.String(), secret)
}
