package main

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// folder is a folder of certificates.
type folder struct {
	t   *testing.T
	dir string
}

func (f folder) content(name string) string {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join(f.dir, name))
	require.NoError(f.t, err)
	return string(text)
}

// verified returns the certificate, which the CA has signed for the usage.
func (f folder) verified(name string, usage x509.ExtKeyUsage) *x509.Certificate {
	f.t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(f.dir, name+".crt"), filepath.Join(f.dir, name+".key"))
	require.NoError(f.t, err)
	roots := x509.NewCertPool()
	require.True(f.t, roots.AppendCertsFromPEM([]byte(f.content("ca.crt"))))
	_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}})
	require.NoError(f.t, err)
	return pair.Leaf
}

// TestCertificates: each is signed by the CA, for the names that the help promises, and nobody else reads a key.
func TestCertificates(t *testing.T) {
	f := folder{t, filepath.Join(t.TempDir(), "new", "certs")}
	require.Zero(t, run([]string{"-dir", f.dir, "-names", "podlink.example, 192.0.2.7", "-callers", "dash,gateway-2", "-pods", "2"}))
	server := f.verified("server", x509.ExtKeyUsageServerAuth)
	for _, host := range []string{"localhost", "podlink", "127.0.0.1", "::1", "podlink.example", "192.0.2.7"} {
		require.NoError(t, server.VerifyHostname(host))
	}
	for name, id := range map[string]string{
		"operator": "spiffe://podlink.dev/operator", "caller": "spiffe://podlink.dev/caller",
		"chat-0": "spiffe://podlink.dev/pod/chat-0", "chat-1": "spiffe://podlink.dev/pod/chat-1",
		"dash": "spiffe://podlink.dev/dash", "gateway-2": "spiffe://podlink.dev/gateway-2",
	} {
		caller := f.verified(name, x509.ExtKeyUsageClientAuth)
		require.Len(t, caller.URIs, 1)
		require.Equal(t, id, caller.URIs[0].String())
		require.NotContains(t, caller.ExtKeyUsage, x509.ExtKeyUsageServerAuth, "a caller can't pretend to be podlink")
	}
	files, err := os.ReadDir(f.dir)
	require.NoError(t, err)
	require.Len(t, files, 2*8, "no file is left over: %v", files)
	for _, file := range files {
		info, err := file.Info()
		require.NoError(t, err)
		want := map[string]os.FileMode{".key": 0o600, ".crt": 0o644}[filepath.Ext(file.Name())]
		require.Equal(t, want, info.Mode().Perm(), file.Name())
	}
}

// TestNamesOfCallers: none is another file's.
func TestNamesOfCallers(t *testing.T) {
	for _, name := range []string{"ca", "server", "../a", "A", "-a", "a.b"} {
		require.Equal(t, 1, run([]string{"-dir", t.TempDir(), "-callers", name}), name)
	}
}

// TestSecondRun: it issues new certificates, and leaves the CA as it is unless it is asked for a new one.
func TestSecondRun(t *testing.T) {
	f := folder{t, t.TempDir()}
	require.Zero(t, run([]string{"-dir", f.dir}))
	ca, server := f.content("ca.crt")+f.content("ca.key"), f.content("server.crt")
	require.Zero(t, run([]string{"-dir", f.dir}))
	require.Equal(t, ca, f.content("ca.crt")+f.content("ca.key"))
	require.NotEqual(t, server, f.content("server.crt"))
	f.verified("server", x509.ExtKeyUsageServerAuth)

	require.Zero(t, run([]string{"-dir", f.dir, "-new-ca"}))
	require.NotEqual(t, ca, f.content("ca.crt")+f.content("ca.key"))
	f.verified("operator", x509.ExtKeyUsageClientAuth)
}

// TestBrokenCA is not overwritten.
func TestBrokenCA(t *testing.T) {
	for _, file := range []string{"ca.crt", "ca.key"} {
		f := folder{t, t.TempDir()}
		require.NoError(t, os.WriteFile(filepath.Join(f.dir, file), []byte("mine"), 0o600))
		require.Equal(t, 1, run([]string{"-dir", f.dir}))
		require.Equal(t, "mine", f.content(file))
		names, err := os.ReadDir(f.dir)
		require.NoError(t, err)
		require.Len(t, names, 1)
		require.Zero(t, run([]string{"-dir", f.dir, "-new-ca"}))
	}
}

func TestUsage(t *testing.T) {
	require.Zero(t, run([]string{"-help"}))
	for _, args := range [][]string{{"-unknown"}, {"extra"}, {"-pods", "-1"}, {"-pods", "x"}} {
		require.Equal(t, 2, run(args), "%q", args)
	}
	f := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(f, nil, 0o600))
	require.Equal(t, 1, run([]string{"-dir", f}))
}
