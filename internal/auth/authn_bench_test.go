package auth

import (
	"crypto/x509"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkAuthenticate: known is what each call costs, fresh what the first with a token does.
func BenchmarkAuthenticate(b *testing.B) {
	f := newFixture(b)
	claims := kubernetesClaims("shop", "chat", "chat-2").with("jti", "ea28ed49-2e11-4280-9ec5-bc3d1d84661a")
	leaf := certificate(b, []string{"spiffe://example.org/ns/shop/sa/chat"}, nil)
	mtls, err := New(Options{TrustDomain: "example.org", Certificates: true, Now: f.clock.now})
	require.NoError(b, err)
	for _, row := range []struct {
		name   string
		auth   *Authenticator
		bearer string
		leaf   *x509.Certificate
		fresh  bool
		holder *Holder
	}{
		{name: "known/jwt", auth: f.Authenticator, bearer: rsaKey().token(b, claims)},
		{name: "known/jwt of a connection", auth: f.Authenticator, bearer: rsaKey().token(b, claims), holder: new(Holder)},
		{name: "known/token", auth: f.Authenticator, bearer: staticToken("bob")},
		{name: "known/mtls", auth: mtls, leaf: leaf},
		{name: "fresh/RS256", auth: f.Authenticator, bearer: rsaKey().token(b, claims), fresh: true},
		{name: "fresh/ES256", auth: f.Authenticator, bearer: ecKey().token(b, claims), fresh: true},
		{name: "fresh/EdDSA", auth: f.Authenticator, bearer: edKey().token(b, claims), fresh: true},
		{name: "fresh/token", auth: f.Authenticator, bearer: staticToken("bob"), fresh: true},
	} {
		b.Run(row.name, func(b *testing.B) {
			proof := Proof{Chains: alone(row.leaf), Holder: row.holder, From: netip.MustParseAddr("10.0.0.1")}
			if row.bearer != "" {
				proof.Authorization = []string{"Bearer " + row.bearer}
			}
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				if row.fresh {
					row.auth.tokensGeneration.Add(1)
					f.KeySets()[0].generation.Add(1)
				}
				if _, err := row.auth.Authenticate(ctx, proof); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(row.bearer)), "B/token")
		})
	}
}

// BenchmarkStranger: a token that is refused costs no more than one that is not.
func BenchmarkStranger(b *testing.B) {
	f := newFixture(b)
	stranger := rsaKey()
	stranger.private = newRSAKey(b, "rsa", 2048).private
	for name, token := range map[string]string{
		"signature": stranger.token(b, goodClaims()), "kid": newEdKey(b, "unknown").token(b, goodClaims()), "static": staticToken("eve"),
	} {
		b.Run(name, func(b *testing.B) { // Each from an address that is not known, so that all are checked.
			proof := Proof{Authorization: []string{"Bearer " + token}}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.Authenticate(b.Context(), proof); err == nil {
					b.Fatal("let in")
				}
			}
		})
	}
}
