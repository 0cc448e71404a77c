package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	"podlink/test/kit/proc"
	tlstest "podlink/test/kit/tls"
)

// listenerTLS returns the environment for the TLS of a listener: HTTP, GRPC or ADMIN.
func listenerTLS(listener string, ca *tlstest.Authority, clientAuth string) []string {
	prefix := "PODLINK_SERVER_" + listener + "_TLS_"
	env := []string{prefix + "ENABLED=true", prefix + "CERT_FILE=" + ca.Path("server.crt"), prefix + "KEY_FILE=" + ca.Path("server.key")}
	if clientAuth != "none" {
		env = append(env, prefix+"CLIENT_AUTH="+clientAuth, prefix+"CLIENT_CA_FILE="+ca.Path("ca.crt"))
	}
	return env
}

// newCA returns a CA that has signed certificates of a server and a client on this machine.
func newCA(t *testing.T) *tlstest.Authority {
	t.Helper()
	ca := tlstest.New(t, t.TempDir(), "ca")
	for _, name := range []string{"server", "client"} {
		ca.Issue(t, name, &x509.Certificate{
			DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		})
	}
	return ca
}

// calling returns the TLS configuration of a client of the CA's podlink that shows the certificate of another CA, or none.
func calling(t *testing.T, ca, shown *tlstest.Authority) *tls.Config {
	t.Helper()
	if shown == nil {
		return &tls.Config{RootCAs: ca.Pool(), MinVersion: tls.VersionTLS12}
	}
	return showing(t, ca, shown, "client")
}

// showing returns the TLS configuration of a client of the CA's podlink that shows a certificate.
func showing(t *testing.T, ca, shown *tlstest.Authority, name string) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(shown.Path(name+".crt"), shown.Path(name+".key"))
	require.NoError(t, err)
	config := calling(t, ca, nil)
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	return config
}

// getTLS gets a URL over a new connection, and returns the version of HTTP and the status.
func getTLS(ctx context.Context, config *tls.Config, url string, http2 bool) (version, code int, err error) {
	transport := &http.Transport{TLSClientConfig: config.Clone(), ForceAttemptHTTP2: http2}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, 0, err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.ProtoMajor, response.StatusCode, err
}

// readGRPC reads a link over a new connection.
func readGRPC(t *testing.T, addr string, with credentials.TransportCredentials) codes.Code {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(with))
	require.NoError(t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err = v1.NewLinkServiceClient(conn).GetLinkedPod(ctx, &v1.GetLinkedPodRequest{Namespace: "n", Uid: "u", Service: "s"})
	return status.Code(err)
}

// TestListenersOverTLS: each listener takes the callers that its client_auth lets in, by TLS 1.3 alone, with HTTP/2 where the caller
// can, and nothing in plaintext.
func TestListenersOverTLS(t *testing.T) {
	t.Parallel()
	ca, foreign := newCA(t), newCA(t)
	for _, auth := range []string{"none", "optional", "require"} {
		t.Run(auth, func(t *testing.T) {
			t.Parallel()
			var env []string
			for _, listener := range []string{"HTTP", "GRPC", "ADMIN"} {
				env = append(env, listenerTLS(listener, ca, auth)...)
			}
			p := start(t, env...)
			old := calling(t, ca, ca)
			old.MaxVersion = tls.VersionTLS12
			for name, row := range map[string]struct {
				config *tls.Config
				let    bool
			}{
				"no certificate":    {calling(t, ca, nil), auth != "require"},
				"its certificate":   {calling(t, ca, ca), true},
				"a foreign one":     {calling(t, ca, foreign), auth == "none"},
				"TLS 1.2":           {old, false},
				"a foreign podlink": {calling(t, foreign, ca), false},
			} {
				for url, want := range map[string]int{
					"https://" + p.HTTP + "/v1/namespaces/n/links/u/services/s": http.StatusOK,
					"https://" + p.Admin + "/healthz":                           http.StatusOK,
				} {
					for version, http2 := range map[int]bool{1: false, 2: true} {
						got, code, err := getTLS(t.Context(), row.config, url, http2)
						if !row.let {
							require.Error(t, err, "%s %s", name, url)
							continue
						}
						require.NoError(t, err, "%s %s", name, url)
						require.Equal(t, []int{version, want}, []int{got, code}, "%s %s", name, url)
					}
				}
				want := map[bool]codes.Code{true: codes.OK, false: codes.Unavailable}[row.let]
				require.Equal(t, want, readGRPC(t, p.GRPC, credentials.NewTLS(row.config)), name)
			}
			require.Equal(t, codes.Unavailable, readGRPC(t, p.GRPC, insecure.NewCredentials()))
			for _, addr := range []string{p.HTTP, p.Admin} {
				_, code, err := getTLS(t.Context(), old, "http://"+addr+"/healthz", false)
				require.True(t, err != nil || code == http.StatusBadRequest, "plaintext: %d", code)
			}
			for _, addr := range []string{p.HTTP, p.Admin, p.GRPC} {
				withoutResumption(t, addr, calling(t, ca, ca))
			}
		})
	}
}

// withoutResumption checks that two connections of a client that remembers sessions both verify certificates.
func withoutResumption(t *testing.T, addr string, config *tls.Config) {
	t.Helper()
	config.ClientSessionCache, config.NextProtos = tls.NewLRUClientSessionCache(1), []string{"h2"}
	for range 2 {
		conn, err := tls.Dial("tcp", addr, config)
		require.NoError(t, err)
		state := conn.ConnectionState()
		require.EqualValues(t, tls.VersionTLS13, state.Version)
		require.Equal(t, "h2", state.NegotiatedProtocol)
		require.False(t, state.DidResume)
		// A ticket would be among what the server says first.
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		_, _ = conn.Read(make([]byte, 64))
		_ = conn.Close()
	}
}

// TestOlderTLS is for callers that need it.
func TestOlderTLS(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	p := start(t, append(listenerTLS("HTTP", ca, "none"), "PODLINK_SERVER_HTTP_TLS_MIN_VERSION=1.2")...)
	old := calling(t, ca, nil)
	old.MaxVersion = tls.VersionTLS12
	_, code, err := getTLS(t.Context(), old, "https://"+p.HTTP+"/v1/namespaces/n/links/u/services/s", true)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, code)
	old.MaxVersion, old.MinVersion = tls.VersionTLS11, tls.VersionTLS10
	_, _, err = getTLS(t.Context(), old, "https://"+p.HTTP+"/", true)
	require.Error(t, err)
}

// TestHealthOverTLS: podlink -health finds an admin listener with TLS, whatever name its certificate has.
func TestHealthOverTLS(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	ca.Sign(t, "server", "podlink.test", time.Time{})
	for _, auth := range []string{"none", "optional", "require"} {
		env := append(listenerTLS("ADMIN", ca, auth), "PODLINK_SERVER_ADMIN_ADDR="+proc.FreeAddr(t))
		start(t, env...)
		require.Eventually(t, func() bool {
			code, out := command(t, "-health", env...)
			return code == 0 && out == "ready\n"
		}, patience, 50*time.Millisecond, auth)
	}
	// A certificate for servers alone does not open a listener that requires one: the reason says what to do.
	ca.Issue(t, "server", &x509.Certificate{DNSNames: []string{"podlink.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	env := append(listenerTLS("ADMIN", ca, "require"), "PODLINK_SERVER_ADMIN_ADDR="+proc.FreeAddr(t))
	start(t, env...)
	code, out := command(t, "-health", env...)
	require.Equal(t, 1, code)
	require.Contains(t, out, "server.admin.tls.client_auth optional lets probes without a certificate in")
}

// TestUnusableTLSFiles of a listener are an error of the configuration, for a start and for -check, which waits for no pipe.
func TestUnusableTLSFiles(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	for name, row := range map[string]struct{ listener, key, file, want string }{
		"missing certificate": {"HTTP", "CERT_FILE", "absent.crt", "server.http.tls.cert_file: open absent.crt"},
		"missing key":         {"GRPC", "KEY_FILE", "absent.key", "server.grpc.tls.key_file: open absent.key"},
		"key of another":      {"ADMIN", "KEY_FILE", ca.Path("client.key"), "server.admin.tls.cert_file, server.admin.tls.key_file: "},
		"CA without text":     {"HTTP", "CLIENT_CA_FILE", "/dev/null", "server.http.tls.client_ca_file: /dev/null is not a regular file"},
		"pipe for a CA":       {"GRPC", "CLIENT_CA_FILE", pipe, "server.grpc.tls.client_ca_file: " + pipe + " is not a regular file"},
		"pipe for a key":      {"ADMIN", "KEY_FILE", pipe, "server.admin.tls.key_file: " + pipe + " is not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, argument := range []string{"-check", "-conf="} {
				env := append(listenerTLS(row.listener, ca, "require"), "PODLINK_SERVER_"+row.listener+"_TLS_"+row.key+"="+row.file)
				code, out := command(t, argument, env...)
				require.Equal(t, 2, code, out)
				require.Contains(t, out, "podlink: configuration: "+row.want)
			}
		})
	}
}

// TestStopOverTLSFailsNoCall: the drain asks callers over HTTP/2 to leave, too.
func TestStopOverTLSFailsNoCall(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	p := start(t, append(append(listenerTLS("GRPC", ca, "require"), listenerTLS("HTTP", ca, "require")...), "PODLINK_SERVER_STOP_DRAIN=1s")...)
	conn, err := grpc.NewClient(p.GRPC, grpc.WithTransportCredentials(credentials.NewTLS(calling(t, ca, ca))))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	links := v1.NewLinkServiceClient(conn)
	set := func(pod int) error {
		_, err := links.SetLinkedPod(t.Context(), &v1.SetLinkedPodRequest{
			Namespace: "n", Uid: "u" + strconv.Itoa(pod), Service: "s", PodId: proto.Int32(int32(pod)),
		})
		return err
	}
	require.NoError(t, set(1))
	p.Terminate(t)
	for begin := time.Now(); time.Since(begin) < 500*time.Millisecond; time.Sleep(10 * time.Millisecond) {
		require.NoError(t, set(2))
		_, code, err := getTLS(t.Context(), calling(t, ca, ca), "https://"+p.HTTP+"/v1/namespaces/n/links/u2/services/s", true)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, code)
	}
	require.Zero(t, p.Wait(t))
}
