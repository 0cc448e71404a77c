package demo

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"podlink/client"
)

// TestDoors: each caller has a certificate and a token; podlink knows all of them but the stranger's, by their hashes alone. No file is
// for others to read.
func TestDoors(t *testing.T) {
	d := &doors{filepath.Join(t.TempDir(), "doors")}
	require.NoError(t, d.make())
	files, err := os.ReadDir(d.dir)
	require.NoError(t, err)
	for _, file := range files {
		info, err := file.Info()
		require.NoError(t, err)
		require.EqualValues(t, 0o600, info.Mode(), file.Name())
	}
	ca, err := os.ReadFile(d.path("ca.crt"))
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(ca))
	known, err := os.ReadFile(d.path("tokens.yaml"))
	require.NoError(t, err)
	for _, name := range []string{routing, operating, watching, unknown, "chat-0", "chat-1", "chat-2"} {
		o := d.show(client.Options{}, name)
		pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		require.NoError(t, err)
		_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: name, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		require.NoError(t, err)
		token, err := os.ReadFile(o.TokenFile)
		require.NoError(t, err)
		hash := sha256.Sum256(token)
		require.Equal(t, name != unknown, strings.Contains(string(known), name+", sha256: "+hex.EncodeToString(hash[:])))
		require.NotContains(t, string(known), string(token))
	}
	require.Contains(t, string(known), "name: chat-2, sha256: ")
	require.Regexp(t, `name: chat-2, .*, pod: chat-2}`, string(known))
	server, err := tls.LoadX509KeyPair(d.path("podlink.crt"), d.path("podlink.key"))
	require.NoError(t, err)
	_, err = server.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "podlink"})
	require.NoError(t, err)
}

// TestNoDoors: without -secure nothing is asked and shown.
func TestNoDoors(t *testing.T) {
	var d *doors
	require.Empty(t, d.env())
	require.Empty(t, d.flags("chat-0"))
	require.Equal(t, client.Options{HTTP: true}, d.show(client.Options{HTTP: true}, "chat-0"))
}
