package redistest

import (
	"context"
	"net"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServer(t *testing.T) {
	ctx := context.Background()
	server := Start(t)
	client := server.Client(t)
	require.NoError(t, client.Set(ctx, "key", "value", 0).Err())
	addr := server.Addr()

	t.Run("pause", func(t *testing.T) {
		server.Pause()
		limited, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		require.Error(t, client.WithTimeout(50*time.Millisecond).Ping(limited).Err())
		server.Resume()
		require.Equal(t, "value", client.Get(ctx, "key").Val())
	})
	t.Run("kill and restart", func(t *testing.T) {
		server.Kill()
		require.Error(t, client.Ping(ctx).Err())
		server.Restart()
		require.Equal(t, addr, server.Addr())
		require.EqualValues(t, 0, client.Exists(ctx, "key").Val(), "nothing is kept by default")
	})
	t.Run("a paused server can be killed", func(t *testing.T) {
		server.Pause()
		server.Kill()
		server.Kill()
		require.Error(t, client.Ping(ctx).Err())
	})
}

func TestServerArgs(t *testing.T) {
	ctx := context.Background()
	server := Start(t, "--appendonly", "yes", "--appendfsync", "always")
	client := server.Client(t)
	require.NoError(t, client.Set(ctx, "key", "value", 0).Err())
	server.Restart()
	require.Equal(t, "value", client.Get(ctx, "key").Val(), "the directory is kept")
}

func TestServerWithPassword(t *testing.T) {
	client := Start(t, "--requirepass", "secret").Client(t)
	require.ErrorContains(t, client.Ping(context.Background()).Err(), "NOAUTH")
}

func TestCluster(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		cluster := StartCluster(t, nodes)
		require.Len(t, cluster.Addrs(), nodes)
		for _, node := range cluster.Nodes() {
			info := node.Client(t).ClusterInfo(context.Background()).Val()
			require.Contains(t, info, "cluster_state:ok")
			require.Contains(t, info, "cluster_slots_ok:16384")
		}
	}
}

func TestProxyLosesReplies(t *testing.T) {
	const count = "return redis.call('INCR', KEYS[1])"
	ctx := context.Background()
	server := Start(t)
	direct := server.Client(t)
	proxy := NewProxy(t, server.Addr())
	proxied := (&Server{port: portOf(t, proxy.Addr())}).Client(t)

	require.NoError(t, proxied.Eval(ctx, count, []string{"n"}).Err())
	sha := direct.ScriptLoad(ctx, count).Val()

	proxy.LoseReplies(2)
	require.NoError(t, proxied.Get(ctx, "n").Err(), "only scripts lose their replies")
	require.ErrorContains(t, proxied.EvalSha(ctx, strings.Repeat("0", 40), nil).Err(), "NOSCRIPT", "nothing was executed")
	require.Zero(t, proxy.Lost())
	require.Error(t, proxied.EvalSha(ctx, sha, []string{"n"}).Err())
	require.Error(t, proxied.Eval(ctx, count, []string{"n"}).Err())
	require.Equal(t, 2, proxy.Lost())
	require.Equal(t, "3", direct.Get(ctx, "n").Val(), "the server executed what it got")

	require.NoError(t, proxied.EvalSha(ctx, sha, []string{"n"}).Err(), "no more than told")
	require.Equal(t, 2, proxy.Lost())
}

func portOf(t *testing.T, addr string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	port, err := strconv.Atoi(text)
	require.NoError(t, err)
	return port
}

// recorder is a test that notes how it was ended.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper() {}

func (r *recorder) Skip(args ...any) {
	r.skipped = args[0].(string)
	runtime.Goexit()
}

func (r *recorder) Fatal(args ...any) {
	r.failed = args[0].(string)
	runtime.Goexit()
}

func TestWithoutRedisServer(t *testing.T) {
	for _, row := range []struct {
		name, ci string
		skips    bool
	}{
		{"a laptop skips", "", true},
		{"CI fails", "true", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Setenv("PATH", "")
			t.Setenv("CI", row.ci)
			tb := &recorder{TB: t}
			done := make(chan struct{})
			go func() {
				defer close(done)
				Start(tb)
			}()
			<-done
			require.Equal(t, row.skips, tb.skipped != "")
			require.Equal(t, !row.skips, tb.failed != "")
			require.Contains(t, tb.skipped+tb.failed, "apt-get install redis-server")
		})
	}
}
