package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

const (
	caLife, leafLife = 2 * 365 * 24 * time.Hour, 90 * 24 * time.Hour
	// trustDomain is that of the SPIFFE ids.
	trustDomain = "podlink.dev"
)

// authority signs certificates, and writes them to a folder.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  any
}

// callerPattern matches the names of callers, which are those of their files, too.
var callerPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)

// write writes all certificates. With newCA it replaces a CA that is in the folder.
func write(dir string, hosts, more []string, pods int, newCA bool) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	a, err := openAuthority(dir, newCA)
	if err != nil {
		return err
	}
	if err := a.server(append([]string{"podlink", "localhost", "127.0.0.1", "::1"}, hosts...)); err != nil {
		return err
	}
	callers := map[string]string{"operator": "operator", "caller": "caller"}
	for _, name := range more {
		if !callerPattern.MatchString(name) || name == "ca" || name == "server" {
			return fmt.Errorf("a caller's name has a-z, 0-9 and -, and is not ca or server: %q", name)
		}
		callers[name] = name
	}
	for i := range pods {
		name := fmt.Sprintf("chat-%d", i)
		callers[name] = "pod/" + name
	}
	for name, id := range callers {
		if err := a.caller(name, id); err != nil {
			return err
		}
	}
	return nil
}

// openAuthority returns the CA in the folder, or makes one.
func openAuthority(dir string, newCA bool) (*authority, error) {
	a := &authority{dir: dir}
	pair, err := tls.LoadX509KeyPair(a.path("ca.crt"), a.path("ca.key"))
	switch {
	case newCA, absent(a.path("ca.crt")) && absent(a.path("ca.key")):
		return a, a.create()
	case err != nil:
		return nil, fmt.Errorf("the CA in %s can't be used; -new-ca replaces it: %w", dir, err)
	case time.Now().After(pair.Leaf.NotAfter):
		return nil, fmt.Errorf("the CA in %s has expired; -new-ca replaces it", dir)
	}
	a.cert, a.key = pair.Leaf, pair.PrivateKey
	return a, nil
}

func absent(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func (a *authority) path(file string) string { return filepath.Join(a.dir, file) }

func (a *authority) create() error {
	return a.issue("ca", caLife, &x509.Certificate{
		Subject: pkix.Name{CommonName: "podlink development CA"}, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	})
}

// server issues podlink's certificate, for a server and for podlink's own connections.
func (a *authority) server(hosts []string) error {
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "podlink"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return a.issue("server", leafLife, template)
}

// caller issues the certificate of a caller with the SPIFFE id.
func (a *authority) caller(name, id string) error {
	return a.issue(name, leafLife, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{{Scheme: "spiffe", Host: trustDomain, Path: "/" + id}},
	})
}

// issue writes name.key and name.crt. The first certificate is the authority's, which signs itself.
func (a *authority) issue(name string, life time.Duration, template *x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return err
	}
	template.NotBefore = time.Now().Add(-time.Minute) // The clocks of two machines differ.
	template.NotAfter = template.NotBefore.Add(life)
	signer, signerKey := a.cert, a.key
	if template.IsCA {
		signer, signerKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, &key.PublicKey, signerKey)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if template.IsCA {
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			return err
		}
		a.key = key
	}
	return errors.Join(a.replace(name+".key", "PRIVATE KEY", secret, 0o600), a.replace(name+".crt", "CERTIFICATE", der, 0o644))
}

// replace writes a file at one moment: a podlink that reads it finds the old one or the new one.
func (a *authority) replace(name, kind string, der []byte, mode os.FileMode) error {
	file, err := os.CreateTemp(a.dir, name+".*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // Nothing, once it is renamed.
	err = errors.Join(file.Chmod(mode), pem.Encode(file, &pem.Block{Type: kind, Bytes: der}), file.Close())
	if err != nil {
		return err
	}
	return os.Rename(file.Name(), a.path(name))
}
