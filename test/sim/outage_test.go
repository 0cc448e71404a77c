//go:build sim

package sim

import (
	"context"
	"errors"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2"
	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/go-kratos/kratos/v2/transport"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
	"podlink/client"
	podlinktest "podlink/test/kit/podlink"
	"podlink/test/kit/proc"
	redistest "podlink/test/kit/redis"
	"podlink/test/kit/sim"
)

// The outage that the README promises to survive, with its callers and pods as they stand there: all options are the defaults.
const (
	outageUsers = 60
	outagePods  = 3
	outage      = time.Minute
	served      = 9 * time.Second // after the begin: the ttl is 15 s, reports are 5 s apart, and a second or so is for a slow one
	servedAgain = 5 * time.Second // after the end
)

// TestOutageOfAMinute: while podlink or its store is gone for a minute, no call of a known user fails before the pods' leases end,
// afterwards calls fail with LINK_UNCERTAIN alone, and nobody is moved, then or later.
func TestOutageOfAMinute(t *testing.T) {
	proc.Need(t, "redis-server", "redis-server")
	for name, away := range map[string]func(f *outageFleet, d time.Duration){
		"podlink": func(f *outageFleet, d time.Duration) {
			f.podlink.Kill()
			time.Sleep(d)
			f.startPodlink()
			f.podlink.WaitReady(f.t)
		},
		"Redis with its append-only file": func(f *outageFleet, d time.Duration) {
			f.redis.Kill()
			time.Sleep(d)
			f.redis.Restart()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newOutageFleet(t)
			defer f.stopPods()
			ctx, stop := context.WithCancel(context.Background())
			var playing sync.WaitGroup
			for n := range outageUsers {
				playing.Go(func() { f.play(ctx, n) })
			}
			time.Sleep(client.DefaultCacheTTL + 5*time.Second) // The caller has read each link since its session made it persistent.
			begin := time.Now()
			away(f, outage)
			end := time.Now()
			time.Sleep(servedAgain + 10*time.Second)
			stop()
			playing.Wait()
			f.judge(begin, end)
		})
	}
}

// outageFleet is a podlink on a Redis, pods, and what a caller's users have seen.
type outageFleet struct {
	t       *testing.T
	redis   *redistest.Server
	address string
	podlink *podlinktest.Process
	chat    v1.LinkServiceClient

	stops []func() // of the pods

	mu    sync.Mutex
	calls []outageCall
	lost  []string
}

// outageCall is a call of a user.
type outageCall struct {
	user       int
	begun, end time.Time
	pod        int32
	err        error
}

func newOutageFleet(t *testing.T) *outageFleet {
	t.Helper()
	f := &outageFleet{t: t, redis: redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always"), address: proc.FreeAddr(t)}
	f.startPodlink()
	f.podlink.WaitReady(t)
	instances := sim.NewRegistry(sim.ServiceName)
	for ordinal := range outagePods {
		f.startPod(ordinal, instances)
	}
	// The caller of the README.
	podlink, err := client.New(f.address, client.Options{})
	require.NoError(t, err)
	router, err := podlink.NewRouter(sim.Namespace, sim.ServiceName, client.RouterOptions{UID: client.Field("uid")})
	require.NoError(t, err)
	conn, err := kgrpc.DialInsecure(context.Background(), kgrpc.WithEndpoint("discovery:///"+sim.ServiceName),
		kgrpc.WithDiscovery(instances), kgrpc.WithMiddleware(router.Middleware()), kgrpc.WithNodeFilter(router.NodeFilter()),
		kgrpc.WithSubset(0), kgrpc.WithPrintDiscoveryDebugLog(false))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, errors.Join(conn.Close(), podlink.Close())) })
	f.chat = v1.NewLinkServiceClient(conn)
	require.Eventually(t, func() bool { // All pods take users before the first one comes.
		pods, err := podlink.GetServiceState(context.Background(), &v1.GetServiceStateRequest{Namespace: sim.Namespace, Service: sim.ServiceName})
		ready := 0
		for _, pod := range pods.GetPods() {
			if pod.GetRouting() == v1.Routing_READY {
				ready++
			}
		}
		return err == nil && ready == outagePods
	}, time.Minute, 10*time.Millisecond)
	return f
}

func (f *outageFleet) startPodlink() {
	env := append(podlinktest.OnRedis("standalone", f.redis.Addr()), "PODLINK_SERVER_GRPC_ADDR="+f.address)
	f.podlink = podlinktest.Start(f.t, binary, env...)
}

// stopPods ends the pods while podlink is there: else their drains wait for it.
func (f *outageFleet) stopPods() {
	for _, stop := range f.stops {
		stop()
	}
}

// startPod runs the pod of the README, until stopPods.
func (f *outageFleet) startPod(ordinal int, registrar registry.Registrar) {
	t := f.t
	podlink, err := client.New(f.address, client.Options{})
	require.NoError(t, err)
	name := sim.ServiceName + "-" + strconv.Itoa(ordinal)
	logger := log.NewFilter(log.NewStdLogger(os.Stderr), log.FilterLevel(log.LevelFatal))
	agent, err := podlink.NewAgent(sim.Namespace, sim.ServiceName, client.AgentOptions{
		UID: client.Field("uid"), Registrar: registrar, PodName: name, Logger: logger,
		OnLost: func(uid string, _ int64) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.lost = append(f.lost, uid)
		},
	})
	require.NoError(t, err)
	server := kgrpc.NewServer(agent.ServerOptions(kgrpc.Address(proc.FreeAddr(t)))...)
	pod := &outagePod{agent: agent}
	v1.RegisterLinkServiceServer(server, pod)
	app := kratos.New(agent.AppOptions([]transport.Server{server}, kratos.ID(name), kratos.Name(sim.ServiceName), kratos.Logger(logger))...)
	stopped := make(chan error, 1)
	go func() { stopped <- app.Run() }()
	f.stops = append(f.stops, func() {
		pod.sessions.Range(func(_, held any) bool { // The drain waits for them.
			held.(*client.Session).End(context.Background(), 0)
			return true
		})
		require.NoError(t, errors.Join(app.Stop(), <-stopped, podlink.Close()))
	})
}

// outagePod is the service of a pod: ListLinkedServices starts the user's session and answers with the pod.
type outagePod struct {
	v1.UnimplementedLinkServiceServer

	agent    *client.Agent
	sessions sync.Map // by uid; none is lost, or the test fails
}

// ListLinkedServices implements v1.LinkServiceServer.
func (p *outagePod) ListLinkedServices(
	ctx context.Context, r *v1.ListLinkedServicesRequest,
) (*v1.ListLinkedServicesReply, error) {
	if _, ok := p.sessions.Load(r.GetUid()); !ok {
		session, err := p.agent.StartSession(ctx, r.GetUid())
		if err != nil {
			return nil, err
		}
		p.sessions.Store(r.GetUid(), session)
	}
	return &v1.ListLinkedServicesReply{Links: []*v1.Link{{PodId: p.agent.PodID()}}}, nil
}

// play makes one call a second.
func (f *outageFleet) play(ctx context.Context, user int) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for ctx.Err() == nil {
		call := outageCall{user: user, begun: time.Now(), pod: -1}
		// The call is not cut off by the end of the test.
		limited, cancel := context.WithTimeout(context.Background(), callTimeout)
		reply, err := f.chat.ListLinkedServices(limited, &v1.ListLinkedServicesRequest{Namespace: sim.Namespace, Uid: sim.UID(user)})
		cancel()
		call.err, call.end = err, time.Now()
		if err == nil {
			call.pod = reply.GetLinks()[0].GetPodId()
		}
		f.mu.Lock()
		f.calls = append(f.calls, call)
		f.mu.Unlock()
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// judge checks the calls against the outage.
func (f *outageFleet) judge(begin, end time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.t
	pods := make(map[int]int32)
	uncertain, firstFailure, lastFailure, usedPods := 0, time.Duration(0), time.Duration(0), make(map[int32]int)
	for _, call := range f.calls {
		at := call.begun.Sub(begin)
		if call.err != nil {
			require.ErrorIs(t, kerrors.FromError(call.err), client.ErrLinkUncertain, "user %d, at %s", call.user, at)
			require.Greater(t, at, served, "user %d: the lease had not ended: %v", call.user, call.err)
			require.Less(t, call.begun, end.Add(servedAgain), "user %d is not served again: %v", call.user, call.err)
			uncertain++
			if firstFailure == 0 {
				firstFailure = at
			}
			lastFailure = call.begun.Sub(end)
			continue
		}
		first, known := pods[call.user]
		if !known {
			pods[call.user] = call.pod
			usedPods[call.pod]++
			continue
		}
		require.Equal(t, first, call.pod, "user %d was moved at %s", call.user, at)
	}
	require.Len(t, pods, outageUsers)
	require.Len(t, usedPods, outagePods)
	require.Empty(t, f.lost)
	require.NotZero(t, uncertain, "the leases have ended: else the outage was none")
	t.Logf("%d calls; %d LINK_UNCERTAIN, the first begun %.1f s after the begin, the last %.1f s after the end; 0 users moved",
		len(f.calls), uncertain, firstFailure.Seconds(), lastFailure.Seconds())
}

// TestDrainWithoutPodlink: a pod with 100,000 sessions drains within its DrainTimeout, whatever podlink does.
func TestDrainWithoutPodlink(t *testing.T) {
	t.Parallel()
	proc.Need(t, "redis-server", "redis-server")
	const users = 100_000
	f := &outageFleet{t: t, redis: redistest.Start(t), address: proc.FreeAddr(t)}
	f.startPodlink()
	f.podlink.WaitReady(t)
	podlink, err := client.New(f.address, client.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, podlink.Close()) }()
	const limit = 10 * time.Second
	var handed atomic.Int64
	var sessions sync.Map
	agent, err := podlink.NewAgent(sim.Namespace, sim.ServiceName, client.AgentOptions{
		PodName: sim.ServiceName + "-0", DrainTimeout: limit, Logger: log.NewFilter(log.GetLogger(), log.FilterLevel(log.LevelFatal)),
		OnDrain: func(ctx context.Context) {
			sessions.Range(func(_, held any) bool {
				held.(*client.Session).End(ctx, 0)
				handed.Add(1)
				return true
			})
		},
	})
	require.NoError(t, err)
	running, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- agent.Start(running) }()
	require.NoError(t, agent.Ready(context.Background()))
	require.Eventually(t, func() bool { // The pod's first report has arrived.
		_, err := podlink.ComputeLinkedPod(context.Background(), &v1.ComputeLinkedPodRequest{
			Namespace: sim.Namespace, Uid: sim.UID(0), Service: sim.ServiceName,
		})
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	const batch = 500
	for first := 0; first < users; first += batch {
		request := &v1.BatchComputeLinkedPodRequest{Namespace: sim.Namespace, Service: sim.ServiceName}
		for n := range batch {
			request.Items = append(request.Items, &v1.BatchComputeLinkedPodRequest_Item{Uid: sim.UID(first + n)})
		}
		reply, err := podlink.BatchComputeLinkedPod(t.Context(), request)
		require.NoError(t, err)
		for _, result := range reply.GetResults() {
			require.Nil(t, result.GetProblem())
		}
	}
	var starting sync.WaitGroup
	next, failures := atomic.Int64{}, make(chan error, users)
	for range 256 {
		starting.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= users {
					return
				}
				session, err := agent.StartSession(context.Background(), sim.UID(n))
				if err != nil {
					failures <- err
					continue
				}
				sessions.Store(n, session)
			}
		})
	}
	starting.Wait()
	close(failures)
	require.NoError(t, <-failures)
	require.Equal(t, users, agent.Sessions())
	f.podlink.Kill()
	begun := time.Now()
	require.NoError(t, agent.Drain(context.Background()))
	took := time.Since(begun)
	require.LessOrEqual(t, took, limit+time.Second, "a second for a busy machine")
	require.EqualValues(t, users, handed.Load())
	begun = time.Now()
	require.NoError(t, agent.Stop(context.Background()))
	require.Less(t, time.Since(begun), limit)
	stop()
	require.NoError(t, <-ended)
	t.Logf("%d sessions, podlink away: drained in %.1f s of %s", users, took.Seconds(), limit)
}
