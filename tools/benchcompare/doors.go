package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const issuer = "https://issuer.example"

// withDoors returns the revision with auth.mode required, where calls have a JWT. dir gets the files.
func (r revision) withDoors(dir string) (revision, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return revision{}, err
	}
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"iss": issuer, "aud": []string{"podlink"}, "sub": "bench", "iat": now.Unix(), "exp": now.Add(12 * time.Hour).Unix(),
	})
	token.Header["kid"] = "1"
	if r.token, err = token.SignedString(private); err != nil {
		return revision{}, err
	}
	r.conf = filepath.Join(dir, "podlink.yaml")
	for name, text := range map[string]string{
		"keys.json": fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","x":%q}]}`, base64.RawURLEncoding.EncodeToString(public)),
		"policy.yaml": fmt.Sprintf(`rules: [{who: ["jwt:bench:bench"], role: operator, namespaces: [%s], services: [%s], rate: 1000000}]`,
			namespace, service),
		"podlink.yaml": fmt.Sprintf(`auth:
  mode: required
  policy_file: %[1]s/policy.yaml
  issuers: [{name: bench, issuer: %[2]q, audiences: [podlink], jwks_file: %[1]s/keys.json}]
audit: {file: %[1]s/audit.log}
`, dir, issuer),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return revision{}, err
		}
	}
	return r, nil
}

// unaudited returns the operations without Set: without a condition it is an operator's, and podlink writes each of those into the audit
// log, so that its cost is the log's.
func unaudited() []operation {
	return slices.DeleteFunc(slices.Clone(operations), func(op operation) bool { return op.name == "Set" })
}

// bearer is the metadata of each call.
type bearer map[string]string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return b, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: the calls stay on this machine.
func (bearer) RequireTransportSecurity() bool { return false }
