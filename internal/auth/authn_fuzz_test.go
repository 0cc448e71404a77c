package auth

import (
	"crypto/x509"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// FuzzAuthorization: whatever a header has, a stranger is refused, in the words of podlink.
func FuzzAuthorization(f *testing.F) {
	a := newFixture(f, edKey())
	token := edKey().token(f, goodClaims())
	for _, seed := range []string{
		"", "Bearer", "Bearer a.b.c", "bearer  x", "Basic Og==", "Bearer " + token, "Bearer " + staticToken("bob"), "Bearer " + token + "=",
		"Bearer " + strings.Replace(token, ".", ".e30", 1), "Bearer e30.e30.", "Bearer \x00", "Bearer ..",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		got, err := a.Authenticate(t.Context(), Proof{Authorization: []string{header}})
		if err == nil {
			_, text, _ := strings.Cut(header, " ")
			text = strings.TrimLeft(text, " ")
			require.True(t, text == token || text == staticToken("bob"), "a stranger was let in")
			return
		}
		require.Zero(t, got)
		require.ErrorIs(t, err, ErrUnauthenticated)
		require.LessOrEqual(t, len(err.Error()), 100)
	})
}

// FuzzClaims: whatever claims an issuer signs, a name is plain, and one JSON reader finds in them what podlink has found.
func FuzzClaims(f *testing.F) {
	a := newFixture(f, edKey())
	good := goodClaims().String()
	for _, seed := range []string{
		good, kubernetesClaims("shop", "chat", "chat-2").String(), `{}`, `null`, `[]`, `{"a":`, strings.Replace(good, `"sub":`, `"sub":1,"sub":`, 1),
		strings.Replace(good, `"exp":`, `"exp":1e999,"x":`, 1), strings.Replace(good, "alice", `\ud800`, 1), strings.Repeat("[", 100),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, claims string) {
		got, err := a.call(t, edKey().sign(t, edKey().header().String(), claims))
		if err != nil {
			require.Zero(t, got)
			require.ErrorIs(t, err, ErrUnauthenticated)
			return
		}
		var read struct {
			Sub string `json:"sub"`
			Iss string `json:"iss"`
		}
		require.NoError(t, json.Unmarshal([]byte(claims), &read))
		require.Regexp(t, `^jwt:main:[!-~]+$`, got.Name)
		require.True(t, got.Pod == "" || podPattern.MatchString(got.Pod))
	})
}

// FuzzPlainObject: what is plain is an object for encoding/json too.
func FuzzPlainObject(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1}`, `{"a":1,"a":2}`, `{"a":[{"b":{}}]}`, `{"a":1}{}`, `[{}]`, ` {"a" : null}`, `{"a":1}]`, `{"a":1},`, `{]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var read map[string]json.RawMessage
		err := json.Unmarshal(text, &read)
		if plainObject(text) {
			require.NoError(t, err)
			require.NotNil(t, read)
			require.True(t, utf8.Valid(text))
		}
	})
}

// FuzzTokensFile: whatever the file has, a list that is taken is one of plain names.
func FuzzTokensFile(f *testing.F) {
	for _, seed := range []string{
		"", "[]", "- {}", entry("bob", staticToken("bob"), begin), "- {name: a", "a: b", "- &a [*a]", "--- []\n--- []", "- null", "- {sha256: !!binary AA==}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		parsed, err := parseTokens(content)
		if err != nil {
			return
		}
		count := 0
		for _, entries := range parsed.entries {
			for _, entry := range entries {
				require.Regexp(t, `^token:[A-Za-z0-9._-]+$`, entry.identity.Name)
				require.False(t, entry.notAfter.IsZero())
				count++
			}
		}
		require.Equal(t, parsed.count, count)
	})
}

// FuzzCertificateNames: whatever names a certificate has, the one that counts is plain and of the trust domain.
func FuzzCertificateNames(f *testing.F) {
	for _, seed := range []string{
		"spiffe://example.org/ns/shop", "spiffe://example.org/", "spiffe://example.org.evil/a", "spiffe://example.org/a/../b", "spiffe:example.org/a",
		"spiffe://example.org/%2e", "a.example.org", "*.example.org", "SPIFFE://example.org/a?", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if name := certificateName(&x509.Certificate{DNSNames: []string{text}}, ""); name != "" {
			require.Regexp(t, `^dns:[a-z0-9._-]+$`, name)
			require.Equal(t, "dns:"+strings.ToLower(text), name)
		}
		uri, err := url.Parse(text)
		if err != nil {
			return
		}
		if name := certificateName(&x509.Certificate{URIs: []*url.URL{uri}}, "example.org"); name != "" {
			require.Regexp(t, `^spiffe://example\.org(/[A-Za-z0-9._-]+)+$`, name)
			require.NotContains(t, name+"/", "/../")
			require.Equal(t, "example.org", uri.Host)
		}
	})
}

// FuzzKeySet: whatever a key set has, the keys that count have one algorithm each.
func FuzzKeySet(f *testing.F) {
	for _, seed := range []string{jwks(edKey(), ecKey(), rsaKey()), `{"keys":[{}]}`, `{"keys":[{"kty":"EC","crv":"P-256","x":"","y":""}]}`, `{}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		found, err := parseKeys(content)
		require.Equal(t, err == nil, len(found) > 0)
		for _, key := range found {
			require.Contains(t, []string{rs256, es256, eddsa}, key.algorithm)
		}
	})
}
