package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
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
	t         *testing.T
	dir       string
	old, next *tlstest.Authority
	files     *certs.Reloader // of the server
}

func newRotation(t *testing.T) *rotation {
	t.Helper()
	r := &rotation{
		t: t, dir: t.TempDir(), old: tlstest.New(t, t.TempDir(), "ca"), next: tlstest.New(t, t.TempDir(), "ca"), files: certstest.Start(t),
	}
	for _, ca := range []*tlstest.Authority{r.old, r.next} {
		for _, name := range []string{"server", "client"} {
			ca.Issue(t, name, &x509.Certificate{
				IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			})
		}
	}
	r.trust(r.old)
	r.show(r.old)
	return r
}

func (r *rotation) path(file string) string { return filepath.Join(r.dir, file) }

// trust makes both sides trust these CAs.
func (r *rotation) trust(all ...*tlstest.Authority) {
	var files []string
	for _, ca := range all {
		files = append(files, ca.Path("ca.crt"))
	}
	tlstest.Copy(r.t, r.path("ca.crt"), files...)
}

// show makes both sides show the certificates of the CA.
func (r *rotation) show(ca *tlstest.Authority) {
	for _, file := range []string{"server.crt", "server.key", "client.crt", "client.key"} {
		tlstest.Copy(r.t, r.path(file), ca.Path(file))
	}
}

// spoil makes all files unusable.
func (r *rotation) spoil() {
	for _, file := range []string{"ca.crt", "server.crt", "server.key", "client.crt", "client.key"} {
		require.NoError(r.t, os.WriteFile(r.path(file), []byte("broken"), 0o600))
	}
}

// serve starts a podlink that requires certificates and ends each connection soon, so that clients connect again all the time.
func (r *rotation) serve(http bool) (addr string) {
	r.t.Helper()
	secured, err := r.files.Server(certs.ServerOptions{
		Cert: certs.File{Key: "cert", Path: r.path("server.crt")}, Key: certs.File{Key: "key", Path: r.path("server.key")},
		ClientCA: certs.File{Key: "ca", Path: r.path("ca.crt")}, ClientAuth: tls.RequireAndVerifyClientCert,
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
			CA: certs.File{Path: r.path("ca.crt")}, Cert: certs.File{Path: r.path("client.crt")}, Key: certs.File{Path: r.path("client.key")},
		})
		require.NoError(t, err)
		stale := dialed(t, addr, Options{HTTP: http, Timeout: time.Second, TLS: fixed.Config()})
		waitConnected(t, stale)
		c := dialed(t, addr, Options{
			HTTP: http, Timeout: time.Minute, CAFile: r.path("ca.crt"), CertFile: r.path("client.crt"), KeyFile: r.path("client.key"), filesInterval: 5 * time.Millisecond,
		})
		stop := r.load(c)
		for _, step := range []func(){
			func() { r.trust(r.old, r.next) },
			func() { r.show(r.next) },
			func() { r.trust(r.next) },
			r.spoil,
		} {
			step()
			time.Sleep(time.Second) // Some reads, some calls.
		}
		calls, failed := stop()
		require.Empty(t, failed)
		require.Greater(t, calls, 10, "a busy machine makes few")
		_, err = readLink(t.Context(), stale)
		require.ErrorIs(t, err, ErrUnavailable, "a client that keeps its files is not let in")
		for _, source := range r.files.Sources() {
			require.True(t, source.Failing(), source.Key())
		}
	})
}

// load makes 200 calls a second until the returned function is called, which returns their number and the errors.
func (r *rotation) load(c *Client) (stop func() (calls int, failed []error)) {
	ctx, cancel := context.WithCancel(context.Background())
	var (
		done  sync.WaitGroup
		count atomic.Int64
		mu    sync.Mutex
		errs  []error
	)
	for i := range 4 {
		call := []apiCall{readLink, setLink}[i%2]
		done.Go(func() {
			ticker := time.NewTicker(20 * time.Millisecond)
			defer ticker.Stop()
			for ctx.Err() == nil {
				if _, err := call(context.Background(), c); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
				}
				count.Add(1)
				<-ticker.C
			}
		})
	}
	return func() (int, []error) {
		cancel()
		done.Wait()
		return int(count.Load()), errs
	}
}
