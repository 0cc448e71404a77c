package client

import (
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/registry"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
)

// TestBreakGetIsCarriedOutTwice: a pod carries out a GET over a connection that was used before, and dies before it answers. net/http
// repeats it by itself, gets no connection, and the router takes that for a call that was never sent.
func TestBreakGetIsCarriedOutTwice(t *testing.T) {
	var done atomic.Int32
	listen := func(addr string) net.Listener {
		l, err := net.Listen("tcp", addr)
		require.NoError(t, err)
		return l
	}
	first := listen("127.0.0.1:0")
	addr := first.Addr().String()
	restarted := make(chan *http.Server, 1)
	old := &http.Server{ReadHeaderTimeout: time.Second}
	old.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch done.Add(1) {
		case 1:
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte("{}"))
		default: // Carried out; then the process dies, and is restarted.
			_ = first.Close()
			conn, _, _ := w.(http.Hijacker).Hijack()
			_ = conn.Close()
			time.AfterFunc(300*time.Millisecond, func() {
				l, err := net.Listen("tcp", addr)
				if err != nil {
					return
				}
				next := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					done.Add(1)
					w.Header().Set("Content-Type", "application/json")
					_, _ = w.Write([]byte("{}"))
				})}
				restarted <- next
				_ = next.Serve(l)
			})
		}
	})
	go func() { _ = old.Serve(first) }()
	t.Cleanup(func() {
		_ = old.Close()
		select {
		case next := <-restarted:
			_ = next.Close()
		case <-time.After(time.Second):
		}
	})

	f := newFakePodlink()
	f.set("u", 0, -1)
	r := f.router(t, RouterOptions{})
	found := newInstances()
	found.put(&registry.ServiceInstance{ID: "0", Name: testService, Metadata: map[string]string{MetadataPodID: "0"}, Endpoints: []string{"http://" + addr}})
	c, err := khttp.NewClient(t.Context(), khttp.WithEndpoint("discovery:///chat"), khttp.WithDiscovery(found), khttp.WithBlock(),
		khttp.WithMiddleware(r.Middleware()), khttp.WithNodeFilter(r.NodeFilter()), khttp.WithTimeout(3*time.Second),
		khttp.WithTransport(&http.Transport{}))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	ctx, calls := WithUID(t.Context(), "u"), v1.NewWorkloadServiceHTTPClient(c)
	request := &v1.GetWorkloadStateRequest{Namespace: "n", Service: "s"}
	_, err = calls.GetWorkloadState(ctx, request)
	require.NoError(t, err)
	require.EqualValues(t, 1, done.Load())
	_, err = calls.GetWorkloadState(ctx, request)
	t.Log(err)
	require.NotErrorIs(t, err, ErrPodUnreachable, "nothing was carried out, it says")
	require.EqualValues(t, 2, done.Load(), "the second call was carried out twice, though its operation is not in Idempotent")
}
