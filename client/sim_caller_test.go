package client_test

import (
	"context"
	"math/rand/v2"
	"net/http/httptrace"
	"time"

	"github.com/go-kratos/kratos/v2/middleware"
	"github.com/go-kratos/kratos/v2/selector"
	"github.com/go-kratos/kratos/v2/transport"
	"google.golang.org/grpc/status"

	v1 "podlink/api/podlink/v1"
	"podlink/client"
	"podlink/test/kit/inproc"
	"podlink/test/kit/sim"
)

// simCaller is a service that calls the pods: a client of its own, and a router.
type simCaller struct {
	sim     *simulation
	conn    *inproc.Conn
	podlink *client.Client
	router  *client.Router
	filter  selector.NodeFilter
	call    middleware.Handler

	forgetting *forgetting // nil: not in this variant
}

func (s *simulation) startCaller() (*simCaller, error) {
	c := &simCaller{sim: s, conn: inproc.Dial(simTry, s.podlinks...)}
	c.podlink = client.NewOver(c.conn, simTimeout)
	if s.variant.forgets {
		c.forgetting = &forgetting{ClientConnInterface: c.conn, uids: make(map[string]bool)}
		c.podlink = client.NewOver(c.forgetting, simTimeout)
	}
	router, err := sim.NewRouter(c.podlink)
	if err != nil {
		return nil, err
	}
	c.router, c.filter = router, router.NodeFilter()
	c.call = router.Middleware()(c.deliver)
	return c, nil
}

type randomKey struct{}

// do makes one call for the user, whose generator it uses.
func (c *simCaller) do(random *rand.Rand, uid, action string) error {
	if c.forgetting != nil && c.forgetting.take(uid) {
		client.Forget(c.router, uid)
	}
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), randomKey{}, random), simCallTimeout)
	defer cancel()
	ctx = transport.NewClientContext(ctx, &simTransport{operation: "/chat.v1.Chat/" + action, request: simHeader{}, reply: simHeader{}})
	ctx = selector.NewPeerContext(ctx, &selector.Peer{})
	_, err := c.call(ctx, &v1.ListLinkedServicesRequest{Namespace: action, Uid: uid})
	return err
}

// deliver carries out one attempt, as a Kratos client over gRPC does with the instances that it has a connection to.
func (c *simCaller) deliver(ctx context.Context, request any) (any, error) {
	nodes := c.sim.ready()
	if len(nodes) == 0 {
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	nodes = c.filter(ctx, nodes)
	if len(nodes) == 0 {
		return nil, overTheWire(selector.ErrNoAvailable)
	}
	random, _ := ctx.Value(randomKey{}).(*rand.Rand)
	node := nodes[random.IntN(len(nodes))]
	if peer, ok := selector.FromPeerContext(ctx); ok {
		peer.Node = node
	}
	if trace := httptrace.ContextClientTrace(ctx); trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{})
	}
	t, _ := transport.FromClientContext(ctx)
	time.Sleep(simHop)
	reply, err := c.sim.processOf(node).serve(ctx, t.(*simTransport), request)
	uid := request.(*v1.ListLinkedServicesRequest).GetUid()
	c.sim.follow(uid, "%s: %s answers %v", uid, node.Address(), err)
	return reply, err
}

// simTransport is the transport of a call, on either side.
type simTransport struct {
	operation      string
	request, reply simHeader
}

func (t *simTransport) Kind() transport.Kind            { return transport.KindGRPC }
func (t *simTransport) Endpoint() string                { return "discovery:///" + sim.ServiceName }
func (t *simTransport) Operation() string               { return t.operation }
func (t *simTransport) RequestHeader() transport.Header { return t.request }
func (t *simTransport) ReplyHeader() transport.Header   { return t.reply }

// simHeader are the headers of a call.
type simHeader map[string][]string

func (h simHeader) Get(key string) string {
	if values := h[key]; len(values) > 0 {
		return values[0]
	}
	return ""
}
func (h simHeader) Set(key, value string)      { h[key] = []string{value} }
func (h simHeader) Add(key, value string)      { h[key] = append(h[key], value) }
func (h simHeader) Values(key string) []string { return h[key] }
func (h simHeader) Keys() []string {
	keys := make([]string, 0, len(h))
	for key := range h {
		keys = append(keys, key)
	}
	return keys
}

func (h simHeader) clone() simHeader {
	c := make(simHeader, len(h))
	for key, values := range h {
		c[key] = values
	}
	return c
}
