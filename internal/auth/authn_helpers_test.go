package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

// begin is when the tests' clocks begin.
var begin = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// fakeClock is a clock that a test moves.
type fakeClock struct{ passed atomic.Int64 }

func (c *fakeClock) now() time.Time          { return begin.Add(time.Duration(c.passed.Load())) }
func (c *fakeClock) advance(d time.Duration) { c.passed.Add(int64(d)) }

// reloads keeps what was reported of reloads.
type reloads struct {
	mu    sync.Mutex
	lines []string
}

func (r *reloads) add(key string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf("%s %v", key, err))
}

func (r *reloads) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n")
}

// signingKey is a key of an issuer, with its private part.
type signingKey struct {
	kid     string
	method  jwt.SigningMethod
	private any
	jwk     map[string]any
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func newRSAKey(t testing.TB, kid string, bits int) signingKey {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, bits)
	require.NoError(t, err)
	return signingKey{kid, jwt.SigningMethodRS256, private,
		map[string]any{"kty": "RSA", "kid": kid, "n": base64url(private.N.Bytes()), "e": "AQAB", "use": "sig", "alg": "RS256"}}
}

func newECKey(t testing.TB, kid string, curve elliptic.Curve) signingKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	require.NoError(t, err)
	point, err := private.PublicKey.Bytes()
	require.NoError(t, err)
	size := (len(point) - 1) / 2
	return signingKey{kid, jwt.SigningMethodES256, private, map[string]any{
		"kty": "EC", "kid": kid, "crv": curve.Params().Name, "x": base64url(point[1 : 1+size]), "y": base64url(point[1+size:]),
	}}
}

func newEdKey(t testing.TB, kid string) signingKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return signingKey{kid, jwt.SigningMethodEdDSA, private, map[string]any{
		"kty": "OKP", "kid": kid, "crv": "Ed25519", "x": base64url(public), "alg": "EdDSA",
	}}
}

// The keys of most tests. Making one for RSA takes long.
var (
	rsaKey = sync.OnceValue(func() signingKey { return newRSAKey(failing{}, "rsa", 2048) })
	ecKey  = sync.OnceValue(func() signingKey { return newECKey(failing{}, "ec", elliptic.P256()) })
	edKey  = sync.OnceValue(func() signingKey { return newEdKey(failing{}, "ed") })
)

// failing is the test of a helper that runs outside of one.
type failing struct{ testing.TB }

func (failing) Helper()                           {}
func (failing) FailNow()                          { panic("a key could not be made") }
func (failing) Errorf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// with returns the key with another member of its JWK; nil removes it.
func (k signingKey) with(member string, value any) signingKey {
	k.jwk = maps.Clone(k.jwk)
	k.jwk[member] = value
	if value == nil {
		delete(k.jwk, member)
	}
	return k
}

// jwks returns the public key set of some keys.
func jwks(keys ...signingKey) string {
	all := make([]map[string]any, len(keys))
	for i, key := range keys {
		all[i] = key.jwk
	}
	text, _ := json.Marshal(map[string]any{"keys": all})
	return string(text)
}

// object is JSON that a test changes.
type object map[string]any

func (o object) with(name string, value any) object {
	o = maps.Clone(o)
	o[name] = value
	if value == nil {
		delete(o, name)
	}
	return o
}

func (o object) String() string {
	text, _ := json.Marshal(o)
	return string(text)
}

// header returns the header of a key's tokens.
func (k signingKey) header() object {
	return object{"alg": k.method.Alg(), "typ": "JWT", "kid": k.kid}
}

// sign returns a token of any header and claims.
func (k signingKey) sign(t testing.TB, header, claims string) string {
	t.Helper()
	text := base64url([]byte(header)) + "." + base64url([]byte(claims))
	signature, err := k.method.Sign(text, k.private)
	require.NoError(t, err)
	return text + "." + base64url(signature)
}

// token returns a token of the key with some claims.
func (k signingKey) token(t testing.TB, claims object) string {
	t.Helper()
	return k.sign(t, k.header().String(), claims.String())
}

const issuerURL = "https://issuer.example"

// goodClaims are those of a valid token.
func goodClaims() object {
	return object{
		"iss": issuerURL, "sub": "alice", "aud": []string{"podlink"},
		"iat": begin.Unix(), "nbf": begin.Unix(), "exp": begin.Add(10 * time.Minute).Unix(),
	}
}

// staticToken returns a token of 256 bits that is the same in each run.
func staticToken(name string) string { return digest("token of " + name) }

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// entry returns an entry of a tokens file.
func entry(name, token string, notAfter time.Time) string {
	return fmt.Sprintf("- {name: %s, sha256: %s, not_after: %s}\n", name, digest(token), notAfter.Format(time.RFC3339))
}

// writeFile writes a file as an editor does, whole.
func writeFile(t testing.TB, path, content string) string {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", []byte(content), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
	return path
}

// fixture is an Authenticator with a file of tokens and an issuer with a file of keys.
type fixture struct {
	*Authenticator

	clock  fakeClock
	log    reloads
	tokens string // path
	jwks   string // path
}

func newFixture(t testing.TB, keys ...signingKey) *fixture {
	t.Helper()
	dir := t.TempDir()
	f := &fixture{tokens: filepath.Join(dir, "tokens.yaml"), jwks: filepath.Join(dir, "jwks.json")}
	if keys == nil {
		keys = []signingKey{rsaKey(), ecKey(), edKey()}
	}
	writeFile(t, f.jwks, jwks(keys...))
	writeFile(t, f.tokens, entry("bob", staticToken("bob"), begin.Add(time.Hour)))
	var err error
	f.Authenticator, err = New(Options{
		TokensFile: f.tokens, Reloaded: f.log.add, Now: f.clock.now,
		Issuers: []Issuer{{Name: "main", Issuer: issuerURL, Audiences: []string{"podlink", "podlink.example"}, JWKSFile: f.jwks}},
	})
	require.NoError(t, err)
	return f
}

// call authenticates one bearer token.
func (f *fixture) call(t testing.TB, token string) (Identity, error) {
	t.Helper()
	return f.Authenticate(t.Context(), Proof{Authorization: []string{"Bearer " + token}})
}

// requireCause checks that an error is a refusal for that cause.
func requireCause(t testing.TB, want Cause, err error) {
	t.Helper()
	var refusal *RefusedError
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, want, refusal.Cause)
	if want == NoKeys {
		require.ErrorIs(t, err, ErrUndecided)
		require.NotErrorIs(t, err, ErrUnauthenticated)
		return
	}
	require.ErrorIs(t, err, ErrUnauthenticated)
	require.NotErrorIs(t, err, ErrUndecided)
}
