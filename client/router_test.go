package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/metadata"
	"github.com/go-kratos/kratos/v2/middleware"
	kmetadata "github.com/go-kratos/kratos/v2/middleware/metadata"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/go-kratos/kratos/v2/selector"
	"github.com/go-kratos/kratos/v2/transport"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/health/grpc_health_v1"

	v1 "podlink/api/podlink/v1"
	"podlink/test/kit/proc"
)

func isGRPC(ctx context.Context) bool {
	t, ok := transport.FromServerContext(ctx)
	return ok && t.Kind() == transport.KindGRPC
}

var errBroken = errors.New("broken")

// header is a transport.Header of one value each.
type header map[string]string

func (h header) Get(key string) string      { return h[key] }
func (h header) Set(key, value string)      { h[key] = value }
func (h header) Add(key, value string)      { h[key] = value }
func (h header) Values(key string) []string { return []string{h[key]} }
func (h header) Keys() (all []string) {
	for key := range h {
		all = append(all, key)
	}
	return all
}

// call is a call of which only the operation and the headers matter.
type call struct{ header header }

func (c *call) Kind() transport.Kind            { return transport.KindGRPC }
func (c *call) Endpoint() string                { return "" }
func (c *call) Operation() string               { return operationSet }
func (c *call) RequestHeader() transport.Header { return c.header }
func (c *call) ReplyHeader() transport.Header   { return header{} }

// TestRouterComputes: a user without a link gets one, and all calls go to its pod.
func TestRouterComputes(t *testing.T) {
	onBoth(t, func(t *testing.T, over string) {
		w := newWorld(t, over)
		w.pods(3)
		w.ready(0, 1, 2)
		_, chat := w.router(RouterOptions{UID: userField, LinkTTL: 50 * time.Second}, soon)
		used := map[string]bool{}
		for i := range 12 {
			uid := fmt.Sprint("u", i)
			for range 3 {
				reply, err := chat.set(t.Context(), uid, "text")
				require.NoError(t, err)
				link := w.linked(uid)
				require.Equal(t, fmt.Sprint(link.GetPodId()), reply.GetNamespace())
				require.False(t, link.GetPersistent())
				require.InDelta(t, 50, link.GetTtlSeconds(), 40)
				used[reply.GetNamespace()] = true
			}
		}
		require.Len(t, used, 3)
	})
}

// TestRouterFindsThePod: 40 pods, more than Kratos shows a client by itself, each with a user of its own. Among them are
// names that end alike: chat-2, chat-12, chat-32.
func TestRouterFindsThePod(t *testing.T) {
	t.Parallel()
	const count = 40
	w := newWorld(t, "")
	pods := w.pods(count)
	for id := range int32(count) {
		w.link(fmt.Sprint("u", id), id)
	}
	onBoth(t, func(t *testing.T, over string) {
		for name, metadata := range map[string]func(id int32) map[string]string{
			"pod_id":   func(id int32) map[string]string { return map[string]string{MetadataPodID: number(id)} },
			"pod_name": func(id int32) map[string]string { return map[string]string{MetadataPodName: "chat-" + number(id)} },
			"pod_id goes first": func(id int32) map[string]string {
				return map[string]string{MetadataPodID: number(id), MetadataPodName: "chat-" + number(count-1-id)}
			},
		} {
			t.Run(name, func(t *testing.T) {
				here := *w
				here.t, here.over, here.instances = t, over, newInstances()
				for _, p := range pods {
					here.put(p.instance(metadata(p.id)))
				}
				_, chat := here.router(RouterOptions{UID: userField, RetryTimeout: soon}, soon)
				for id := range count {
					for _, call := range []func(uid string) (*v1.Workload, error){
						func(uid string) (*v1.Workload, error) { return chat.set(t.Context(), uid, "text") },
						func(uid string) (*v1.Workload, error) { return chat.get(t.Context(), uid) },
					} {
						reply, err := call(fmt.Sprint("u", id))
						require.NoError(t, err)
						require.Equal(t, strconv.Itoa(id), reply.GetNamespace())
					}
				}
			})
		}
	})
}

// TestPodThatHangs: a call that got no answer in its time makes the next one ask podlink again, for the pod may be dead.
func TestPodThatHangs(t *testing.T) {
	onBoth(t, func(t *testing.T, over string) {
		w := newWorld(t, over)
		pods := w.pods(2)
		w.link("u", 0)
		_, chat := w.router(RouterOptions{UID: userField, CacheTTL: time.Hour}, soon)
		w.connected(chat, 2)
		pods[0].handle = func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return ctx.Err()
		}
		for _, moved := range []bool{false, true} {
			if moved {
				w.link("u", 1) // As podlink does when the pod's report has expired.
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			reply, err := chat.set(ctx, "u", "text")
			cancel()
			if !moved {
				require.Error(t, err)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, "1", reply.GetNamespace())
		}
	})
}

// TestRouteOfAStream: streams pass no middleware of Kratos' client, but its filter, which finds the pod in Route's context.
func TestRouteOfAStream(t *testing.T) {
	w := newWorld(t, "gRPC")
	pods := w.pods(3)
	r, chat := w.router(RouterOptions{UID: userField}, soon)
	w.connected(chat, 3)
	conn, err := kgrpc.DialInsecure(t.Context(), kgrpc.WithEndpoint("discovery:///chat"), kgrpc.WithDiscovery(w.instances),
		kgrpc.WithNodeFilter(r.NodeFilter()), kgrpc.WithSubset(0), kgrpc.WithPrintDiscoveryDebugLog(false))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	for id, p := range pods {
		uid := fmt.Sprint("u", id)
		w.link(uid, int32(id))
		ctx, err := r.Route(t.Context(), uid)
		require.NoError(t, err)
		var reached string
		require.Eventually(t, func() bool { // All three have to be connected to.
			stream, err := grpc_health_v1.NewHealthClient(conn).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
			if err != nil {
				return false
			}
			if _, err = stream.Recv(); err != nil {
				return false
			}
			answered, ok := selector.FromPeerContext(stream.Context())
			if ok {
				reached = answered.Node.Address()
			}
			return ok
		}, soon, time.Millisecond)
		require.Equal(t, p.addresses["grpc"], reached)
	}
}

func TestOrdinalOf(t *testing.T) {
	for name, row := range map[string]struct {
		metadata map[string]string
		want     string
	}{
		"no metadata":        {},
		"id":                 {map[string]string{MetadataPodID: "2"}, "2"},
		"name":               {map[string]string{MetadataPodName: "chat-2"}, "2"},
		"two digits":         {map[string]string{MetadataPodName: "chat-12"}, "12"},
		"a number, no name":  {map[string]string{MetadataPodName: "2"}, ""},
		"the last of two":    {map[string]string{MetadataPodName: "chat-2-1"}, "1"},
		"the id, not a name": {map[string]string{MetadataPodID: "1", MetadataPodName: "chat-2"}, "1"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, row.want, ordinalOf(selector.NewNode("grpc", "a:1", &registry.ServiceInstance{Metadata: row.metadata})))
		})
	}
}

// TestNodeFilterKnowsTheInstances: of every list that it is given, also of nodes that can't be compared.
func TestNodeFilterKnowsTheInstances(t *testing.T) {
	r, err := connect(t, "127.0.0.1:1", Options{}).NewRouter(testNamespace, testService, RouterOptions{})
	require.NoError(t, err)
	filter := r.NodeFilter()
	ctx := context.WithValue(t.Context(), podCallKey{r}, &podCall{link: &entry{ordinal: "2"}})
	node := func(ordinal string) selector.Node {
		return selector.NewNode("grpc", "a:1", &registry.ServiceInstance{Metadata: map[string]string{MetadataPodID: ordinal}})
	}
	one, two, twoToo := node("1"), node("2"), node("2")
	for range 2 { // The second time it knows them.
		require.Equal(t, []selector.Node{two}, filter(ctx, []selector.Node{one, two}))
	}
	both := []selector.Node{two, one, twoToo}
	clear(filter(ctx, both))
	require.Equal(t, []selector.Node{two, twoToo}, filter(ctx, both), "whatever another filter does to what it gets")
	require.Empty(t, filter(ctx, []selector.Node{one}))
	require.Empty(t, filter(ctx, nil))
	odd := oddNode{node("2"), []int{1}}
	for range 2 {
		require.Equal(t, []selector.Node{odd}, filter(ctx, []selector.Node{one, odd}))
	}
}

// oddNode can't be compared.
type oddNode struct {
	selector.Node
	_ []int
}

// TestRouterAsksOnce: concurrent misses are one call to podlink, and a warm cache makes none.
func TestRouterAsksOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, over string) {
		w := newWorld(t, over)
		w.pods(2)
		w.ready(0, 1)
		_, chat := w.router(RouterOptions{UID: userField, CacheTTL: time.Hour}, soon)
		w.connected(chat, 2)
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				_, err := chat.set(t.Context(), "u", "text")
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		require.Equal(t, 1, w.calls("ComputeLinkedPod"))
		for range 100 {
			_, err := chat.set(t.Context(), "u", "text")
			require.NoError(t, err)
		}
		require.Equal(t, 1, w.calls("ComputeLinkedPod"))
	})
}

// TestRouterAsksAgain: a link that is not fresh any more is asked for again.
func TestRouterAsksAgain(t *testing.T) {
	w := newWorld(t, "gRPC")
	w.pods(2)
	w.link("u", 0)
	_, chat := w.router(RouterOptions{UID: userField, CacheTTL: 100 * time.Millisecond, RetryTimeout: soon}, soon)
	_, err := chat.set(t.Context(), "u", "text")
	require.NoError(t, err)
	w.link("u", 1)
	require.Eventually(t, func() bool {
		reply, err := chat.set(t.Context(), "u", "text")
		return err == nil && reply.GetNamespace() == "1"
	}, soon, 10*time.Millisecond)
}

// TestTemporaryLinksOfADeadPodlink: a router uses a temporary link as long as it surely lives, and not longer.
func TestTemporaryLinksOfADeadPodlink(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, "gRPC", start(t, unhurried...), Options{Timeout: hangTimeout})
	w.pods(1)
	w.ready(0)
	_, chat := w.router(RouterOptions{UID: userField, LinkTTL: 2 * time.Second, CacheTTL: time.Hour}, soon)
	require.Eventually(t, func() bool {
		_, err := chat.set(t.Context(), "u", "text")
		return err == nil
	}, soon, time.Millisecond)
	answered := time.Now() // The link has begun before.
	w.podlink.Kill()
	for {
		began := time.Now()
		_, err := chat.set(t.Context(), "u", "text")
		if err != nil {
			require.ErrorIs(t, err, ErrUnavailable)
			return
		}
		require.Less(t, began.Sub(answered), 2*time.Second)
	}
}

// TestRouterFollowsMoves: the link has moved without the router's knowledge. The old pod refuses the call, and it is carried
// out once, by the new one, with all that it says.
func TestRouterFollowsMoves(t *testing.T) {
	onBoth(t, func(t *testing.T, over string) {
		w := newWorld(t, over)
		pods := w.pods(3)
		var done atomic.Int32
		for id, p := range pods {
			p.handle = func(_ context.Context, uid string) error {
				if w.linked(uid).GetPodId() != int32(id) {
					return refusal(ErrWrongPod, uid, fmt.Sprint(id))
				}
				done.Add(1)
				return nil
			}
		}
		_, chat := w.router(RouterOptions{UID: userField, CacheTTL: time.Hour, RetryTimeout: soon}, soon)
		for i := range int32(12) {
			w.link("u", i%3)
			reply, err := chat.set(t.Context(), "u", fmt.Sprint("text ", i))
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(i%3), reply.GetNamespace())
			require.Equal(t, fmt.Sprint("text ", i), reply.GetState())
			require.EqualValues(t, i+1, done.Load())
		}
	})
}

// TestRouterGivesUp: a pod that disowns a user whom podlink links to it is asked until the patience ends.
func TestRouterGivesUp(t *testing.T) {
	onBoth(t, func(t *testing.T, over string) {
		w := newWorld(t, over)
		p := w.pods(1)[0]
		p.handle = func(_ context.Context, uid string) error { return refusal(ErrWrongPod, uid, "0") }
		w.link("u", 0)
		_, chat := w.router(RouterOptions{UID: userField, RetryTimeout: 200 * time.Millisecond}, soon)
		err := atItsEnd(ErrWrongPod, func() error {
			_, err := chat.set(t.Context(), "u", "text")
			return err
		})
		require.ErrorIs(t, err, ErrWrongPod)
		require.Equal(t, "0", kerrors.FromError(err).Metadata[metadataRefusedBy])
		require.Greater(t, p.done.Load(), int32(2))
	})
}

// TestRouterLosesAllPods: a try that found no connection was not sent, whatever pod an earlier try has reached.
func TestRouterLosesAllPods(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "gRPC")
	p := w.pods(1)[0]
	w.link("u", 0)
	p.handle = func(_ context.Context, uid string) error {
		if uid == "" {
			return nil
		}
		return refusal(ErrLinkUncertain, uid, "0")
	}
	r, err := w.client.NewRouter(testNamespace, testService, RouterOptions{UID: userField})
	require.NoError(t, err)
	var chat stub
	chat = w.stub(2*soon, []selector.NodeFilter{r.NodeFilter()}, r.Middleware(), func(next middleware.Handler) middleware.Handler {
		return func(ctx context.Context, request any) (any, error) {
			reply, err := next(ctx, request)
			if p.done.Load() > 0 && userField(ctx, request) != "" {
				p.stop()                            // After the first try.
				require.Eventually(t, func() bool { // The client has noticed.
					_, err := chat.batch(t.Context())
					return err != nil && strings.Contains(err.Error(), "connection refused")
				}, soon, time.Millisecond)
			}
			return reply, err
		}
	})
	w.connected(chat, 1)
	_, err = chat.set(t.Context(), "u", "text")
	require.ErrorIs(t, err, ErrPodUnreachable)
}

// TestRouterWithoutThePod: the pod that holds the user has gone from discovery, or its process has stopped.
func TestRouterWithoutThePod(t *testing.T) {
	t.Parallel()
	podlink := start(t)
	for name, row := range map[string]struct {
		fallback bool
		patience time.Duration
		during   func(w *world, user string, comeBack func()) // happens while the router is patient
		want     string                                       // the pod; empty: POD_UNREACHABLE
	}{
		"strict":    {patience: 300 * time.Millisecond},
		"comesBack": {patience: soon, during: func(_ *world, _ string, comeBack func()) { comeBack() }, want: "1"},
		"relinked":  {patience: soon, during: func(w *world, user string, _ func()) { w.link(user, 0) }, want: "0"},
		"fallback":  {fallback: true, patience: soon, want: "0"},
	} {
		for how, leave := range map[string]func(w *world, p *pod) (comeBack func()){
			"gone": func(w *world, p *pod) func() {
				w.remove(p.instance(nil).ID)
				return func() { w.put(p.instance(map[string]string{MetadataPodID: "1"})) }
			},
			"stopped": func(_ *world, p *pod) func() {
				p.stop()
				return p.start
			},
		} {
			onBoth(t, func(t *testing.T, over string) {
				t.Run(name+" "+how, func(t *testing.T) {
					w := newWorldOn(t, over, podlink, Options{})
					p := w.pods(2)[1]
					user := name + how + over
					w.link(user, 1)
					r, err := w.client.NewRouter(testNamespace, testService, RouterOptions{
						UID: userField, Fallback: row.fallback, RetryTimeout: row.patience,
					})
					require.NoError(t, err)
					missed := make(chan struct{}, 1)
					noticed := func(ctx context.Context, nodes []selector.Node) []selector.Node {
						found := r.NodeFilter()(ctx, nodes)
						if len(found) == 0 {
							select {
							case missed <- struct{}{}:
							default:
							}
						}
						return found
					}
					chat := w.stub(4*soon, []selector.NodeFilter{noticed}, r.Middleware())
					w.connected(chat, 2)
					reply, err := chat.set(t.Context(), user, "text")
					require.NoError(t, err)
					require.Equal(t, "1", reply.GetNamespace())

					comeBack := leave(w, p)
					done := make(chan struct{})
					go func() {
						defer close(done)
						for { // Until the client has noticed, it may lose a call.
							reply, err = chat.set(t.Context(), user, "text")
							if err == nil && (row.during != nil || reply.GetNamespace() == row.want) || kerrors.Reason(err) != "" {
								return
							}
						}
					}()
					if row.during != nil {
						if over == "gRPC" || how == "gone" {
							select {
							case <-missed:
							case <-done: // It had not noticed, and the pod answered.
							}
						}
						row.during(w, user, comeBack)
					}
					<-done
					if row.want == "" {
						require.ErrorIs(t, err, ErrPodUnreachable)
						require.Equal(t, "1", kerrors.FromError(err).Metadata[MetadataPodID])
						because := "discovery has no instance of it"
						switch {
						case over == "HTTP" && how != "gone":
							because = "discovery has an instance of it, which can't be connected"
						case over == "gRPC":
							because += ", or it can't be connected"
						}
						require.Equal(t, kerrors.FromError(ErrPodUnreachable).Message+": "+because, kerrors.FromError(err).Message)
						return
					}
					require.NoError(t, err)
					require.Eventually(t, func() bool {
						reply, err := chat.set(t.Context(), user, "text")
						return err == nil && reply.GetNamespace() == row.want
					}, soon, time.Millisecond)
				})
			})
		}
	}
}

// TestAnswerLost: the pod has begun with a call, and its answer does not come.
func TestAnswerLost(t *testing.T) {
	t.Parallel()
	// How an answer is lost. It returns the error of the handler.
	cut := func(p *pod, _ context.Context) error {
		p.cut()
		return errBroken
	}
	hang := func(_ *pod, ctx context.Context) error {
		if ctx.Err() == nil && isGRPC(ctx) {
			return context.DeadlineExceeded // The pod itself has given up. Over gRPC a caller's deadline is for all tries.
		}
		<-ctx.Done()
		return ctx.Err()
	}
	for name, row := range map[string]struct {
		idempotent bool
		how        func(p *pod, ctx context.Context) error
		times      int32 // that it happens
		executions int32
		works      bool
	}{
		"cut":                   {how: cut, times: 1, executions: 1},
		"cut, idempotent":       {how: cut, times: 1, idempotent: true, executions: 2, works: true},
		"cut twice, idempotent": {how: cut, times: 2, idempotent: true, executions: 2},
		"late":                  {how: hang, times: 1, executions: 1},
		"late, idempotent":      {how: hang, times: 1, idempotent: true, executions: 2, works: true},
		"late and then cut, idempotent": {times: 2, idempotent: true, executions: 2, how: func(p *pod, ctx context.Context) error {
			if p.done.Load() == 1 {
				return hang(p, ctx)
			}
			return cut(p, ctx)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, over string) {
				t.Parallel()
				w := newWorld(t, over)
				p := w.pods(1)[0]
				w.link("u", 0)
				o := RouterOptions{UID: userField, RetryTimeout: soon}
				if row.idempotent {
					o.Idempotent = []string{operationSet}
				}
				limit := soon
				if over == "HTTP" {
					limit = time.Second // It bounds each try.
				}
				_, chat := w.router(o, limit)
				_, err := chat.set(t.Context(), "u", "text")
				require.NoError(t, err)
				p.done.Store(0)
				p.handle = func(ctx context.Context, _ string) error {
					if p.done.Load() <= row.times {
						return row.how(p, ctx)
					}
					return nil
				}
				reply, err := chat.set(t.Context(), "u", "text")
				require.Equal(t, row.executions, p.done.Load())
				if row.works {
					require.NoError(t, err)
					require.Equal(t, "text", reply.GetState())
					return
				}
				require.Error(t, err)
				require.NotErrorIs(t, err, ErrPodUnreachable)
			})
		})
	}
}

// TestAnswerLostAndPodGone: what may have been carried out is never called unreachable, which says that it was not.
func TestAnswerLostAndPodGone(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, over string) {
		w := newWorld(t, over)
		p := w.pods(2)[1]
		w.link("u", 1)
		_, chat := w.router(RouterOptions{UID: userField, Idempotent: []string{operationSet}, RetryTimeout: time.Second}, soon)
		_, err := chat.set(t.Context(), "u", "text")
		require.NoError(t, err)
		p.handle = func(context.Context, string) error {
			w.remove(p.instance(nil).ID) // The second try may still be made, if the client has not noticed.
			p.cut()
			return errBroken
		}
		_, err = chat.set(t.Context(), "u", "text")
		require.Error(t, err)
		require.NotErrorIs(t, err, ErrPodUnreachable)
		require.GreaterOrEqual(t, p.done.Load(), int32(2))
	})
}

// TestErrorsOfThePod: they come to the caller as they are, and a call that a pod has answered is not repeated.
func TestErrorsOfThePod(t *testing.T) {
	onBoth(t, func(t *testing.T, over string) {
		w := newWorld(t, over)
		p := w.pods(1)[0]
		w.link("u", 0)
		_, chat := w.router(RouterOptions{UID: userField, Idempotent: []string{operationSet}, RetryTimeout: soon}, soon)
		for _, want := range []*kerrors.Error{
			kerrors.New(400, "NO_TEXT", "say something").WithMetadata(map[string]string{"field": "text"}),
			kerrors.New(404, "NO_ROOM", "no such room"),
			kerrors.New(409, "TAKEN", "the seat is taken"),
			kerrors.New(500, "BROKEN", "broken"),
			kerrors.New(503, "BUSY", "later"),
			kerrors.New(504, "SLOW", "too slow"),
			kerrors.FromError(ErrPodUnreachable), // of a router of the pod's own
			kerrors.FromError(ErrUnavailable),    // of an agent
		} {
			p.done.Store(0)
			p.handle = func(context.Context, string) error { return want }
			_, err := chat.set(t.Context(), "u", "text")
			got := kerrors.FromError(err)
			require.Equal(t, want.Code, got.Code)
			require.Equal(t, want.Reason, got.Reason)
			require.Equal(t, want.Message, got.Message)
			require.Equal(t, want.Metadata["field"], got.Metadata["field"])
			require.EqualValues(t, 1, p.done.Load())
		}
		for _, plain := range []error{errBroken} {
			p.done.Store(0)
			p.handle = func(context.Context, string) error { return plain }
			_, err := chat.set(t.Context(), "u", "text")
			require.EqualValues(t, 500, kerrors.Code(err))
			require.EqualValues(t, 1, p.done.Load())
		}
	})
}

// TestRouterWithoutPodlink: what is known goes on, and what is not known is an error that says so.
func TestRouterWithoutPodlink(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, over string) {
		t.Parallel()
		const limit = 4 * time.Second // for podlink
		w := newWorldOn(t, over, start(t, unhurried...), Options{Timeout: limit})
		pods := w.pods(3)
		w.ready(0, 1, 2)
		w.link("u", 1)
		w.link("v", 1)
		const freshFor = 50 * time.Millisecond
		_, chat := w.router(RouterOptions{UID: userField, CacheTTL: freshFor, RetryTimeout: 200 * time.Millisecond}, soon)
		say := func(uid, want string) {
			t.Helper()
			reply, err := chat.set(t.Context(), uid, "text")
			require.NoError(t, err)
			require.Equal(t, want, reply.GetNamespace())
		}
		w.connected(chat, 3)
		say("u", "1")
		say("v", "1")

		resume := w.hang()
		_, err := chat.set(t.Context(), "stranger", "text")
		require.ErrorIs(t, err, ErrUnavailable) // By now podlink is known to be away, and the links are not fresh.
		for begin := time.Now(); time.Since(begin) < limit+retryAfterFailure; {
			once := time.Now()
			say("u", "1")
			say("v", "1")
			require.Less(t, time.Since(once), limit*3/4, "it does not wait for podlink")
		}

		// The pod goes, too: its link is not lost.
		w.remove(pods[1].instance(nil).ID)
		require.Eventually(t, func() bool {
			_, err = chat.set(t.Context(), "u", "text")
			return err != nil
		}, soon, time.Millisecond)
		require.ErrorIs(t, err, ErrPodUnreachable)
		require.Equal(t, "1", kerrors.FromError(err).Metadata[MetadataPodID])
		w.put(pods[1].instance(map[string]string{MetadataPodID: "1"}))
		require.Eventually(t, func() bool {
			reply, err := chat.set(t.Context(), "u", "text")
			return err == nil && reply.GetNamespace() == "1"
		}, soon, time.Millisecond)

		resume()
		w.link("u", 2)
		require.Eventually(t, func() bool {
			reply, err := chat.set(t.Context(), "u", "text")
			return err == nil && reply.GetNamespace() == "2"
		}, soon, 10*time.Millisecond)
		_, err = chat.set(t.Context(), "stranger2", "text")
		require.NoError(t, err)
	})
}

// TestFallbackWithoutPodlink: with Fallback a user of whom nothing is known is anybody's.
func TestFallbackWithoutPodlink(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, over string) {
		w := newWorldOn(t, over, start(t, unhurried...), Options{Timeout: hangTimeout})
		w.pods(2)
		_, chat := w.router(RouterOptions{UID: userField, Fallback: true}, soon)
		w.podlink.Kill()
		_, err := chat.set(t.Context(), "u", "text")
		require.NoError(t, err)
	})
}

// TestNoUser: a request about no user goes anywhere, and podlink is not asked.
func TestNoUser(t *testing.T) {
	onBoth(t, func(t *testing.T, over string) {
		w := newWorld(t, over)
		w.pods(3)
		for name, o := range map[string]RouterOptions{"field": {UID: userField}, "context": {}} {
			t.Log(name)
			_, chat := w.router(o, soon)
			w.connected(chat, 3)
		}
		require.Zero(t, w.calls("ComputeLinkedPod"))
	})
}

// TestWithUID: the uid of the context goes to the pod in a header, whatever it is, and no further.
func TestWithUID(t *testing.T) {
	onBoth(t, func(t *testing.T, over string) {
		w := newWorld(t, over)
		var headers, further metadata.Metadata
		next := newPod(t, 9, kmetadata.Server(), func(next middleware.Handler) middleware.Handler {
			return func(ctx context.Context, request any) (any, error) {
				further, _ = metadata.FromServerContext(ctx)
				return next(ctx, request)
			}
		})
		onward := *w
		onward.instances = newInstances()
		onward.put(next.instance(nil))
		call := onward.stub(soon, nil, kmetadata.Client())
		pods := make([]*pod, 2)
		for id := range int32(2) {
			a, err := w.client.NewAgent(testNamespace, testService, AgentOptions{
				PodName: fmt.Sprintf("chat-%d", id), Public: []string{v1.OperationWorkloadServiceBatchGetWorkloadState},
			})
			require.NoError(t, err)
			pods[id] = newPod(t, id, kmetadata.Server(), a.Guard())
			pods[id].handle = func(ctx context.Context, _ string) error {
				headers, _ = metadata.FromServerContext(ctx)
				_, err := call.batch(ctx)
				return err
			}
			w.put(pods[id].instance(a.Metadata()))
		}
		_, chat := w.router(RouterOptions{RetryTimeout: soon}, soon)
		for i, uid := range []string{
			"u", "user:42", "a/b", "../..", ".", "50%", "%41", "%zz", "a b", "a+b", "{x}", "?a=b#c", "grüß", "\U0001F600",
			"\U0001F468\u200D\U0001F469\u200D\U0001F467", `"'\`, ";,=",
		} {
			w.link(uid, int32(i%2))
			pod, err := chat.batch(WithUID(t.Context(), uid))
			require.NoError(t, err, uid)
			require.Equal(t, strconv.Itoa(i%2), pod, uid)
			require.NotEmpty(t, headers.Get(uidHeader))
			require.Empty(t, further.Get(uidHeader))
		}
		_, err := chat.batch(t.Context())
		require.NoError(t, err, "no user after one")
		require.Empty(t, headers.Get(uidHeader))
	})
}

// TestHeaderOfNobody: a header that no router has sent is not taken for a request about no user, which a Guard lets pass.
func TestHeaderOfNobody(t *testing.T) {
	ctx := transport.NewServerContext(t.Context(), &call{header{uidHeader: "%zz"}})
	require.Equal(t, "%zz", receiveUID(ctx, nil))
	require.Empty(t, receiveUID(t.Context(), nil))
}

// TestField: the user is found in a message, and over HTTP in what of it has gone into the path or the query.
func TestField(t *testing.T) {
	request := func(template, path string) context.Context {
		var ctx context.Context
		c, err := khttp.NewClient(t.Context(), khttp.WithEndpoint("127.0.0.1:1"), khttp.WithMiddleware(
			func(middleware.Handler) middleware.Handler {
				return func(inner context.Context, _ any) (any, error) {
					ctx = inner
					return nil, nil
				}
			}))
		require.NoError(t, err)
		require.NoError(t, c.Invoke(t.Context(), http.MethodGet, path, nil, nil, khttp.PathTemplate(template)))
		return ctx
	}
	for name, row := range map[string]struct {
		field   string
		ctx     context.Context //nolint:containedctx // It is what the table is about.
		request any
		want    string
	}{
		"a field":                   {field: "service", request: &v1.GetWorkloadStateRequest{Service: "u"}, want: "u"},
		"an empty field":            {field: "service", request: &v1.GetWorkloadStateRequest{}},
		"no such field":             {field: "uid", request: &v1.GetWorkloadStateRequest{Service: "u"}},
		"a number":                  {field: "pod_id", request: &v1.GetServicePodRequest{}},
		"a list":                    {field: "services", request: &v1.BatchGetWorkloadStateRequest{Services: []string{"u"}}},
		"no message":                {field: "service", request: "u"},
		"nothing":                   {field: "service"},
		"a path":                    {field: "uid", ctx: request("/v1/users/{uid}/greet", "/v1/users/u/greet"), want: "u"},
		"an escaped path":           {field: "uid", ctx: request("/v1/users/{uid}", "/v1/users/a%2Fb%25"), want: "a/b%"},
		"a path with a verb":        {field: "uid", ctx: request("/v1/users/{uid}:greet", "/v1/users/user:42:greet"), want: "user:42"},
		"a query":                   {field: "uid", ctx: request("/v1/greet", "/v1/greet?uid=a%2Fb"), want: "a/b"},
		"a query in camel case":     {field: "user_id", ctx: request("/v1/greet", "/v1/greet?userId=u"), want: "u"},
		"neither in path nor query": {field: "uid", ctx: request("/v1/rooms/{room}", "/v1/rooms/r?x=y")},
		"a message of the body": {
			field: "uid", ctx: request("/v1/users/{uid}", "/v1/users/u"), request: &v1.Pod{}, want: "u",
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := row.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			require.Equal(t, row.want, Field(row.field)(ctx, row.request))
		})
	}
}

// TestTwoRouters: a context that holds the routes of two routers is right for the clients of both.
func TestTwoRouters(t *testing.T) {
	onBoth(t, func(t *testing.T, over string) {
		w := newWorld(t, over)
		w.pods(4)
		w.link("u", 1)
		w.link("v", 2)
		w.link("w", 3)
		ctx := t.Context()
		var chats []stub
		for _, uid := range []string{"u", "v"} {
			r, err := w.client.NewRouter(testNamespace, testService, RouterOptions{})
			require.NoError(t, err)
			ctx, err = r.Route(ctx, uid)
			require.NoError(t, err)
			chats = append(chats, w.stub(soon, []selector.NodeFilter{r.NodeFilter()}))
		}
		_, routed := w.router(RouterOptions{UID: userField, RetryTimeout: soon}, soon)
		for range 5 {
			for i, want := range []string{"1", "2"} {
				require.Eventually(t, func() bool { // Until the client is connected to that pod.
					pod, err := chats[i].batch(ctx)
					if err == nil {
						require.Equal(t, want, pod)
					}
					return err == nil
				}, soon, time.Millisecond)
			}
			reply, err := routed.set(ctx, "w", "text")
			require.NoError(t, err)
			require.Equal(t, "3", reply.GetNamespace())
		}
	})
}

// TestRouteWithoutPodlink: Route fails as a call does.
func TestRouteWithoutPodlink(t *testing.T) {
	c := connect(t, proc.FreeAddr(t), Options{Timeout: 100 * time.Millisecond})
	strict, err := c.NewRouter(testNamespace, testService, RouterOptions{})
	require.NoError(t, err)
	_, err = strict.Route(t.Context(), "u")
	require.ErrorIs(t, err, ErrUnavailable)
	fallback, err := c.NewRouter(testNamespace, testService, RouterOptions{Fallback: true})
	require.NoError(t, err)
	ctx, err := fallback.Route(t.Context(), "u")
	require.NoError(t, err)
	nodes := []selector.Node{node(t, 0), node(t, 1)}
	require.Len(t, fallback.NodeFilter()(ctx, nodes), 2)
}

func node(t testing.TB, id int32) selector.Node {
	t.Helper()
	return selector.NewNode("grpc", fmt.Sprintf("10.0.0.%d:9000", id+1), &registry.ServiceInstance{
		ID: fmt.Sprint(id), Name: testService, Metadata: map[string]string{MetadataPodID: fmt.Sprint(id)},
	})
}

func TestRouterOptions(t *testing.T) {
	c := connect(t, proc.FreeAddr(t), Options{})
	for name, row := range map[string]struct {
		o       RouterOptions
		refused bool
	}{
		"none":                    {},
		"all":                     {o: RouterOptions{RetryTimeout: time.Millisecond, LinkTTL: time.Second, CacheTTL: time.Nanosecond, CacheSize: 1}},
		"negative patience":       {o: RouterOptions{RetryTimeout: -1}, refused: true},
		"negative freshness":      {o: RouterOptions{CacheTTL: -1}, refused: true},
		"negative size":           {o: RouterOptions{CacheSize: -1}, refused: true},
		"negative life":           {o: RouterOptions{LinkTTL: -time.Second}, refused: true},
		"a life below a second":   {o: RouterOptions{LinkTTL: time.Millisecond}, refused: true},
		"a life of half a second": {o: RouterOptions{LinkTTL: 1500 * time.Millisecond}, refused: true},
		"a life beyond the API's": {o: RouterOptions{LinkTTL: (1 << 31) * time.Second}, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.NewRouter(testNamespace, testService, row.o)
			require.Equal(t, row.refused, err != nil, err)
		})
	}
}

// TestConnectionOverHTTP: a call for which no connection was got was not carried out, however the transport says so; and where the
// transport says nothing about its connections, it may have been.
func TestConnectionOverHTTP(t *testing.T) {
	t.Parallel()
	broken := func(*http.Request) (*http.Response, error) { return nil, errBroken }
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended) })
	hanging := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		<-ended // As to a pod whose packets are dropped.
		return nil, errBroken
	}}
	for name, row := range map[string]struct {
		carrier http.RoundTripper
		want    error
		tries   int32
	}{
		"no connection":   {&http.Transport{}, ErrPodUnreachable, 2},
		"none in time":    {hanging, ErrPodUnreachable, 2},
		"it does not say": {roundTrip(broken), errBroken, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakePodlink()
			f.set("u", 0, -1)
			r := f.router(t, RouterOptions{UID: userField})
			found := newInstances()
			found.put(&registry.ServiceInstance{
				ID: "0", Name: testService, Metadata: map[string]string{MetadataPodID: "0"}, Endpoints: []string{"http://" + proc.FreeAddr(t)},
			})
			var tries atomic.Int32
			c, err := khttp.NewClient(t.Context(), khttp.WithEndpoint("discovery:///chat"), khttp.WithDiscovery(found), khttp.WithBlock(),
				khttp.WithMiddleware(r.Middleware()), khttp.WithNodeFilter(r.NodeFilter()), khttp.WithTimeout(300*time.Millisecond),
				khttp.WithTransport(roundTrip(func(request *http.Request) (*http.Response, error) {
					tries.Add(1)
					return row.carrier.RoundTrip(request)
				})))
			require.NoError(t, err)
			t.Cleanup(func() { _ = c.Close() })
			_, err = v1.NewWorkloadServiceHTTPClient(c).SetWorkloadState(t.Context(), &v1.SetWorkloadStateRequest{Namespace: "n", Service: "u"})
			require.ErrorIs(t, err, row.want)
			if row.tries == 1 {
				require.EqualValues(t, 1, tries.Load())
			} else {
				require.GreaterOrEqual(t, tries.Load(), row.tries)
			}
		})
	}
}

// roundTrip is a transport of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (r roundTrip) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }
