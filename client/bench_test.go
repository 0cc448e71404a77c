package client

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/selector"
	"github.com/go-kratos/kratos/v2/transport"
	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// benchUsers is how many users the calls of a benchmark are about.
const benchUsers = 10_000

// warm makes links be known, and their podlink never be asked again.
func warm(b *testing.B, l *linkCache) []*v1.SetWorkloadStateRequest {
	b.Helper()
	l.policy.ttl = time.Hour
	l.policy.lookup = func(context.Context, string, *entry) (*v1.Link, error) {
		b.Error("podlink was asked")
		return nil, ErrUnavailable
	}
	requests := make([]*v1.SetWorkloadStateRequest, benchUsers)
	for i := range requests {
		uid := "user:" + strconv.Itoa(i)
		requests[i] = &v1.SetWorkloadStateRequest{Namespace: testNamespace, Service: uid, State: "text"}
		l.store(uid, &v1.Link{PodId: int32(i % 3), Epoch: 1, Persistent: true, TtlSeconds: -1}, time.Now())
	}
	return requests
}

// offline is a client of a podlink that the benchmark does not need.
func offline(b *testing.B) *Client {
	b.Helper()
	c, err := New("127.0.0.1:1", Options{})
	require.NoError(b, err)
	b.Cleanup(func() { _ = c.Close() })
	return c
}

// callContext is what Kratos gives to the middleware of a client over gRPC.
func callContext() context.Context {
	ctx := transport.NewClientContext(context.Background(), &call{header{}})
	return selector.NewPeerContext(ctx, &selector.Peer{})
}

// BenchmarkRoute is what routing adds to a call whose link is known: the middleware, and the filter over all instances.
func BenchmarkRoute(b *testing.B) {
	for name, uid := range map[string]UIDFunc{"field": userField, "header": nil} {
		for _, count := range []int32{3, 10, 100} {
			b.Run(fmt.Sprintf("%s/%d pods", name, count), func(b *testing.B) {
				r, err := offline(b).NewRouter(testNamespace, testService, RouterOptions{UID: uid})
				require.NoError(b, err)
				requests := warm(b, r.links)
				var nodes []selector.Node
				for id := range count {
					nodes = append(nodes, node(b, id))
				}
				filter := r.NodeFilter()
				call := r.Middleware()(func(ctx context.Context, _ any) (any, error) {
					if found := filter(ctx, nodes); len(found) != 1 {
						b.Error("no pod")
					}
					return nil, nil
				})
				ctx := make([]context.Context, benchUsers)
				for i := range ctx {
					ctx[i] = WithUID(callContext(), requests[i].GetService())
				}
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					_, _ = call(ctx[i%benchUsers], requests[i%benchUsers])
					i++
				}
			})
		}
	}
}

// BenchmarkRouteWarm is what routing adds to a call whose link is known and whose uid costs nothing to find: the middleware, and the
// filter over all instances.
func BenchmarkRouteWarm(b *testing.B) {
	for _, count := range []int32{3, 10, 100} {
		b.Run(fmt.Sprintf("%d pods", count), func(b *testing.B) {
			r, err := offline(b).NewRouter(testNamespace, testService, RouterOptions{
				UID: func(_ context.Context, request any) string { return request.(*v1.SetWorkloadStateRequest).GetService() },
			})
			require.NoError(b, err)
			requests := warm(b, r.links)
			var nodes []selector.Node
			for id := range count {
				nodes = append(nodes, node(b, id))
			}
			filter := r.NodeFilter()
			call := r.Middleware()(func(ctx context.Context, _ any) (any, error) {
				if found := filter(ctx, nodes); len(found) != 1 {
					b.Error("no pod")
				}
				return nil, nil
			})
			ctx := callContext()
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				_, _ = call(ctx, requests[i%benchUsers])
				i++
			}
		})
	}
}

// BenchmarkMisses is the time in which 10,000 users of whom nothing is known are looked up at once, with a real podlink on this
// machine: by routers' batches, and by a call for each.
func BenchmarkMisses(b *testing.B) {
	for name, batchless := range map[string]bool{"batches": false, "single calls": true} {
		b.Run(name, func(b *testing.B) {
			podlink := podlinktest.Start(b, binary, podlinktest.OnRedis("standalone", redistest.Start(b).Addr())...)
			podlink.WaitReady(b)
			w := newWorldOn(b, "gRPC", podlink, Options{Timeout: soon})
			w.ready(0, 1, 2)
			begun := 0
			for b.Loop() {
				r, err := w.client.NewRouter(testNamespace, testService, RouterOptions{})
				require.NoError(b, err)
				if batchless {
					r.misses.batchless.note()
				}
				var all sync.WaitGroup
				for i := range benchUsers {
					uid := strconv.Itoa(begun + i)
					all.Go(func() {
						if _, err := r.links.get(b.Context(), uid); err != nil {
							b.Error(err)
						}
					})
				}
				all.Wait()
				begun += benchUsers
			}
			b.ReportMetric(float64(begun)/b.Elapsed().Seconds(), "users/s")
		})
	}
}

// BenchmarkRouteParallel is the same from many goroutines.
func BenchmarkRouteParallel(b *testing.B) {
	r, err := offline(b).NewRouter(testNamespace, testService, RouterOptions{UID: userField})
	require.NoError(b, err)
	requests := warm(b, r.links)
	nodes := []selector.Node{node(b, 0), node(b, 1), node(b, 2)}
	filter := r.NodeFilter()
	call := r.Middleware()(func(ctx context.Context, _ any) (any, error) {
		_ = filter(ctx, nodes)
		return nil, nil
	})
	ctx := callContext()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			_, _ = call(ctx, requests[i%benchUsers])
		}
	})
}

// BenchmarkMiss is what a router adds to the call of podlink when a link is not known.
func BenchmarkMiss(b *testing.B) {
	r, err := offline(b).NewRouter(testNamespace, testService, RouterOptions{UID: userField})
	require.NoError(b, err)
	requests := warm(b, r.links)
	link := &v1.Link{PodId: 1, Epoch: 1, Persistent: true, TtlSeconds: -1}
	r.links.policy.lookup = func(context.Context, string, *entry) (*v1.Link, error) { return link, nil }
	call := r.Middleware()(func(context.Context, any) (any, error) { return nil, nil })
	ctx := callContext()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		request := requests[i%benchUsers]
		r.links.invalidate(request.GetService())
		_, _ = call(ctx, request)
		i++
	}
}

// BenchmarkMissOfPodlink is a call about a user of whom nothing is known, with a real podlink on this machine.
func BenchmarkMissOfPodlink(b *testing.B) {
	w := newWorldOn(b, "gRPC", podlinktest.Start(b, binary), Options{})
	w.ready(0, 1, 2)
	r, err := w.client.NewRouter(testNamespace, testService, RouterOptions{UID: userField})
	require.NoError(b, err)
	call := r.Middleware()(func(context.Context, any) (any, error) { return nil, nil })
	ctx := callContext()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := call(ctx, &v1.SetWorkloadStateRequest{Service: strconv.Itoa(i)}); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
