package rdb

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/test/kit/proc"
	redistest "podlink/test/kit/redis"
	tlstest "podlink/test/kit/tls"
)

// TestReasonsNameTheSetting: the reason of a store that can't be used for a setting names it, and no secret.
func TestReasonsNameTheSetting(t *testing.T) {
	t.Parallel()
	plain := redistest.Start(t)
	closed := redistest.Start(t, "--requirepass", "right")
	ca := tlstest.New(t, t.TempDir(), "ca")
	ca.Sign(t, "server", "redis.test", time.Now().Add(time.Hour))
	ca.Sign(t, "client", "client", time.Now().Add(time.Hour))
	pair, err := tls.LoadX509KeyPair(ca.Path("client.crt"), ca.Path("client.key"))
	require.NoError(t, err)
	secured := startSecured(t, ca)
	config := func(change func(*tls.Config)) func() *tls.Config {
		c := &tls.Config{RootCAs: ca.Pool(), ServerName: "redis.test", Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
		change(c)
		return func() *tls.Config { return c }
	}
	for name, row := range map[string]struct {
		addr string
		with func(*Options)
		want string
	}{
		"TLS to a plain port": {
			plain.Addr(), func(o *Options) { o.TLS = config(func(*tls.Config) {}) }, "data.redis.tls.enabled must be false",
		},
		"plaintext to a TLS port": {secured, func(*Options) {}, "data.redis.tls.enabled must be true"},
		"another CA": {
			secured, func(o *Options) { o.TLS = config(func(c *tls.Config) { c.RootCAs = x509.NewCertPool() }) }, "data.redis.tls.ca_file",
		},
		"another name": {
			secured, func(o *Options) { o.TLS = config(func(c *tls.Config) { c.ServerName = "other" }) }, "data.redis.tls.server_name",
		},
		"no client certificate": {
			secured, func(o *Options) { o.TLS = config(func(c *tls.Config) { c.Certificates = nil }) }, "data.redis.tls.cert_file",
		},
		"no password":      {closed.Addr(), func(*Options) {}, "data.redis.password"},
		"a wrong password": {closed.Addr(), func(o *Options) { o.Password = "wrong-12345" }, "data.redis.password"},
		"an unknown user": {
			plain.Addr(), func(o *Options) { o.Username, o.Password = "stranger", "wrong-12345" }, "data.redis.username",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := testOptions(row.addr)
			row.with(&o)
			db := Open(o, counterTest)
			t.Cleanup(db.Close)
			err := db.Health.Check(t.Context())
			require.ErrorContains(t, err, row.want)
			require.NotContains(t, err.Error(), "12345")
		})
	}
}

// startSecured runs a redis-server with TLS only, and returns its host:port.
func startSecured(t *testing.T, ca *tlstest.Authority) string {
	t.Helper()
	proc.Need(t, "redis-server", "redis-server")
	port := proc.FreePorts(t, 1)[0]
	proc.Start(t, proc.Command{Program: "redis-server", Args: []string{
		"--bind", "127.0.0.1", "--port", "0", "--tls-port", strconv.Itoa(port), "--dir", t.TempDir(), "--save", "",
		"--tls-ca-cert-file", ca.Path("ca.crt"), "--tls-cert-file", ca.Path("server.crt"), "--tls-key-file", ca.Path("server.key"),
	}})
	pair, err := tls.LoadX509KeyPair(ca.Path("client.crt"), ca.Path("client.key"))
	require.NoError(t, err)
	o := testOptions(proc.Addr(port))
	with := &tls.Config{RootCAs: ca.Pool(), ServerName: "redis.test", Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	o.TLS = func() *tls.Config { return with }
	db := Open(o, counterTest)
	defer db.Close()
	require.Eventually(t, func() bool { return db.Health.Check(context.Background()) == nil }, 10*time.Second, 10*time.Millisecond)
	return o.Addrs[0]
}

// TestPasswordThatRedisDoesNotCheck: a Redis without a password accepts any, which is worth a warning.
func TestPasswordThatRedisDoesNotCheck(t *testing.T) {
	t.Parallel()
	db, log := open(t, redistest.Start(t), func(o *Options) { o.Password = "secret-12345" })
	require.NoError(t, db.Health.Check(t.Context()))
	require.Contains(t, log.String(), "data.redis.password is set, but not checked")
	require.NotContains(t, log.String(), "12345")
	db, log = open(t, redistest.Start(t, "--requirepass", "secret"), func(o *Options) { o.Password = "secret" })
	require.NoError(t, db.Health.Check(t.Context()))
	require.NotContains(t, log.String(), "data.redis.password")
}

// TestDeniedChecks: without SCRIPT and INFO podlink is ready, and says once what it can't check.
func TestDeniedChecks(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"denied":  {"--user", "default", "on", "nopass", "~*", "+@all", "-info", "-script"},
		"renamed": {"--rename-command", "INFO", "", "--rename-command", "SCRIPT", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, args...)
			db, log := open(t, server)
			for range 2 {
				require.NoError(t, db.Health.Check(t.Context()))
			}
			_, err := db.Runner.Run(t.Context(), increment, "counter")
			require.NoError(t, err)
			require.Empty(t, db.Runner.Primaries())
			for _, command := range []string{"SCRIPT LOAD", "use INFO"} {
				require.Equal(t, 1, strings.Count(log.String(), command), log.String())
			}
			require.Equal(t, 1, strings.Count(log.String(), "the store is ready"))
		})
	}
}
