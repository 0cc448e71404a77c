package redis

import (
	"context"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
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
		require.EqualValues(t, 0, client.Exists(ctx, "key").Val(), "no persistence by default")
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
	require.Equal(t, "value", client.Get(ctx, "key").Val(), "the directory is the same")
}

func TestServerWithPassword(t *testing.T) {
	ctx := context.Background()
	server := Start(t, "--requirepass", "secret", "--appendonly", "yes")
	client := server.Client(t)
	require.NoError(t, client.Set(ctx, "key", "value", 0).Err())
	server.Restart()
	require.Equal(t, "value", client.Get(ctx, "key").Val())
	require.ErrorContains(t, clientOf(t, server.Addr()).Ping(ctx).Err(), "NOAUTH")
}

func TestReplica(t *testing.T) {
	ctx := context.Background()
	primary := Start(t, "--requirepass", "secret")
	require.NoError(t, primary.Client(t).Set(ctx, "key", "value", 0).Err())
	replica := StartReplica(t, primary.Addr(), "--masterauth", "secret", "--replica-serve-stale-data", "no")
	client := replica.Client(t)
	require.Equal(t, "value", client.Get(ctx, "key").Val())
	require.ErrorContains(t, client.Set(ctx, "key", "other", 0).Err(), "READONLY")
	acknowledged := primary.Client(t).Conn() // WAIT covers the writes of its own connection.
	require.NoError(t, acknowledged.Set(ctx, "key", "value", 0).Err())
	require.EqualValues(t, 1, acknowledged.Wait(ctx, 1, 100*time.Millisecond).Val(), "WAIT counts the replica at once")
	require.NoError(t, acknowledged.Close())

	replica.Restart()
	replica.WaitInSync()
	require.Equal(t, "value", client.Get(ctx, "key").Val(), "it is still a replica")

	primary.Kill()
	replica.Restart()
	require.ErrorContains(t, client.Get(ctx, "key").Err(), "MASTERDOWN", "the server is up without data")
}

func TestRestartOfALoadingServer(t *testing.T) {
	for name, password := range map[string][]string{"plain": nil, "with a password": {"--requirepass", "secret"}} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			// Loading takes 100 µs per command; the server answers after every 1024 of them.
			server := Start(t, append([]string{"--appendonly", "yes", "--key-load-delay", "100"}, password...)...)
			client := server.Client(t)
			const commands = 8192
			_, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
				for i := range commands {
					pipe.Set(ctx, "key", i+1, 0)
				}
				return nil
			})
			require.NoError(t, err)
			server.RestartLoading()
			require.ErrorContains(t, client.Get(ctx, "key").Err(), "LOADING")
			server.Restart()
			require.Equal(t, strconv.Itoa(commands), client.Get(ctx, "key").Val())
		})
	}
}

// recorder is a test that records how it was ended.
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
			require.Contains(t, tb.skipped+tb.failed, "test/install.sh redis-server")
		})
	}
}
