package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-kratos/kratos/v2/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/certs"
)

// DefaultTimeout is Options.Timeout where it is 0.
const DefaultTimeout = 3 * time.Second

// Options configures a Client. The zero value is gRPC without TLS to an address.
type Options struct {
	// Discovery finds podlink for a target such as discovery:///podlink.
	Discovery registry.Discovery
	// HTTP asks for HTTP instead of gRPC. Redirects are not followed.
	HTTP bool
	// TLS secures the connections. Nil, and without the files below: they are not secured.
	TLS *tls.Config
	// CAFile, CertFile and KeyFile, in PEM, and ServerName secure the connections instead of TLS. The files are read again every 10
	// seconds: new connections use what is in them then, and a file that can't be used changes nothing. CAFile has the CAs that sign
	// podlink's certificate; empty: the system's. CertFile and KeyFile are the certificate that podlink knows the client by; empty: none.
	// ServerName is the name in podlink's certificate; empty: the host of the address.
	CAFile, CertFile, KeyFile, ServerName string
	// TokenFile is a file with the bearer token that proves who calls. It is read again when it is older than a second, and after
	// podlink has refused its token. Without any of TokenFile, Token and Credentials it is DefaultTokenFile, if that file exists and the
	// connections are secured or to this machine.
	TokenFile string
	// Token returns that token. It is called for all calls together, and so at most once a second and once more when podlink has refused
	// a token: it need not cache. Its context ends after Timeout.
	Token func(ctx context.Context) (string, error)
	// Credentials are headers other than a bearer token, such as those for a gateway in front of podlink. With credentials that require
	// transport security New needs TLS.
	//
	// Only one of TokenFile, Token and Credentials may be set. It goes with every call and stream: as metadata over gRPC, as headers
	// over HTTP. A token needs TLS, except to an address of this machine. None of them is part of an error or of a log.
	Credentials credentials.PerRPCCredentials
	// NoProxy makes the client connect to podlink itself. Without it the environment's HTTPS_PROXY, HTTP_PROXY and NO_PROXY apply
	// to gRPC and HTTP as everywhere in Go: set it where podlink is in the client's own cluster, and the proxy is not.
	NoProxy bool
	// Timeout bounds a call with all of its attempts, and each attempt by a third of it; a context that ends earlier goes first.
	// 0 is DefaultTimeout.
	Timeout time.Duration

	files         *certs.Client // of the files; nil: none
	filesInterval time.Duration // between two reads of them; 0: the default
}

// secured reports whether the connections use TLS.
func (o *Options) secured() bool { return o.TLS != nil || o.byFiles() }

// byFiles reports whether the TLS of the connections is that of the files.
func (o *Options) byFiles() bool { return o.CAFile+o.CertFile+o.KeyFile+o.ServerName != "" }

// Client calls podlink. It is safe for concurrent use, and one is enough for a process.
//
// A call that failed is repeated while its time lasts when podlink could not be reached, or could not reach its store; a
// mutation only if it certainly was not carried out. A call that podlink limits waits as long as podlink says, and one whose token is
// refused is repeated once with a token that is read again. What is repeated has a budget for all calls of the client: over time it
// sends at most 10 % more requests than it has calls, or one a second where that is more. The caller's trace goes with a call,
// and nothing else of the request that the caller itself serves.
type Client struct {
	v1.LinkServiceClient
	v1.StateServiceClient
	v1.WorkloadServiceClient

	// reports is for the agents' reports alone. Other calls can't hold them up: they have a connection of their own, which is made
	// with the first of them, and no part in the budget. A report is one attempt, for its agent makes the next one soon.
	reports v1.StateServiceClient
	jobs    v1.FleetServiceClient // of the agents; its other calls are for operators
	retries *retryBudget
	timeout time.Duration
	hangUp  func() error // ends the calls and the connections

	mu     sync.Mutex
	caches []*linkCache // closed with it
	closed bool
}

// New returns a client of the podlink at the target: host:port, any other target of gRPC such as dns:///podlink:9000, or
// discovery:///podlink together with Options.Discovery. It does not wait for podlink; without one, calls fail with
// ErrUnavailable.
func New(target string, o Options) (*Client, error) {
	c, err := open(target, o, DefaultTokenFile)
	if err != nil {
		return nil, fmt.Errorf("podlink: %w", err)
	}
	return c, nil
}

// open is New with another place of the mounted token.
func open(target string, o Options, mounted string) (*Client, error) {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if err := o.complete(target); err != nil {
		return nil, err
	}
	shown, err := o.proof(target, mounted)
	if err != nil {
		return nil, err
	}
	o.Credentials = shown.headers
	closeFiles, err := o.openFiles()
	if err != nil {
		shown.close()
		return nil, err
	}
	calls, hangUp, err := dial(target, o, forCalls)
	if err != nil {
		shown.close()
		closeFiles()
		return nil, err
	}
	reports := &lazyConn{dial: func() (grpc.ClientConnInterface, func() error, error) { return dial(target, o, forReports) }}
	return newClient(calls, reports, o.Timeout, shown, func() error {
		shown.close()
		closeFiles()
		return errors.Join(hangUp(), reports.close())
	}), nil
}

// complete checks the options, and adds what the target says.
func (o *Options) complete(target string) error {
	if o.HTTP && !o.secured() && strings.HasPrefix(target, "https://") {
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	switch {
	case o.Timeout < 0:
		return fmt.Errorf("the timeout must be positive, is %s", o.Timeout)
	case target == "":
		return errors.New("there is no target")
	case strings.HasPrefix(target, "discovery:") && o.Discovery == nil:
		return fmt.Errorf("%s needs Options.Discovery", target)
	case o.TLS != nil && o.byFiles():
		return errors.New("Options.TLS is set, and CAFile, CertFile, KeyFile or ServerName, which are instead of it")
	case (o.CertFile == "") != (o.KeyFile == ""):
		return errors.New("Options.CertFile and Options.KeyFile must both be set, or neither")
	case o.HTTP && o.secured() && strings.HasPrefix(target, "http://"):
		return fmt.Errorf("%s is not secured, and Options.TLS, CAFile, CertFile or ServerName is set", target)
	case o.Discovery != nil:
		o.Discovery = lazyDiscovery{o.Discovery}
	}
	return nil
}

// newClient returns a client whose attempts are carried out by calls, and by reports for reports. hangUp closes both.
func newClient(
	calls, reports grpc.ClientConnInterface, timeout time.Duration, shown proof, hangUp func() error,
) *Client {
	open, shut := context.WithCancel(context.Background())
	retries := new(retryBudget)
	all := conn{calls, timeout, retries, open, shown}
	return &Client{
		LinkServiceClient: v1.NewLinkServiceClient(all), StateServiceClient: v1.NewStateServiceClient(all),
		WorkloadServiceClient: v1.NewWorkloadServiceClient(all),
		jobs:                  v1.NewFleetServiceClient(all),
		reports:               v1.NewStateServiceClient(conn{reports, timeout, nil, open, shown}),
		retries:               retries, timeout: timeout,
		hangUp: sync.OnceValue(func() error { shut(); return hangUp() }),
	}
}

// Close ends the connections, the calls, and what the client's routers and agents have cached. Calls fail with ErrUnavailable
// from then on.
func (c *Client) Close() error {
	err := c.hangUp() // First: no call that is in flight fills a cache that is closed.
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cache := range c.caches {
		cache.close()
	}
	c.caches, c.closed = nil, true
	return err
}

// closing makes Close end the cache.
func (c *Client) closing(cache *linkCache) *linkCache {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		cache.close()
	}
	c.caches = append(c.caches, cache)
	return cache
}
