package client

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptrace"
	"path"
	"strings"
	"time"

	"github.com/go-kratos/kratos/v2/encoding"
	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/middleware"
	"github.com/go-kratos/kratos/v2/transport"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
)

func dialHTTP(target string, o Options, use usage) (grpc.ClientConnInterface, func() error, error) {
	carrier := http.DefaultTransport.(*http.Transport).Clone()
	carrier.MaxIdleConns, carrier.MaxIdleConnsPerHost = 0, idleConns
	if o.NoProxy {
		carrier.Proxy = nil
	}
	with := []middleware.Middleware{propagate}
	if o.Credentials != nil {
		with = append(with, authorize(o.Credentials, o.secured()))
	}
	over := carrying(carrier, o)
	options := []khttp.ClientOption{
		khttp.WithEndpoint(target), khttp.WithMiddleware(with...), khttp.WithTransport(noRedirects{over}),
		khttp.WithRequestEncoder(encodeBody), khttp.WithTimeout(0), // net/http would need a goroutine for it.
	}
	if o.Discovery != nil {
		options = append(options, khttp.WithDiscovery(o.Discovery))
	}
	if o.secured() { // Kratos wants to know it, and gives the configuration to no transport but net/http's.
		options = append(options, khttp.WithTLSConfig(&tls.Config{MinVersion: tls.VersionTLS12}))
	}
	client, err := khttp.NewClient(context.Background(), options...)
	if err != nil {
		return nil, nil, err
	}
	return httpConn{client, o.Timeout / time.Duration(use.attempts)}, func() error {
		over.CloseIdleConnections()
		return client.Close()
	}, nil
}

// idleCloser is an http.RoundTripper with idle connections.
type idleCloser interface {
	http.RoundTripper
	CloseIdleConnections()
}

// carrying returns the carrier with the TLS of the options.
func carrying(carrier *http.Transport, o Options) idleCloser {
	switch {
	case o.files != nil:
		return o.files.Transport(carrier)
	case o.TLS != nil:
		carrier.TLSClientConfig = o.TLS.Clone() // net/http adds to it.
	}
	return carrier
}

// httpConn carries out calls over HTTP.
type httpConn struct {
	client  *khttp.Client
	timeout time.Duration // of an attempt
}

// Invoke implements grpc.ClientConnInterface.
func (c httpConn) Invoke(ctx context.Context, method string, request, reply any, _ ...grpc.CallOption) error {
	op := operations[method]
	url, err := op.path(request.(proto.Message))
	if err != nil {
		return err
	}
	var body any
	if op.body {
		body = request
	}
	ctx, cancel := context.WithTimeout(watchStage(ctx), c.timeout)
	defer cancel()
	return c.client.Invoke(ctx, op.method, url, body, reply, khttp.Operation(method), khttp.PathTemplate(op.template))
}

// watchStage returns a context whose attempt notes how far it has come.
func watchStage(ctx context.Context) context.Context {
	a := attemptOf(ctx)
	if a == nil {
		return ctx
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// Go takes another connection for a mutation only when nothing went over the one before.
		GetConn: func(string) { a.stage.Store(stageSeeking) },
		GotConn: func(httptrace.GotConnInfo) { a.stage.Store(stageSent) },
	})
}

// encodeBody is Kratos' encoder, which refuses what podlink would not read.
func encodeBody(_ context.Context, _ string, in any) ([]byte, error) {
	body, err := encoding.GetCodec("json").Marshal(in)
	if err != nil {
		if field := notText(in.(proto.Message)); field != "" {
			return nil, malformed(field, "must be valid UTF-8")
		}
		return nil, withCause(ErrInvalidArgument, err)
	}
	if len(body) > maxRequestBytes {
		return nil, tooLarge(len(body))
	}
	return body, nil
}

// authorize adds the headers of the credentials to a call over HTTP, as gRPC does by itself.
func authorize(with credentials.PerRPCCredentials, secure bool) middleware.Middleware {
	return func(next middleware.Handler) middleware.Handler {
		return func(ctx context.Context, request any) (any, error) {
			t, _ := transport.FromClientContext(ctx) // Kratos puts it into every context.
			info := credentials.RequestInfo{Method: t.Operation()}
			if secure {
				info.AuthInfo = credentials.TLSInfo{
					CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
				}
			}
			audience := "https://" + t.(*khttp.Transport).Request().URL.Host + path.Dir(t.Operation())
			headers, err := with.GetRequestMetadata(credentials.NewContextWithRequestInfo(ctx, info), audience)
			if err != nil {
				return nil, err
			}
			for name, value := range headers {
				t.RequestHeader().Set(name, value)
			}
			return next(ctx, request)
		}
	}
}

// noRedirects makes an answer that leads elsewhere an error. net/http would make a GET of a mutation, whose answer looks like a
// success, and would show the credentials there.
type noRedirects struct{ carrier http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (r noRedirects) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := r.carrier.RoundTrip(request)
	if err != nil || response.StatusCode < 300 || response.StatusCode > 399 {
		return response, err
	}
	_ = response.Body.Close()
	to, _, _ := strings.Cut(response.Header.Get("Location"), "?")
	return nil, kerrors.Newf(response.StatusCode, kerrors.UnknownReason, "the target of the client answers with a redirect to %q", to)
}
