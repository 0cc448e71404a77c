package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"google.golang.org/grpc/credentials"

	v1 "podlink/api/podlink/v1"
)

// DefaultTokenFile is where New looks for the token when Options has none: the place to mount a service-account token for podlink in
// Kubernetes.
const DefaultTokenFile = "/var/run/secrets/podlink/token" //nolint:gosec // It is a path.

// proof is how a client proves to podlink who it is.
type proof struct {
	headers credentials.PerRPCCredentials // nil: none
	tokens  *tokens                       // what the headers are made of; nil: they are not this package's
	advice  string                        // what to do when podlink does not accept it
}

// proof returns how a client with these options proves who it is. mounted is DefaultTokenFile, except in tests.
func (o *Options) proof(target, mounted string) (proof, error) {
	path := o.TokenFile
	if path == "" && o.Token == nil && o.Credentials == nil && (o.secured() || onThisMachine(target)) && isFile(mounted) {
		path = mounted
	}
	read, name := o.Token, "the token of Options.Token"
	if path != "" {
		read, name = tokenOf(path), "the token file "+path
	}
	switch {
	case o.Token != nil && o.TokenFile != "", o.Credentials != nil && read != nil:
		return proof{}, errors.New("only one of Options.TokenFile, Token and Credentials may be set")
	case read != nil && !o.secured() && !onThisMachine(target):
		return proof{}, fmt.Errorf("%s is sent only over TLS (set Options.CAFile or TLS), or to an address of this machine, as "+
			"127.0.0.1:9000: it would cross the network in plaintext", name)
	case read != nil:
		t := newTokens(read, o.Timeout)
		return proof{bearer{t, name, o.secured()}, t, notAccepted(name)}, nil
	case o.Credentials != nil && o.Credentials.RequireTransportSecurity() && !o.secured():
		return proof{}, errors.New("Options.Credentials require transport security, and neither Options.TLS nor CAFile is set")
	case o.Credentials != nil:
		return proof{headers: callCredentials{o.Credentials}, advice: notAccepted("what Options.Credentials returns")}, nil
	case o.CertFile != "":
		return proof{advice: notAccepted("the client certificate in " + o.CertFile)}, nil
	case o.TLS != nil && (len(o.TLS.Certificates) > 0 || o.TLS.GetClientCertificate != nil):
		return proof{advice: notAccepted("the client certificate of Options.TLS")}, nil
	}
	return proof{advice: "the client has sent no credentials: set Options.TokenFile, Token or a client certificate"}, nil
}

// notAccepted is the advice to a client whose proof podlink refuses.
func notAccepted(of string) string { return "podlink does not accept " + of + ": its log says why" }

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// onThisMachine reports whether the target is an address of this machine, whatever a name server or a registry says.
func onThisMachine(target string) bool {
	scheme, address, ok := strings.Cut(target, "://")
	switch {
	case strings.HasPrefix(target, "unix:"), strings.HasPrefix(target, "unix-abstract:"):
		return true
	case !ok:
		address = target
	case scheme == "http", scheme == "https":
		address, _, _ = strings.Cut(address, "/")
	case scheme == "dns", scheme == "passthrough":
		_, address, _ = strings.Cut(address, "/") // What was before it is the name server.
	default:
		return false
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host = strings.Trim(address, "[]")
	} else if !isPort(port) { // As 127.0.0.1:80@example.org, whose host is the last.
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// close ends the reading of tokens.
func (p proof) close() {
	if p.tokens != nil {
		p.tokens.shut()
	}
}

// renew returns another token than the one that podlink has refused in this attempt; empty: there is none, or that was one already.
func (p proof) renew(ctx context.Context, a *attempt, renewed bool) string {
	token := p.refused(a, a.err)
	switch {
	case token == "":
		return ""
	case renewed:
		p.tokens.failed()
		return ""
	}
	fresh, _ := p.tokens.renew(ctx, token)
	return fresh
}

// refused returns the token that was sent and, as the error says, refused, by podlink or something between; empty: none.
func (p proof) refused(a *attempt, err error) string {
	token := a.token.Load()
	if p.tokens == nil || token == nil || kerrors.FromError(err).Code != http.StatusUnauthorized {
		return ""
	}
	return *token
}

// explain says in the error of an attempt what its reader can do about it.
func (p proof) explain(a *attempt, err error) error {
	advice := ""
	switch {
	case a.unproven.Load():
	case errors.Is(err, ErrUnauthenticated):
		advice = p.advice
	case errors.Is(err, ErrPermissionDenied):
		advice = "no rule of podlink's auth.policy_file permits it to this caller"
	case errors.Is(err, ErrRateLimited):
		advice = "call less often, or raise podlink's auth.rate or server.max_in_flight"
	}
	if advice == "" {
		return err
	}
	explained := kerrors.Clone(kerrors.FromError(err))
	explained.Message += ": " + advice
	return explained
}

// bearer sends a token with each call.
type bearer struct {
	tokens *tokens
	name   string // the option
	secure bool
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (b bearer) RequireTransportSecurity() bool { return b.secure }

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	a := attemptOf(ctx)
	token := a.token.Load()
	if token == nil {
		found, err := b.tokens.get(ctx)
		if err != nil {
			return nil, noCredentials(ctx, b.name, err)
		}
		token = &found
		a.token.Store(token)
	}
	return map[string]string{"authorization": "Bearer " + *token}, nil
}

// callCredentials are credentials whose failures are this package's errors.
type callCredentials struct{ credentials.PerRPCCredentials }

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (c callCredentials) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	headers, err := c.PerRPCCredentials.GetRequestMetadata(ctx, uri...)
	if err != nil {
		return nil, noCredentials(ctx, "what Options.Credentials returns", err)
	}
	return headers, nil
}

// noCredentials is the error of an attempt whose credentials could not be had.
func noCredentials(ctx context.Context, option string, cause error) error {
	attemptOf(ctx).unproven.Store(true)
	return v1.ErrorUnauthenticated("%s can't be had, so the call was not sent", option).WithCause(cause)
}
