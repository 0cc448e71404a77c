package tls

import (
	"crypto/x509"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Rotation is a folder of files that two authorities have issued one after the other: ca.crt, and for each name its .crt and .key, for
// clients and for servers of that name or of 127.0.0.1. It begins with the files of Old.
type Rotation struct {
	Old, Next *Authority

	t     *testing.T
	dir   string
	names []string
}

// NewRotation returns a new folder with files of these names.
func NewRotation(t *testing.T, names ...string) *Rotation {
	t.Helper()
	r := &Rotation{t: t, dir: t.TempDir(), Old: New(t, t.TempDir(), "ca"), Next: New(t, t.TempDir(), "ca"), names: names}
	for _, ca := range []*Authority{r.Old, r.Next} {
		for _, name := range names {
			ca.Issue(t, name, &x509.Certificate{
				DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
				ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			})
		}
	}
	r.Trust(r.Old)
	r.Show(r.Old)
	return r
}

// Path returns the path of a file.
func (r *Rotation) Path(file string) string { return filepath.Join(r.dir, file) }

// Trust makes all sides trust these authorities.
func (r *Rotation) Trust(all ...*Authority) {
	r.t.Helper()
	require.NotEmpty(r.t, all)
	var files []string
	for _, ca := range all {
		files = append(files, ca.Path("ca.crt"))
	}
	Copy(r.t, r.Path("ca.crt"), files...)
}

// Show makes all sides show the certificates of the authority.
func (r *Rotation) Show(ca *Authority) {
	r.t.Helper()
	for _, name := range r.names {
		for _, file := range []string{name + ".crt", name + ".key"} {
			Copy(r.t, r.Path(file), ca.Path(file))
		}
	}
}
