package client

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// computes returns how many calls of podlink have asked for links.
func (w *world) computes() int { return w.calls("ComputeLinkedPod") + w.calls("BatchComputeLinkedPod") }

// watchBegun waits until the router's watch vouches for links.
func watchBegun(t testing.TB, r *Router) {
	t.Helper()
	require.Eventually(t, func() bool {
		c := r.links.cover.Load()
		return c != nil && c.healthy(time.Now())
	}, soon, time.Millisecond)
}

// leads waits until the router takes the user for the pod's, without asking podlink.
func leads(t testing.TB, r *Router, uid string, pod int32) {
	t.Helper()
	require.Eventually(t, func() bool {
		link, ok := r.links.known(uid)
		return ok && link.pod == pod && r.links.isFresh(link, time.Now())
	}, soon, time.Millisecond)
}

// TestRouterWatches a real podlink: a user who was moved is called at the right pod, and podlink is not asked for that.
func TestRouterWatches(t *testing.T) {
	w := newWorldOn(t, "gRPC", start(t, unhurried...), Options{Watch: true, Timeout: soon})
	w.ready(0, 1, 2)
	pods := w.pods(3)
	r, chat := w.router(RouterOptions{UID: userField}, soon)
	w.connected(chat, len(pods))
	watchBegun(t, r)
	w.link("u", 0)
	_, err := chat.set(t.Context(), "u", "hi")
	require.NoError(t, err)
	asked := w.computes()
	for _, pod := range []int32{1, 2, 0, 1} {
		w.link("u", pod)
		leads(t, r, "u", pod)
		answer, err := chat.set(t.Context(), "u", "hi")
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(pod), answer.GetNamespace())
	}
	require.Equal(t, asked, w.computes())

	_, err = w.patient.RemoveLinkedPod(t.Context(), &v1.RemoveLinkedPodRequest{Namespace: testNamespace, Uid: "u", Service: testService})
	require.NoError(t, err)
	require.Eventually(t, func() bool { _, known := r.links.known("u"); return !known }, soon, time.Millisecond)
}

// TestWatchOfAnotherPodlink: when podlink stops, the watch goes on at the one that takes its place, from where it was.
func TestWatchOfAnotherPodlink(t *testing.T) {
	p := start(t, unhurried...)
	w := newWorldOn(t, "gRPC", p, Options{Watch: true, Timeout: soon})
	w.ready(0, 1)
	r, err := w.client.NewRouter(testNamespace, testService, RouterOptions{UID: userField})
	require.NoError(t, err)
	watchBegun(t, r)
	w.link("u", 0)
	_, err = r.links.get(t.Context(), "u")
	require.NoError(t, err)
	require.NoError(t, p.Freeze()) // The stream is silent, then its connection ends.
	require.Eventually(t, func() bool { return !r.links.cover.Load().healthy(time.Now()) }, soon, time.Millisecond)
	require.NoError(t, p.Resume())
	watchBegun(t, r)
	w.link("u", 1)
	leads(t, r, "u", 1)
}

// watchServer is a podlink with a watch only, over TLS, that says who calls.
type watchServer struct {
	v1.UnimplementedFleetServiceServer

	callers chan metadata.MD
}

func (s *watchServer) WatchLinks(_ *v1.WatchLinksRequest, stream grpc.ServerStreamingServer[v1.WatchLinksReply]) error {
	headers, _ := metadata.FromIncomingContext(stream.Context())
	s.callers <- headers
	if err := stream.Send(&v1.WatchLinksReply{Resync: v1.WatchLinksReply_START, Token: "1"}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

// TestWatchShowsCredentials over TLS, as each call.
func TestWatchShowsCredentials(t *testing.T) {
	secured, trusting := tlsPair(t)
	s := &watchServer{callers: make(chan metadata.MD, 1)}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(secured)))
	v1.RegisterFleetServiceServer(server, s)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		require.NoError(t, <-ended)
	})
	c := connect(t, listener.Addr().String(), Options{Watch: true, TLS: trusting, Credentials: token{value: secret, secure: true}})
	r, err := c.NewRouter(testNamespace, testService, RouterOptions{})
	require.NoError(t, err)
	watchBegun(t, r)
	require.Equal(t, []string{"Bearer " + secret}, (<-s.callers).Get("authorization"))
}

// BenchmarkWatchedRouter is how many calls of podlink a router makes per 1,000 calls that it routes, and how long after a move it leads a
// user to the right pod. Each of its users calls once a second; an iteration is a fiftieth of it. The pods' calls are stubbed. Run it with
// -benchtime=1500x: a link counts for 10 s without a watch.
func BenchmarkWatchedRouter(b *testing.B) {
	const users, slice, moves = 100_000, 2000, 10
	for name, watch := range map[string]bool{"watch": true, "by time": false} {
		b.Run(name, func(b *testing.B) {
			on := append(podlinktest.OnRedis("standalone", redistest.Start(b).Addr()), unhurried...)
			podlink := podlinktest.Start(b, binary, on...)
			podlink.WaitReady(b)
			w := newWorldOn(b, "gRPC", podlink, Options{Watch: watch, Timeout: soon})
			w.ready(0, 1)
			r, err := w.client.NewRouter(testNamespace, testService, RouterOptions{UID: userField})
			require.NoError(b, err)
			requests := linkAll(b, w, users)
			if watch {
				watchBegun(b, r)
			}
			call := r.Middleware()(func(context.Context, any) (any, error) { return nil, nil })
			ctx := callContext()
			warmUp(b, r, requests)
			asked, worst, routed, begun := w.computes(), time.Duration(0), 0, time.Now()
			for b.Loop() {
				for _, request := range requests[routed%users:][:slice] {
					if _, err := call(ctx, request); err != nil {
						b.Fatal(err)
					}
				}
				routed += slice
				time.Sleep(time.Until(begun.Add(time.Duration(routed) * time.Second / users)))
				if watch && routed%users == 0 {
					for i := range moves {
						worst = max(worst, w.moveTime(r, requests[i].GetService()))
					}
				}
			}
			b.ReportMetric(float64(w.computes()-asked)*1000/float64(routed), "podlink-calls/1000")
			b.ReportMetric(float64(routed)/b.Elapsed().Seconds(), "routed/s")
			if watch {
				b.ReportMetric(float64(worst.Microseconds())/1000, "ms-worst-move")
			}
		})
	}
}

// linkAll links users to pod 0 persistently, and returns their requests.
func linkAll(b *testing.B, w *world, users int) (requests []*v1.SetWorkloadStateRequest) {
	b.Helper()
	for len(requests) < users {
		batch := &v1.BatchSetLinkedPodRequest{Namespace: testNamespace, Service: testService}
		for range 500 {
			uid := fmt.Sprint("user:", len(requests))
			requests = append(requests, &v1.SetWorkloadStateRequest{Namespace: testNamespace, Service: uid, State: "text"})
			batch.Items = append(batch.Items, &v1.BatchSetLinkedPodRequest_Item{Uid: uid, PodId: new(int32(0))})
		}
		reply, err := w.patient.BatchSetLinkedPod(context.Background(), batch)
		require.NoError(b, err)
		for _, result := range reply.GetResults() {
			require.NoError(b, problemError(result.GetProblem()))
		}
	}
	return requests
}

// warmUp makes the router know all users.
func warmUp(b *testing.B, r *Router, requests []*v1.SetWorkloadStateRequest) {
	b.Helper()
	places := make(chan struct{}, 1000)
	for _, request := range requests {
		places <- struct{}{}
		go func() {
			defer func() { <-places }()
			if _, err := r.links.get(context.Background(), request.GetService()); err != nil {
				b.Error(err)
			}
		}()
	}
	for range cap(places) {
		places <- struct{}{}
	}
}

// moveTime moves the user to the other pod, and returns how long after the answer to that the router leads there.
func (w *world) moveTime(r *Router, uid string) time.Duration {
	known, _ := r.links.known(uid)
	to := 1 - known.pod
	w.link(uid, to)
	begun := time.Now()
	leads(w.t, r, uid, to)
	return time.Since(begun)
}
