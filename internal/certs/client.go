package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"

	"google.golang.org/grpc/credentials"
)

// ClientOptions configures the TLS of a client.
type ClientOptions struct {
	CA        File // no path: the system's CAs
	Cert, Key File // no paths: the client has no certificate
	// ServerName is the name in the server's certificate. Empty: the host of the address that is dialled.
	ServerName string
}

// Client is the TLS configuration of a client whose files are kept up to date.
type Client struct {
	base     *tls.Config
	ca, pair *Source // nil: none
}

// Client returns the TLS configuration of a client: TLS 1.2 or later.
func (r *Reloader) Client(o ClientOptions) (*Client, error) {
	c := &Client{base: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: o.ServerName}}
	var err error
	if o.CA.Path != "" {
		if c.ca, err = r.open(newPool(o.CA)); err != nil {
			return nil, err
		}
	}
	if o.Cert.Path != "" {
		if c.pair, err = r.open(newPair(o.Cert, o.Key)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// files are what a connection uses.
type files struct{ ca, pair *material }

func (c *Client) files() (now files) {
	if c.ca != nil {
		now.ca = c.ca.current.Load()
	}
	if c.pair != nil {
		now.pair = c.pair.current.Load()
	}
	return now
}

func (c *Client) config(with files) *tls.Config {
	config := c.base.Clone()
	if with.ca != nil {
		config.RootCAs = with.ca.pool
	}
	if with.pair != nil {
		config.Certificates = []tls.Certificate{*with.pair.pair}
	}
	return config
}

// Config returns the configuration for a connection that is made now.
func (c *Client) Config() *tls.Config { return c.config(c.files()) }

// Credentials returns the same for the connections of a gRPC client.
func (c *Client) Credentials() credentials.TransportCredentials { return reloading{c} }

// reloading are credentials that are made for each connection.
type reloading struct{ client *Client }

func (r reloading) now() credentials.TransportCredentials {
	return credentials.NewTLS(r.client.Config())
}

// ClientHandshake implements credentials.TransportCredentials. A name that is set goes before the one that discovery has found, which
// gRPC prefers.
func (r reloading) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if name := r.client.base.ServerName; name != "" {
		authority = name
	}
	return r.now().ClientHandshake(ctx, authority, raw)
}

// ServerHandshake implements credentials.TransportCredentials.
func (reloading) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are those of a client")
}

// Info implements credentials.TransportCredentials.
func (r reloading) Info() credentials.ProtocolInfo { return r.now().Info() }

// Clone implements credentials.TransportCredentials.
func (r reloading) Clone() credentials.TransportCredentials { return r }

// OverrideServerName implements credentials.TransportCredentials. ClientOptions has the name.
func (reloading) OverrideServerName(string) error { return errors.ErrUnsupported }

// Transport is an http.RoundTripper whose new connections use the files as they are. It is safe for concurrent use.
type Transport struct {
	client *Client
	base   *http.Transport

	mu      sync.Mutex
	with    files
	current *http.Transport // nil: no request yet
}

// Transport returns a Transport with the options of base, of which it takes a copy.
func (c *Client) Transport(base *http.Transport) *Transport {
	return &Transport{client: c, base: base.Clone()}
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	return t.now().RoundTrip(request)
}

// now returns the transport with the files in use. Requests that are in flight on the one before end there.
func (t *Transport) now() *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	if with := t.client.files(); t.current == nil || with != t.with {
		t.closeIdle()
		t.with, t.current = with, t.base.Clone()
		t.current.TLSClientConfig = t.client.config(with)
	}
	return t.current
}

func (t *Transport) closeIdle() {
	if t.current != nil {
		t.current.CloseIdleConnections()
	}
}

// CloseIdleConnections closes the connections that no request uses, as net/http's does.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closeIdle()
}
