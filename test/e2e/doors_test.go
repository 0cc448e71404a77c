package e2e

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

const aliceChat = "/v1/namespaces/game/links/alice/services/chat"

// as returns a context with the token of a caller of the matrix.
func as(ctx context.Context, name string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+secret(name))
}

// ask sends an HTTP request with Authorization headers.
func ask(t *testing.T, method, address string, authorization ...string) (code int, header http.Header, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, address, http.NoBody)
	require.NoError(t, err)
	request.Header["Authorization"] = authorization
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, response.Header, string(text)
}

// files writes files, and returns their paths by name.
func files(t *testing.T, texts map[string]string) func(name string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range texts {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return func(name string) string { return filepath.Join(dir, name) }
}

// TestRefusedBeforeTheBodyArrives: a stranger's call is refused at once, even if its body of 1 MiB never comes.
func TestRefusedBeforeTheBodyArrives(t *testing.T) {
	t.Parallel()
	p := guardedPodlink(t)
	for name, header := range map[string]string{"nobody": "", "a stranger": "Authorization: Bearer " + secret("unknown") + "\r\n"} {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.HTTP)
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
		begin := time.Now()
		_, err = io.WriteString(conn, "PUT "+aliceChat+" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"+header+
			"Content-Length: 1048576\r\n\r\n")
		require.NoError(t, err)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err, name)
		require.Equal(t, http.StatusUnauthorized, response.StatusCode, name)
		require.Equal(t, "Bearer", response.Header.Get("WWW-Authenticate"), name)
		require.True(t, response.Close, "the connection ends: nothing more of the body is read")
		require.Less(t, time.Since(begin), 4*time.Second, "podlink waits for a body for 5 s")
		require.NoError(t, response.Body.Close())
		require.NoError(t, conn.Close())
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := p.Conn(t).NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, v1.OperationLinkServiceSetLinkedPod)
	require.NoError(t, err)
	require.Equal(t, codes.Unauthenticated, status.Code(stream.RecvMsg(new(v1.SetLinkedPodReply))))
}

// TestOneTextForStrangers: whoever is not known gets the same answer, however they are wrong, over both transports.
func TestOneTextForStrangers(t *testing.T) {
	t.Parallel()
	p := guardedPodlink(t)
	links := v1.NewLinkServiceClient(p.Conn(t))
	texts := make(map[string]bool)
	for name, authorization := range map[string][]string{
		"nothing": nil, "unknown": {"Bearer " + secret("unknown")}, "short": {"Bearer x"}, "empty": {"Bearer "}, "no scheme": {secret("reader")},
		"two":       {"Bearer " + secret("reader"), "Bearer " + secret("reader")},
		"in one":    {"Bearer " + secret("reader") + ", Bearer " + secret("caller")},
		"Basic too": {"Bearer " + secret("reader"), "Basic cmVhZGVyOg=="},
		"a JWT":     {"Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJyZWFkZXIifQ."},
	} {
		code, header, body := ask(t, http.MethodGet, "http://"+p.HTTP+aliceChat, authorization...)
		require.Equal(t, http.StatusUnauthorized, code, name)
		require.Equal(t, "Bearer", header.Get("WWW-Authenticate"), name)
		var reply struct{ Message string }
		require.NoError(t, json.Unmarshal([]byte(body), &reply))
		texts[reply.Message] = true
		ctx := t.Context()
		for _, value := range authorization {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", value)
		}
		_, err := links.GetLinkedPod(ctx, &v1.GetLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "chat"})
		require.Equal(t, codes.Unauthenticated, status.Code(err), name)
		texts[status.Convert(err).Message()] = true
	}
	require.Len(t, texts, 1)
	require.EqualValues(t, 18, count(t, p, `server_requests_code_total{code="401",`))
	require.EqualValues(t, 18, count(t, p, `podlink_refusals_total{by="authentication"}`))
	code, _, _ := ask(t, http.MethodGet, "http://"+p.HTTP+"/unknown")
	require.Equal(t, http.StatusUnauthorized, code, "who is not known does not learn which paths there are")

	health := grpc_health_v1.NewHealthClient(p.Conn(t))
	reply, err := health.Check(t.Context(), new(grpc_health_v1.HealthCheckRequest))
	require.NoError(t, err, "probes need no credentials")
	require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, reply.GetStatus())
	for name, call := range map[string]func(ctx context.Context) error{
		"Watch": func(ctx context.Context) error {
			watch, err := health.Watch(ctx, new(grpc_health_v1.HealthCheckRequest))
			require.NoError(t, err)
			_, err = watch.Recv()
			return err
		},
		"List": func(ctx context.Context) error {
			_, err := health.List(ctx, new(grpc_health_v1.HealthListRequest))
			return err
		},
	} {
		require.Equal(t, codes.Unauthenticated, status.Code(call(t.Context())), name)
		require.NoError(t, call(as(t.Context(), "guest")), name)
	}
}

// count sums the series of podlink's metrics that begin with a text.
func count(t *testing.T, p *podlinktest.Process, begin string) (sum float64) {
	t.Helper()
	_, _, page := ask(t, http.MethodGet, "http://"+p.Admin+"/metrics")
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, begin) {
			n, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]), 64)
			require.NoError(t, err)
			sum += n
		}
	}
	return sum
}

// TestCertificateAndToken: with both, both must be valid, and the token names the caller.
func TestCertificateAndToken(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	spiffe, err := url.Parse("spiffe://podlink.test/router")
	require.NoError(t, err)
	for name, template := range map[string]*x509.Certificate{
		"router": {URIs: []*url.URL{spiffe}}, "nameless": {},
	} {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		ca.Issue(t, name, template)
	}
	written := guardTexts()
	path := files(t, map[string]string{
		"tokens.yaml": written.tokens,
		"policy.yaml": "rules:\n- who: [\"token:reader\", \"spiffe://podlink.test/router\"]\n" +
			"  role: reader\n  namespaces: [game]\n  services: [chat]\n",
	})
	env := []string{
		"PODLINK_AUTH_MODE=required", "PODLINK_AUTH_TOKENS_FILE=" + path("tokens.yaml"), "PODLINK_AUTH_POLICY_FILE=" + path("policy.yaml"),
		"PODLINK_AUTH_MTLS_TRUST_DOMAIN=podlink.test", "PODLINK_AUDIT_FILE=" + path("audit.log"),
	}
	p := start(t, append(env, listenerTLS("GRPC", ca, "optional")...)...)
	p.WaitReady(t)
	for name, row := range map[string]struct {
		certificate, token string
		want               codes.Code
		caller             string // in the audit log, by a call that it may not make
	}{
		"nothing":                             {"", "", codes.Unauthenticated, ""},
		"a certificate":                       {"router", "", codes.OK, "spiffe://podlink.test/router"},
		"a token":                             {"", "reader", codes.OK, "token:reader"},
		"both":                                {"router", "reader", codes.OK, "token:reader"},
		"a certificate and an unknown token":  {"router", "unknown", codes.Unauthenticated, ""},
		"a certificate without a name":        {"nameless", "", codes.Unauthenticated, ""},
		"a token and a certificate of no one": {"nameless", "reader", codes.Unauthenticated, ""},
	} {
		t.Run(name, func(t *testing.T) {
			config := calling(t, ca, nil)
			if row.certificate != "" {
				config = showing(t, ca, ca, row.certificate)
			}
			conn, err := grpc.NewClient(p.GRPC, grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithDisableRetry())
			require.NoError(t, err)
			defer conn.Close()
			ctx := t.Context()
			if row.token != "" {
				ctx = as(ctx, row.token)
			}
			links := v1.NewLinkServiceClient(conn)
			_, err = links.GetLinkedPod(ctx, &v1.GetLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "chat"})
			require.Equal(t, row.want, status.Code(err), err)
			if row.caller == "" {
				return
			}
			_, err = links.RemoveLinkedPod(ctx, &v1.RemoveLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "chat"})
			require.Equal(t, codes.PermissionDenied, status.Code(err))
			require.Eventually(t, func() bool {
				text, err := os.ReadFile(path("audit.log"))
				return err == nil && strings.Contains(string(text), row.caller)
			}, patience, 10*time.Millisecond)
		})
	}
}

// TestRates: a caller that has spent its rate waits, the other pods of its identity do not, and it can still report.
func TestRates(t *testing.T) {
	t.Parallel()
	written := guardTexts()
	path := files(t, map[string]string{
		"tokens.yaml": written.tokens,
		"policy.yaml": "rules:\n- {who: [\"token:*\"], role: operator, namespaces: [game], services: [chat], rate: 1}\n",
	})
	p := start(t, "PODLINK_AUTH_MODE=required", "PODLINK_AUTH_TOKENS_FILE="+path("tokens.yaml"),
		"PODLINK_AUTH_POLICY_FILE="+path("policy.yaml"))
	p.WaitReady(t)
	conn := p.Conn(t)
	links, pods := v1.NewLinkServiceClient(conn), v1.NewStateServiceClient(conn)
	get := func(name string) error {
		_, err := links.GetLinkedPod(as(t.Context(), name), &v1.GetLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "chat"})
		return err
	}
	// A list costs 50: at one a second the caller is in debt for as many seconds.
	_, err := links.ListLinkedServices(as(t.Context(), "pod"), &v1.ListLinkedServicesRequest{Namespace: "game", Uid: "alice"})
	require.NoError(t, err)
	err = get("pod")
	require.Equal(t, codes.ResourceExhausted, status.Code(err), err)
	wait, err := strconv.Atoi(kerrors.FromError(err).Metadata["retry_after_ms"])
	require.NoError(t, err)
	require.Greater(t, wait, 20_000)
	require.LessOrEqual(t, wait, 50_000)
	code, header, _ := ask(t, http.MethodGet, "http://"+p.HTTP+aliceChat, "Bearer "+secret("pod"))
	require.Equal(t, http.StatusTooManyRequests, code, "the transports share the rate")
	seconds, err := strconv.Atoi(header.Get("Retry-After"))
	require.NoError(t, err)
	require.Greater(t, seconds, 20)

	require.NoError(t, get("another-pod"))
	_, err = pods.SetServiceState(as(t.Context(), "pod"), &v1.SetServiceStateRequest{
		Namespace: "game", Service: "chat", PodId: proto.Int32(2), State: "up",
	})
	require.NoError(t, err, "overload makes no pod look dead")
	require.NotZero(t, count(t, p, `podlink_refusals_total{by="rate"}`))
}

// TestOperatorsOfTheAdminListener: probes and metrics are open; what operators have is theirs.
func TestOperatorsOfTheAdminListener(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	written := guardTexts()
	path := files(t, map[string]string{"tokens.yaml": written.tokens, "policy.yaml": written.policy})
	required := []string{
		"PODLINK_AUTH_MODE=required", "PODLINK_AUTH_TOKENS_FILE=" + path("tokens.yaml"), "PODLINK_AUTH_POLICY_FILE=" + path("policy.yaml"),
		"PODLINK_AUDIT_FILE=" + path("audit.log"),
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: calling(t, ca, nil), DisableKeepAlives: true}, Timeout: patience}
	for name, row := range map[string]struct {
		env     []string
		scheme  string
		codes   map[string]int // caller -> status of the operators' routes
		reasons string
	}{
		"off, on loopback": {[]string{"PODLINK_SERVER_ADMIN_PPROF=true"}, "http", map[string]int{"": 200}, ""},
		"off, beyond loopback": {
			[]string{"PODLINK_SERVER_ADMIN_ADDR=0.0.0.0:0", "PODLINK_DATA_REDIS_ALLOW_EMBEDDED=true"}, "http", map[string]int{"": 403},
			"only for an admin listener on loopback",
		},
		"required, without TLS": {required, "http", map[string]int{"": 403, "admin": 403}, "this needs TLS"},
		"required": {
			append(append(required, "PODLINK_SERVER_ADMIN_PPROF=true"), listenerTLS("ADMIN", ca, "none")...), "https",
			map[string]int{"": 401, "unknown": 401, "operator": 403, "pod": 403, "admin": 200}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, row.env...)
			_, port, err := net.SplitHostPort(p.Admin)
			require.NoError(t, err)
			do := func(method, path, token, body string) (int, string) {
				request, err := http.NewRequestWithContext(t.Context(), method, row.scheme+"://127.0.0.1:"+port+path, strings.NewReader(body))
				require.NoError(t, err)
				if token != "" {
					request.Header.Set("Authorization", "Bearer "+secret(token))
				}
				response, err := client.Do(request)
				require.NoError(t, err)
				defer response.Body.Close()
				text, err := io.ReadAll(response.Body)
				require.NoError(t, err)
				return response.StatusCode, string(text)
			}
			for _, open := range []string{"/healthz", "/metrics"} {
				code, _ := do(http.MethodGet, open, "", "")
				require.Equal(t, http.StatusOK, code, open)
			}
			require.Eventually(t, func() bool {
				code, _ := do(http.MethodGet, "/readyz", "", "")
				return code == http.StatusOK
			}, patience, 10*time.Millisecond)
			for caller, want := range row.codes {
				code, text := do(http.MethodGet, "/loglevel", caller, "")
				require.Equal(t, want, code, caller)
				code, changed := do(http.MethodPut, "/loglevel", caller, `{"level":"debug"}`)
				require.Equal(t, want, code, caller)
				if want == http.StatusOK {
					require.JSONEq(t, `{"level":"debug"}`, changed)
				} else {
					require.Contains(t, text, row.reasons)
				}
				if strings.Contains(strings.Join(row.env, " "), "PPROF") {
					code, _ = do(http.MethodGet, "/debug/pprof/cmdline", caller, "")
					require.Contains(t, []int{want, http.StatusNotFound}, code, "the command line is no one's")
					code, _ = do(http.MethodGet, "/debug/pprof/goroutine?debug=2", caller, "")
					require.Equal(t, want, code, caller)
				}
			}
		})
	}
	text, err := os.ReadFile(path("audit.log"))
	require.NoError(t, err)
	require.Regexp(t, `"token:admin".*"loglevel"|"loglevel".*"token:admin"`, string(text))
	require.Regexp(t, `"token:operator".*"PERMISSION_DENIED"|"PERMISSION_DENIED".*"token:operator"`, string(text))
}

// TestOpenToTheNetwork: a podlink that is open to the network on purpose says so, and others do not.
func TestOpenToTheNetwork(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	p := start(t, append(onRedis(redis), "PODLINK_SERVER_HTTP_ADDR=0.0.0.0:0", "PODLINK_AUTH_ALLOW_INSECURE=true")...)
	p.Log.Wait(t, `WARN.*auth.mode is off and podlink listens beyond loopback \(server.http.addr 0.0.0.0:0\): everyone`)
	require.EqualValues(t, 1, p.Metric(t, "podlink_auth_insecure"))
	p = start(t, onRedis(redis)...)
	p.WaitReady(t)
	require.Zero(t, p.Metric(t, "podlink_auth_insecure"))
	require.NotContains(t, p.Log.String(), "beyond loopback")
	require.Contains(t, p.Log.String(), `"auth":"off"`)
	p = guardedPodlink(t, "PODLINK_SERVER_ADMIN_ADDR=127.0.0.1:0")
	require.Zero(t, p.Metric(t, "podlink_auth_insecure"))
	require.Contains(t, p.Log.String(), `"auth":"required"`)
}

// TestUnusableDoors: what decides who may do what is read before the start, and by -check, which say the same and nothing of what
// is in the files.
func TestUnusableDoors(t *testing.T) {
	t.Parallel()
	written := guardTexts()
	path := files(t, map[string]string{
		"tokens": written.tokens, "policy": written.policy, "empty": "", "no-rules": "rules: []\n", "a-token": secret("reader"),
		"plain-token": "- {name: reader, token: " + secret("reader") + "}\n", "wrong-role": "rules: [{who: [\"*\"], role: root}]\n",
		"no-value": "rules:\n- {who: [\"token:reader\"], role: operator, namespaces: [game], services: [chat], force: }\n",
	})
	for name, row := range map[string]struct {
		policy, tokens string
		want           string
	}{
		"no policy file":         {"absent", "tokens", `auth\.policy_file: .*absent: no such file`},
		"an empty policy":        {"empty", "tokens", `auth\.policy_file: .*empty: must have rules`},
		"a policy without rules": {"no-rules", "tokens", `auth\.policy_file: .*no-rules: must have rules`},
		"an unknown role":        {"wrong-role", "tokens", `auth\.policy_file: .*wrong-role: rules\[0\]\.role must be`},
		"a key without a value":  {"no-value", "tokens", `auth\.policy_file: .*no-value: line 2 has a key without a value`},
		"no tokens file":         {"policy", "absent", `auth\.tokens_file: .*absent: no such file`},
		"an empty tokens file":   {"policy", "empty", `auth\.tokens_file: .*empty: `},
		"a token as the file":    {"policy", "a-token", `auth\.tokens_file: .*a-token: `},
		"tokens in plain":        {"policy", "plain-token", `auth\.tokens_file: .*plain-token: `},
		"a policy of tokens":     {"tokens", "tokens", `auth\.policy_file: .*tokens: `},
	} {
		t.Run(name, func(t *testing.T) {
			var outputs []string
			for _, args := range [][]string{{"-check"}, nil} {
				cmd := exec.CommandContext(t.Context(), binary, args...)
				cmd.Env = append(os.Environ(), "PODLINK_SERVER_HTTP_ADDR=127.0.0.1:0", "PODLINK_SERVER_GRPC_ADDR=127.0.0.1:0",
					"PODLINK_SERVER_ADMIN_ADDR=127.0.0.1:0", "PODLINK_AUTH_MODE=required", "PODLINK_AUTH_POLICY_FILE="+path(row.policy),
					"PODLINK_AUTH_TOKENS_FILE="+path(row.tokens))
				out, err := cmd.CombinedOutput()
				require.Error(t, err, string(out))
				require.Equal(t, 2, cmd.ProcessState.ExitCode(), string(out))
				outputs = append(outputs, string(out))
			}
			require.Equal(t, outputs[0], outputs[1])
			require.Regexp(t, "^podlink: configuration: "+row.want, outputs[0])
			require.NotContains(t, outputs[0], "0123456789abcdef", "nothing of a token")
			require.Equal(t, 1, strings.Count(outputs[0], "\n"), "a line")
		})
	}
}

// TestCheckWarns: -check says which names in the policy no caller can have, and prints the configuration all the same.
func TestCheckWarns(t *testing.T) {
	t.Parallel()
	path := files(t, map[string]string{
		"tokens": guardTexts().tokens,
		"policy": `rules:
- {who: ["token:reader", "token:raeder", "spiffe://example.org/a"], role: reader, namespaces: [game], services: [chat]}
`,
		"correct": `rules: [{who: ["token:reader"], role: reader, namespaces: [game], services: [chat]}]`,
	})
	for policy, want := range map[string]string{
		"policy": `podlink: warning: auth.policy_file: rules[0].who[1]: no caller can be "token:raeder": ` +
			"auth.tokens_file has no token of that name\n" +
			`podlink: warning: auth.policy_file: rules[0].who[2]: no caller can be "spiffe://example.org/a": ` +
			"no listener has a client_ca_file, so callers have no certificates\n",
		"correct": "",
	} {
		cmd := exec.CommandContext(t.Context(), binary, "-check")
		cmd.Env = append(os.Environ(), "PODLINK_AUTH_MODE=required", "PODLINK_AUTH_POLICY_FILE="+path(policy),
			"PODLINK_AUTH_TOKENS_FILE="+path("tokens"))
		var warnings strings.Builder
		cmd.Stderr = &warnings
		out, err := cmd.Output()
		require.NoError(t, err)
		require.Contains(t, string(out), "mode: required")
		require.Equal(t, want, warnings.String())
	}
}

// TestKeysThatNeverCame: while the keys of an issuer were never loaded podlink is not ready, and says so to its callers.
func TestKeysThatNeverCame(t *testing.T) {
	t.Parallel()
	away := httptest.NewServer(http.NotFoundHandler())
	defer away.Close()
	written := guardTexts()
	path := files(t, map[string]string{
		"tokens.yaml": written.tokens, "policy.yaml": written.policy,
		"config.yaml": fmt.Sprintf("auth: {issuers: [{name: sso, issuer: https://sso.example, audiences: [podlink], jwks_url: %q}]}\n", away.URL),
	})
	p := podlinktest.StartWith(t, binary, path("config.yaml"), "PODLINK_AUTH_MODE=required",
		"PODLINK_AUTH_TOKENS_FILE="+path("tokens.yaml"), "PODLINK_AUTH_POLICY_FILE="+path("policy.yaml"))
	require.Eventually(t, func() bool {
		code, reason := p.Ready(t)
		return code == http.StatusServiceUnavailable && strings.Contains(reason, "no keys loaded of the issuers sso")
	}, patience, 10*time.Millisecond)
	conn, err := grpc.NewClient(p.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	reply, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), new(grpc_health_v1.HealthCheckRequest))
	require.NoError(t, err)
	require.Equal(t, grpc_health_v1.HealthCheckResponse_NOT_SERVING, reply.GetStatus())
	// {"alg":"EdDSA","kid":"1"}, {"iss":"https://sso.example"}
	const token = "eyJhbGciOiJFZERTQSIsImtpZCI6IjEifQ.eyJpc3MiOiJodHRwczovL3Nzby5leGFtcGxlIn0.c2lnbmF0dXJl"
	code, header, body := ask(t, http.MethodGet, "http://"+p.HTTP+aliceChat, "Bearer "+token)
	require.Equal(t, http.StatusServiceUnavailable, code, body)
	require.Contains(t, body, `"NOT_READY"`)
	require.Empty(t, header.Get("WWW-Authenticate"))
	_, err = v1.NewLinkServiceClient(conn).GetLinkedPod(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token),
		&v1.GetLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "chat"})
	require.Equal(t, "NOT_READY", kerrors.Reason(err))
	code, _, body = ask(t, http.MethodGet, "http://"+p.HTTP+aliceChat, "Bearer "+secret("reader"))
	require.Equal(t, http.StatusOK, code, "who can be known is served: %s", body)
}
