package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var certificateKey = sync.OnceValue(func() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
})

// certificate returns a certificate with these names, as TLS gives it: written and parsed.
func certificate(t testing.TB, uris, dns []string, change ...func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, DNSNames: dns, BasicConstraintsValid: true,
		NotBefore: begin.Add(-time.Hour), NotAfter: begin.Add(time.Hour),
	}
	for _, text := range uris {
		uri, err := url.Parse(text)
		require.NoError(t, err)
		template.URIs = append(template.URIs, uri)
	}
	for _, f := range change {
		f(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, certificateKey().Public(), certificateKey())
	require.NoError(t, err)
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Skipf("TLS refuses it already: %v", err)
	}
	return parsed
}

// alone returns the chain of a certificate without those that have signed it; none for nil.
func alone(leaf *x509.Certificate) [][]*x509.Certificate {
	if leaf == nil {
		return nil
	}
	return [][]*x509.Certificate{{leaf}}
}

// rawURI gives a certificate a URI as it is written.
func rawURI(text string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		names, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: uriTag, Bytes: []byte(text)}})
		if err != nil {
			panic(err)
		}
		c.ExtraExtensions = []pkix.Extension{{Id: subjectAltName, Value: names}}
	}
}

// TestCertificates: which names of a certificate count. None proves a pod.
func TestCertificates(t *testing.T) {
	const trusted = "example.org"
	long := "spiffe://example.org/" + strings.Repeat("a", 2027)
	for name, row := range map[string]struct {
		domain    string
		uris, dns []string
		want      string // empty: refused
		change    func(*x509.Certificate)
	}{
		"SPIFFE":                 {trusted, []string{"spiffe://example.org/ns/shop/sa/chat"}, nil, "spiffe://example.org/ns/shop/sa/chat", nil},
		"beside a DNS name":      {trusted, []string{"spiffe://example.org/chat"}, []string{"other.example"}, "spiffe://example.org/chat", nil},
		"a path in upper case":   {trusted, []string{"spiffe://example.org/Chat"}, nil, "spiffe://example.org/Chat", nil},
		"all marks":              {trusted, []string{"spiffe://example.org/a.b_c-D9/..."}, nil, "spiffe://example.org/a.b_c-D9/...", nil},
		"the longest":            {trusted, []string{long}, nil, long, nil},
		"too long":               {trusted, []string{long + "a"}, nil, "", nil},
		"a DNS name only":        {trusted, nil, []string{"chat.example.org"}, "", nil},
		"none":                   {trusted, nil, nil, "", nil},
		"two ids":                {trusted, []string{"spiffe://example.org/a", "spiffe://example.org/b"}, nil, "", nil},
		"the same id twice":      {trusted, []string{"spiffe://example.org/a", "spiffe://example.org/a"}, nil, "", nil},
		"with another URI":       {trusted, []string{"spiffe://example.org/a", "https://example.org/"}, nil, "", nil},
		"another domain":         {trusted, []string{"spiffe://evil.org/chat"}, nil, "", nil},
		"a domain that goes on":  {trusted, []string{"spiffe://example.org.evil.org/chat"}, nil, "", nil},
		"a domain that begins":   {"example.org", []string{"spiffe://example.or/chat"}, nil, "", nil},
		"a domain below":         {trusted, []string{"spiffe://a.example.org/chat"}, nil, "", nil},
		"domain in upper case":   {trusted, []string{"spiffe://EXAMPLE.org/chat"}, nil, "", nil},
		"no path":                {trusted, []string{"spiffe://example.org"}, nil, "", nil},
		"an empty path":          {trusted, []string{"spiffe://example.org/"}, nil, "", nil},
		"a slash at the end":     {trusted, []string{"spiffe://example.org/chat/"}, nil, "", nil},
		"an empty segment":       {trusted, []string{"spiffe://example.org/ns//chat"}, nil, "", nil},
		"a dot":                  {trusted, []string{"spiffe://example.org/./chat"}, nil, "", nil},
		"two dots":               {trusted, []string{"spiffe://example.org/ns/../chat"}, nil, "", nil},
		"an escape":              {trusted, []string{"spiffe://example.org/ch%61t"}, nil, "", nil},
		"an escaped slash":       {trusted, []string{"spiffe://example.org/ns%2fchat"}, nil, "", nil},
		"a star":                 {trusted, []string{"spiffe://example.org/*"}, nil, "", nil},
		"a query":                {trusted, []string{"spiffe://example.org/chat?admin"}, nil, "", nil},
		"an empty query":         {trusted, []string{"spiffe://example.org/chat?"}, nil, "", nil},
		"a fragment":             {trusted, []string{"spiffe://example.org/chat#a"}, nil, "", nil},
		"an empty fragment":      {trusted, nil, nil, "", rawURI("spiffe://example.org/chat#")},
		"a written one":          {trusted, nil, nil, "spiffe://example.org/chat", rawURI("spiffe://example.org/chat")},
		"scheme in upper case":   {trusted, nil, nil, "spiffe://example.org/chat", rawURI("SPIFFE://example.org/chat")},
		"a port":                 {trusted, []string{"spiffe://example.org:443/chat"}, nil, "", nil},
		"a user":                 {trusted, []string{"spiffe://example.org@evil.org/chat"}, nil, "", nil},
		"another scheme":         {trusted, []string{"https://example.org/chat"}, nil, "", nil},
		"of a CA":                {trusted, []string{"spiffe://example.org/chat"}, nil, "", func(c *x509.Certificate) { c.IsCA = true }},
		"a domain of a dot":      {"example.org", []string{"spiffe://exampleXorg/chat"}, nil, "", nil},
		"DNS":                    {"", nil, []string{"gateway.example.org"}, "dns:gateway.example.org", nil},
		"the first DNS name":     {"", nil, []string{"a.example.org", "b.example.org"}, "dns:a.example.org", nil},
		"DNS beside a SPIFFE id": {"", []string{"spiffe://example.org/chat"}, []string{"a.example.org"}, "dns:a.example.org", nil},
		"DNS in upper case":      {"", nil, []string{"Gateway.Example.ORG"}, "dns:gateway.example.org", nil},
		"one label":              {"", nil, []string{"gateway"}, "dns:gateway", nil},
		"a SPIFFE id only":       {"", []string{"spiffe://example.org/chat"}, nil, "", nil},
		"a common name only":     {"", nil, nil, "", nil},
		"a wildcard":             {"", nil, []string{"*.example.org"}, "", nil},
		"an empty DNS name":      {"", nil, []string{"", "a.example.org"}, "", nil},
		"a dot at the end":       {"", nil, []string{"a.example.org."}, "", nil},
		"an empty label":         {"", nil, []string{"a..example.org"}, "", nil},
		"a colon":                {"", nil, []string{"token:bob"}, "", nil},
		"a space":                {"", nil, []string{"a.example.org b"}, "", nil},
		"a zero":                 {"", nil, []string{"a.example.org\x00.evil.org"}, "", nil},
		"a label too long":       {"", nil, []string{strings.Repeat("a", 64) + ".org"}, "", nil},
		"a DNS name too long":    {"", nil, []string{strings.Repeat("a.", 130) + "org"}, "", nil},
		"of a CA, by DNS":        {"", nil, []string{"a.example.org"}, "", func(c *x509.Certificate) { c.IsCA = true }},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := New(Options{TrustDomain: row.domain, Certificates: true, Now: new(fakeClock).now})
			require.NoError(t, err)
			change := row.change
			if change == nil {
				change = func(*x509.Certificate) {}
			}
			leaf := certificate(t, row.uris, row.dns, change)
			for range 2 {
				got, err := a.Authenticate(t.Context(), Proof{Chains: alone(leaf)})
				if row.want == "" {
					requireCause(t, BadCertificate, err)
					require.Zero(t, got)
					continue
				}
				require.NoError(t, err)
				require.Equal(t, Identity{Name: row.want}, got)
			}
		})
	}
}

// TestCertificateEnds: a connection outlives its certificate, its calls don't.
func TestCertificateEnds(t *testing.T) {
	var clock fakeClock
	a, err := New(Options{Certificates: true, Now: clock.now})
	require.NoError(t, err)
	leaf := certificate(t, nil, []string{"a.example.org"})
	clock.advance(time.Hour)
	_, err = a.Authenticate(t.Context(), Proof{Chains: alone(leaf)})
	require.NoError(t, err)
	clock.advance(time.Second)
	_, err = a.Authenticate(t.Context(), Proof{Chains: alone(leaf)})
	require.EqualError(t, err, "unauthenticated: expired: dns:a.example.org")
	requireCause(t, Expired, err)
}

// TestCertificateAndBearer: both must be valid, and the bearer names the caller.
func TestCertificateAndBearer(t *testing.T) {
	f := newFixture(t)
	good, bad := certificate(t, nil, []string{"a.example.org"}), certificate(t, nil, nil)
	ended := certificate(t, nil, []string{"a.example.org"}, func(c *x509.Certificate) { c.NotAfter = begin.Add(-time.Second) })
	token := "Bearer " + staticToken("bob")
	for name, row := range map[string]struct {
		leaf    *x509.Certificate
		bearers []string
		cause   Cause
		want    string
	}{
		"both":                      {leaf: good, bearers: []string{token}, want: "token:bob"},
		"the certificate":           {leaf: good, want: "dns:a.example.org"},
		"the bearer":                {bearers: []string{token}, want: "token:bob"},
		"neither":                   {cause: NoCredentials},
		"a bad certificate":         {leaf: bad, bearers: []string{token}, cause: BadCertificate},
		"a certificate that ended":  {leaf: ended, bearers: []string{token}, cause: Expired},
		"a bad bearer":              {leaf: good, bearers: []string{"Bearer " + staticToken("eve")}, cause: UnknownToken},
		"another scheme":            {leaf: good, bearers: []string{"Basic Ym9iOmJvYg=="}, cause: OtherScheme},
		"an empty header":           {leaf: good, bearers: []string{""}, cause: OtherScheme},
		"two bearers, with a good":  {leaf: good, bearers: []string{token, token}, cause: TwoBearers},
		"both, but bad certificate": {leaf: bad, bearers: []string{token, token}, cause: BadCertificate},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := f.Authenticate(t.Context(), Proof{Authorization: row.bearers, Chains: alone(row.leaf)})
			if row.cause != "" {
				requireCause(t, row.cause, err)
				require.Zero(t, got)
				return
			}
			require.NoError(t, err)
			require.Equal(t, Identity{Name: row.want}, got)
		})
	}
}

// TestSigners: a certificate counts as long as those that have signed it, on any way to a CA.
func TestSigners(t *testing.T) {
	clock := new(fakeClock)
	a, err := New(Options{Certificates: true, Now: clock.now})
	require.NoError(t, err)
	leaf := certificate(t, nil, []string{"a.example.org"})
	root, short, long := &x509.Certificate{NotAfter: begin.Add(time.Hour)}, &x509.Certificate{NotAfter: begin.Add(time.Minute)},
		&x509.Certificate{NotAfter: begin.Add(2 * time.Minute)}
	one := Proof{Holder: new(Holder), Chains: [][]*x509.Certificate{{leaf, short, root}}}
	two := Proof{Holder: new(Holder), Chains: [][]*x509.Certificate{{leaf, short, root}, {leaf, long, root}}}
	for range 2 {
		for _, proof := range []Proof{one, two} {
			_, err = a.Authenticate(t.Context(), proof)
			require.NoError(t, err)
		}
	}
	clock.advance(time.Minute + time.Second)
	_, err = a.Authenticate(t.Context(), one)
	requireCause(t, Expired, err)
	_, err = a.Authenticate(t.Context(), two)
	require.NoError(t, err, "the other way still leads to a CA")
	clock.advance(time.Minute)
	_, err = a.Authenticate(t.Context(), two)
	requireCause(t, Expired, err)
}
