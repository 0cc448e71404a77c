package certs

import "crypto/tls"

// ServerOptions configures the TLS of a server.
type ServerOptions struct {
	Cert, Key  File
	ClientCA   File // no path: callers are not asked for a certificate
	ClientAuth tls.ClientAuthType
	MinVersion uint16
	NextProtos []string // the protocols over it, as in h2
}

// Server returns the TLS configuration of a server whose files are kept up to date. There are no session tickets: each handshake
// verifies the caller's certificate.
func (r *Reloader) Server(o ServerOptions) (*tls.Config, error) {
	base := &tls.Config{
		MinVersion: o.MinVersion, ClientAuth: o.ClientAuth, NextProtos: o.NextProtos, SessionTicketsDisabled: true,
	}
	pair, err := r.open(newPair(o.Cert, o.Key))
	if err != nil {
		return nil, err
	}
	var ca *Source
	if o.ClientCA.Path != "" {
		if ca, err = r.open(newPool(o.ClientCA)); err != nil {
			return nil, err
		}
	}
	outer := base.Clone()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		config := base.Clone()
		config.Certificates = []tls.Certificate{*pair.current.Load().pair}
		if ca != nil {
			config.ClientCAs = ca.current.Load().pool
		}
		return config, nil
	}
	return outer, nil
}
