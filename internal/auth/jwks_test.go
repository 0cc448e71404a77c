package auth

import (
	"crypto/elliptic"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestParseKeys: which keys of a set count.
func TestParseKeys(t *testing.T) {
	rsa, ec, ed := rsaKey(), ecKey(), edKey()
	many := make([]signingKey, maxKeys+1)
	for i := range many {
		many[i] = ed.with("kid", fmt.Sprint(i))
	}
	for name, row := range map[string]struct {
		content string
		want    []string // kid and algorithm
		err     string
	}{
		"all kinds":             {content: jwks(rsa, ec, ed), want: []string{"rsa RS256", "ec ES256", "ed EdDSA"}},
		"no algorithm":          {content: jwks(rsa.with("alg", nil), ed.with("alg", nil)), want: []string{"rsa RS256", "ed EdDSA"}},
		"newer name of EdDSA":   {content: jwks(ed.with("alg", "Ed25519")), want: []string{"ed EdDSA"}},
		"no use":                {content: jwks(rsa.with("use", nil)), want: []string{"rsa RS256"}},
		"no kid":                {content: jwks(ec.with("kid", nil)), want: []string{" ES256"}},
		"for verifying":         {content: jwks(ec.with("key_ops", []string{"verify"})), want: []string{"ec ES256"}},
		"members without a use": {content: jwks(ec.with("x5c", []string{"bm8="}).with("x5u", "https://evil.example").with("iat", 1)), want: []string{"ec ES256"}},
		"with its private part": {content: jwks(ec.with("d", ec.jwk["x"])), want: []string{"ec ES256"}},
		"the most":              {content: jwks(many[:maxKeys]...), want: nil},

		"one for encryption left out": {content: jwks(rsa.with("use", "enc"), ec), want: []string{"ec ES256"}},
		"one for signing left out":    {content: jwks(rsa.with("key_ops", []string{"sign"}), ec), want: []string{"ec ES256"}},
		"RSA-OAEP left out":           {content: jwks(rsa.with("alg", "RSA-OAEP"), ec), want: []string{"ec ES256"}},
		"RS512 left out":              {content: jwks(rsa.with("alg", "RS512"), ec), want: []string{"ec ES256"}},
		"HMAC left out":               {content: jwks(signingKey{jwk: object{"kty": "oct", "k": "c2VjcmV0", "kid": "h"}}, ec), want: []string{"ec ES256"}},
		"P-384 left out":              {content: jwks(newECKey(t, "p384", elliptic.P384()), ec), want: []string{"ec ES256"}},
		"X25519 left out":             {content: jwks(ed.with("crv", "X25519").with("alg", nil), ec), want: []string{"ec ES256"}},
		"unknown kind left out":       {content: jwks(ed.with("kty", "AKP"), ec), want: []string{"ec ES256"}},
		"a kid of a number left out":  {content: jwks(ed.with("kid", 7), ec), want: []string{"ec ES256"}},
		"a point off the curve":       {content: jwks(ec.with("x", ec.jwk["y"]), ed), want: []string{"ed EdDSA"}},
		"a short Ed25519 key":         {content: jwks(ed.with("x", "AAAA"), ec), want: []string{"ec ES256"}},
		"a key that is a text":        {content: `{"keys":["x",` + ec.String() + `]}`, want: []string{"ec ES256"}},
		"a key that is null":          {content: `{"keys":[null,` + ec.String() + `]}`, want: []string{"ec ES256"}},
		"RSA of 1024 bits":            {content: jwks(newRSAKey(t, "short", 1024), ec), want: []string{"ec ES256"}},
		"RSA of 16384 bits":           {content: jwks(rsa.with("n", base64url([]byte(strings.Repeat("\xff", 2048)))), ec), want: []string{"ec ES256"}},
		"an even modulus":             {content: jwks(rsa.with("n", base64url([]byte(strings.Repeat("\xfe", 256)))), ec), want: []string{"ec ES256"}},
		"exponent 1":                  {content: jwks(rsa.with("e", "AQ"), ec), want: []string{"ec ES256"}},
		"exponent 2":                  {content: jwks(rsa.with("e", "Ag"), ec), want: []string{"ec ES256"}},
		"exponent 2^64+3":             {content: jwks(rsa.with("e", base64url([]byte{1, 0, 0, 0, 0, 0, 0, 0, 3})), ec), want: []string{"ec ES256"}},

		"empty":             {content: "", err: "no JSON Web Key Set"},
		"a page":            {content: "<html>secret</html>", err: "no JSON Web Key Set"},
		"something else":    {content: `{"issuer":"x"}`, err: "has no key"},
		"null":              {content: "null", err: "has no key"},
		"no key":            {content: `{"keys":[]}`, err: "has no key"},
		"no key that fits":  {content: jwks(rsa.with("use", "enc")), err: "has no key"},
		"keys is an object": {content: `{"keys":{}}`, err: "no JSON Web Key Set"},
		"ends early":        {content: jwks(rsa)[:100], err: "no JSON Web Key Set"},
		"goes on":           {content: jwks(rsa) + "x", err: "no JSON Web Key Set"},
		"too many":          {content: jwks(many...), err: "more than 64 keys"},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := parseKeys([]byte(row.content))
			if row.err != "" {
				require.ErrorContains(t, err, row.err)
				require.NotContains(t, err.Error(), "secret")
				require.Nil(t, found)
				return
			}
			require.NoError(t, err)
			var got []string
			for _, key := range found {
				got = append(got, key.kid+" "+key.algorithm)
			}
			if row.want == nil {
				require.Len(t, got, maxKeys)
				return
			}
			require.Equal(t, row.want, got)
		})
	}
}

func (k signingKey) String() string { return object(k.jwk).String() }
