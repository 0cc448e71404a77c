package e2e

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
	tlstest "podlink/test/kit/tls"
)

// identity is a caller.
type identity struct {
	name    string
	kind    string // of its proof: token, jwt, kubernetes, spiffe, dns; empty: it has none
	unknown bool   // podlink does not know its token
	pod     string // that the proof names
	rule    string // the rule that it has, without who; empty: none
	role    string
	// What its rule lacks: this service; links without an end; force.
	elsewhere, temporary, gentle bool
}

const (
	game    = "namespaces: [game], services: [chat]"
	chatPod = "role: pod, " + game + `, pod_name: "chat-{ordinal}"`
)

// identities are callers of a podlink that takes SPIFFE ids.
var identities = []identity{
	{name: "nobody"},
	{name: "stranger", kind: "token", unknown: true},
	{name: "guest", kind: "token"},
	{name: "reader", kind: "jwt", rule: "role: reader, " + game, role: "reader"},
	{name: "caller", kind: "spiffe", rule: "role: caller, " + game, role: "caller"},
	{name: "caller-temporary", kind: "kubernetes", rule: "role: caller, persistent: false, " + game, role: "caller", temporary: true},
	{name: "binder", kind: "spiffe", rule: "role: binder, " + game, role: "binder"},
	{name: "pod", kind: "kubernetes", pod: "chat-2", rule: chatPod, role: "pod"},
	{name: "another-pod", kind: "token", pod: "chat-3", rule: chatPod, role: "pod"},
	{name: "pod-without-proof", kind: "token", rule: chatPod},
	{name: "pod-of-another", kind: "kubernetes", pod: "room-2", rule: chatPod},
	{name: "operator", kind: "jwt", rule: "role: operator, " + game, role: "operator"},
	{name: "operator-gentle", kind: "spiffe", rule: "role: operator, force: false, " + game, role: "operator", gentle: true},
	{name: "admin", kind: "token", rule: `role: admin, namespaces: ["*"], services: ["*"]`, role: "admin"},
	{name: "admin-elsewhere", kind: "jwt", rule: `role: admin, namespaces: [other], services: ["*"]`, role: "admin", elsewhere: true},
	{name: "admin-of-another", kind: "token", rule: "role: admin, namespaces: [game], services: [room]", role: "admin", elsewhere: true},
}

// identitiesOfDNS are callers of a podlink that takes DNS names.
var identitiesOfDNS = []identity{
	{name: "guest", kind: "dns"},
	{name: "reader", kind: "dns", rule: "role: reader, " + game, role: "reader"},
	{name: "caller", kind: "dns", rule: "role: caller, " + game, role: "caller"},
	{name: "pod-without-proof", kind: "token", rule: chatPod},
	{name: "operator", kind: "dns", rule: "role: operator, " + game, role: "operator"},
	{name: "admin", kind: "dns", rule: `role: admin, namespaces: ["*"], services: ["*"]`, role: "admin"},
}

// who returns the caller's name in policies.
func (i identity) who() string {
	return map[string]string{
		"token": "token:" + i.name, "jwt": "jwt:people:" + i.name, "kubernetes": "jwt:cluster:system:serviceaccount:games:" + i.name,
		"spiffe": "spiffe://example.org/" + i.name, "dns": "dns:" + i.name + ".example.org",
	}[i.kind]
}

// doorTexts are the texts of a tokens file and a policy.
type doorTexts struct{ tokens, policy string }

// textsOf returns the texts in which podlink finds the identities.
func textsOf(list []identity) doorTexts {
	texts := doorTexts{"[]", "rules:\n"}
	for _, who := range list {
		if who.kind == "token" && !who.unknown {
			sum := sha256.Sum256([]byte(secret(who.name)))
			texts.tokens = strings.TrimPrefix(texts.tokens, "[]") + fmt.Sprintf("- {name: %s, sha256: %s, pod: %q, not_after: 2099-01-01}\n",
				who.name, hex.EncodeToString(sum[:]), who.pod)
		}
		if who.rule != "" {
			texts.policy += fmt.Sprintf("  - {who: [%q], %s}\n", who.who(), who.rule)
		}
	}
	return texts
}

// guardTexts are those in which each of identities has a static token.
func guardTexts() doorTexts {
	var list []identity
	for _, who := range identities {
		if who.kind != "" {
			who.kind = "token"
			list = append(list, who)
		}
	}
	return textsOf(list)
}

// guardedPodlink starts a podlink in which each of identities has a static token. The API is served in plaintext.
func guardedPodlink(t *testing.T, env ...string) *podlinktest.Process {
	t.Helper()
	texts := guardTexts()
	path := files(t, map[string]string{"tokens.yaml": texts.tokens, "policy.yaml": texts.policy})
	p := start(t, append([]string{
		"PODLINK_AUTH_MODE=required", "PODLINK_AUTH_RATE=1000000", "PODLINK_AUDIT_FILE=" + path("audit.log"),
		"PODLINK_AUTH_TOKENS_FILE=" + path("tokens.yaml"), "PODLINK_AUTH_POLICY_FILE=" + path("policy.yaml"),
	}, env...)...)
	p.WaitReady(t)
	return p
}

// guarded is a podlink with auth.mode required.
type guarded struct {
	*podlinktest.Process

	t       *testing.T
	callers map[string]*caller
}

// caller calls podlink as an identity.
type caller struct {
	t             *testing.T
	base          string // of podlink's URLs
	authorization string // empty: none
	conn          *grpc.ClientConn
	client        *http.Client
}

func (g *guarded) caller(name string) *caller {
	g.t.Helper()
	require.Contains(g.t, g.callers, name)
	return g.callers[name]
}

// as returns a context for calls as an identity that has a bearer.
func (g *guarded) as(name string) context.Context {
	g.t.Helper()
	authorization := g.caller(name).authorization
	require.NotEmpty(g.t, authorization)
	return metadata.AppendToOutgoingContext(g.t.Context(), "authorization", authorization)
}

// startGuarded starts a podlink that knows the identities, by a policy with their rules. The API is served over TLS.
func startGuarded(t *testing.T, list []identity) *guarded {
	t.Helper()
	ca := newCA(t)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	texts, domain := textsOf(list), ""
	if slices.ContainsFunc(list, func(who identity) bool { return who.kind == "spiffe" }) {
		domain = "example.org"
	}
	keys := fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","x":%q}]}`, base64.RawURLEncoding.EncodeToString(public))
	listener := fmt.Sprintf("{enabled: true, cert_file: %s, key_file: %s, client_ca_file: %s, client_auth: optional}",
		ca.Path("server.crt"), ca.Path("server.key"), ca.Path("ca.crt"))
	dir := t.TempDir()
	for name, text := range map[string]string{
		"tokens.yaml": texts.tokens, "policy.yaml": texts.policy, "keys.json": keys,
		// A machine that is busy with other tests must not fail a call.
		"podlink.yaml": fmt.Sprintf(`
server:
  http: {timeout: 30s, tls: %[1]s}
  grpc: {timeout: 30s, tls: %[1]s}
data:
  redis: {read_timeout: 20s, write_timeout: 20s, pool_timeout: 20s, dial_timeout: 20s}
auth:
  mode: required
  policy_file: %[2]s/policy.yaml
  tokens_file: %[2]s/tokens.yaml
  rate: 1000000
  mtls: {trust_domain: %[3]q}
  issuers:
  - {name: people, issuer: "https://people.example", audiences: [podlink], jwks_file: %[2]s/keys.json}
  - {name: cluster, issuer: "https://cluster.example", audiences: [podlink], jwks_file: %[2]s/keys.json}
audit: {file: %[2]s/audit.log}
`, listener, dir, domain),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	g := &guarded{podlinktest.StartWith(t, binary, filepath.Join(dir, "podlink.yaml")), t, make(map[string]*caller)}
	g.WaitReady(t)
	for _, who := range list {
		g.callers[who.name] = g.enter(who, ca, private)
	}
	return g
}

// secret is the static token of a caller, as long as tokens must be.
func secret(name string) string { return name + "-" + strings.Repeat("0123456789abcdef", 4) }

// enter makes what an identity proves itself with.
func (g *guarded) enter(who identity, ca *tlstest.Authority, key ed25519.PrivateKey) *caller {
	g.t.Helper()
	c := &caller{t: g.t, base: "https://" + g.HTTP}
	config := &tls.Config{RootCAs: ca.Pool(), MinVersion: tls.VersionTLS13}
	now := time.Now()
	claims := jwt.MapClaims{
		"iss": "https://people.example", "aud": "podlink", "sub": who.name, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	switch who.kind {
	case "token":
		c.authorization = "Bearer " + secret(who.name)
	case "kubernetes":
		claims["iss"], claims["sub"] = "https://cluster.example", "system:serviceaccount:games:"+who.name
		claims["kubernetes.io"] = map[string]any{
			"namespace": "games", "pod": map[string]any{"name": who.pod}, "serviceaccount": map[string]any{"name": who.name},
		}
		fallthrough
	case "jwt":
		token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims)
		token.Header["kid"] = "1"
		text, err := token.SignedString(key)
		require.NoError(g.t, err)
		c.authorization = "Bearer " + text
	case "spiffe", "dns":
		template := &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		if who.kind == "dns" {
			template.DNSNames = []string{strings.TrimPrefix(who.who(), "dns:")}
		} else {
			id, err := url.Parse(who.who())
			require.NoError(g.t, err)
			template.URIs = []*url.URL{id}
		}
		ca.Issue(g.t, who.name, template)
		pair, err := tls.LoadX509KeyPair(ca.Path(who.name+".crt"), ca.Path(who.name+".key"))
		require.NoError(g.t, err)
		config.Certificates = []tls.Certificate{pair}
	}
	var err error
	c.conn, err = grpc.NewClient(g.GRPC, grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithDisableRetry())
	require.NoError(g.t, err)
	transport := &http.Transport{TLSClientConfig: config.Clone()}
	c.client = &http.Client{Transport: transport}
	g.t.Cleanup(func() {
		transport.CloseIdleConnections()
		require.NoError(g.t, c.conn.Close())
	})
	return c
}

// about returns the request in JSON, with the namespace and the service.
func about(t *testing.T, method protoreflect.MethodDescriptor, text string) proto.Message {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(method.Input().FullName())
	require.NoError(t, err)
	message := kind.New()
	require.NoError(t, protojson.Unmarshal([]byte(text), message.Interface()))
	for name, value := range map[protoreflect.Name]string{"namespace": "game", "service": "chat"} {
		if field := method.Input().Fields().ByName(name); field != nil {
			message.Set(field, protoreflect.ValueOfString(value))
		}
	}
	return message.Interface()
}

// overGRPC calls a method.
func (c *caller) overGRPC(method protoreflect.MethodDescriptor, text string) (proto.Message, error) {
	c.t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(method.Output().FullName())
	require.NoError(c.t, err)
	ctx, reply := c.t.Context(), kind.New().Interface()
	if c.authorization != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", c.authorization)
	}
	if method.IsStreamingServer() {
		return reply, c.firstMessage(ctx, method, about(c.t, method, text), reply)
	}
	return reply, c.conn.Invoke(ctx, v1.Operation(method), about(c.t, method, text), reply)
}

// firstMessage calls a method that answers a stream, and leaves after the first message.
func (c *caller) firstMessage(ctx context.Context, method protoreflect.MethodDescriptor, request, reply proto.Message) error {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	stream, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, v1.Operation(method))
	require.NoError(c.t, err)
	require.NoError(c.t, stream.SendMsg(request))
	require.NoError(c.t, stream.CloseSend())
	return stream.RecvMsg(reply)
}

var pathVariables = regexp.MustCompile(`\{\w+\}`)

// overHTTP calls a method by the first binding of its annotation.
func (c *caller) overHTTP(method protoreflect.MethodDescriptor, text string) error {
	t := c.t
	t.Helper()
	content, err := protojson.Marshal(about(t, method, text))
	require.NoError(t, err)
	var fields map[string]any
	require.NoError(t, json.Unmarshal(content, &fields))
	rule := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
	var verb, template string
	for name, path := range map[string]string{
		http.MethodGet: rule.GetGet(), http.MethodPut: rule.GetPut(), http.MethodPost: rule.GetPost(), http.MethodDelete: rule.GetDelete(),
	} {
		if path != "" {
			verb, template = name, path
		}
	}
	path := pathVariables.ReplaceAllStringFunc(template, func(variable string) string {
		name := method.Input().Fields().ByTextName(strings.Trim(variable, "{}")).JSONName()
		defer delete(fields, name)
		return url.PathEscape(fmt.Sprint(fields[name]))
	})
	body, query := []byte(nil), url.Values{}
	if rule.GetBody() == "*" {
		body, err = json.Marshal(fields)
		require.NoError(t, err)
	} else {
		for name, value := range fields {
			query.Set(name, fmt.Sprint(value))
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), verb, c.base+path+"?"+query.Encode(), bytes.NewReader(body))
	require.NoError(t, err)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.authorization != "" {
		r.Header.Set("Authorization", c.authorization)
	}
	response, err := c.client.Do(r)
	require.NoError(t, err)
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK { // A stream does not end by itself.
		return nil
	}
	content, err = io.ReadAll(response.Body)
	require.NoError(t, err)
	var problem struct {
		Code            int
		Reason, Message string
	}
	require.NoError(t, json.Unmarshal(content, &problem), "%s", content)
	require.Equal(t, response.StatusCode, problem.Code)
	return kerrors.New(problem.Code, problem.Reason, problem.Message)
}
