package e2e

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	v1 "podlink/api/podlink/v1"
	otlptest "podlink/test/kit/otlp"
	podlinktest "podlink/test/kit/podlink"
)

// signed returns a JWT of the issuer sso, and the key set that it can be verified with.
func signed(t *testing.T, audience string) (token, keys string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	now := time.Now()
	claims := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"iss": "https://sso.example", "sub": "router", "aud": audience, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	})
	claims.Header["kid"] = "1"
	token, err = claims.SignedString(private)
	require.NoError(t, err)
	set, err := json.Marshal(map[string]any{
		"keys": []map[string]string{{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": base64.RawURLEncoding.EncodeToString(public)}},
	})
	require.NoError(t, err)
	return token, string(set)
}

// TestNoTokenIsShown: after tokens of each kind were taken and refused, over both transports, with the most verbose log and all
// calls traced, none of them, no part of one, and no hash of one is in the log, the audit log, the traces, the metrics, the profiles
// or a reply, nor is the server's key.
func TestNoTokenIsShown(t *testing.T) {
	t.Parallel()
	receiver, ca, texts := otlptest.Start(t), newCA(t), guardTexts()
	valid, keys := signed(t, "podlink")
	foreign, _ := signed(t, "podlink")
	ended := sha256.Sum256([]byte(secret("expired")))
	path := files(t, map[string]string{
		"tokens.yaml": texts.tokens + fmt.Sprintf("- {name: expired, sha256: %x, not_after: 2020-01-01}\n", ended),
		"policy.yaml": texts.policy + "  - {who: [\"jwt:sso:router\"], role: caller, namespaces: [game], services: [chat]}\n",
		"keys.json":   keys,
	})
	configuration := fmt.Sprintf("auth: {issuers: [{name: sso, issuer: https://sso.example, audiences: [podlink], jwks_file: %q}]}\n",
		path("keys.json"))
	require.NoError(t, os.WriteFile(path("config.yaml"), []byte(configuration), 0o600))
	env := []string{
		"PODLINK_AUTH_MODE=required", "PODLINK_AUTH_TOKENS_FILE=" + path("tokens.yaml"), "PODLINK_AUTH_POLICY_FILE=" + path("policy.yaml"),
		"PODLINK_AUDIT_FILE=" + path("audit.log"), "PODLINK_AUDIT_MUTATIONS=all", "PODLINK_LOG_LEVEL=debug", "PODLINK_LOG_REPEAT_INTERVAL=0s",
		"PODLINK_SERVER_ADMIN_PPROF=true", "PODLINK_TRACE_ENDPOINT=" + receiver.Addr, "PODLINK_TRACE_SAMPLING_RATIO=1",
		"OTEL_BSP_SCHEDULE_DELAY=50",
	}
	for _, listener := range []string{"HTTP", "GRPC", "ADMIN"} {
		env = append(env, listenerTLS(listener, ca, "optional")...)
	}
	p := podlinktest.StartWith(t, binary, path("config.yaml"), env...)

	shown := map[string]string{}
	conn, err := grpc.NewClient(p.GRPC, grpc.WithTransportCredentials(credentials.NewTLS(calling(t, ca, nil))), grpc.WithDisableRetry())
	require.NoError(t, err)
	defer conn.Close()
	links := v1.NewLinkServiceClient(conn)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: calling(t, ca, nil), DisableKeepAlives: true}, Timeout: patience}
	get := func(address string, authorization ...string) (int, string) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
		require.NoError(t, err)
		request.Header["Authorization"] = authorization
		response, err := client.Do(request)
		require.NoError(t, err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return response.StatusCode, fmt.Sprint(response.Header) + string(body)
	}
	taken := 0
	for name, authorization := range map[string][]string{
		"a static token": {"Bearer " + secret("reader")}, "one that may nothing": {"Bearer " + secret("guest")},
		"an admin's": {"Bearer " + secret("admin")}, "an unknown one": {"Bearer " + secret("unknown")},
		"an expired one": {"Bearer " + secret("expired")}, "another scheme": {"Token " + secret("reader")},
		"two":   {"Bearer " + secret("reader"), "Bearer " + secret("caller")},
		"a JWT": {"Bearer " + valid}, "a JWT of another key": {"Bearer " + foreign},
		"a cut JWT": {"Bearer " + valid[:len(valid)-9]}, "a malformed one": {"Bearer " + secret("reader") + " " + secret("caller")},
	} {
		code, text := get("https://"+p.HTTP+aliceChat, authorization...)
		shown["the reply over HTTP to "+name] = text
		ctx := context.Background()
		for _, value := range authorization {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", value)
		}
		var trailer metadata.MD
		_, err := links.GetLinkedPod(ctx, &v1.GetLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "chat"}, grpc.Trailer(&trailer))
		shown["the reply over gRPC to "+name] = fmt.Sprint(err, trailer, status.Convert(err).Details())
		require.Equal(t, code == http.StatusOK, err == nil, name)
		if err == nil {
			taken++
		}
		_, shown["the admin listener's reply to "+name] = get("https://"+p.Admin+"/loglevel", authorization...)
	}
	require.Equal(t, 3, taken, "tokens were in use")
	_, shown["the metrics"] = get("https://" + p.Admin + "/metrics")
	for _, profile := range []string{"goroutine?debug=2", "heap?debug=1", "allocs?debug=1", "mutex?debug=1", "block?debug=1"} {
		require.Eventually(t, func() bool {
			code, text := get("https://"+p.Admin+"/debug/pprof/"+profile, "Bearer "+secret("admin"))
			shown["the profile "+profile] = text
			return code == http.StatusOK
		}, patience, 50*time.Millisecond)
	}
	require.Zero(t, p.Stop(t))
	text, err := os.ReadFile(path("audit.log"))
	require.NoError(t, err)
	shown["the audit log"], shown["the log"], shown["the traces"] = string(text), p.Log.String(), receiver.Text()
	for where, what := range map[string]string{
		"the log": "request failed", "the audit log": "jwt:sso:router", "the traces": "UNAUTHENTICATED",
		"the metrics": `podlink_authentications_total{kind="jwt",outcome="ok"}`, "the profile goroutine?debug=2": "goroutine ",
	} {
		require.Contains(t, shown[where], what, where)
	}

	secrets := map[string]string{}
	for _, name := range []string{"reader", "guest", "admin", "unknown", "expired", "caller"} {
		sum := sha256.Sum256([]byte(secret(name)))
		secrets["token of "+name], secrets["hash of "+name] = secret(name), hex.EncodeToString(sum[:])
		secrets["base64 of "+name] = base64.StdEncoding.EncodeToString([]byte(secret(name)))[:40]
	}
	secrets["a part of each token"] = "0123456789abcdef0123456789abcdef"
	for name, token := range map[string]string{"the JWT": valid, "the foreign JWT": foreign} {
		for i, part := range strings.Split(token, ".")[1:] {
			secrets[fmt.Sprint(name, " part ", i)] = part
		}
	}
	private, err := os.ReadFile(ca.Path("server.key"))
	require.NoError(t, err)
	secrets["the private key"] = strings.Split(string(private), "\n")[1]
	for where, text := range shown {
		for what, secret := range secrets {
			require.NotContains(t, text, secret, "%s in %s", what, where)
		}
	}
}
