package app

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"sync"

	"github.com/go-kratos/kratos/v2/transport"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	khttp "github.com/go-kratos/kratos/v2/transport/http"

	"podlink/internal/conf"
	"podlink/internal/server"
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

// endpointer is a server with an endpoint. Kratos asks for it before the start, unless endpoints are configured.
type endpointer interface {
	transport.Server
	transport.Endpointer
}

// apiListener is a listener with an endpoint for callers. It opens its port itself, to limit the connections.
type apiListener struct {
	listener
	server endpointer
	open   func() error
}

func newHTTPListener(c *conf.Server_HTTP, connections *server.Connections, srv *khttp.Server) apiListener {
	return newAPIListener("http", c.GetAddr(), connections, srv, func(l net.Listener) { khttp.Listener(l)(srv) })
}

func newGRPCListener(c *conf.Server_GRPC, connections *server.Connections, srv *kgrpc.Server) apiListener {
	return newAPIListener("grpc", c.GetAddr(), connections, srv, func(l net.Listener) { kgrpc.Listener(l)(srv) })
}

// newAPIListener returns the listener of a server that takes an open port by use.
func newAPIListener(name, addr string, connections *server.Connections, srv endpointer, use func(net.Listener)) apiListener {
	return apiListener{listener{srv, "server." + name + ".addr"}, srv, sync.OnceValue(func() error {
		opened, err := connections.Listen(context.Background(), name, addr)
		if err != nil {
			return err
		}
		use(opened)
		return nil
	})}
}

// Start implements transport.Server.
func (l apiListener) Start(ctx context.Context) error {
	if err := l.open(); err != nil {
		return l.named(err)
	}
	return l.listener.Start(ctx)
}

// Endpoint implements transport.Endpointer.
func (l apiListener) Endpoint() (*url.URL, error) {
	if err := l.open(); err != nil {
		return nil, l.named(err)
	}
	endpoint, err := l.server.Endpoint()
	return endpoint, l.named(err)
}
