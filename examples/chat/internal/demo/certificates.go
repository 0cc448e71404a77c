package demo

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"time"
)

// proofTTL is the lifetime of the demo's certificates and tokens.
const proofTTL = time.Hour

// authority signs the certificates of a demo.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// newAuthority returns an authority whose own certificate is in the file.
func newAuthority(certFile string) (*authority, error) {
	a := &authority{}
	err := a.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "the demo's CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, certFile, "")
	return a, err
}

// sign writes a certificate of that name, for servers on this machine and for clients, and its key.
func (a *authority) sign(name, certFile, keyFile string) error {
	return a.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, certFile, keyFile)
}

// issue completes and writes a certificate, and its key unless the file has no name. The first one is the authority's.
func (a *authority) issue(template *x509.Certificate, certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(proofTTL)
	if a.key == nil {
		a.certificate, a.key = template, key
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return err
	}
	if template.IsCA {
		if a.certificate, err = x509.ParseCertificate(certificate); err != nil {
			return err
		}
	}
	if keyFile == "" {
		return writePEM(certFile, "CERTIFICATE", certificate)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	return errors.Join(err, writePEM(certFile, "CERTIFICATE", certificate), writePEM(keyFile, "PRIVATE KEY", private))
}

func writePEM(path, kind string, content []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600)
}
