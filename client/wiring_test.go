package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/middleware"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/go-kratos/kratos/v2/transport"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	v1 "podlink/api/podlink/v1"
	"podlink/test/kit/logwatch"
	"podlink/test/kit/proc"
)

// runApp runs a Kratos app until the test ends, or until it is stopped. The function waits for its end.
func runApp(t *testing.T, o ...kratos.Option) (app *kratos.App, wait func()) {
	t.Helper()
	app = kratos.New(o...)
	ended := make(chan error, 1)
	go func() { ended <- app.Run() }()
	wait = sync.OnceFunc(func() {
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(2 * soon):
			t.Error("the app does not end")
		}
	})
	t.Cleanup(func() { _ = app.Stop(); wait() })
	return app, wait
}

// healthy asks the agent's health service.
func (a *Agent) healthy(t *testing.T) bool {
	t.Helper()
	reply, err := a.health.server.Check(t.Context(), &healthv1.HealthCheckRequest{})
	require.NoError(t, err)
	return reply.GetStatus() == healthv1.HealthCheckResponse_SERVING
}

// TestReady: the pod takes new users when the app has started, and not before.
func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines logwatch.Log
		s := &states{}
		a := s.agent(t, AgentOptions{Logger: log.NewStdLogger(&lines)})
		run(t, a)
		time.Sleep(59 * time.Second)
		require.Equal(t, v1.Routing_DENY_NEW, s.stored().GetReportedRouting())
		require.False(t, a.healthy(t))
		require.False(t, a.draining(), "its users may be back before it is ready")
		require.NotContains(t, lines.String(), "Agent.AppOptions")
		time.Sleep(time.Hour)
		require.Equal(t, 1, strings.Count(lines.String(), "Agent.AppOptions"))
		require.NoError(t, a.Ready(t.Context()))
		time.Sleep(time.Second)
		require.Equal(t, v1.Routing_READY, s.stored().GetReportedRouting())
		require.True(t, a.healthy(t))
		require.NoError(t, a.Drain(t.Context()))
		require.False(t, a.healthy(t))
	})
}

// TestSupersededAgent: another process has taken over the pod. This one has lost its sessions, once, and serves nobody, also after
// it is reported again; it is out of the registry and not healthy, and ends when the other one has fallen silent.
func TestSupersededAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 15 * time.Second
		var lines logwatch.Log
		var told lost
		s, in := &states{}, &flakyRegistry{instances: newInstances()}
		a := s.agent(t, AgentOptions{TTL: ttl, Registrar: in, OnLost: told.add, Logger: log.NewStdLogger(&lines)})
		app := kratos.New(kratos.ID("first"), kratos.Name("chat"), kratos.Metadata(a.Metadata()))
		require.NoError(t, in.Register(t.Context(), &registry.ServiceInstance{ID: "first", Name: "chat"}))
		require.NoError(t, in.Register(t.Context(), &registry.ServiceInstance{ID: "second", Name: "chat"}))
		ended := make(chan error, 1)
		go func() { ended <- a.Start(kratos.NewContext(t.Context(), app)) }()
		require.NoError(t, a.Ready(t.Context()))
		time.Sleep(time.Minute)
		held := s.hold(t, a, 2)
		pass := func(ctx context.Context, uid string) error {
			_, err := a.Guard()(func(context.Context, any) (any, error) { return nil, nil })(ctx, &v1.SetWorkloadStateRequest{Service: uid})
			return err
		}

		successor := s.process(t, ttl, nil).begin(t)
		in.failing.Store(true)
		time.Sleep(ttl)
		require.ElementsMatch(t, []string{fmt.Sprint("0 ", held[0].Epoch()), fmt.Sprint("1 ", held[1].Epoch())}, told.get())
		require.Zero(t, a.Sessions())
		require.False(t, a.healthy(t))
		require.ErrorIs(t, pass(t.Context(), "0"), ErrWrongPod)
		all, _ := in.list()
		require.Len(t, all, 2)
		in.failing.Store(false)
		time.Sleep(ttl)
		all, _ = in.list()
		require.Len(t, all, 1)
		require.Equal(t, "second", all[0].ID)
		require.NoError(t, a.Ready(t.Context()))
		require.False(t, a.healthy(t))
		time.Sleep(time.Hour)
		require.Empty(t, ended, "it stays while the other one reports")
		require.Equal(t, 1, strings.Count(lines.String(), "another process has taken over the pod"))
		require.Equal(t, 1, strings.Count(lines.String(), "deregistering this process failed"))
		require.Equal(t, successor.instance.id, s.stored().GetInstanceId())

		require.NoError(t, successor.stop())
		time.Sleep(5 * ttl)
		require.ErrorIs(t, <-ended, ErrSuperseded)
		begin := time.Now()
		require.NoError(t, a.Stop(t.Context()))
		require.Less(t, time.Since(begin), time.Second)
		require.Equal(t, successor.instance.id, s.stored().GetInstanceId())
	})
}

// flakyRegistry fails when it is told to.
type flakyRegistry struct {
	*instances
	failing atomic.Bool
}

func (r *flakyRegistry) Deregister(ctx context.Context, one *registry.ServiceInstance) error {
	if r.failing.Load() {
		return errors.New("the registry is away")
	}
	return r.instances.Deregister(ctx, one)
}

// TestServerOptions: the app's middleware and gRPC options stay, and interceptors that the Guard would replace are refused.
func TestServerOptions(t *testing.T) {
	a := (&states{}).agent(t, AgentOptions{})
	mine := func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		return handle(ctx, request)
	}
	stream := func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		return handle(srv, s)
	}
	for option, replaced := range map[string]kgrpc.ServerOption{
		"UnaryInterceptor": kgrpc.UnaryInterceptor(mine), "StreamInterceptor": kgrpc.StreamInterceptor(stream),
	} {
		a := (&states{}).agent(t, AgentOptions{})
		kgrpc.NewServer(a.ServerOptions(replaced)...)
		require.EqualError(t, a.Start(t.Context()), "podlink: Agent.ServerOptions replaces kgrpc."+option+
			": give the app's interceptors to kgrpc.Options, as grpc.Chain"+option)
	}
	kgrpc.NewServer(a.ServerOptions(
		kgrpc.Middleware(func(next middleware.Handler) middleware.Handler { return next }),
		kgrpc.Options(grpc.ChainUnaryInterceptor(mine), grpc.ChainStreamInterceptor(stream)))...)
}

// TestAppOptions: the app's own metadata stays, beside the agent's.
func TestAppOptions(t *testing.T) {
	var lines logwatch.Log
	a := (&states{}).agent(t, AgentOptions{Logger: log.NewStdLogger(&lines)})
	o := a.AppOptions([]transport.Server{kgrpc.NewServer(a.ServerOptions()...)},
		kratos.Name("chat"), kratos.Metadata(map[string]string{"zone": "a", MetadataPodID: "7"}))
	app := kratos.New(o...)
	require.Equal(t, "chat", app.Name())
	require.Equal(t, map[string]string{
		"zone": "a", MetadataPodID: "0", MetadataInstanceID: a.Metadata()[MetadataInstanceID],
	}, app.Metadata())
	require.NotContains(t, lines.String(), "health")
	a.AppOptions([]transport.Server{kgrpc.NewServer()})
	require.Contains(t, lines.String(), "has a health service already")
}

// chatApp is a pod of chat, wired as the README says.
func (w *world) chatApp(a *Agent, handle func(ctx context.Context, uid string) error, o ...kratos.Option) (run []kratos.Option, p *pod) {
	p = &pod{t: w.t, id: a.PodID(), handle: handle}
	server := kgrpc.NewServer(a.ServerOptions(kgrpc.Address("127.0.0.1:0"), kgrpc.Timeout(soon), kgrpc.Middleware())...)
	v1.RegisterWorkloadServiceServer(server, p)
	return a.AppOptions([]transport.Server{server}, append(o, kratos.Name("chat"))...), p
}

// TestApp: a pod as the README has it. It is registered before it takes new users; a caller reaches it through the Guard; it
// drains before it stops.
func TestApp(t *testing.T) {
	w := newWorld(t, "gRPC")
	var drains atomic.Int32
	a := w.newAgent(4, AgentOptions{Registrar: w.instances, State: func() string { return "warm" }, DrainTimeout: 2 * soon,
		OnDrain: func(context.Context) { drains.Add(1) }})
	started, goOn := make(chan struct{}), make(chan struct{})
	o, p := w.chatApp(a, nil, kratos.AfterStart(func(context.Context) error {
		close(started)
		<-goOn
		return nil
	}))
	app, wait := runApp(t, o...)
	<-started
	require.Eventually(t, func() bool { return w.reported(4) != nil }, soon, time.Millisecond)
	require.Equal(t, v1.Routing_DENY_NEW, w.reported(4).GetRouting(), "the app has more to do")
	all, _ := w.list()
	require.Len(t, all, 1)
	require.Equal(t, "4", all[0].Metadata[MetadataPodID])
	close(goOn)
	require.Eventually(t, func() bool { return w.reported(4).GetRouting() == v1.Routing_READY }, soon, time.Millisecond)
	report := w.reported(4)
	require.Equal(t, "warm", report.GetState())
	require.Equal(t, all[0].Metadata[MetadataInstanceID], report.GetInstanceId())
	require.NotZero(t, report.GetGeneration())

	chat := w.stub(soon, nil)
	w.link("here", 4)
	w.link("elsewhere", 1)
	w.connected(chat, 1) // Kratos' clients ask the health service first.
	_, err := chat.set(t.Context(), "here", "text")
	require.NoError(t, err)
	_, err = chat.set(t.Context(), "elsewhere", "text")
	require.ErrorContains(t, err, "does not hold the user")
	require.Positive(t, p.done.Load())

	session := w.begin(a, "u")
	stopped := make(chan error, 1)
	go func() { stopped <- app.Stop() }()
	require.Eventually(t, func() bool { return drains.Load() == 1 }, soon, time.Millisecond)
	require.Equal(t, v1.Routing_DENY_NEW, w.reported(4).GetRouting())
	_, err = chat.set(t.Context(), "here", "text")
	require.NoError(t, err, "it goes on serving")
	require.Empty(t, stopped)
	session.End(t.Context(), 0)
	require.NoError(t, <-stopped)
	wait()
	require.Equal(t, v1.Routing_SHUTDOWN, w.reported(4).GetRouting())
	all, _ = w.list()
	require.Empty(t, all)
}

// TestDoubledOrdinal: a second app of the same pod starts. The first one leaves the registry, is lost to its clients, and runs on;
// when the second one is killed, its Run fails, so that its container is started again.
func TestDoubledOrdinal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "gRPC")
	const ttl = 2 * time.Second
	var told lost
	first := w.newAgent(0, AgentOptions{TTL: ttl, Registrar: w.instances, OnLost: told.add})
	o, _ := w.chatApp(first, nil)
	ended := make(chan error, 1)
	go func() { ended <- kratos.New(o...).Run() }()
	require.Eventually(t, func() bool { return w.reported(0).GetRouting() == v1.Routing_READY && w.reported(0).GetLive() }, soon, time.Millisecond)
	w.begin(first, "u")

	second := w.newAgent(0, AgentOptions{TTL: ttl, Registrar: w.instances})
	ctx, kill := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- second.Start(ctx) }()
	require.NoError(t, second.Ready(ctx))
	require.Eventually(t, func() bool { return len(told.get()) == 1 }, soon, time.Millisecond)
	require.Eventually(t, func() bool { all, _ := w.list(); return len(all) == 0 }, soon, time.Millisecond)
	require.Eventually(t, func() bool { return !first.healthy(t) }, soon, time.Millisecond)
	time.Sleep(2 * ttl)
	require.Empty(t, ended)
	require.Equal(t, second.reporter.instance.id, w.reported(0).GetInstanceId())
	kill()
	require.NoError(t, <-done)
	require.ErrorIs(t, <-ended, ErrSuperseded)
}

// TestAgentWithoutPodlink: podlink is absent at the start and lost later. The app runs on, one line tells that it is away, one
// that it is back.
func TestAgentWithoutPodlink(t *testing.T) {
	t.Parallel()
	address := proc.FreeAddr(t)
	c := connect(t, address, Options{Timeout: 300 * time.Millisecond})
	const ttl = 15 * time.Second
	var lines logwatch.Log
	a, err := c.NewAgent(testNamespace, testService, AgentOptions{PodName: "chat-0", TTL: ttl, Logger: log.NewStdLogger(&lines)})
	require.NoError(t, err)
	app, wait := runApp(t, a.AppOptions(nil)...)
	for round := 1; round <= 2; round++ {
		require.Eventually(t, func() bool { return strings.Count(lines.String(), "report failed, retrying") == round }, soon, time.Millisecond)
		w := newWorldOn(t, "gRPC", start(t, "PODLINK_SERVER_GRPC_ADDR="+address), Options{})
		w.podlink.WaitReady(t)
		require.Eventually(t, func() bool { return w.reported(0).GetLive() }, soon, 10*time.Millisecond)
		require.Eventually(t, func() bool { return strings.Count(lines.String(), ": reporting again") == round }, soon, time.Millisecond)
		require.Equal(t, round, strings.Count(lines.String(), "report failed, retrying"))
		w.podlink.Kill()
		a.Report()
	}
	require.NoError(t, app.Stop())
	wait()
}
