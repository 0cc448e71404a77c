package server

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	v1 "podlink/api/podlink/v1"
)

// guarded is a guard, and the context of calls of one connection.
type guarded struct {
	*callGuard

	ctx  context.Context //nolint:containedctx // Of the connection.
	from *peerAddr
	far  net.Conn // the caller's end
}

func newGuarded(t *testing.T, maxStreams int32) guarded {
	t.Helper()
	c := listenLimited(t, 10, 10)
	far, conn := c.served(t, "127.0.0.1")
	guard := newCallGuard(maxStreams, NewDoorMetrics())
	guard.ServiceRegistrar = grpc.NewServer()
	guard.RegisterService(&v1.LinkService_ServiceDesc, v1.UnimplementedLinkServiceServer{})
	return guarded{
		guard, peer.NewContext(t.Context(), &peer.Peer{Addr: conn.RemoteAddr()}), conn.RemoteAddr().(*peerAddr), far,
	}
}

// tapped returns the answer of the guard to a call with the deadline, if any.
func (g guarded) tapped(method string, deadline time.Duration) codes.Code {
	ctx, cancel := g.ctx, context.CancelFunc(func() {})
	if deadline > 0 {
		ctx, cancel = context.WithTimeout(g.ctx, deadline)
	}
	defer cancel()
	_, err := g.tap(ctx, &tap.Info{FullMethodName: method})
	return status.Code(err)
}

const getLink = "/podlink.v1.LinkService/GetLinkedPod"

func TestGuardKnowsMethods(t *testing.T) {
	g := newGuarded(t, 1)
	require.Equal(t, codes.OK, g.tapped(getLink, 0))
	for _, method := range []string{
		"", "/", "x", getLink + "/", getLink[1:], "/podlink.v1.LinkService/FlushAll", "/kratos.api.Metadata/ListServices",
	} {
		require.Equal(t, codes.Unimplemented, g.tapped(method, 0), method)
		require.Equal(t, codes.OK, g.tapped(method, time.Hour), "%s: gRPC would keep the timer", method)
		_, err := g.unary(g.ctx, nil, &grpc.UnaryServerInfo{FullMethod: method}, nil)
		require.Equal(t, codes.Unimplemented, status.Code(err), "so the interceptor refuses it")
	}
	for _, method := range v1.Methods() {
		if method.Parent().FullName() == "podlink.v1.LinkService" {
			require.True(t, g.methods[v1.Operation(method)], method.FullName())
		}
	}
}

// TestGuardClosesForUnknownMethods: one that gRPC would serve, as Kratos' metadata, would wait for its message without a bound.
func TestGuardClosesForUnknownMethods(t *testing.T) {
	g := newGuarded(t, 1)
	require.Equal(t, codes.OK, g.tapped("/kratos.api.Metadata/ListServices", time.Hour), "gRPC would keep the timer of a refused call")
	require.NoError(t, g.far.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err := g.far.Read(make([]byte, 1))
	require.ErrorContains(t, err, "EOF")
	require.Less(t, g.from.peer.abandoned.Tokens(), float64(maxAbandoned), "and it counts as given up")
}

// TestGuardBoundsOpenCalls: an address has as many open calls as a few full connections.
func TestGuardBoundsOpenCalls(t *testing.T) {
	g := newGuarded(t, 2)
	for range 2 * fullConnections {
		require.Equal(t, codes.OK, g.tapped(getLink, time.Second))
		g.from.begin()
	}
	_, err := g.tap(g.ctx, &tap.Info{FullMethodName: getLink})
	require.True(t, v1.IsRateLimited(err))
	g.from.end(g.ctx)
	require.Equal(t, codes.OK, g.tapped(getLink, time.Second))
}

// TestGuardCountsWhatItAdmits: calls count from when they are let in, not only from when they have a goroutine; and one that never
// has one counts for a moment alone.
func TestGuardCountsWhatItAdmits(t *testing.T) {
	peer := newPeerState()
	require.Eventually(t, func() bool {
		second := time.Now().Unix()
		admitted := 0
		for peer.admit(5) {
			admitted++
		}
		return admitted == 5 && time.Now().Unix() == second
	}, 10*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { return peer.admit(5) }, 10*time.Second, 10*time.Millisecond)
	from := &peerAddr{peer: peer}
	for range 10 {
		from.begin()
		from.end(t.Context())
	}
	require.Zero(t, peer.admitted.Load())
	require.Zero(t, peer.calls.Load())
}

// TestGuardReadsSlowly: peers that give up too many calls are read slowly until they have not for a while. Calls that end by
// themselves, or at their deadline, are free.
func TestGuardReadsSlowly(t *testing.T) {
	g := newGuarded(t, 1000)
	late, cancelLate := context.WithTimeout(g.ctx, time.Nanosecond)
	defer cancelLate()
	<-late.Done()
	open := make(chan struct{})
	read := func() int { return g.from.peer.readSlowly(32<<10, open) }
	for range 10 * maxAbandoned {
		g.from.begin()
		g.from.end(g.ctx)
		g.from.begin()
		g.from.end(late)
	}
	require.Equal(t, 32<<10, read())
	canceled, cancel := context.WithCancel(g.ctx)
	cancel()
	g.from.peer.abandoned.SetLimit(1e-9) // No patience comes back. With 0, nothing would be reserved.
	for range maxAbandoned + 2*maxDebt {
		g.from.begin()
		g.from.end(canceled)
	}
	require.InDelta(t, -maxDebt, g.from.peer.abandoned.Tokens(), 1, "no more than that is held against it")
	start := time.Now()
	for range 5 {
		require.Equal(t, slowRead, read())
	}
	require.GreaterOrEqual(t, time.Since(start), 4*time.Second*slowRead/slowRate-time.Millisecond, "the first one is free")
	g.from.peer.slow.SetLimit(0)
	go close(open)
	read() // Until the connection is closed.
	g.from.peer.abandoned.SetLimit(100 * abandonedRate)
	require.Eventually(t, func() bool { return read() == 32<<10 }, 10*time.Second, time.Millisecond)
}

// TestGuardGivesTurnsBack: a connection that is closed, or whose peer is forgiven, while it waits for its turn leaves the turn to the
// others of its address.
func TestGuardGivesTurnsBack(t *testing.T) {
	for name, end := range map[string]func(p *peerState, closed chan struct{}){
		"closed": func(_ *peerState, closed chan struct{}) { close(closed) },
		"forgiven": func(p *peerState, _ chan struct{}) {
			p.abandoned.SetLimit(rate.Inf)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeerState()
				p.abandoned.SetLimit(1e-9)
				p.abandoned.ReserveN(time.Now(), maxAbandoned)
				closed := make(chan struct{})
				var readers sync.WaitGroup
				start := time.Now()
				for range 10 * slowRate / slowRead { // The last one's turn is in ten seconds.
					readers.Go(func() { p.readSlowly(32<<10, closed) })
				}
				time.Sleep(time.Second)
				end(p, closed)
				readers.Wait()
				require.Less(t, time.Since(start), 2*time.Second)
				require.GreaterOrEqual(t, p.slow.Tokens(), -float64(slowRead), "nobody waits for bytes that no one reads")
			})
		})
	}
}

// TestGuardCountsRefusals: calls that are refused count as given up.
func TestGuardCountsRefusals(t *testing.T) {
	g := newGuarded(t, 1)
	g.from.peer.abandoned.SetLimit(1e-9)
	require.Equal(t, codes.Unimplemented, g.tapped("/x/y", 0))
	require.InDelta(t, maxAbandoned-1, g.from.peer.abandoned.Tokens(), 0.1)
	for range fullConnections {
		g.from.begin()
	}
	require.Equal(t, codes.ResourceExhausted, g.tapped(getLink, 0))
	require.InDelta(t, maxAbandoned-2, g.from.peer.abandoned.Tokens(), 0.1)
}

// TestGuardClosesWhatItCannotRefuse: the timer of a far deadline would outlive a call that is refused by its headers.
func TestGuardClosesWhatItCannotRefuse(t *testing.T) {
	g := newGuarded(t, 1)
	for range fullConnections {
		g.from.begin()
	}
	require.Equal(t, codes.OK, g.tapped(getLink, time.Hour))
	require.NoError(t, g.far.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err := g.far.Read(make([]byte, 1))
	require.ErrorContains(t, err, "EOF")
}
