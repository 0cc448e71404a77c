package auth

import (
	"crypto/x509"
	"net/url"
	"regexp"
	"strings"
	"time"
	"weak"

	"github.com/maypok86/otter/v2"
)

// certificateNames is how many certificates' names are kept, at least one for each connection of an ordinary podlink.
const certificateNames = 16_384

// certificates returns the names in callers' certificates, which TLS has verified. It keeps them by certificate, as a connection has
// the same one for each of its calls.
type certificates struct {
	trustDomain string
	now         func() time.Time
	names       *otter.Cache[weak.Pointer[x509.Certificate], string] // empty: none that counts
}

func newCertificates(trustDomain string, now func() time.Time) certificates {
	return certificates{trustDomain, now, otter.Must(&otter.Options[weak.Pointer[x509.Certificate], string]{MaximumSize: certificateNames})}
}

// identify returns who the holder of a certificate is. It is no pod: a certificate names what runs in a pod, seldom which one.
func (c certificates) identify(leaf *x509.Certificate) (Identity, error) {
	key := weak.Make(leaf)
	name, ok := c.names.GetIfPresent(key)
	if !ok {
		name = certificateName(leaf, c.trustDomain)
		c.names.Set(key, name)
	}
	switch {
	case name == "":
		return Identity{}, refuse(BadCertificate)
	case c.now().After(leaf.NotAfter): // A connection may last longer than its certificate.
		return Identity{}, &RefusedError{Cause: Expired, Name: name}
	}
	return Identity{Name: name}, nil
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
		return spiffeID(leaf.URIs[0], trustDomain)
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

// dnsName returns the identity's name of a DNS name, empty for a wildcard and what is no DNS name. DNS knows no case.
func dnsName(name string) string {
	name = strings.ToLower(name)
	if len(name) > maxDNSName || !dnsPattern.MatchString(name) {
		return ""
	}
	return "dns:" + name
}
