package server

import (
	"crypto/tls"

	"podlink/internal/certs"
	"podlink/internal/conf"
)

// The protocols over TLS.
const (
	protocolHTTP1 = "http/1.1"
	protocolHTTP2 = "h2"
)

// ListenerTLS is the TLS of the listeners. A listener whose configuration is nil is in plaintext.
type ListenerTLS struct{ HTTP, GRPC, Admin *tls.Config }

// NewListenerTLS returns the configured TLS of the listeners. Files keeps it up to date.
func NewListenerTLS(c *conf.Server, files *certs.Reloader) (secured ListenerTLS, err error) {
	if secured.HTTP, err = c.GetHttp().GetTls().Config("server.http.tls", files, protocolHTTP2, protocolHTTP1); err != nil {
		return ListenerTLS{}, err
	}
	if secured.GRPC, err = c.GetGrpc().GetTls().Config("server.grpc.tls", files, protocolHTTP2); err != nil {
		return ListenerTLS{}, err
	}
	if secured.Admin, err = c.GetAdmin().GetTls().Config("server.admin.tls", files, protocolHTTP2, protocolHTTP1); err != nil {
		return ListenerTLS{}, err
	}
	return secured, nil
}
