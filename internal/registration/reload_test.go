package registration

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/certs"
	"podlink/internal/conf"
	certstest "podlink/test/kit/certs"
	consultest "podlink/test/kit/consul"
	etcdtest "podlink/test/kit/etcd"
	kubetest "podlink/test/kit/kube"
	tlstest "podlink/test/kit/tls"
)

// tlsFiles are the files of podlink and of its registry, which the test replaces by those of another CA.
type tlsFiles struct {
	t         *testing.T
	dir       string
	old, next *tlstest.Authority
}

func newTLSFiles(t *testing.T) *tlsFiles {
	t.Helper()
	f := &tlsFiles{t: t, dir: t.TempDir(), old: tlstest.New(t, t.TempDir(), "ca"), next: tlstest.New(t, t.TempDir(), "ca")}
	for _, ca := range []*tlstest.Authority{f.old, f.next} {
		for _, name := range []string{"server", "client"} {
			ca.Issue(t, name, &x509.Certificate{
				DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
				ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			})
		}
	}
	f.use(f.old)
	return f
}

func (f *tlsFiles) path(file string) string { return filepath.Join(f.dir, file) }

// use makes all files those of the CA.
func (f *tlsFiles) use(ca *tlstest.Authority) {
	for _, file := range []string{"ca.crt", "server.crt", "server.key", "client.crt", "client.key"} {
		tlstest.Copy(f.t, f.path(file), ca.Path(file))
	}
}

// rotate makes all files those of the next CA, and waits until they are read.
func (f *tlsFiles) rotate(files *certs.Reloader) {
	f.t.Helper()
	f.use(f.next)
	time.Sleep(time.Second) // Many reads.
	for _, source := range files.Sources() {
		require.False(f.t, source.Failing(), source.Key())
	}
}

// open returns the backend for that type of registry, with the files.
func (f *tlsFiles) open(kind, addr string, files *certs.Reloader) backend {
	f.t.Helper()
	c := conf.Default().Registry
	c.Type, c.Addrs = kind, []string{addr}
	c.Tls = &conf.TLS{Enabled: true, CaFile: f.path("ca.crt"), CertFile: f.path("client.crt"), KeyFile: f.path("client.key")}
	b, err := newBackend(c, files)
	require.NoError(f.t, err)
	return b
}

// TestNewFilesOfTheRegistry: after podlink's and the registry's certificates were replaced, by those of another CA, a new connection
// to the registry works.
func TestNewFilesOfTheRegistry(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T, f *tlsFiles, files *certs.Reloader) (b backend, reconnect func()){
		"etcd": func(t *testing.T, f *tlsFiles, files *certs.Reloader) (backend, func()) {
			pool := f.old.Pool()
			next, err := os.ReadFile(f.next.Path("ca.crt"))
			require.NoError(t, err)
			require.True(t, pool.AppendCertsFromPEM(next))
			server := etcdtest.StartTLS(t, &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12,
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					pair, err := tls.LoadX509KeyPair(f.path("client.crt"), f.path("client.key"))
					return &pair, err
				}}, f.path("ca.crt"), f.path("server.crt"), f.path("server.key"))
			return f.open(conf.RegistryEtcd, server.Addr, files), server.Restart
		},
		"consul": func(t *testing.T, f *tlsFiles, files *certs.Reloader) (backend, func()) {
			agent := consultest.Start(t)
			proxy := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: agent.Addr}))
			proxy.TLS = &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
				// The files as they are; without a Reloader they are read now.
				server, err := (*certs.Reloader)(nil).Server(certs.ServerOptions{
					Cert: certs.File{Path: f.path("server.crt")}, Key: certs.File{Path: f.path("server.key")},
					ClientCA: certs.File{Path: f.path("ca.crt")}, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
				})
				if err != nil {
					return nil, err
				}
				return server.GetConfigForClient(nil)
			}}
			proxy.StartTLS()
			t.Cleanup(proxy.Close)
			return f.open(conf.RegistryConsul, proxy.Listener.Addr().String(), files), proxy.CloseClientConnections
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, files := newTLSFiles(t), certstest.Start(t)
			b, reconnect := open(t, f, files)
			registrar, lines := startRegistrar(t, b)
			require.NoError(t, registrar.Register(t.Context(), instance))
			lines.Wait(t, "podlink is registered")
			f.rotate(files)
			reconnect()
			require.Eventually(t, func() bool { return call(t.Context(), b.check, &registration{instance: instance}) == nil },
				time.Minute, 50*time.Millisecond, lines)
			require.NoError(t, registrar.Stop(t.Context()))
		})
	}
}

// TestNewFileOfTheServiceAccount: Kubernetes replaces the CA of its API server in a pod that runs.
func TestNewFileOfTheServiceAccount(t *testing.T) {
	t.Parallel()
	server, files := kubetest.Start(t), certstest.Start(t)
	dir := server.Mount(t, kubetest.Token)
	right, other := filepath.Join(t.TempDir(), "ca.crt"), tlstest.New(t, t.TempDir(), "ca")
	tlstest.Copy(t, right, filepath.Join(dir, "ca.crt"))
	tlstest.Copy(t, filepath.Join(dir, "ca.crt"), other.Path("ca.crt"))
	b, err := newKubernetes(dir, files, server.Env)
	require.NoError(t, err)
	t.Cleanup(b.close)
	require.ErrorContains(t, b.check(t.Context(), instance), "unknown authority")
	tlstest.Copy(t, filepath.Join(dir, "ca.crt"), right)
	require.Eventually(t, func() bool { return b.register(t.Context(), instance) == nil }, time.Minute, 10*time.Millisecond)
}
