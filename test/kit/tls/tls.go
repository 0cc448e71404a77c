// Package tls is a certificate authority for tests.
package tls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Authority signs certificates. It writes all of them, as PEM files, to one directory.
type Authority struct {
	Dir  string
	Name string // its own certificate is Name.crt

	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	parent *Authority // nil: a root
}

// New returns a new authority that writes to the directory.
func New(t *testing.T, dir, name string) *Authority {
	t.Helper()
	a := &Authority{Dir: dir, Name: name}
	template := &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.cert, a.key = a.issue(t, name, template, nil)
	return a
}

// Sign issues a certificate of the host for clients and servers, valid until notAfter: name.crt and name.key.
func (a *Authority) Sign(t *testing.T, name, host string, notAfter time.Time) {
	t.Helper()
	a.issue(t, name, &x509.Certificate{
		DNSNames: []string{host}, NotAfter: notAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a)
}

// Issue issues a certificate from the template, which has at least what Sign would set besides the lifetime of 24 hours: name.crt,
// with the certificates between it and the root, and name.key.
func (a *Authority) Issue(t *testing.T, name string, template *x509.Certificate) {
	t.Helper()
	a.issue(t, name, template, a)
	if a.parent == nil {
		return
	}
	text, err := os.ReadFile(a.Path(name + ".crt"))
	require.NoError(t, err)
	between, err := os.ReadFile(a.Path(a.Name + ".crt"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(a.Path(name+".crt"), append(text, between...), 0o600))
}

// Between returns a new authority that this one has signed.
func (a *Authority) Between(t *testing.T, name string) *Authority {
	t.Helper()
	b := &Authority{Dir: a.Dir, Name: name, parent: a}
	template := &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	b.cert, b.key = b.issue(t, name, template, a)
	return b
}

// Copy replaces a file with the content of others, at one moment, as those who rotate certificates should.
func Copy(t *testing.T, to string, from ...string) {
	t.Helper()
	var text []byte
	for _, file := range from {
		part, err := os.ReadFile(file)
		require.NoError(t, err)
		text = append(text, part...)
	}
	require.NoError(t, os.WriteFile(to+".new", text, 0o600))
	require.NoError(t, os.Rename(to+".new", to))
}

// Path returns the path of a file of the directory.
func (a *Authority) Path(file string) string { return filepath.Join(a.Dir, file) }

// Pool returns a pool with the authority only.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// issue writes name.crt and name.key. Without a parent the certificate is self-signed.
func (a *Authority) issue(
	t *testing.T, name string, template *x509.Certificate, parent *Authority,
) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{CommonName: name}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	if template.NotBefore.IsZero() {
		template.NotBefore = template.NotAfter.Add(-24 * time.Hour)
	}
	signer, signerKey := template, key
	if parent != nil {
		signer, signerKey = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, &key.PublicKey, signerKey)
	require.NoError(t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	a.write(t, name+".crt", "CERTIFICATE", der)
	a.write(t, name+".key", "EC PRIVATE KEY", keyDER)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert, key
}

func (a *Authority) write(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	require.NoError(t, os.WriteFile(a.Path(file), text, 0o600))
}
