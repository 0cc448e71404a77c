package auth

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestUnknownNames: what a policy names and no caller can be is found, whatever the way in which callers prove who they are; what a caller
// can be is not.
func TestUnknownNames(t *testing.T) {
	const noCertificates = "no listener has a client_ca_file, so callers have no certificates"
	dir := t.TempDir()
	tokens := writeFile(t, filepath.Join(dir, "tokens"),
		fmt.Sprintf("- {name: router, sha256: %x, not_after: 2027-01-01}\n", sha256.Sum256([]byte("router"))))
	none := writeFile(t, filepath.Join(dir, "none"), "[]\n")
	issuers := []Issuer{{Name: "sso", Issuer: "https://sso.example", Audiences: []string{"podlink"}, JWKSURL: "https://sso.example/keys"}}
	for name, row := range map[string]struct {
		options Options
		who     string
		why     string // empty: a caller can be it
	}{
		"a token":                       {Options{TokensFile: tokens}, "token:router", ""},
		"any token":                     {Options{TokensFile: tokens}, "token:*", ""},
		"a token of another":            {Options{TokensFile: tokens}, "token:route", "auth.tokens_file has no token of that name"},
		"a token without a file":        {Options{Issuers: issuers}, "token:router", "auth.tokens_file has no token"},
		"any token of an empty file":    {Options{TokensFile: none, Issuers: issuers}, "token:*", "auth.tokens_file has no token"},
		"a subject":                     {Options{Issuers: issuers}, "jwt:sso:people:ann", ""},
		"subjects":                      {Options{Issuers: issuers}, "jwt:sso:people:*", ""},
		"any subject":                   {Options{Issuers: issuers}, "jwt:*", ""},
		"a subject of another issuer":   {Options{Issuers: issuers}, "jwt:ss:ann", "auth.issuers has no issuer of that name"},
		"any subject without an issuer": {Options{TokensFile: tokens}, "jwt:*", "auth.issuers has no issuer of that name"},
		"a SPIFFE id":                   {Options{Certificates: true, TrustDomain: "example.org"}, "spiffe://example.org/caller", ""},
		"SPIFFE ids":                    {Options{Certificates: true, TrustDomain: "example.org"}, "spiffe://example.org/*", ""},
		"any SPIFFE id":                 {Options{Certificates: true, TrustDomain: "example.org"}, "spiffe://*", ""},
		"a SPIFFE id without a path": {
			Options{Certificates: true, TrustDomain: "example.org"}, "spiffe://example.org", "the SPIFFE id of a caller has a path",
		},
		"a SPIFFE id of another domain": {
			Options{Certificates: true, TrustDomain: "example.org"}, "spiffe://example.or/caller", "auth.mtls.trust_domain is example.org",
		},
		"a SPIFFE id without a trust domain": {
			Options{Certificates: true}, "spiffe://example.org/caller",
			"auth.mtls.trust_domain is empty, so callers are named by the first DNS name of their certificate",
		},
		"a SPIFFE id without a CA": {Options{TokensFile: tokens, TrustDomain: "example.org"}, "spiffe://example.org/caller", noCertificates},
		"a DNS name":               {Options{Certificates: true}, "dns:caller.example.org", ""},
		"any DNS name":             {Options{Certificates: true}, "dns:*", ""},
		"a DNS name without a CA":  {Options{TokensFile: tokens}, "dns:caller.example.org", noCertificates},
		"a DNS name beside SPIFFE ids": {
			Options{Certificates: true, TrustDomain: "example.org"}, "dns:caller.example.org",
			"with auth.mtls.trust_domain callers are named by the SPIFFE id of their certificate",
		},
	} {
		t.Run(name, func(t *testing.T) {
			callers, err := New(row.options)
			require.NoError(t, err)
			policy := policyOf(t, fmt.Sprintf(`rules:
- {who: [%q, %[1]q], role: reader, namespaces: [game], services: [room]}
`, row.who))
			var want []string
			if row.why != "" {
				for i := range 2 {
					want = append(want, fmt.Sprintf("auth.policy_file: rules[0].who[%d]: no caller can be %q: %s", i, row.who, row.why))
				}
			}
			require.Equal(t, want, policy.Unknown(callers))
		})
	}
}
