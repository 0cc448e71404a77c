package client

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/middleware"
	"github.com/go-kratos/kratos/v2/transport"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/certs"
	"podlink/test/kit/calls"
	certstest "podlink/test/kit/certs"
	tlstest "podlink/test/kit/tls"
)

// TestFileOptions: what contradicts itself, and files that can't be used, are errors that name the option.
func TestFileOptions(t *testing.T) {
	t.Parallel()
	ca := tlstest.New(t, t.TempDir(), "ca")
	ca.Sign(t, "client", "client.test", time.Time{})
	cert, key, text := ca.Path("client.crt"), ca.Path("client.key"), filepath.Join(t.TempDir(), "text")
	require.NoError(t, os.WriteFile(text, []byte(secret), 0o600))
	for name, row := range map[string]struct {
		target string
		o      Options
		says   string
	}{
		"all files":              {"127.0.0.1:9000", Options{CAFile: ca.Path("ca.crt"), CertFile: cert, KeyFile: key, ServerName: "podlink"}, ""},
		"the system's CAs":       {"127.0.0.1:9000", Options{CertFile: cert, KeyFile: key}, ""},
		"a name alone":           {"127.0.0.1:9000", Options{ServerName: "podlink"}, ""},
		"with credentials":       {"127.0.0.1:9000", Options{CAFile: ca.Path("ca.crt"), Credentials: token{value: secret, secure: true}}, ""},
		"HTTP":                   {"https://127.0.0.1:8000", Options{HTTP: true, CAFile: ca.Path("ca.crt")}, ""},
		"a URL without TLS":      {"http://127.0.0.1:8000", Options{HTTP: true, CAFile: ca.Path("ca.crt")}, "http://127.0.0.1:8000 is not secured"},
		"TLS too":                {"127.0.0.1:9000", Options{CAFile: ca.Path("ca.crt"), TLS: new(tls.Config)}, "Options.TLS is set, and CAFile"},
		"TLS, and a name":        {"127.0.0.1:9000", Options{ServerName: "podlink", TLS: new(tls.Config)}, "Options.TLS is set, and CAFile"},
		"no key":                 {"127.0.0.1:9000", Options{CertFile: cert}, "Options.CertFile and Options.KeyFile must both be set"},
		"no certificate":         {"127.0.0.1:9000", Options{KeyFile: key}, "Options.CertFile and Options.KeyFile must both be set"},
		"a CA that is missing":   {"127.0.0.1:9000", Options{CAFile: "absent"}, "Options.CAFile: open absent"},
		"a CA that is none":      {"127.0.0.1:9000", Options{CAFile: text}, "Options.CAFile: no PEM certificate"},
		"a certificate's CA":     {"127.0.0.1:9000", Options{CertFile: ca.Path("ca.crt"), KeyFile: key}, "Options.CertFile, Options.KeyFile: "},
		"a folder for a CA":      {"127.0.0.1:9000", Options{CAFile: ca.Dir}, "Options.CAFile: " + ca.Dir + " is not a regular file"},
		"a target that is wrong": {"", Options{CAFile: ca.Path("ca.crt")}, "there is no target"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := New(row.target, row.o)
			if row.says == "" {
				require.NoError(t, err)
				require.NoError(t, c.Close())
				return
			}
			require.ErrorContains(t, err, "podlink: "+row.says)
			require.NotContains(t, err.Error(), secret)
		})
	}
}

// rotation is a podlink and a client whose files are replaced while calls are made.
type rotation struct {
	*tlstest.Rotation

	t     *testing.T
	files *certs.Reloader // of the server
}

func newRotation(t *testing.T) *rotation {
	t.Helper()
	return &rotation{tlstest.NewRotation(t, "server", "client"), t, certstest.Start(t)}
}

// spoil makes all files unusable.
func (r *rotation) spoil() {
	for _, file := range []string{"ca.crt", "server.crt", "server.key", "client.crt", "client.key"} {
		require.NoError(r.t, os.WriteFile(r.Path(file), []byte("broken"), 0o600))
	}
}

// serve starts a podlink that requires certificates and ends each connection soon, so that clients connect again all the time.
func (r *rotation) serve(http bool) (addr string) {
	r.t.Helper()
	secured, err := r.files.Server(certs.ServerOptions{
		Cert: certs.File{Key: "cert", Path: r.Path("server.crt")}, Key: certs.File{Key: "key", Path: r.Path("server.key")},
		ClientCA: certs.File{Key: "ca", Path: r.Path("ca.crt")}, ClientAuth: tls.RequireAndVerifyClientCert,
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"},
	})
	require.NoError(r.t, err)
	s := &kratosServer{answer: func(context.Context) error { return nil }, arrived: make(chan transport.Header)}
	var server interface {
		transport.Server
		transport.Endpointer
	}
	if http {
		made := khttp.NewServer(khttp.Address("127.0.0.1:0"), khttp.TLSConfig(secured), khttp.Middleware(hangingUp))
		v1.RegisterLinkServiceHTTPServer(made, s)
		server = made
	} else {
		made := kgrpc.NewServer(kgrpc.Address("127.0.0.1:0"), kgrpc.TLSConfig(secured), kgrpc.Options(grpc.KeepaliveParams(
			keepalive.ServerParameters{MaxConnectionAge: 50 * time.Millisecond, MaxConnectionAgeGrace: time.Minute})))
		v1.RegisterLinkServiceServer(made, s)
		server = made
	}
	endpoint, err := server.Endpoint()
	require.NoError(r.t, err)
	ended, drained := make(chan error, 1), make(chan struct{})
	go func() { ended <- server.Start(context.Background()) }()
	go func() {
		defer close(drained)
		for range s.arrived {
		}
	}()
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(r.t, server.Stop(ctx))
		require.NoError(r.t, <-ended)
		close(s.arrived)
		<-drained
	})
	return endpoint.Host
}

// hangingUp ends the connection after each call.
func hangingUp(next middleware.Handler) middleware.Handler {
	return func(ctx context.Context, request any) (any, error) {
		t, _ := transport.FromServerContext(ctx)
		t.ReplyHeader().Set("Connection", "close")
		return next(ctx, request)
	}
}

// TestRotation: no call fails while all certificates, and then the CA, are replaced on both sides, at 200 calls a second over
// connections that last for one call or 50 ms.
func TestRotation(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, http bool) {
		t.Parallel()
		r := newRotation(t)
		addr := r.serve(http)
		fixed, err := (*certs.Reloader)(nil).Client(certs.ClientOptions{
			CA: certs.File{Path: r.Path("ca.crt")}, Cert: certs.File{Path: r.Path("client.crt")}, Key: certs.File{Path: r.Path("client.key")},
		})
		require.NoError(t, err)
		stale := dialed(t, addr, Options{HTTP: http, Timeout: time.Second, TLS: fixed.Config()})
		waitConnected(t, stale)
		c := dialed(t, addr, Options{
			HTTP: http, Timeout: time.Minute, CAFile: r.Path("ca.crt"), CertFile: r.Path("client.crt"), KeyFile: r.Path("client.key"), filesInterval: 5 * time.Millisecond,
		})
		read := func(ctx context.Context) error { _, err := readLink(ctx, c); return err }
		set := func(ctx context.Context) error { _, err := setLink(ctx, c); return err }
		stop := calls.Repeat(20*time.Millisecond, time.Minute, read, set, read, set)
		for _, step := range []func(){
			func() { r.Trust(r.Old, r.Next) },
			func() { r.Show(r.Next) },
			func() { r.Trust(r.Next) },
			r.spoil,
		} {
			step()
			time.Sleep(hangTimeout) // Some reads of the files on both sides, some calls.
		}
		made, failed := stop()
		require.Empty(t, failed)
		require.Greater(t, made, 10, "a busy machine makes few")
		for range 4 { // It may still have connections that it has not used: each ends with a call.
			if _, err = readLink(t.Context(), stale); err != nil {
				break
			}
		}
		require.ErrorIs(t, err, ErrUnavailable, "a client that keeps its files is not let in")
		for _, source := range r.files.Sources() {
			require.True(t, source.Failing(), source.Key())
		}
	})
}
