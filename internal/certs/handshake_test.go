package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	tlstest "podlink/test/kit/tls"
)

// both is what a certificate of either side may be used for.
var both = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}

// issue issues a certificate for localhost and loopback addresses, changed by with.
func issue(t *testing.T, a *tlstest.Authority, name string, with func(*x509.Certificate)) {
	t.Helper()
	template := &x509.Certificate{
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: both,
	}
	with(template)
	a.Issue(t, name, template)
}

func asIs(*x509.Certificate) {}

// serve serves TLS with the configuration until the test ends, and returns its port. A connection that is accepted gets a byte.
func serve(t *testing.T, config *tls.Config) string {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = conn.Write([]byte{1}) // After the handshake, if it succeeds.
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-ended
	})
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	return port
}

// connect dials, and reads the byte of an accepted connection: with TLS 1.3 a client learns only then what the server thinks of it.
func connect(ctx context.Context, config *tls.Config, addr string) (*tls.ConnectionState, error) {
	conn, err := (&tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: config}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return nil, err
	}
	state := conn.(*tls.Conn).ConnectionState()
	return &state, nil
}

// TestServerIsVerified: a client verifies what Go verifies, over each kind of connection: names, IP addresses too, times, usages,
// CAs and intermediates.
func TestServerIsVerified(t *testing.T) {
	ca, foreign := tlstest.New(t, t.TempDir(), "ca"), tlstest.New(t, t.TempDir(), "ca")
	between := ca.Between(t, "between")
	issue(t, ca, "good", asIs)
	issue(t, foreign, "foreign", asIs)
	issue(t, between, "chain", asIs)
	issue(t, ca, "other", func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{"other.test"}, nil })
	issue(t, ca, "wildcard", func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{"*.podlink.test"}, nil })
	issue(t, ca, "no address", func(c *x509.Certificate) { c.IPAddresses = nil })
	issue(t, ca, "another address", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 2)} })
	issue(t, ca, "expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) })
	issue(t, ca, "early", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
	})
	issue(t, ca, "client's", func(c *x509.Certificate) { c.ExtKeyUsage = both[1:] })

	for name, row := range map[string]struct {
		dir        *tlstest.Authority
		cert, host string
		serverName string
		fails      string
		alone      bool // without its intermediate
	}{
		"a name":                   {ca, "good", "localhost", "", "", false},
		"an address":               {ca, "good", "127.0.0.1", "", "", false},
		"a name that is set":       {ca, "other", "127.0.0.1", "other.test", "", false},
		"a wildcard":               {ca, "wildcard", "127.0.0.1", "a.podlink.test", "", false},
		"an intermediate":          {ca, "chain", "localhost", "", "", false},
		"a wildcard's parent":      {ca, "wildcard", "127.0.0.1", "podlink.test", "not podlink.test", false},
		"another name":             {ca, "other", "localhost", "", "not localhost", false},
		"another name that is set": {ca, "good", "127.0.0.1", "other.test", "not other.test", false},
		"no address":               {ca, "no address", "127.0.0.1", "", "127.0.0.1", false},
		"another address":          {ca, "another address", "127.0.0.1", "", "not 127.0.0.1", false},
		"expired":                  {ca, "expired", "localhost", "", "expired", false},
		"not valid yet":            {ca, "early", "localhost", "", "not yet valid", false},
		"for clients only":         {ca, "client's", "localhost", "", "usage", false},
		"a foreign CA":             {foreign, "foreign", "localhost", "", "unknown authority", false},
		"no intermediate":          {ca, "chain", "localhost", "", "unknown authority", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pair, err := tls.LoadX509KeyPair(row.dir.Path(row.cert+".crt"), row.dir.Path(row.cert+".key"))
			require.NoError(t, err)
			if row.alone {
				pair.Certificate = pair.Certificate[:1]
			}
			server := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
			client, err := (*Reloader)(nil).Client(ClientOptions{CA: File{"ca", ca.Path("ca.crt")}, ServerName: row.serverName})
			require.NoError(t, err)
			for kind, dial := range map[string]func(t *testing.T) error{
				"a dialer": func(t *testing.T) error {
					_, err := connect(t.Context(), client.Config(), net.JoinHostPort(row.host, serve(t, server)))
					return err
				},
				"gRPC": func(t *testing.T) error { return callGRPC(t, server, client, row.host) },
				"HTTP": func(t *testing.T) error { return callHTTP(t, server, client, row.host) },
			} {
				err := dial(t)
				if row.fails == "" {
					require.NoError(t, err, kind)
				} else {
					require.ErrorContains(t, err, row.fails, kind)
				}
			}
		})
	}
}

// callGRPC serves gRPC, and calls it.
func callGRPC(t *testing.T, config *tls.Config, client *Client, host string) error {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)))
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(listener) }() // Until Stop.
	defer server.Stop()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	conn, err := grpc.NewClient("passthrough:///"+net.JoinHostPort(host, port), grpc.WithTransportCredentials(client.Credentials()))
	require.NoError(t, err)
	defer conn.Close()
	_, err = grpc_health_v1.NewHealthClient(conn).Check(t.Context(), new(grpc_health_v1.HealthCheckRequest))
	return err
}

// callHTTP serves HTTP/2, and calls it.
func callHTTP(t *testing.T, config *tls.Config, client *Client, host string) error {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, 2, r.ProtoMajor)
		w.WriteHeader(http.StatusNoContent)
	}))
	server.TLS, server.EnableHTTP2, server.Config.ErrorLog = config.Clone(), true, log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	u, err := url.Parse(server.URL)
	require.NoError(t, err)
	transport := client.Transport(http.DefaultTransport.(*http.Transport))
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+net.JoinHostPort(host, u.Port()), http.NoBody)
	require.NoError(t, err)
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// TestCallerIsVerified: which callers each client_auth lets in, with the CAs and versions of the server.
func TestCallerIsVerified(t *testing.T) {
	ca, foreign := tlstest.New(t, t.TempDir(), "ca"), tlstest.New(t, t.TempDir(), "ca")
	issue(t, ca, "good", asIs)
	issue(t, ca, "expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) })
	issue(t, ca, "early", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
	})
	issue(t, ca, "server's", func(c *x509.Certificate) { c.ExtKeyUsage = both[:1] })
	issue(t, ca.Between(t, "between"), "chain", asIs)
	issue(t, foreign, "foreign", asIs)
	const none, optional, must = tls.NoClientCert, tls.VerifyClientCertIfGiven, tls.RequireAndVerifyClientCert
	for name, row := range map[string]struct {
		cert     string // empty: none
		with     func(*tls.Config)
		let      []tls.ClientAuthType
		verified bool // where it is let in, and asked for
	}{
		"no certificate":            {"", nil, []tls.ClientAuthType{none, optional}, false},
		"a certificate":             {"good", nil, []tls.ClientAuthType{none, optional, must}, true},
		"with an intermediate":      {"chain", nil, []tls.ClientAuthType{none, optional, must}, true},
		"an expired one":            {"expired", nil, []tls.ClientAuthType{none}, false},
		"one that is not valid yet": {"early", nil, []tls.ClientAuthType{none}, false},
		"one for servers only":      {"server's", nil, []tls.ClientAuthType{none}, false},
		"of a foreign CA":           {"foreign", nil, []tls.ClientAuthType{none}, false},
		"TLS 1.2":                   {"good", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, nil, false},
		"a foreign protocol":        {"good", func(c *tls.Config) { c.NextProtos = []string{"smtp"} }, nil, false},
	} {
		for _, auth := range []tls.ClientAuthType{none, optional, must} {
			t.Run(name+" "+auth.String(), func(t *testing.T) {
				t.Parallel()
				o := ServerOptions{
					Cert: File{"cert", ca.Path("good.crt")}, Key: File{"key", ca.Path("good.key")}, ClientAuth: auth,
					MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
				}
				if auth != none {
					o.ClientCA = File{"ca", ca.Path("ca.crt")}
				}
				server, err := (*Reloader)(nil).Server(o)
				require.NoError(t, err)
				client := &tls.Config{RootCAs: ca.Pool(), MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}
				if row.cert != "" {
					dir := ca
					if row.cert == "foreign" {
						dir = foreign
					}
					pair, err := tls.LoadX509KeyPair(dir.Path(row.cert+".crt"), dir.Path(row.cert+".key"))
					require.NoError(t, err)
					// It is shown whatever CAs the server names.
					client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
				}
				if row.with != nil {
					row.with(client)
				}
				var verified atomic.Bool
				inner := server.GetConfigForClient
				server.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
					config, err := inner(hello)
					config.VerifyConnection = func(state tls.ConnectionState) error {
						verified.Store(len(state.VerifiedChains) > 0)
						return nil
					}
					return config, err
				}
				state, err := connect(t.Context(), client, "localhost:"+serve(t, server))
				if !slices.Contains(row.let, auth) {
					require.Error(t, err)
					return
				}
				require.NoError(t, err)
				require.EqualValues(t, tls.VersionTLS13, state.Version)
				require.Equal(t, "h2", state.NegotiatedProtocol)
				require.Equal(t, row.verified && auth != none, verified.Load())
			})
		}
	}
}

// TestNoResumption: a caller can't resume a session, for whose certificate nothing is verified again.
func TestNoResumption(t *testing.T) {
	ca := tlstest.New(t, t.TempDir(), "ca")
	issue(t, ca, "good", asIs)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		server, err := (*Reloader)(nil).Server(ServerOptions{
			Cert: File{"cert", ca.Path("good.crt")}, Key: File{"key", ca.Path("good.key")}, MinVersion: version,
		})
		require.NoError(t, err)
		cache := &countingCache{ClientSessionCache: tls.NewLRUClientSessionCache(8)}
		client := &tls.Config{RootCAs: ca.Pool(), MinVersion: version, MaxVersion: version, ClientSessionCache: cache}
		addr := "localhost:" + serve(t, server)
		for range 3 {
			state, err := connect(t.Context(), client, addr)
			require.NoError(t, err)
			require.False(t, state.DidResume)
		}
		require.Zero(t, cache.tickets.Load())
	}
}

// countingCache counts the tickets that a server gives out.
type countingCache struct {
	tls.ClientSessionCache
	tickets atomic.Int32
}

func (c *countingCache) Put(key string, state *tls.ClientSessionState) {
	if state != nil {
		c.tickets.Add(1)
	}
	c.ClientSessionCache.Put(key, state)
}

// TestServerReloads: a new connection meets the new certificate and the new CAs, and an open one stays.
func TestServerReloads(t *testing.T) {
	w := newWatched(t)
	issue(t, w.ca, "leaf", asIs)
	issue(t, w.ca2, "leaf", asIs)
	w.pair(w.ca, "leaf")
	w.read(3)
	server, err := w.reloader.Server(ServerOptions{
		Cert: File{"s.cert_file", w.cert}, Key: File{"s.key_file", w.key}, ClientCA: File{"s.client_ca_file", w.caFile},
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	})
	require.NoError(t, err)
	addr := "localhost:" + serve(t, server)
	dial := func(trusts, shows *tlstest.Authority) error {
		pair, err := tls.LoadX509KeyPair(shows.Path("leaf.crt"), shows.Path("leaf.key"))
		require.NoError(t, err)
		_, err = connect(t.Context(), &tls.Config{
			RootCAs: trusts.Pool(), MinVersion: tls.VersionTLS13,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
		}, addr)
		return err
	}
	require.NoError(t, dial(w.ca, w.ca))
	require.Error(t, dial(w.ca2, w.ca))
	require.Error(t, dial(w.ca, w.ca2))
	w.pair(w.ca2, "leaf")
	require.NoError(t, dial(w.ca, w.ca), "not read yet")
	w.read(3)
	require.NoError(t, dial(w.ca2, w.ca))
	require.Error(t, dial(w.ca, w.ca))
	tlstest.Copy(t, w.caFile, w.ca2.Path("ca.crt"))
	w.read(3)
	require.NoError(t, dial(w.ca2, w.ca2))
	require.Error(t, dial(w.ca2, w.ca), "its CA is no longer trusted")
	write(t, w.cert, "broken")
	write(t, w.caFile, "broken")
	w.read(3)
	require.NoError(t, dial(w.ca2, w.ca2))
}

// TestTransportReloads: a request after the change is on a new connection, and one that is in flight ends on the old one.
func TestTransportReloads(t *testing.T) {
	w := newWatched(t)
	issue(t, w.ca, "leaf", asIs)
	issue(t, w.ca2, "leaf", asIs)
	clientCAs := w.ca.Pool()
	clientCAs.AppendCertsFromPEM(content(t, w.ca2.Path("ca.crt")))
	pair, err := tls.LoadX509KeyPair(w.ca.Path("leaf.crt"), w.ca.Path("leaf.key"))
	require.NoError(t, err)
	arrived, answer := make(chan string), make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		arrived <- string(r.TLS.PeerCertificates[0].RawIssuer) + string(r.TLS.PeerCertificates[0].SerialNumber.Bytes())
		<-answer
	}))
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clientCAs, MinVersion: tls.VersionTLS12,
	}
	server.StartTLS()
	defer server.Close()
	w.pair(w.ca, "leaf")
	w.read(3)
	transport := w.client.Transport(http.DefaultTransport.(*http.Transport))
	defer transport.CloseIdleConnections()
	results := make(chan error, 2)
	send := func() {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
		if err == nil {
			var response *http.Response
			if response, err = transport.RoundTrip(request); err == nil {
				err = response.Body.Close()
			}
		}
		results <- err
	}
	go send()
	first := <-arrived
	w.pair(w.ca2, "leaf")
	w.read(3)
	go send()
	second := <-arrived
	require.NotEqual(t, first, second)
	close(answer)
	require.NoError(t, <-results)
	require.NoError(t, <-results)
}

// TestCredentialsAreAClients: they don't serve, and their name is that of the options.
func TestCredentialsAreAClients(t *testing.T) {
	client, err := (*Reloader)(nil).Client(ClientOptions{ServerName: "podlink.test"})
	require.NoError(t, err)
	c := client.Credentials().Clone()
	_, _, err = c.ServerHandshake(nil)
	require.Error(t, err)
	require.Error(t, c.OverrideServerName("other"))       //nolint:staticcheck // It is deprecated, and must not do half of it.
	require.Equal(t, "podlink.test", c.Info().ServerName) //nolint:staticcheck // gRPC takes the authority from it.
	require.Equal(t, "tls", c.Info().SecurityProtocol)
}

// TestCredentialsReload: a connection after the change verifies by the new CA.
func TestCredentialsReload(t *testing.T) {
	w := newWatched(t)
	issue(t, w.ca, "leaf", asIs)
	pair, err := tls.LoadX509KeyPair(w.ca.Path("leaf.crt"), w.ca.Path("leaf.key"))
	require.NoError(t, err)
	server := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	require.NoError(t, callGRPC(t, server, w.client, "localhost"))
	tlstest.Copy(t, w.caFile, w.ca2.Path("ca.crt"))
	w.read(2)
	require.Equal(t, codes.Unavailable, status.Code(callGRPC(t, server, w.client, "localhost")))
}
