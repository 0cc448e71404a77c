package data

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	"podlink/internal/conf"
	"podlink/test/kit/proc"
	redistest "podlink/test/kit/redis"
	tlstest "podlink/test/kit/tls"
)

// authority is a CA for a test that also starts servers with its certificates.
type authority struct{ *tlstest.Authority }

func newAuthority(t *testing.T, dir, name string) authority {
	t.Helper()
	return authority{tlstest.New(t, dir, name)}
}

// sign issues a certificate for "redis.test" that expires at notAfter.
func (a authority) sign(t *testing.T, name string, notAfter time.Time) {
	t.Helper()
	a.Sign(t, name, "redis.test", notAfter)
}

// startTLS starts a Redis that also has a TLS port, with the named certificate, and requires client certificates.
func (a authority) startTLS(t *testing.T, name string) (addr string, plain *redistest.Server) {
	t.Helper()
	port := proc.FreePorts(t, 1)[0]
	plain = redistest.Start(t, "--tls-port", strconv.Itoa(port), "--tls-ca-cert-file", a.Path(a.Name+".crt"),
		"--tls-cert-file", a.Path(name+".crt"), "--tls-key-file", a.Path(name+".key"))
	return proc.Addr(port), plain
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

	// secured has the correct options; each row changes one of them.
	secured := func(change func(*conf.TLS)) option {
		return func(c *testOptions) {
			c.Tls = &conf.TLS{
				Enabled: true, CaFile: ca.Path("ca.crt"), CertFile: ca.Path("client.crt"), KeyFile: ca.Path("client.key"),
				ServerName: "redis.test",
			}
			change(c.Tls)
		}
	}
	key := biz.LinkKey{Namespace: "game", UID: "alice", Service: "room"}
	for name, row := range map[string]struct {
		addr   string
		change func(*conf.TLS)
		ok     bool
	}{
		"correct options":                  {addr, func(*conf.TLS) {}, true},
		"an unknown authority":             {addr, func(c *conf.TLS) { c.CaFile = ca.Path("stranger.crt") }, false},
		"the system's authorities":         {addr, func(c *conf.TLS) { c.CaFile = "" }, false},
		"another name":                     {addr, func(c *conf.TLS) { c.ServerName = "other.test" }, false},
		"the address instead of a name":    {addr, func(c *conf.TLS) { c.ServerName = "" }, false},
		"no client certificate":            {addr, func(c *conf.TLS) { c.CertFile, c.KeyFile = "", "" }, false},
		"an expired server certificate":    {expired, func(*conf.TLS) {}, false},
		"a TLS client on a plaintext port": {plain.Addr(), func(*conf.TLS) {}, false},
		"a plaintext client on a TLS port": {addr, func(c *conf.TLS) { c.Enabled = false }, false},
		"plaintext on a plaintext port":    {plain.Addr(), func(c *conf.TLS) { c.Enabled = false }, true},
	} {
		t.Run(name, func(t *testing.T) {
			store := openStore(t, onServer(row.addr), secured(row.change))
			links := reposOf(store).Links
			_, err := links.Set(t.Context(), key, 1, biz.Forever, biz.SetTerms{})
			_, readErr := links.Get(t.Context(), key)
			if row.ok {
				require.NoError(t, err)
				require.NoError(t, readErr)
				require.NoError(t, store.Check(t.Context()))
				return
			}
			require.ErrorIs(t, err, biz.ErrStoreUnavailable, "it was not executed")
			require.Error(t, readErr)
			require.Error(t, store.Check(t.Context()))
		})
	}
}
