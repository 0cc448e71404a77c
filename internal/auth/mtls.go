package auth

import (
	"crypto/x509"
	"encoding/asn1"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Holder keeps who has proven what on a connection, for each of its calls: the holder of its certificate, and of the first bearer.
type Holder struct {
	known  atomic.Pointer[held]
	bearer atomic.Pointer[heldBearer]
}

// heldBearer is an Authorization header whose bearer is known.
type heldBearer struct {
	header string
	verified
}

// held is what counts in a certificate.
type held struct {
	name  string    // empty: none that counts
	until time.Time // when it ends, or the last chain to a CA is broken
}

// holder returns who the holder of a certificate, which TLS has verified, is. It is no pod: a certificate names what runs in a pod,
// seldom which one.
func (a *Authenticator) holder(p *Proof, now time.Time) (Identity, error) {
	known := p.Holder.known.Load()
	if known == nil {
		known = &held{certificateName(p.Chains[0][0], a.trustDomain), slices.MaxFunc(endsOf(p.Chains), time.Time.Compare)}
		p.Holder.known.Store(known)
	}
	switch {
	case known.name == "":
		return Identity{}, refuse(BadCertificate)
	case now.After(known.until): // A connection may last longer than its certificate.
		return Identity{}, &RefusedError{Cause: Expired, Name: known.name}
	}
	return Identity{Name: known.name}, nil
}

// endsOf returns when each chain is broken: when the first of its certificates ends.
func endsOf(chains [][]*x509.Certificate) []time.Time {
	ends := make([]time.Time, len(chains))
	for i, chain := range chains {
		ends[i] = chain[0].NotAfter
		for _, signer := range chain[1:] {
			if signer.NotAfter.Before(ends[i]) {
				ends[i] = signer.NotAfter
			}
		}
	}
	return ends
}

// certificateName returns the name in a certificate: the SPIFFE id, if callers have those of a trust domain, else the first DNS name.
// Empty: none that counts. The common name never does: CAs don't check it as they check the others.
func certificateName(leaf *x509.Certificate, trustDomain string) string {
	switch {
	case leaf.IsCA: // The key of a CA signs certificates, not calls.
		return ""
	case trustDomain != "":
		if len(leaf.URIs) != 1 { // With two, podlink and another service could take the same caller for different ones.
			return ""
		}
		id := spiffeID(leaf.URIs[0], trustDomain)
		if id != "" && !hasURI(leaf, id) {
			return "" // The parsed URI has lost something of the text, as an empty fragment.
		}
		return id
	case len(leaf.DNSNames) == 0:
		return ""
	default:
		return dnsName(leaf.DNSNames[0])
	}
}

var (
	// spiffePathPattern is that of SPIFFE's standard: segments without escapes, and no slash at the end.
	spiffePathPattern = regexp.MustCompile(`^(/[A-Za-z0-9._-]+)+$`)
	dnsPattern        = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$`)
)

// maxSPIFFEID and maxDNSName are the standards' greatest lengths.
const (
	maxSPIFFEID = 2048
	maxDNSName  = 253
)

// spiffeID returns the text of a SPIFFE id of the trust domain, empty if it is none.
func spiffeID(id *url.URL, trustDomain string) string {
	text := id.String()
	path, ok := strings.CutPrefix(text, "spiffe://"+trustDomain)
	if !ok || len(text) > maxSPIFFEID || !spiffePathPattern.MatchString(path) {
		return "" // Any port, user, query, fragment or escape is in the text, and so is the path of a longer trust domain.
	}
	for segment := range strings.SplitSeq(path[1:], "/") {
		if segment == "." || segment == ".." {
			return ""
		}
	}
	return text
}

// subjectAltName is the extension with a certificate's names, and uriTag the tag of a URI in it: RFC 5280, section 4.2.1.6.
var subjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

const uriTag = 6

// hasURI reports whether the text of a URI in the certificate is exactly this one, but for the case of its scheme.
func hasURI(leaf *x509.Certificate, text string) bool {
	for _, extension := range leaf.Extensions {
		if !extension.Id.Equal(subjectAltName) {
			continue
		}
		var names asn1.RawValue
		if _, err := asn1.Unmarshal(extension.Value, &names); err != nil {
			return false
		}
		for rest := names.Bytes; len(rest) > 0; {
			var name asn1.RawValue
			var err error
			if rest, err = asn1.Unmarshal(rest, &name); err != nil {
				return false
			}
			if name.Class == asn1.ClassContextSpecific && name.Tag == uriTag && strings.EqualFold(string(name.Bytes), text) {
				return true
			}
		}
	}
	return false
}

// dnsName returns the identity's name of a DNS name, empty for a wildcard and what is no DNS name. DNS knows no case.
func dnsName(name string) string {
	name = strings.ToLower(name)
	if len(name) > maxDNSName || !dnsPattern.MatchString(name) {
		return ""
	}
	return "dns:" + name
}
