//go:build sim

package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/registry"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	v1 "podlink/api/podlink/v1"
	"podlink/client"
	podlinktest "podlink/test/kit/podlink"
	"podlink/test/kit/proc"
	redistest "podlink/test/kit/redis"
	"podlink/test/kit/sim"
)

const (
	pods        = 5
	callers     = 3
	ttl         = 3 * time.Second
	callTimeout = 3 * time.Second
)

// world is everything that is simulated.
type world struct {
	t         *testing.T
	binary    string // podlink's
	redis     *redistest.Server
	podlinks  []*podlinkSlot
	instances *sim.Registry
	storage   *sim.Storage
	excuses   sim.Excuses
	address   string // of the World that the pods call
	callers   []*caller

	mu         sync.Mutex
	began      time.Time
	started    int
	running    map[int32]*pod
	violations []string
	told       map[string]bool
}

// podlinkSlot is a podlink that restarts on its address.
type podlinkSlot struct {
	address string
	process *podlinktest.Process
}

// pod is a process of a pod.
type pod struct {
	ordinal int32
	name    string
	process *proc.Process
}

// caller calls the pods.
type caller struct {
	podlink *client.Client
	conn    *grpc.ClientConn
	pods    v1.LinkServiceClient
}

func newWorld(t *testing.T, binary string) *world {
	t.Helper()
	proc.Need(t, "redis-server", "redis-server")
	w := &world{
		t: t, binary: binary, instances: sim.NewRegistry(sim.ServiceName),
		running: make(map[int32]*pod), began: time.Now(), told: make(map[string]bool),
	}
	w.excuses.Window = sim.Window(ttl)
	w.storage = sim.NewStorage(w.violate)
	w.redis = redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	w.serve()
	for range 2 {
		slot := &podlinkSlot{address: proc.FreeAddr(t)}
		w.podlinks = append(w.podlinks, slot)
		w.startPodlink(slot)
		slot.process.WaitReady(t)
	}
	for ordinal := range int32(pods) {
		w.startPod(ordinal)
	}
	for range callers {
		w.callers = append(w.callers, w.newCaller())
	}
	return w
}

func (w *world) addresses() []string {
	var all []string
	for _, slot := range w.podlinks {
		all = append(all, slot.address)
	}
	return all
}

func (w *world) startPodlink(slot *podlinkSlot) {
	env := append(podlinktest.OnRedis("standalone", w.redis.Addr()), "PODLINK_SERVER_GRPC_ADDR="+slot.address)
	slot.process = podlinktest.Start(w.t, w.binary, env...)
}

// startPod starts a process of the pod and waits until it has registered, for a while.
func (w *world) startPod(ordinal int32) {
	w.mu.Lock()
	w.started++
	name := fmt.Sprintf("%s-%d#%d", sim.ServiceName, ordinal, w.started)
	w.mu.Unlock()
	config, err := json.Marshal(podConfig{
		Name: name, Ordinal: ordinal, Address: proc.FreeAddr(w.t), Podlinks: w.addresses(), World: w.address,
		TTL: ttl,
	})
	require.NoError(w.t, err)
	program, err := os.Executable()
	require.NoError(w.t, err)
	p := &pod{ordinal, name, proc.Start(w.t, proc.Command{Program: program, Env: []string{podVariable + "=" + string(config)}})}
	w.mu.Lock()
	w.running[ordinal] = p
	w.mu.Unlock()
}

func (w *world) podOf(ordinal int32) *pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running[ordinal]
}

// kill ends a pod's process. Its registration ends with it.
func (w *world) kill(p *pod) {
	p.process.Kill()
	_ = w.instances.Deregister(context.Background(), &registry.ServiceInstance{ID: p.name})
}

func (w *world) newCaller() *caller {
	podlink, err := client.New("discovery:///podlink", client.Options{Discovery: sim.NewRegistry("podlink", w.addresses()...)})
	require.NoError(w.t, err)
	router, err := sim.NewRouter(podlink)
	require.NoError(w.t, err)
	conn, err := kgrpc.DialInsecure(context.Background(), kgrpc.WithEndpoint("discovery:///"+sim.ServiceName),
		kgrpc.WithDiscovery(w.instances), kgrpc.WithMiddleware(router.Middleware()), kgrpc.WithNodeFilter(router.NodeFilter()),
		kgrpc.WithSubset(0), kgrpc.WithTimeout(callTimeout), kgrpc.WithPrintDiscoveryDebugLog(false))
	require.NoError(w.t, err)
	w.t.Cleanup(func() { require.NoError(w.t, errors.Join(conn.Close(), podlink.Close())) })
	return &caller{podlink, conn, v1.NewLinkServiceClient(conn)}
}

// do makes one call for the user.
func (c *caller) do(uid, action string) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	_, err := c.pods.ListLinkedServices(ctx, &v1.ListLinkedServicesRequest{Namespace: action, Uid: uid})
	return err
}

func (w *world) violate(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violations = append(w.violations, fmt.Sprintf("%8.3fs ", time.Since(w.began).Seconds())+fmt.Sprintf(format, args...))
}

func (w *world) logf(format string, args ...any) {
	w.t.Logf("%8.3fs %s", time.Since(w.began).Seconds(), fmt.Sprintf(format, args...))
}

// serve serves the storage and the registry to the pods.
func (w *world) serve() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w.t, err)
	server := rpc.NewServer()
	require.NoError(w.t, server.RegisterName("World", &World{w}))
	var serving sync.WaitGroup
	var mu sync.Mutex
	open := make(map[net.Conn]bool)
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[conn] = true
			mu.Unlock()
			serving.Go(func() { server.ServeConn(conn) })
		}
	})
	w.address = listener.Addr().String()
	w.t.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		for conn := range open {
			_ = conn.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
}

// World is what the pods call.
type World struct{ world *world }

// Load loads from the storage.
func (s *World) Load(a Access, result *Result) error {
	result.Value, result.OK = s.world.storage.Load(a.UID, a.Process, a.Epoch)
	return nil
}

// Write writes to the storage.
func (s *World) Write(a Access, result *Result) error {
	result.OK = s.world.storage.Write(a.UID, a.Process, a.Epoch, a.Value)
	return nil
}

// Register registers an instance.
func (s *World) Register(instance registry.ServiceInstance, _ *bool) error {
	return s.world.instances.Register(context.Background(), &instance)
}

// Deregister ends a registration.
func (s *World) Deregister(instance registry.ServiceInstance, _ *bool) error {
	return s.world.instances.Deregister(context.Background(), &instance)
}

// Lost is told of a lost session.
func (s *World) Lost(a Access, _ *bool) error {
	s.world.mu.Lock()
	key := fmt.Sprint(a.Process, a.UID, a.Epoch)
	twice := s.world.told[key]
	s.world.told[key] = true
	s.world.mu.Unlock()
	if e := &s.world.excuses; !e.PodExcused(a.Ordinal) && !e.MovedSince(a.UID, time.UnixMicro(a.Epoch)) {
		s.world.violate("lost: %s has lost the session of %s with epoch %d", a.Process, a.UID, a.Epoch)
	}
	if twice {
		s.world.violate("told twice: %s was told twice that %s is lost with epoch %d", a.Process, a.UID, a.Epoch)
	}
	return nil
}
