package attacks

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// balancer gives each new connection to the next of its targets, and never moves one, as balancers of connections do.
type balancer struct {
	listener net.Listener
	targets  atomic.Pointer[[]string]
	given    atomic.Int64
	open     sync.WaitGroup
}

func newBalancer(t *testing.T) *balancer {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	b := &balancer{listener: listener}
	b.open.Go(func() {
		for {
			caller, err := listener.Accept()
			if err != nil {
				return
			}
			targets := *b.targets.Load()
			target := targets[int(b.given.Add(1))%len(targets)]
			b.open.Go(func() { forward(caller, target) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		b.open.Wait()
	})
	return b
}

// forward joins a connection with one to the target until either ends.
func forward(caller net.Conn, target string) {
	defer caller.Close()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	var ways sync.WaitGroup
	for from, to := range map[net.Conn]net.Conn{caller: server, server: caller} {
		ways.Go(func() {
			_, _ = io.Copy(to, from)
			_ = to.(*net.TCPConn).CloseWrite()
		})
	}
	ways.Wait()
	_ = server.Close()
}

// TestConnectionAge: callers that were connected before a second podlink joined reach it within the age of a connection, and the end
// of their connections fails none of their calls.
func TestConnectionAge(t *testing.T) {
	const callers, patience = 8, 20 * time.Second
	redis := redistest.Start(t)
	env := append(podlinktest.OnRedis("standalone", redis.Addr()), "PODLINK_SERVER_GRPC_MAX_CONNECTION_AGE=1s",
		"PODLINK_SERVER_GRPC_TIMEOUT="+patience.String())
	first := podlinktest.Start(t, binary, env...)
	first.WaitReady(t)
	b := newBalancer(t)
	b.targets.Store(&[]string{first.GRPC})
	ctx, stop := context.WithCancel(t.Context())
	var calling sync.WaitGroup
	var calls atomic.Int64
	for i := range callers {
		conn, err := grpc.NewClient("passthrough:///"+b.listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDisableRetry())
		require.NoError(t, err)
		for range 4 {
			calling.Go(func() {
				for ctx.Err() == nil {
					_, err := v1.NewLinkServiceClient(conn).GetLinkedPod(context.WithoutCancel(ctx),
						&v1.GetLinkedPodRequest{Namespace: "game", Uid: fmt.Sprint(i), Service: "room"}, grpc.WaitForReady(true))
					assert.NoError(t, err)
					calls.Add(1)
				}
			})
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Cleanup(func() {
		stop()
		calling.Wait()
	})
	require.Eventually(t, func() bool { return calls.Load() > 100 }, patience, time.Millisecond)
	require.EqualValues(t, callers, b.given.Load())
	second := podlinktest.Start(t, binary, env...)
	second.WaitReady(t)
	b.targets.Store(&[]string{first.GRPC, second.GRPC})
	served := func(p *podlinktest.Process) float64 {
		return metric(t, p, "server_requests_code_total", `operation="/podlink.v1.LinkService/GetLinkedPod",reason=""`)
	}
	require.Eventually(t, func() bool { return served(second) > 0 }, patience, 100*time.Millisecond)
	before := b.given.Load()
	require.Eventually(t, func() bool { return b.given.Load() >= before+2*callers }, patience, 10*time.Millisecond, "again and again")
	stop()
	calling.Wait()
	t.Logf("%d calls on %d connections, %.0f by the first podlink, %.0f by the second", calls.Load(), b.given.Load(),
		served(first), served(second))
}
