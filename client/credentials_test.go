package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/credentials"

	tlstest "podlink/test/kit/tls"
)

// token is a bearer token as credentials.
type token struct {
	value  string
	secure bool // It requires TLS, and looks for it.
	err    error
}

func (t token) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	if t.secure {
		info, _ := credentials.RequestInfoFromContext(ctx)
		if err := credentials.CheckSecurityLevel(info.AuthInfo, credentials.PrivacyAndIntegrity); err != nil {
			return nil, err
		}
	}
	if len(uri) != 1 {
		return nil, errors.New("no audience")
	}
	return map[string]string{"Authorization": "Bearer " + t.value, "X-Audience": uri[0]}, t.err
}

func (t token) RequireTransportSecurity() bool { return t.secure }

const secret = "tok-4711-secret"

// TestCredentialsAreSent with each call, as a header of either transport.
func TestCredentialsAreSent(t *testing.T) {
	for name, secure := range map[string]bool{"over TLS": true, "without TLS": false} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, http bool) {
				var server, trusting *tls.Config
				if secure {
					server, trusting = tlsPair(t)
				}
				s := served(t, http, server, func(context.Context) error { return nil })
				c := dialed(t, s.addr, Options{HTTP: http, TLS: trusting, Credentials: token{value: secret, secure: secure}})
				for _, call := range []apiCall{readLink, setLink} {
					_, err := call(t.Context(), c)
					require.NoError(t, err)
					headers := <-s.arrived
					require.Equal(t, []string{"Bearer " + secret}, headers.Values("authorization"))
					require.Regexp(t, `^https://[^/]+/podlink\.v1\.LinkService$`, headers.Get("x-audience"))
				}
			})
		})
	}
}

// tlsPair returns what a server of the address 127.0.0.1 shows, and what a client needs to trust it.
func tlsPair(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	const host = "podlink.test"
	authority := tlstest.New(t, t.TempDir(), "authority")
	authority.Sign(t, "server", host, time.Now().Add(time.Hour))
	certificate, err := tls.LoadX509KeyPair(authority.Path("server.crt"), authority.Path("server.key"))
	require.NoError(t, err)
	return &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
		&tls.Config{RootCAs: authority.Pool(), ServerName: host, MinVersion: tls.VersionTLS12}
}

// TestCredentialsNeedTLS when they say so: New refuses them where they would be sent in the clear.
func TestCredentialsNeedTLS(t *testing.T) {
	secured := &tls.Config{MinVersion: tls.VersionTLS12}
	for name, row := range map[string]struct {
		target string
		o      Options
		says   string
	}{
		"gRPC":                      {"127.0.0.1:9000", Options{}, "Options.Credentials require transport security"},
		"HTTP":                      {"127.0.0.1:8000", Options{HTTP: true}, "Options.Credentials require transport security"},
		"HTTP, a URL that says so":  {"https://127.0.0.1:8000", Options{HTTP: true}, ""},
		"HTTP, a URL without TLS":   {"http://127.0.0.1:8000", Options{HTTP: true}, "Options.Credentials require transport security"},
		"HTTP, a contradicting URL": {"http://127.0.0.1:8000", Options{HTTP: true, TLS: secured}, "http://127.0.0.1:8000 is not secured"},
		"gRPC with TLS":             {"127.0.0.1:9000", Options{TLS: secured}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			row.o.Credentials = token{value: secret, secure: true}
			c, err := New(row.target, row.o)
			if row.says == "" {
				require.NoError(t, err)
				require.NoError(t, c.Close())
				return
			}
			require.ErrorContains(t, err, row.says)
			require.NotContains(t, err.Error(), secret)
		})
	}
}

// TestCredentialsThatFail: the call is not sent and not repeated, and says why.
func TestCredentialsThatFail(t *testing.T) {
	overBoth(t, func(t *testing.T, http bool) {
		s := served(t, http, nil, func(context.Context) error { return nil })
		missing := errors.New("open token: no such file")
		c := dialed(t, s.addr, Options{HTTP: http, Timeout: time.Minute, Credentials: token{value: secret, err: missing}})
		for _, call := range []apiCall{readLink, setLink} {
			begin := time.Now()
			_, err := call(t.Context(), c)
			requireError(t, wantError{is: ErrUnauthenticated}, err)
			require.ErrorContains(t, err, missing.Error())
			require.Less(t, time.Since(begin), 10*time.Second)
		}
		require.Empty(t, s.arrived)
	})
}

// TestCredentialsStaySecret: whatever goes wrong, they are in no error and in no log.
func TestCredentialsStaySecret(t *testing.T) {
	var written bytes.Buffer
	before := log.GetLogger()
	log.SetLogger(log.NewStdLogger(&written))
	t.Cleanup(func() { log.SetLogger(before) })
	overBoth(t, func(t *testing.T, http bool) {
		for name, answer := range map[string]func(context.Context) error{
			"podlink says no": always(ErrUnauthenticated), "the store is away": always(ErrStoreUnavailable), "podlink hangs": hangs,
		} {
			s := served(t, http, nil, answer)
			c := dialed(t, s.addr, Options{HTTP: http, Timeout: 300 * time.Millisecond, Credentials: token{value: secret}})
			for _, call := range []apiCall{readLink, setLink} {
				_, err := call(t.Context(), c)
				require.Error(t, err, name)
				require.NotContains(t, err.Error(), secret, name)
			}
		}
	})
	require.NotContains(t, written.String(), secret)
}

// TestRefusedCredentials: podlink's answer is an error of this package, on both transports, and final.
func TestRefusedCredentials(t *testing.T) {
	for _, refusal := range []error{ErrUnauthenticated, ErrPermissionDenied, ErrRateLimited} {
		overBoth(t, func(t *testing.T, http bool) {
			s := served(t, http, nil, always(refusal))
			c := dialed(t, s.addr, Options{HTTP: http, Timeout: time.Minute})
			for _, call := range []apiCall{readLink, setLink} {
				_, err := call(t.Context(), c)
				requireError(t, wantError{is: refusal}, err)
			}
			require.Len(t, s.arrived, 2)
		})
	}
}
