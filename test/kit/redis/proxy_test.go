package redis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

const count = "return redis.call('INCR', KEYS[1])"

// proxied starts a server behind a proxy.
func proxied(t *testing.T) (direct, through *redis.Client, proxy *Proxy) {
	t.Helper()
	server := Start(t)
	proxy = NewProxy(t, server.Addr())
	return server.Client(t), clientOf(t, proxy.Addr()), proxy
}

// clientOf returns a client for the address.
func clientOf(t *testing.T, addr string) *redis.Client {
	t.Helper()
	options := (&Server{}).options()
	options.Addr = addr
	client := redis.NewClient(options)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestProxyLosesReplies(t *testing.T) {
	ctx := context.Background()
	direct, through, proxy := proxied(t)
	require.NoError(t, through.Eval(ctx, count, []string{"n"}).Err())
	sha := direct.ScriptLoad(ctx, count).Val()

	proxy.LoseReplies(2)
	require.NoError(t, through.Get(ctx, "n").Err(), "only scripts lose their replies")
	require.ErrorContains(t, through.EvalSha(ctx, strings.Repeat("0", 40), nil).Err(), "NOSCRIPT", "not executed, so not lost")
	require.Zero(t, proxy.Lost())
	require.ErrorIs(t, through.EvalSha(ctx, sha, []string{"n"}).Err(), io.EOF)
	require.ErrorIs(t, through.Eval(ctx, count, []string{"n"}).Err(), io.EOF)
	require.Equal(t, 2, proxy.Lost())
	require.Equal(t, "3", direct.Get(ctx, "n").Val(), "the server executed both")

	require.NoError(t, through.EvalSha(ctx, sha, []string{"n"}).Err(), "no more than requested")
	require.Equal(t, 2, proxy.Lost())
}

// TestProxyLosesRepliesOfPipelines: the script's reply is lost whatever the rest of the pipeline is.
func TestProxyLosesRepliesOfPipelines(t *testing.T) {
	ctx := context.Background()
	for name, row := range map[string]struct{ before, after []any }{
		"a WAIT after it, in one packet":         {nil, []any{"WAIT", 0, 1}},
		"a slow WAIT after it":                   {nil, []any{"WAIT", 1, 50}},
		"a command before it":                    {[]any{"SET", "other", "x"}, []any{"WAIT", 0, 1}},
		"a command before it, with a long reply": {[]any{"ECHO", strings.Repeat("long\r\n", 50_000)}, nil},
		"a command before it, with an error":     {[]any{"GET"}, nil},
		"a command before it, with a null":       {[]any{"GET", "absent"}, nil},
		"a command before it, with arrays":       {[]any{"COMMAND", "INFO", "get", "absent", "set"}, nil},
		"a command before it, with maps":         {[]any{"COMMAND", "DOCS", "get", "set"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			direct, through, proxy := proxied(t)
			proxy.LoseReplies(1)
			var lost, after *redis.Cmd
			_, _ = through.Pipelined(ctx, func(pipe redis.Pipeliner) error {
				if row.before != nil {
					pipe.Do(ctx, row.before...)
				}
				lost = pipe.Eval(ctx, count, []string{"n"})
				if row.after != nil {
					after = pipe.Do(ctx, row.after...)
				}
				return nil
			})
			require.ErrorIs(t, lost.Err(), io.EOF)
			require.Equal(t, 1, proxy.Lost())
			require.Equal(t, "1", direct.Get(ctx, "n").Val())
			if after != nil {
				require.ErrorIs(t, after.Err(), io.EOF)
			}
		})
	}
}

func TestProxyLosesEvery(t *testing.T) {
	ctx := context.Background()
	direct, through, proxy := proxied(t)
	proxy.LoseEvery(5)
	lost := 0
	for range 50 {
		require.NoError(t, through.Ping(ctx).Err())
		if err := through.Eval(ctx, count, []string{"n"}).Err(); err != nil {
			lost++
		}
	}
	require.Equal(t, 10, lost)
	require.Equal(t, 10, proxy.Lost())
	require.Equal(t, "50", direct.Get(ctx, "n").Val())
	proxy.LoseEvery(0)
	for range 10 {
		require.NoError(t, through.Eval(ctx, count, []string{"n"}).Err())
	}
}

func TestProxyResets(t *testing.T) {
	proxy := NewProxy(t, Start(t).Addr())
	const open = 3
	conns := make([]net.Conn, open)
	for i := range conns {
		conns[i] = dial(t, proxy)
		requirePong(t, conns[i])
	}
	require.Equal(t, open, proxy.Reset())
	for _, conn := range conns {
		_, err := conn.Read(make([]byte, 1))
		require.ErrorIs(t, err, syscall.ECONNRESET)
	}
	requirePong(t, dial(t, proxy))
	require.Equal(t, 1, proxy.Reset())
	require.Equal(t, Faults{ConnectionsReset: open + 1}, proxy.Faults())
}

func dial(t *testing.T, proxy *Proxy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", proxy.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func send(t *testing.T, conn net.Conn, command string) {
	t.Helper()
	_, err := fmt.Fprintf(conn, "%s\r\n", command)
	require.NoError(t, err)
}

func requirePong(t *testing.T, conn net.Conn) {
	t.Helper()
	send(t, conn, "PING")
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "+PONG\r\n", line)
}

// requireSilence asserts that the connection is open and receives nothing.
func requireSilence(t *testing.T, conn net.Conn) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	_, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	require.True(t, errors.As(err, &timeout) && timeout.Timeout(), "%v", err)
}

func TestProxyCutsAndMends(t *testing.T) {
	ctx := context.Background()
	direct, _, proxy := proxied(t)
	idle, busy, left := dial(t, proxy), dial(t, proxy), dial(t, proxy)
	for _, conn := range []net.Conn{idle, busy, left} {
		requirePong(t, conn)
	}
	clients := func() int { return strings.Count(direct.ClientList(ctx).Val(), "id=") }
	before := clients()

	proxy.Cut()
	proxy.Cut() // Idempotent.
	send(t, busy, "SET key value")
	fresh := dial(t, proxy)
	send(t, fresh, "SET fresh value")
	require.NoError(t, left.Close())
	for _, conn := range []net.Conn{idle, busy, fresh} {
		requireSilence(t, conn)
	}
	require.Equal(t, before, clients(), "the server has not noticed the closed one")
	require.EqualValues(t, 0, direct.Exists(ctx, "key", "fresh").Val())

	proxy.Mend()
	for _, conn := range []net.Conn{idle, busy} {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
		_, err := conn.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF, "a connection that was open at the cut is closed")
	}
	require.NoError(t, fresh.SetReadDeadline(time.Now().Add(5*time.Second)))
	line, err := bufio.NewReader(fresh).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "+OK\r\n", line, "a hanging connection is established")
	require.Equal(t, "value", direct.Get(ctx, "fresh").Val())
	require.EqualValues(t, 0, direct.Exists(ctx, "key").Val(), "a dropped command is never delivered")
	require.Equal(t, Faults{ConnectionsCut: 4, PiecesUndelivered: 1}, proxy.Faults())
	requirePong(t, dial(t, proxy))
}

// TestProxyCutsWhatIsInFlight: after Cut the server receives nothing, not even what the proxy was forwarding.
func TestProxyCutsWhatIsInFlight(t *testing.T) {
	ctx := context.Background()
	direct, through, proxy := proxied(t)
	sent := make(chan int)
	stop := make(chan struct{})
	go func() {
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				sent <- n
				return
			default:
				_ = through.WithTimeout(100*time.Millisecond).Incr(ctx, "n").Err()
			}
		}
	}()
	time.Sleep(50 * time.Millisecond)
	proxy.Cut()
	atCut := direct.Get(ctx, "n").Val()
	time.Sleep(200 * time.Millisecond)
	close(stop)
	require.Positive(t, <-sent)
	require.Equal(t, atCut, direct.Get(ctx, "n").Val())
	require.NotEmpty(t, atCut)
	proxy.Mend()
}

func TestProxyCutsAPeerThatDoesNotRead(t *testing.T) {
	server := Start(t)
	proxy := NewProxy(t, server.Addr())
	require.NoError(t, server.Client(t).Set(context.Background(), "key", strings.Repeat("x", 32<<20), 0).Err())
	send(t, dial(t, proxy), "GET key")
	time.Sleep(200 * time.Millisecond) // The proxy blocks: the client does not read.
	cut := make(chan struct{})
	go func() {
		proxy.Cut()
		close(cut)
	}()
	select {
	case <-cut:
	case <-time.After(5 * time.Second):
		t.Fatal("Cut waits for the client")
	}
}

func TestProxyAim(t *testing.T) {
	ctx := context.Background()
	direct, through, proxy := proxied(t)
	other := Start(t)
	require.NoError(t, other.Client(t).Set(ctx, "key", "other", 0).Err())
	require.NoError(t, direct.Set(ctx, "key", "value", 0).Err())
	require.Equal(t, "value", through.Get(ctx, "key").Val())
	proxy.Aim(other.Addr())
	require.Equal(t, "value", through.Get(ctx, "key").Val(), "an open connection stays")
	require.Equal(t, "other", clientOf(t, proxy.Addr()).Get(ctx, "key").Val())
}

// TestProxyForwardsStreams: replication and subscriptions are not pairs of requests and replies.
func TestProxyForwardsStreams(t *testing.T) {
	ctx := context.Background()
	direct, through, proxy := proxied(t)
	require.NoError(t, direct.Set(ctx, "before", strings.Repeat("\r\n*3\r\n", 50_000), 0).Err())
	replica := StartReplica(t, proxy.Addr())
	require.NoError(t, direct.Set(ctx, "after", "value", 0).Err())
	require.EqualValues(t, 1, direct.Wait(ctx, 1, 5*time.Second).Val())
	require.EqualValues(t, 2, replica.Client(t).Exists(ctx, "before", "after").Val())

	subscription := through.Subscribe(ctx, "news")
	t.Cleanup(func() { _ = subscription.Close() })
	_, err := subscription.Receive(ctx)
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, direct.Publish(ctx, "news", "text").Err())
		message, err := subscription.ReceiveMessage(ctx)
		require.NoError(t, err)
		require.Equal(t, "text", message.Payload)
	}

	proxy.Cut()
	require.NoError(t, direct.Set(ctx, "behind the cut", "value", 0).Err())
	require.EqualValues(t, 0, direct.Wait(ctx, 1, 200*time.Millisecond).Val())
	proxy.Mend()
	replica.WaitInSync()
	require.EqualValues(t, 1, direct.Wait(ctx, 1, 5*time.Second).Val())
}
