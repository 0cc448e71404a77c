package server

import (
	"context"
	"net/http"
	"net/netip"
	"testing"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/auth"
)

const watchPath = "/v1/namespaces/ns/services/svc/links:watch"

// TestWatchesOfACaller: a caller has a bounded number of watches, over all transports together; another one has its places still, and a
// place is free again when a watch has ended.
func TestWatchesOfACaller(t *testing.T) {
	const most = 3
	room := &v1.WatchLinksRequest{Namespace: "ns", Service: "svc"}
	w := serveWatches(t, admitting(guests{}))
	w.chain.watches.most = most
	opened := map[string]watching{}
	for over, open := range watchOver {
		opened[over] = open(t, w, "chat", room)
		_, err := opened[over].next()
		require.NoError(t, err)
	}
	require.Len(t, opened, most)
	refused := func() (error, int, http.Header, string) {
		stream, err := v1.NewFleetServiceClient(w.conn).WatchLinks(as(t, "chat"), room)
		require.NoError(t, err)
		_, err = stream.Recv()
		code, header, body := ask(t, w.url, http.MethodGet, watchPath, "Bearer chat")
		return err, code, header, body
	}
	err, code, header, body := refused()
	require.Equal(t, codes.ResourceExhausted, status.Code(err), err)
	require.Equal(t, "1000", kerrors.FromError(err).Metadata[retryAfter])
	require.Equal(t, http.StatusTooManyRequests, code)
	require.Equal(t, "1", header.Get("Retry-After"))
	require.Equal(t, "RATE_LIMITED", kerrors.Reason(err))
	require.Contains(t, body, "RATE_LIMITED")
	for _, text := range []string{err.Error(), body} {
		require.Contains(t, text, "server.max_watches_per_caller")
	}
	for _, other := range []string{"other", "chat@chat-2"} {
		neighbour := watchOver["http"](t, w, other, room)
		_, err = neighbour.next()
		require.NoError(t, err, "another caller")
	}
	for over, open := range watchOver {
		opened[over].stop()
		require.Eventually(t, func() bool {
			w.chain.watches.mu.Lock()
			defer w.chain.watches.mu.Unlock()
			return w.chain.watches.open[bucketKey{name: "token:chat", peer: netip.MustParseAddr("127.0.0.1")}] == most-1
		}, 10*time.Second, time.Millisecond)
		again := open(t, w, "chat", room)
		_, err = again.next()
		require.NoError(t, err, "its place is free")
	}
}

// TestWhoseWatchesAreCounted: a caller is who pays for calls, and with auth.mode off a host. Health watches are not counted, and nothing
// is kept of callers without a watch.
func TestWhoseWatchesAreCounted(t *testing.T) {
	from := netip.MustParseAddrPort
	as := func(name, pod, peer string) *caller {
		return &caller{Call: auth.Call{Identity: auth.Identity{Name: name, Pod: pod}, Peer: from(peer)}}
	}
	first, second := from("10.0.0.1:1"), from("10.0.0.2:1")
	for name, row := range map[string]struct {
		one, other         *caller
		oneFrom, otherFrom netip.AddrPort
		together           bool
	}{
		"one address":                 {nil, nil, first, from("10.0.0.1:2"), true},
		"two addresses":               {nil, nil, first, second, false},
		"one host of IPv6":            {nil, nil, from("[2001:db8::1]:1"), from("[2001:db8::2]:1"), true},
		"an identity":                 {as("a", "", "10.0.0.1:1"), as("a", "", "10.0.0.1:2"), first, first, true},
		"two identities":              {as("a", "", "10.0.0.1:1"), as("b", "", "10.0.0.1:1"), first, first, false},
		"an identity elsewhere":       {as("a", "", "10.0.0.1:1"), as("a", "", "10.0.0.2:1"), first, second, false},
		"a pod, wherever it is":       {as("a", "a-1", "10.0.0.1:1"), as("a", "a-1", "10.0.0.2:1"), first, second, true},
		"two pods of one StatefulSet": {as("a", "a-1", "10.0.0.1:1"), as("a", "a-2", "10.0.0.1:1"), first, first, false},
	} {
		t.Run(name, func(t *testing.T) {
			metrics := NewDoorMetrics()
			limit := newWatchLimit(1, metrics)
			ctx, cancel := context.WithCancel(t.Context())
			require.NoError(t, limit.take(ctx, v1.FleetService_WatchLinks_FullMethodName, row.one, row.oneFrom))
			err := limit.take(ctx, v1.FleetService_WatchLinks_FullMethodName, row.other, row.otherFrom)
			require.Equal(t, row.together, v1.IsRateLimited(err), "%v", err)
			want := 0.0
			if row.together {
				want = 1
			}
			require.InDelta(t, want, testutil.ToFloat64(metrics.refusals[RefusedByWatches]), 0)
			require.NoError(t, limit.take(ctx, grpc_health_v1.Health_Watch_FullMethodName, row.one, row.oneFrom))
			cancel()
			require.Eventually(t, func() bool {
				limit.mu.Lock()
				defer limit.mu.Unlock()
				return len(limit.open) == 0
			}, 10*time.Second, time.Millisecond)
		})
	}
}
