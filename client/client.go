package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-kratos/kratos/v2/middleware"
	kmetadata "github.com/go-kratos/kratos/v2/middleware/metadata"
	"github.com/go-kratos/kratos/v2/registry"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"

	v1 "podlink/api/podlink/v1"
)

const (
	// DefaultTimeout bounds a call with all of its tries, where Options does not.
	DefaultTimeout = 3 * time.Second
	// tries is how many times in a row a podlink that hangs is waited for: each try has that part of the time.
	tries = 3
	// redialPause is the longest pause between two attempts to connect. gRPC would let it grow to two minutes.
	redialPause = 2 * time.Second
	// keepaliveTime is how long a connection may be silent before podlink is asked for a sign of life, and keepaliveLimit how
	// long it has to give one.
	keepaliveTime, keepaliveLimit = 10 * time.Second, 3 * time.Second
	// idleConns is how many connections over HTTP are kept for the next calls. Go's default of 2 would open and close them all
	// the time.
	idleConns = 64
)

// Options are how a Client reaches podlink. The zero value is gRPC without TLS to an address.
type Options struct {
	// Discovery finds podlink for a target such as discovery:///podlink.
	Discovery registry.Discovery
	// HTTP asks for HTTP instead of gRPC.
	HTTP bool
	// TLS secures the connections. Nil: they are not.
	TLS *tls.Config
	// Timeout bounds a call with all of its tries, and each try by a third of it; a context that ends earlier goes first. 0 is
	// DefaultTimeout.
	Timeout time.Duration
}

// Client calls podlink. It is safe for concurrent use, and one is enough for a process.
//
// A call that failed is repeated while its time lasts when podlink could not be reached, or could not reach its store; a
// mutation only if it certainly was not carried out. The caller's trace and the Kratos metadata x-md-global-* go with it,
// and nothing else of the request that the caller itself serves.
type Client struct {
	v1.LinkServiceClient
	v1.StateServiceClient
	v1.WorkloadServiceClient

	timeout time.Duration
	hangUp  func() error // ends the calls and the connections

	mu     sync.Mutex
	caches []*linkCache // closed with it
}

// New returns a client of the podlink at the target: host:port, any other target of gRPC such as dns:///podlink:9000, or
// discovery:///podlink together with Options.Discovery. It does not wait for podlink; without one, calls fail with
// ErrUnavailable.
func New(target string, o Options) (*Client, error) {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Timeout < 0 {
		return nil, fmt.Errorf("podlink: the timeout must be positive, is %s", o.Timeout)
	}
	switch {
	case target == "":
		return nil, errors.New("podlink: there is no target")
	case strings.HasPrefix(target, "discovery:") && o.Discovery == nil:
		return nil, fmt.Errorf("podlink: %s needs Options.Discovery", target)
	case o.Discovery != nil:
		o.Discovery = patient{o.Discovery}
	}
	all, hangUp, err := dial(target, o)
	if err != nil {
		return nil, fmt.Errorf("podlink: %w", err)
	}
	return newClient(all, hangUp), nil
}

// newClient returns a client whose calls go through the conn. hangUp ends them, and closes what is behind it.
func newClient(all conn, hangUp func() error) *Client {
	return &Client{
		LinkServiceClient: v1.NewLinkServiceClient(all), StateServiceClient: v1.NewStateServiceClient(all),
		WorkloadServiceClient: v1.NewWorkloadServiceClient(all),
		timeout:               all.timeout, hangUp: hangUp,
	}
}

// Close ends the connections, the calls, and what the client's routers and agents have cached. Calls fail with ErrUnavailable
// from then on.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cache := range c.caches {
		cache.close()
	}
	c.caches = nil
	return c.hangUp()
}

// closing makes Close end the cache.
func (c *Client) closing(cache *linkCache) *linkCache {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.caches = append(c.caches, cache)
	return cache
}

// dial returns what the generated clients call, and what ends its calls and closes its connections.
func dial(target string, o Options) (conn, func() error, error) {
	over := dialGRPC
	if o.HTTP {
		over = dialHTTP
	}
	one, hangUp, err := over(target, o, kmetadata.Client(), propagate)
	if err != nil {
		return conn{}, nil, err
	}
	open, shut := context.WithCancel(context.Background())
	return conn{one, o.Timeout, open}, func() error {
		shut()
		return hangUp()
	}, nil
}

func dialGRPC(target string, o Options, with ...middleware.Middleware) (grpc.ClientConnInterface, func() error, error) {
	options := []kgrpc.ClientOption{
		kgrpc.WithEndpoint(target), kgrpc.WithMiddleware(with...), kgrpc.WithStreamInterceptor(openThrough(with...)),
		kgrpc.WithTimeout(o.Timeout / tries), kgrpc.WithPrintDiscoveryDebugLog(false),
		// Calls go to podlink also while it is not ready: it serves what it can, and its errors have reasons.
		kgrpc.WithHealthCheck(false),
		kgrpc.WithOptions(
			grpc.WithStatsHandler(sentWatcher{}),
			grpc.WithDisableRetry(), // What may be repeated is decided in conn.
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: redialPause / 10, Multiplier: 2, Jitter: .2, MaxDelay: redialPause},
				MinConnectTimeout: redialPause,
			}),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveLimit, PermitWithoutStream: true}),
		),
	}
	if o.Discovery != nil {
		options = append(options, kgrpc.WithDiscovery(o.Discovery))
	}
	dial := kgrpc.DialInsecure
	if o.TLS != nil {
		options, dial = append(options, kgrpc.WithTLSConfig(o.TLS)), kgrpc.Dial
	}
	made, err := dial(context.Background(), options...)
	if err != nil {
		return nil, nil, err
	}
	return made, made.Close, nil
}

func dialHTTP(target string, o Options, with ...middleware.Middleware) (grpc.ClientConnInterface, func() error, error) {
	carrier := http.DefaultTransport.(*http.Transport).Clone()
	carrier.MaxIdleConns, carrier.MaxIdleConnsPerHost = 0, idleConns
	options := []khttp.ClientOption{
		khttp.WithEndpoint(target), khttp.WithMiddleware(with...), khttp.WithTimeout(o.Timeout / tries), khttp.WithTransport(carrier),
	}
	if o.Discovery != nil {
		options = append(options, khttp.WithDiscovery(o.Discovery))
	}
	if o.TLS != nil {
		options = append(options, khttp.WithTLSConfig(o.TLS.Clone())) // net/http adds to it.
	}
	client, err := khttp.NewClient(context.Background(), options...)
	if err != nil {
		return nil, nil, err
	}
	return httpConn{client}, func() error {
		carrier.CloseIdleConnections()
		return client.Close()
	}, nil
}
