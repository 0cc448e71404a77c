package data

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	"podlink/internal/conf"
	"podlink/test/redistest"
)

// authority signs certificates for a test; all of them are PEM files in one folder.
type authority struct {
	dir  string
	name string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	a := &authority{dir: dir, name: name}
	template := &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.cert, a.key = a.issue(t, name, template, nil)
	return a
}

// issue writes name.crt and name.key; without a parent the certificate signs itself.
func (a *authority) issue(
	t *testing.T, name string, template *x509.Certificate, parent *authority,
) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{CommonName: name}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	template.NotBefore = template.NotAfter.Add(-24 * time.Hour)
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

func (a *authority) write(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	require.NoError(t, os.WriteFile(a.path(file), text, 0o600))
}

func (a *authority) path(file string) string { return filepath.Join(a.dir, file) }

// sign issues a certificate for "redis.test" that ends at that time.
func (a *authority) sign(t *testing.T, name string, notAfter time.Time) {
	t.Helper()
	a.issue(t, name, &x509.Certificate{
		DNSNames: []string{"redis.test"}, NotAfter: notAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a)
}

// startTLS starts a Redis that also listens for TLS, with the named certificate, and asks clients for one.
func (a *authority) startTLS(t *testing.T, name string) (addr string, plain *redistest.Server) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := listener.Addr().(*net.TCPAddr).Port
	require.NoError(t, listener.Close())
	plain = redistest.Start(t, "--tls-port", strconv.Itoa(port), "--tls-ca-cert-file", a.path(a.name+".crt"),
		"--tls-cert-file", a.path(name+".crt"), "--tls-key-file", a.path(name+".key"))
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), plain
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	newAuthority(t, dir, "stranger")
	ca.sign(t, "server", time.Now().Add(time.Hour))
	ca.sign(t, "expired", time.Now().Add(-time.Minute))
	ca.sign(t, "client", time.Now().Add(time.Hour))
	addr, plain := ca.startTLS(t, "server")
	expired, _ := ca.startTLS(t, "expired")

	// secured is how a client should connect; each row takes something away.
	secured := func(change func(*conf.Data_TLS)) settings {
		return func(c *conf.Data_Redis) {
			c.Tls = &conf.Data_TLS{
				Enabled: true, CaFile: ca.path("ca.crt"), CertFile: ca.path("client.crt"), KeyFile: ca.path("client.key"),
				ServerName: "redis.test",
			}
			change(c.Tls)
		}
	}
	key := biz.LinkKey{Namespace: "game", UID: "alice", Service: "room"}
	for name, row := range map[string]struct {
		addr   string
		change func(*conf.Data_TLS)
		ok     bool
	}{
		"all in order":                      {addr, func(*conf.Data_TLS) {}, true},
		"an unknown authority":              {addr, func(c *conf.Data_TLS) { c.CaFile = ca.path("stranger.crt") }, false},
		"the system's authorities":          {addr, func(c *conf.Data_TLS) { c.CaFile = "" }, false},
		"another name":                      {addr, func(c *conf.Data_TLS) { c.ServerName = "other.test" }, false},
		"the address instead of a name":     {addr, func(c *conf.Data_TLS) { c.ServerName = "" }, false},
		"no client certificate":             {addr, func(c *conf.Data_TLS) { c.CertFile, c.KeyFile = "", "" }, false},
		"an expired server certificate":     {expired, func(*conf.Data_TLS) {}, false},
		"a plaintext port, asked for TLS":   {plain.Addr(), func(*conf.Data_TLS) {}, false},
		"a TLS port, asked for plaintext":   {addr, func(c *conf.Data_TLS) { c.Enabled = false }, false},
		"a plaintext port, as it should be": {plain.Addr(), func(c *conf.Data_TLS) { c.Enabled = false }, true},
	} {
		t.Run(name, func(t *testing.T) {
			store := openStore(t, on(row.addr), secured(row.change))
			links := NewLinkRepo(store)
			_, err := links.Set(t.Context(), key, 1, biz.Forever, nil)
			_, readErr := links.Get(t.Context(), key)
			if row.ok {
				require.NoError(t, err)
				require.NoError(t, readErr)
				require.NoError(t, store.Check(t.Context()))
				return
			}
			require.ErrorIs(t, err, biz.ErrStoreUnavailable, "it was certainly not carried out")
			require.Error(t, readErr)
			require.Error(t, store.Check(t.Context()))
		})
	}
}

func TestTLSFilesThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	newAuthority(t, dir, "other")
	require.NoError(t, os.WriteFile(ca.path("empty.crt"), []byte("nothing"), 0o600))
	for name, row := range map[string]struct {
		tls  *conf.Data_TLS
		want string
	}{
		"no authorities' file":      {&conf.Data_TLS{CaFile: ca.path("absent.crt")}, "data.redis.tls.ca_file: "},
		"no certificate in it":      {&conf.Data_TLS{CaFile: ca.path("empty.crt")}, "data.redis.tls.ca_file: it has no certificate"},
		"no client certificate":     {&conf.Data_TLS{CertFile: ca.path("absent.crt"), KeyFile: ca.path("ca.key")}, "data.redis.tls.cert_file"},
		"another certificate's key": {&conf.Data_TLS{CertFile: ca.path("ca.crt"), KeyFile: ca.path("other.key")}, "data.redis.tls.cert_file"},
	} {
		t.Run(name, func(t *testing.T) {
			c := conf.Default().GetData()
			c.Redis.Mode = conf.ModeStandalone
			c.Redis.Tls = row.tls
			c.Redis.Tls.Enabled = true
			_, _, err := NewStore(c, log.NewStdLogger(io.Discard))
			require.ErrorContains(t, err, row.want)
		})
	}
}
