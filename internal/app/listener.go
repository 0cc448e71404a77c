package app

import (
	"context"
	"fmt"
	"net/url"

	"github.com/go-kratos/kratos/v2/transport"
)

// listener is a server whose failures name the key of its address: "address already in use" names no port's owner.
type listener struct {
	transport.Server
	key string
}

// Start implements transport.Server.
func (l listener) Start(ctx context.Context) error { return l.named(l.Server.Start(ctx)) }

func (l listener) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", l.key, err)
}

// endpointer is a server with an endpoint. Kratos asks for it before the start, and opens the port for it.
type endpointer interface {
	transport.Server
	transport.Endpointer
}

// apiListener is a listener with an endpoint for callers.
type apiListener struct {
	listener
	server endpointer
}

func newAPIListener(key string, server endpointer) apiListener {
	return apiListener{listener{server, key}, server}
}

// Endpoint implements transport.Endpointer.
func (l apiListener) Endpoint() (*url.URL, error) {
	endpoint, err := l.server.Endpoint()
	return endpoint, l.named(err)
}
