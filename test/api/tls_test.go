package api

import (
	"context"
	"io"
	"strconv"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/stretchr/testify/require"

	"podlink/internal/app"
	"podlink/internal/conf"
	certstest "podlink/test/kit/certs"
	"podlink/test/kit/proc"
	redistest "podlink/test/kit/redis"
	tlstest "podlink/test/kit/tls"
)

// TestNewFilesOfRedis: after podlink's and Redis' certificates were replaced, by those of another CA, new connections work.
func TestNewFilesOfRedis(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old, next := tlstest.New(t, t.TempDir(), "ca"), tlstest.New(t, t.TempDir(), "ca")
	names := []string{"ca.crt", "server.crt", "server.key", "client.crt", "client.key"}
	use := func(ca *tlstest.Authority) {
		for _, name := range names {
			tlstest.Copy(t, dir+"/"+name, ca.Path(name))
		}
	}
	for _, ca := range []*tlstest.Authority{old, next} {
		ca.Sign(t, "server", "redis.test", time.Time{})
		ca.Sign(t, "client", "client.test", time.Time{})
	}
	use(old)
	port := proc.FreePorts(t, 1)[0]
	settings := []string{"tls-ca-cert-file", dir + "/ca.crt", "tls-cert-file", dir + "/server.crt", "tls-key-file", dir + "/server.key"}
	args := []string{"--tls-port", strconv.Itoa(port)}
	for i := 0; i < len(settings); i += 2 {
		args = append(args, "--"+settings[i], settings[i+1])
	}
	redis := redistest.Start(t, args...)
	c := conf.Default().Data
	c.Redis.Mode, c.Redis.Addrs = conf.ModeStandalone, []string{proc.Addr(port)}
	c.Redis.Tls = &conf.TLS{
		Enabled: true, CaFile: dir + "/ca.crt", CertFile: dir + "/client.crt", KeyFile: dir + "/client.key", ServerName: "redis.test",
	}
	store, closeStore, err := app.OpenStore(c, certstest.Start(t), log.NewStdLogger(io.Discard))
	require.NoError(t, err)
	t.Cleanup(closeStore)
	ready := func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return store.Health.Check(ctx) == nil
	}
	require.True(t, ready())

	use(next)
	admin := redis.Client(t)
	set := admin.Do(t.Context(), "config", "set", settings[0], settings[1], settings[2], settings[3], settings[4], settings[5])
	require.NoError(t, set.Err())
	require.True(t, ready(), "the open connections stay")
	require.NoError(t, admin.Do(t.Context(), "client", "kill", "type", "normal", "skipme", "yes").Err())
	require.Eventually(t, ready, time.Minute, 10*time.Millisecond)
}
