package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/middleware"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/go-kratos/kratos/v2/selector"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
	"podlink/test/kit/proc"
)

// The stateful service of these tests is chat. It speaks podlink's own WorkloadService, whose requests name the user in the
// field service: Set is something that the pod does, Get something that it reads, and BatchGet names no user.
const (
	testNamespace = "ns"
	testService   = "chat"

	operationSet = v1.OperationWorkloadServiceSetWorkloadState
)

// soon bounds what should take some milliseconds, on a machine that is busy.
const soon = 20 * time.Second

// hangTimeout is the timeout of clients whose podlink hangs or dies: short, for the test waits for it; and long enough for the
// calls before and after that to be answered on a busy machine.
const hangTimeout = 3 * time.Second

var userField = Field("service")

// onBoth runs a test over gRPC and over HTTP.
func onBoth(t *testing.T, test func(t *testing.T, over string)) {
	t.Helper()
	for _, over := range []string{"gRPC", "HTTP"} {
		t.Run(over, func(t *testing.T) { test(t, over) })
	}
}

// world is a podlink with a service of some pods, and a discovery that knows them.
type world struct {
	t       testing.TB
	over    string // the transport of the calls to pods
	podlink *podlinktest.Process
	client  *Client // podlink's, of the agents and routers
	patient *Client // podlink's, of the test itself: what it does before and after a fault takes as long as it takes
	*instances
}

func newWorld(t *testing.T, over string, env ...string) *world {
	t.Helper()
	return newWorldOn(t, over, start(t, append(slices.Clone(unhurried), env...)...), Options{})
}

func newWorldOn(t testing.TB, over string, podlink *podlinktest.Process, o Options) *world {
	t.Helper()
	w := &world{
		t: t, over: over, podlink: podlink, client: connect(t, podlink.GRPC, o),
		patient: connect(t, podlink.GRPC, Options{Timeout: soon}), instances: newInstances(),
	}
	require.Eventually(t, func() bool { // From now on it is connected, and what is sent to a podlink that hangs has been sent.
		_, err := w.client.GetLinkedPod(context.Background(), get("nobody"))
		return err == nil
	}, soon, time.Millisecond)
	return w
}

func connect(t testing.TB, target string, o Options) *Client {
	t.Helper()
	c, err := New(target, o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// hang stops podlink as it is, until the function is called: it does not answer, and forgets nothing.
func (w *world) hang() (resume func()) {
	require.NoError(w.t, w.podlink.Freeze())
	return func() { require.NoError(w.t, w.podlink.Resume()) }
}

// calls returns how many calls of that name podlink has answered.
func (w *world) calls(name string) int {
	admin := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: soon}
	response, err := admin.Get("http://" + w.podlink.Admin + "/metrics")
	require.NoError(w.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(w.t, err)
	sum := 0.0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "server_requests_code_total{") || !strings.Contains(line, "/"+name+`"`) {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
		require.NoError(w.t, err)
		sum += value
	}
	return int(sum)
}

// link links the user to the pod, and returns the link's epoch.
func (w *world) link(uid string, pod int32) int64 {
	w.t.Helper()
	var reply *v1.SetLinkedPodReply
	require.Eventually(w.t, func() (done bool) {
		var err error
		reply, err = w.patient.SetLinkedPod(context.Background(), &v1.SetLinkedPodRequest{
			Namespace: testNamespace, Uid: uid, Service: testService, PodId: &pod,
		})
		return !errors.Is(err, ErrOutcomeUnknown) // A connection may end as a podlink that hung goes on.
	}, time.Minute, time.Millisecond)
	require.NotNil(w.t, reply)
	return reply.GetLink().GetEpoch()
}

// linked returns the user's link.
func (w *world) linked(uid string) *v1.Link {
	w.t.Helper()
	reply, err := w.patient.GetLinkedPod(context.Background(), &v1.GetLinkedPodRequest{Namespace: testNamespace, Uid: uid, Service: testService})
	require.NoError(w.t, err)
	return reply.GetLink()
}

// compute links the user to a pod of podlink's choice, for a minute, unless it is linked.
func (w *world) compute(uid string) *v1.Link {
	w.t.Helper()
	reply, err := w.patient.ComputeLinkedPod(context.Background(), &v1.ComputeLinkedPodRequest{
		Namespace: testNamespace, Uid: uid, Service: testService, PersistSeconds: proto.Int32(60),
	})
	require.NoError(w.t, err)
	return reply.GetLink()
}

// ready reports the pods to podlink as ones that never fall silent.
func (w *world) ready(pods ...int32) {
	w.t.Helper()
	for _, pod := range pods {
		_, err := w.patient.SetServiceState(context.Background(), &v1.SetServiceStateRequest{
			Namespace: testNamespace, Service: testService, PodId: &pod, State: "here", TtlSeconds: proto.Int32(-1),
		})
		require.NoError(w.t, err)
	}
}

// reported returns what podlink knows of the pod, nil if nothing.
func (w *world) reported(pod int32) *v1.Pod {
	w.t.Helper()
	reply, err := w.patient.GetServicePod(context.Background(), &v1.GetServicePodRequest{Namespace: testNamespace, Service: testService, PodId: &pod})
	if errors.Is(err, ErrPodNotFound) {
		return nil
	}
	require.NoError(w.t, err)
	return reply.GetPod()
}

// agent returns the agent of a pod, which is ready and does not report by itself.
func (w *world) agent(pod int32, o AgentOptions) *Agent {
	w.t.Helper()
	a := w.newAgent(pod, o)
	require.NoError(w.t, a.Ready(context.Background()))
	return a
}

// newAgent returns the agent of a pod.
func (w *world) newAgent(pod int32, o AgentOptions) *Agent {
	w.t.Helper()
	o.PodName = fmt.Sprintf("chat-%d", pod)
	o.Public = append(o.Public, v1.OperationWorkloadServiceBatchGetWorkloadState)
	if o.UID == nil {
		o.UID = userField
	}
	if o.Logger == nil {
		o.Logger = log.NewStdLogger(io.Discard)
	}
	a, err := w.client.NewAgent(testNamespace, testService, o)
	require.NoError(w.t, err)
	return a
}

// pod is a pod of chat: real servers on both transports.
type pod struct {
	v1.UnimplementedWorkloadServiceServer
	t      testing.TB
	id     int32
	by     []middleware.Middleware
	handle func(ctx context.Context, uid string) error
	done   atomic.Int32 // calls that it has carried out, or tried to

	addresses map[string]string
	mu        sync.Mutex
	conns     map[net.Conn]struct{}
	stop      func()
}

// newPod starts a pod whose calls pass the middleware.
func newPod(t testing.TB, id int32, by ...middleware.Middleware) *pod {
	t.Helper()
	p := &pod{t: t, id: id, by: by, addresses: map[string]string{}, conns: map[net.Conn]struct{}{}}
	p.start()
	t.Cleanup(func() { p.stop() })
	return p
}

// start starts the servers: where they were before, if they were.
func (p *pod) start() {
	options := []kgrpc.ServerOption{kgrpc.Middleware(p.by...), kgrpc.Listener(p.listen("grpc")), kgrpc.Timeout(soon)}
	over := kgrpc.NewServer(options...)
	v1.RegisterWorkloadServiceServer(over, p)
	web := khttp.NewServer(khttp.Middleware(p.by...), khttp.Listener(p.listen("http")), khttp.Timeout(soon))
	v1.RegisterWorkloadServiceHTTPServer(web, p)
	var running sync.WaitGroup
	running.Go(func() { _ = over.Start(context.Background()) })
	running.Go(func() { _ = web.Start(context.Background()) })
	p.stop = sync.OnceFunc(func() {
		over.Server.Stop()
		_ = web.Close()
		p.cut()
		running.Wait()
	})
}

func (p *pod) listen(scheme string) net.Listener {
	address, ok := p.addresses[scheme]
	if !ok {
		address = proc.FreeAddr(p.t)
		p.addresses[scheme] = address
	}
	var l net.Listener
	require.Eventually(p.t, func() (done bool) { // A process that was just started may still have a copy of the socket of before.
		var err error
		l, err = net.Listen("tcp", address)
		return !errors.Is(err, syscall.EADDRINUSE)
	}, soon, time.Millisecond)
	require.NotNil(p.t, l)
	return watched{l, p}
}

// watched knows the pod's connections.
type watched struct {
	net.Listener
	of *pod
}

func (w watched) Accept() (net.Conn, error) {
	conn, err := w.Listener.Accept()
	if err == nil {
		w.of.mu.Lock()
		defer w.of.mu.Unlock()
		w.of.conns[conn] = struct{}{}
	}
	return conn, err
}

// cut ends all connections.
func (p *pod) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		_ = conn.Close()
	}
	clear(p.conns)
}

// instance is the pod in discovery.
func (p *pod) instance(metadata map[string]string) *registry.ServiceInstance {
	return &registry.ServiceInstance{
		ID: fmt.Sprintf("%s-%d", testService, p.id), Name: testService, Metadata: metadata,
		Endpoints: []string{"grpc://" + p.addresses["grpc"], "http://" + p.addresses["http"]},
	}
}

// answer carries out a call. The reply says which pod it was, and the epoch that the Guard has found.
func (p *pod) answer(ctx context.Context, uid, text string) (*v1.Workload, error) {
	p.done.Add(1)
	if p.handle != nil {
		if err := p.handle(ctx, uid); err != nil {
			return nil, err
		}
	}
	return &v1.Workload{Namespace: fmt.Sprint(p.id), Service: uid, State: text, UpdateMs: Epoch(ctx)}, nil
}

func (p *pod) SetWorkloadState(ctx context.Context, r *v1.SetWorkloadStateRequest) (*v1.SetWorkloadStateReply, error) {
	done, err := p.answer(ctx, r.GetService(), r.GetState())
	return &v1.SetWorkloadStateReply{Workload: done}, err
}

func (p *pod) GetWorkloadState(ctx context.Context, r *v1.GetWorkloadStateRequest) (*v1.GetWorkloadStateReply, error) {
	done, err := p.answer(ctx, r.GetService(), "")
	return &v1.GetWorkloadStateReply{Workload: done}, err
}

func (p *pod) BatchGetWorkloadState(ctx context.Context, _ *v1.BatchGetWorkloadStateRequest) (*v1.BatchGetWorkloadStateReply, error) {
	done, err := p.answer(ctx, "", "")
	return &v1.BatchGetWorkloadStateReply{States: map[string]string{"pod": done.GetNamespace()}}, err
}

// pods starts pods 0 to n-1, without a Guard, and puts them into discovery.
func (w *world) pods(n int32) []*pod {
	w.t.Helper()
	var all []*pod
	for id := range n {
		p := newPod(w.t, id)
		w.put(p.instance(map[string]string{MetadataPodID: fmt.Sprint(id)}))
		all = append(all, p)
	}
	return all
}

// stub is a caller of chat.
type stub struct {
	set   func(ctx context.Context, uid, text string) (*v1.Workload, error)
	get   func(ctx context.Context, uid string) (*v1.Workload, error)
	batch func(ctx context.Context) (pod string, err error)
}

// router returns a router to chat, and a caller that uses it, each of whose tries may take that long.
func (w *world) router(o RouterOptions, limit time.Duration) (*Router, stub) {
	w.t.Helper()
	r, err := w.client.NewRouter(testNamespace, testService, o)
	require.NoError(w.t, err)
	return r, w.stub(limit, []selector.NodeFilter{r.NodeFilter()}, r.Middleware())
}

func (w *world) stub(limit time.Duration, filters []selector.NodeFilter, by ...middleware.Middleware) stub {
	w.t.Helper()
	if w.over == "HTTP" {
		carrier := &http.Transport{}
		c, err := khttp.NewClient(context.Background(), khttp.WithEndpoint("discovery:///chat"), khttp.WithDiscovery(w.instances),
			khttp.WithMiddleware(by...), khttp.WithNodeFilter(filters...), khttp.WithSubset(0), khttp.WithTimeout(limit),
			khttp.WithTransport(carrier), khttp.WithBlock())
		require.NoError(w.t, err)
		w.t.Cleanup(func() { _ = c.Close(); carrier.CloseIdleConnections() })
		chat := v1.NewWorkloadServiceHTTPClient(c)
		return stub{
			set: func(ctx context.Context, uid, text string) (*v1.Workload, error) {
				reply, err := chat.SetWorkloadState(ctx, &v1.SetWorkloadStateRequest{Namespace: "n", Service: uid, State: text})
				return reply.GetWorkload(), err
			},
			get: func(ctx context.Context, uid string) (*v1.Workload, error) {
				reply, err := chat.GetWorkloadState(ctx, &v1.GetWorkloadStateRequest{Namespace: "n", Service: uid})
				return reply.GetWorkload(), err
			},
			batch: func(ctx context.Context) (string, error) {
				reply, err := chat.BatchGetWorkloadState(ctx, &v1.BatchGetWorkloadStateRequest{Namespace: "n"})
				return reply.GetStates()["pod"], err
			},
		}
	}
	c, err := kgrpc.DialInsecure(context.Background(), kgrpc.WithEndpoint("discovery:///chat"), kgrpc.WithDiscovery(w.instances),
		kgrpc.WithMiddleware(by...), kgrpc.WithNodeFilter(filters...), kgrpc.WithSubset(0), kgrpc.WithTimeout(limit),
		kgrpc.WithPrintDiscoveryDebugLog(false))
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = c.Close() })
	chat := v1.NewWorkloadServiceClient(c)
	return stub{
		set: func(ctx context.Context, uid, text string) (*v1.Workload, error) {
			reply, err := chat.SetWorkloadState(ctx, &v1.SetWorkloadStateRequest{Namespace: "n", Service: uid, State: text})
			return reply.GetWorkload(), err
		},
		get: func(ctx context.Context, uid string) (*v1.Workload, error) {
			reply, err := chat.GetWorkloadState(ctx, &v1.GetWorkloadStateRequest{Namespace: "n", Service: uid})
			return reply.GetWorkload(), err
		},
		batch: func(ctx context.Context) (string, error) {
			reply, err := chat.BatchGetWorkloadState(ctx, &v1.BatchGetWorkloadStateRequest{Namespace: "n"})
			return reply.GetStates()["pod"], err
		},
	}
}

// connected waits until the caller has reached that many pods: a client over gRPC connects to them one by one.
func (w *world) connected(chat stub, pods int) {
	w.t.Helper()
	used := map[string]bool{}
	require.Eventually(w.t, func() bool {
		if pod, err := chat.batch(context.Background()); err == nil {
			used[pod] = true
		}
		return len(used) == pods
	}, soon, time.Millisecond)
}

// instances is a registry of one service, in memory.
type instances struct {
	mu      sync.Mutex
	known   map[string]*registry.ServiceInstance
	changed chan struct{} // closed by the next change
}

var (
	_ registry.Discovery = (*instances)(nil)
	_ registry.Registrar = (*instances)(nil)
)

func newInstances() *instances {
	return &instances{known: map[string]*registry.ServiceInstance{}, changed: make(chan struct{})}
}

func (i *instances) change(how func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	how()
	close(i.changed)
	i.changed = make(chan struct{})
}

func (i *instances) put(one *registry.ServiceInstance) { i.change(func() { i.known[one.ID] = one }) }

func (i *instances) remove(id string) { i.change(func() { delete(i.known, id) }) }

func (i *instances) Register(_ context.Context, one *registry.ServiceInstance) error {
	i.put(one)
	return nil
}

func (i *instances) Deregister(_ context.Context, one *registry.ServiceInstance) error {
	i.remove(one.ID)
	return nil
}

func (i *instances) list() (all []*registry.ServiceInstance, changed chan struct{}) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, one := range i.known {
		all = append(all, one)
	}
	return all, i.changed
}

func (i *instances) GetService(context.Context, string) ([]*registry.ServiceInstance, error) {
	all, _ := i.list()
	return all, nil
}

func (i *instances) Watch(context.Context, string) (registry.Watcher, error) {
	first := make(chan struct{})
	close(first)
	return &watcher{of: i, changed: first, stopped: make(chan struct{})}, nil
}

type watcher struct {
	of      *instances
	changed chan struct{}
	stopped chan struct{}
	once    sync.Once
}

func (w *watcher) Next() (all []*registry.ServiceInstance, err error) {
	select {
	case <-w.changed:
		all, w.changed = w.of.list()
		return all, nil
	case <-w.stopped:
		return nil, context.Canceled
	}
}

func (w *watcher) Stop() error {
	w.once.Do(func() { close(w.stopped) })
	return nil
}
