//go:build faults

package faults

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
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	v1 "podlink/api/podlink/v1"
	"podlink/test/kit/calls"
	podlinktest "podlink/test/kit/podlink"
)

// issuerKey is a key with which an issuer signs.
type issuerKey struct {
	kid     string
	private ed25519.PrivateKey
}

func newIssuerKey(t *testing.T, kid string) issuerKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return issuerKey{kid, private}
}

// keySet returns the JSON Web Key Set of an issuer.
func keySet(keys ...issuerKey) string {
	set := map[string][]map[string]string{"keys": {}}
	for _, key := range keys {
		set["keys"] = append(set["keys"], map[string]string{
			"kty": "OKP", "crv": "Ed25519", "kid": key.kid, "x": base64.RawURLEncoding.EncodeToString(key.private.Public().(ed25519.PublicKey)),
		})
	}
	text, _ := json.Marshal(set)
	return string(text)
}

// token returns a token of the issuer for a caller.
func (k issuerKey) token(t *testing.T, issuer, caller string) string {
	t.Helper()
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"iss": issuer, "sub": caller, "aud": "podlink", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	})
	token.Header["kid"] = k.kid
	text, err := token.SignedString(k.private)
	require.NoError(t, err)
	return text
}

// tokensFile returns a tokens file in which the caller has these tokens.
func tokensFile(caller string, tokens ...string) string {
	var b strings.Builder
	for _, token := range tokens {
		sum := sha256.Sum256([]byte(token))
		fmt.Fprintf(&b, "- {name: %s, sha256: %s, not_after: 2099-01-01}\n", caller, hex.EncodeToString(sum[:]))
	}
	return b.String()
}

// identities is a podlink that knows a caller by a static token, one by an issuer's file of keys and one by an issuer's URL. They call
// it all the time.
type identities struct {
	*podlinktest.Process

	t      *testing.T
	dir    string
	tokens map[string]*atomic.Pointer[string] // by caller: what it sends now
	served atomic.Pointer[string]             // by the issuer's URL; empty: an error
	loaded map[string]int                     // by the text that was awaited
}

const (
	fileIssuer = "https://file.example"
	urlIssuer  = "https://url.example"
)

func newIdentities(t *testing.T) *identities {
	t.Helper()
	r := &identities{t: t, dir: t.TempDir(), tokens: make(map[string]*atomic.Pointer[string]), loaded: make(map[string]int)}
	for _, caller := range []string{"static", "file", "url"} {
		r.tokens[caller] = new(atomic.Pointer[string])
	}
	return r
}

// write replaces a file, as an editor or Kubernetes does.
func (r *identities) write(file, content string) {
	r.t.Helper()
	path := filepath.Join(r.dir, file)
	require.NoError(r.t, os.WriteFile(path+".new", []byte(content), 0o600))
	require.NoError(r.t, os.Rename(path+".new", path))
}

func (r *identities) sends(caller, token string) { r.tokens[caller].Store(&token) }

// policy is the rules of the callers with a role.
func (r *identities) policy(role string) {
	r.write("policy.yaml", fmt.Sprintf("rules:\n- {who: [\"token:static\", \"jwt:file:caller\", \"jwt:url:caller\"], role: %s, "+
		"namespaces: [%s], services: [s]}\n", role, namespace))
}

func (r *identities) serve() string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		text := *r.served.Load()
		if text == "" {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_, _ = io.WriteString(w, text)
	}))
	r.t.Cleanup(server.Close)
	return server.URL
}

func (r *identities) start(url string) {
	r.t.Helper()
	r.write("podlink.yaml", fmt.Sprintf(`
auth:
  mode: required
  policy_file: %[1]s/policy.yaml
  tokens_file: %[1]s/tokens.yaml
  rate: 1000000
  issuers:
  - {name: file, issuer: %[2]s, audiences: [podlink], jwks_file: %[1]s/keys.json}
  - {name: url, issuer: %[3]s, audiences: [podlink], jwks_url: %[4]s}
`, r.dir, fileIssuer, urlIssuer, url))
	r.Process = podlinktest.StartWith(r.t, binary, filepath.Join(r.dir, "podlink.yaml"))
	r.WaitReady(r.t)
}

// load makes 200 calls a second until the returned function is called: each caller over HTTP and gRPC.
func (r *identities) load() (stop func() (count int, failed []error)) {
	conn := r.Conn(r.t)
	transport := &http.Transport{MaxIdleConnsPerHost: 3}
	var all []calls.Call
	for caller, token := range r.tokens {
		named := func(err error) error {
			if err != nil {
				return fmt.Errorf("%s: %w", caller, err)
			}
			return nil
		}
		all = append(all,
			func(ctx context.Context) error { return named(getOverGRPC(ctx, conn, *token.Load())) },
			func(ctx context.Context) error { return named(getOverHTTP(ctx, transport, r.HTTP, *token.Load())) })
	}
	end := calls.Repeat(30*time.Millisecond, clientTimeout, all...)
	return func() (int, []error) {
		defer transport.CloseIdleConnections()
		return end()
	}
}

func getOverGRPC(ctx context.Context, conn *grpc.ClientConn, token string) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	_, err := v1.NewLinkServiceClient(conn).GetLinkedPod(ctx, &v1.GetLinkedPodRequest{Namespace: namespace, Uid: "u", Service: "s"})
	return err
}

func getOverHTTP(ctx context.Context, transport http.RoundTripper, addr, token string) error {
	return calls.Get(ctx, transport, "http://"+addr+"/v1/namespaces/"+namespace+"/links/u/services/s", "Bearer "+token)
}

// await waits until podlink has logged that it has read a setting's file again.
func (r *identities) await(texts ...string) {
	r.t.Helper()
	for _, text := range texts {
		r.loaded[text]++
		require.Eventually(r.t, func() bool { return strings.Count(r.Log.String(), text) >= r.loaded[text] },
			time.Minute, 50*time.Millisecond, "%s\n%s", text, r.Log)
	}
	time.Sleep(time.Second) // Some calls with it.
}

// requireStranger checks that a token that has been taken out of use is refused, over both transports.
func (r *identities) requireStranger(token string) {
	r.t.Helper()
	require.ErrorContains(r.t, getOverHTTP(r.t.Context(), http.DefaultTransport, r.HTTP, token), "UNAUTHENTICATED")
	require.ErrorContains(r.t, getOverGRPC(r.t.Context(), r.Conn(r.t), token), "valid credentials")
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

// TestRotationOfIdentities: no call fails while static tokens, the keys of issuers and the policy are replaced, nor when all of these
// files are broken and the issuer's server is. What was taken out of use is refused. There are 200 calls a second.
func TestRotationOfIdentities(t *testing.T) {
	t.Parallel()
	r := newIdentities(t)
	oldToken, newToken := strings.Repeat("old-", 16), strings.Repeat("new-", 16)
	oldKey, newKey := newIssuerKey(t, "old"), newIssuerKey(t, "new")
	oldKeys, bothKeys := keySet(oldKey), keySet(oldKey, newKey)
	r.served.Store(&oldKeys)
	r.write("tokens.yaml", tokensFile("static", oldToken))
	r.write("keys.json", oldKeys)
	r.policy("reader")
	r.sends("static", oldToken)
	r.sends("file", oldKey.token(t, fileIssuer, "caller"))
	r.sends("url", oldKey.token(t, urlIssuer, "caller"))
	r.start(r.serve())
	stop := r.load()
	defer stop() // If the test fails before.
	const tokensKey, keysKey, policyKey = "auth.tokens_file: ", "auth.issuers[0].jwks_file: ", "auth.policy_file: "
	const inForce = "the new content is in force"

	r.write("tokens.yaml", tokensFile("static", oldToken, newToken))
	r.write("keys.json", bothKeys)
	r.policy("caller")
	r.await(tokensKey+inForce, keysKey+inForce, policyKey+inForce)
	r.sends("static", newToken)
	r.sends("file", newKey.token(t, fileIssuer, "caller"))
	r.served.Store(&bothKeys) // The issuer signs with its new key at once: podlink asks for it.
	r.sends("url", newKey.token(t, urlIssuer, "caller"))
	time.Sleep(time.Second)

	r.write("tokens.yaml", tokensFile("static", newToken))
	r.write("keys.json", keySet(newKey))
	r.await(tokensKey+inForce, keysKey+inForce)
	r.requireStranger(oldToken)
	r.requireStranger(oldKey.token(t, fileIssuer, "caller"))

	broken := ""
	r.served.Store(&broken)
	for _, file := range []string{"tokens.yaml", "keys.json", "policy.yaml"} {
		r.write(file, "- {secret-in-a-broken-file")
	}
	const broke = "the one before stays in force: "
	r.await(broke+tokensKey, broke+keysKey, broke+policyKey)
	r.sends("file", newKey.token(t, fileIssuer, "caller")) // One that podlink has not seen.
	r.sends("url", newKey.token(t, urlIssuer, "caller"))
	r.requireStranger(newIssuerKey(t, "unknown").token(t, urlIssuer, "caller"))
	time.Sleep(time.Second)
	made, failed := stop()
	require.Empty(t, failed)
	require.Greater(t, made, 1000)
	t.Logf("%d calls, none failed", made)
	for _, secret := range []string{oldToken, newToken, *r.tokens["file"].Load(), *r.tokens["url"].Load(), "secret-in-a"} {
		require.NotContains(t, r.Log.String(), secret)
	}
}
