package attacks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	"podlink/test/kit/calls"
	podlinktest "podlink/test/kit/podlink"
)

const (
	// neighbourAddress is the address that the neighbour calls from, attackerAddress that of the attacker.
	neighbourAddress, attackerAddress = "127.0.0.2", "127.0.0.3"
	// interval is the time between two calls of the neighbour.
	interval = 4 * time.Millisecond
)

// from returns a dialer that connects from an address of this machine.
func from(address string) *net.Dialer {
	return &net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), 0)), Timeout: callTimeout,
	}
}

// neighbour is a well-behaved caller of both transports. It begins a call every interval, however long the calls take.
type neighbour struct {
	links v1.LinkServiceClient
	kept  *http.Transport // which keeps its connections
	fresh *http.Transport // which opens one for each call
	url   string

	calling sync.WaitGroup
	mu      sync.Mutex
	took    []time.Duration
	failed  []error
}

// dialAsNeighbour connects to podlink's gRPC from the neighbour's address.
func dialAsNeighbour(t *testing.T, p *podlinktest.Process) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+p.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry(),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return from(neighbourAddress).DialContext(ctx, "tcp", addr)
		}))
	require.NoError(t, err)
	return conn
}

// neighbourWatch is a watch of the neighbour, whose messages are counted until it ends.
type neighbourWatch struct {
	messages atomic.Int64
	ended    chan error
}

// watchAsNeighbour opens a watch. The test fails if it does not begin.
func watchAsNeighbour(t *testing.T, p *podlinktest.Process, service string) *neighbourWatch {
	t.Helper()
	conn := dialAsNeighbour(t, p)
	stream, err := v1.NewFleetServiceClient(conn).WatchLinks(t.Context(), &v1.WatchLinksRequest{Namespace: "game", Service: service})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.NoError(t, err)
	w := &neighbourWatch{ended: make(chan error, 1)}
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				w.ended <- err
				return
			}
			w.messages.Add(1)
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-w.ended
	})
	return w
}

// requireHealthy fails the test unless the watch gets a message, as it does each second, and has not ended.
func (w *neighbourWatch) requireHealthy(t *testing.T) {
	t.Helper()
	before := w.messages.Load()
	require.Eventually(t, func() bool { return w.messages.Load() > before }, callTimeout+time.Second, 10*time.Millisecond)
	require.Empty(t, w.ended)
}

func newNeighbour(t *testing.T, p *podlinktest.Process) *neighbour {
	t.Helper()
	conn := dialAsNeighbour(t, p)
	transport := func(once bool) *http.Transport {
		return &http.Transport{DialContext: from(neighbourAddress).DialContext, DisableKeepAlives: once, MaxIdleConnsPerHost: 16}
	}
	n := &neighbour{links: v1.NewLinkServiceClient(conn), kept: transport(false), fresh: transport(true), url: "http://" + p.HTTP}
	t.Cleanup(func() {
		n.calling.Wait()
		n.kept.CloseIdleConnections()
		require.NoError(t, conn.Close())
	})
	return n
}

// live calls podlink for the time.
func (n *neighbour) live(t *testing.T, d time.Duration) {
	t.Helper()
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	for i, start := 0, time.Now(); time.Since(start) < d; i++ {
		due := <-ticks.C
		n.calling.Go(func() {
			err := n.call(i)
			took := time.Since(due)
			n.mu.Lock()
			defer n.mu.Unlock()
			n.took = append(n.took, took)
			if err != nil {
				n.failed = append(n.failed, fmt.Errorf("call %d after %s: %w", i, took, err))
			}
		})
	}
	n.calling.Wait()
}

func (n *neighbour) call(i int) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	uid := fmt.Sprintf("user-%d", i%50)
	switch i % 8 {
	case 0, 1:
		_, err := n.links.SetLinkedPod(ctx, &v1.SetLinkedPodRequest{
			Namespace: "game", Uid: uid, Service: "room", PodId: proto.Int32(1), PersistSeconds: proto.Int32(60),
		})
		return err
	case 2, 3, 4:
		_, err := n.links.GetLinkedPod(ctx, &v1.GetLinkedPodRequest{Namespace: "game", Uid: uid, Service: "room"})
		return err
	case 5:
		return n.get(ctx, n.fresh, uid)
	default:
		return n.get(ctx, n.kept, uid)
	}
}

func (n *neighbour) get(ctx context.Context, carrier http.RoundTripper, uid string) error {
	return calls.Get(ctx, carrier, n.url+"/v1/namespaces/game/links/"+uid+"/services/room", "")
}

// percentiles returns the p50, the p99 and the longest.
func (n *neighbour) percentiles() (p50, p99, longest time.Duration) {
	slices.Sort(n.took)
	return n.took[len(n.took)/2], n.took[len(n.took)*99/100], n.took[len(n.took)-1]
}

// requireWell fails the test if a call has failed, or if the p99 is above the bound, which is that of a quiet machine.
func (n *neighbour) requireWell(t *testing.T, quiet time.Duration) {
	t.Helper()
	p50, p99, longest := n.percentiles()
	t.Logf("neighbour: %d calls, %d failed, p50 %s, p99 %s, longest %s", len(n.took), len(n.failed), p50, p99, longest)
	require.NoError(t, errors.Join(n.failed...))
	require.Less(t, p99, bound(quiet))
}

// metric returns the sum of the series of a metric whose labels contain the text.
func metric(t *testing.T, p *podlinktest.Process, name, labels string) (sum float64) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: callTimeout}
	response, err := client.Get("http://" + p.Admin + "/metrics")
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, name) && strings.Contains(line, labels) {
			var value float64
			_, err := fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &value)
			require.NoError(t, err)
			sum += value
		}
	}
	return sum
}
