package client

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/log"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
	"podlink/test/kit/logwatch"
	"podlink/test/kit/proc"
)

// reportPod makes the agent report once.
func reportPod(t *testing.T, a *Agent) {
	t.Helper()
	require.NoError(t, a.report(t.Context()))
}

// run runs the agent until the test ends.
func run(t *testing.T, a *Agent) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

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

// lost collects what OnLost is told.
type lost struct {
	mu  sync.Mutex
	all []string
}

func (l *lost) add(uid string, epoch int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, fmt.Sprint(uid, " ", epoch))
	slices.Sort(l.all)
}

func (l *lost) get() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

// begin starts a session of a user whom it links to the agent's pod, and returns its epoch.
func (w *world) begin(a *Agent, uid string) int64 {
	w.t.Helper()
	epoch := w.link(uid, a.PodID())
	got, err := a.StartSession(context.Background(), uid)
	require.NoError(w.t, err)
	require.Equal(w.t, epoch, got)
	return epoch
}

func TestPodsOrdinal(t *testing.T) {
	c := connect(t, proc.FreeAddr(t), Options{})
	for name, row := range map[string]struct {
		option, env string
		want        int32
		failure     string
	}{
		"option":               {option: "chat-2", want: 2},
		"option before env":    {option: "chat-2", env: "chat-3", want: 2},
		"env":                  {env: "chat-3", want: 3},
		"zero":                 {option: "chat-0", want: 0},
		"many digits":          {option: "my-chat-120", want: 120},
		"the greatest":         {option: "chat-2147483647", want: math.MaxInt32},
		"too great":            {option: "chat-2147483648", failure: `AgentOptions.PodName is "chat-2147483648"`},
		"a Deployment's":       {option: "chat-7d4b9c-x2v9q", failure: `AgentOptions.PodName is "chat-7d4b9c-x2v9q"`},
		"no ordinal":           {option: "chat-", failure: `AgentOptions.PodName is "chat-"`},
		"no dash":              {option: "2", failure: `AgentOptions.PodName is "2"`},
		"bad env":              {env: "laptop", failure: `POD_NAME is "laptop"`},
		"a sign":               {option: "chat-+2", failure: `AgentOptions.PodName is "chat-+2"`},
		"the host name's turn": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("POD_NAME", row.env)
			if row.option == "" && row.env == "" {
				host, err := os.Hostname()
				require.NoError(t, err)
				if want, err := ordinal(host); err == nil {
					row.want = want
				} else {
					row.failure = fmt.Sprintf("the host name is %q", host)
				}
			}
			a, err := c.NewAgent(testNamespace, testService, AgentOptions{PodName: row.option})
			if row.failure != "" {
				require.ErrorContains(t, err, row.failure)
				require.ErrorContains(t, err, "does not end with a pod's ordinal as chat-2 does")
				return
			}
			require.NoError(t, err)
			require.Equal(t, row.want, a.PodID())
			require.Equal(t, map[string]string{"pod_id": fmt.Sprint(row.want)}, a.Metadata())
		})
	}
}

func TestAgentOptions(t *testing.T) {
	c := connect(t, proc.FreeAddr(t), Options{})
	for name, row := range map[string]struct {
		o       AgentOptions
		refused bool
	}{
		"none":                   {},
		"all":                    {o: AgentOptions{TTL: time.Second, DrainTimeout: 1, CacheTTL: 1}},
		"half a second":          {o: AgentOptions{TTL: time.Second / 2}, refused: true},
		"a second and a half":    {o: AgentOptions{TTL: 3 * time.Second / 2}, refused: true},
		"a negative TTL":         {o: AgentOptions{TTL: -time.Second}, refused: true},
		"a TTL beyond the API's": {o: AgentOptions{TTL: (1 << 31) * time.Second}, refused: true},
		"a negative drain limit": {o: AgentOptions{DrainTimeout: -1}, refused: true},
		"a negative freshness":   {o: AgentOptions{CacheTTL: -1}, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			row.o.PodName = "chat-0"
			_, err := c.NewAgent(testNamespace, testService, row.o)
			require.Equal(t, row.refused, err != nil, err)
		})
	}
}

// TestAgentReports: as a server of an app the agent reports the pod at once, and three times while a report counts.
func TestAgentReports(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "gRPC")
	const ttl = 3 * time.Second
	var state atomic.Value
	state.Store("warming")
	a := w.agent(4, AgentOptions{TTL: ttl, State: func() string { return state.Load().(string) }, Load: func() int32 { return 7 }})
	runApp(t, kratos.Server(kgrpc.NewServer(kgrpc.Address("127.0.0.1:0")), a), kratos.Metadata(a.Metadata()))
	require.Eventually(t, func() bool { return w.reported(4) != nil }, soon, time.Millisecond)
	report := w.reported(4)
	require.Equal(t, "warming", report.GetState())
	require.EqualValues(t, 7, report.GetLoad())
	require.Equal(t, v1.Routing_READY, report.GetRouting())
	require.True(t, report.GetLive())
	require.LessOrEqual(t, report.GetTtlSeconds(), int32(ttl/time.Second))
	for range 3 {
		last := report.GetHeartbeatMs()
		require.Eventually(t, func() bool {
			report = w.reported(4)
			return report.GetHeartbeatMs() > last
		}, soon, 10*time.Millisecond)
		require.True(t, report.GetLive())
		require.Less(t, time.Duration(report.GetHeartbeatMs()-last)*time.Millisecond, ttl)
	}
}

// TestReportAtOnce: what has changed is reported when the pod says so. The load is the number of its sessions.
func TestReportAtOnce(t *testing.T) {
	w := newWorld(t, "gRPC")
	a := w.agent(0, AgentOptions{TTL: time.Hour})
	run(t, a)
	require.Eventually(t, func() bool { return w.reported(0) != nil }, soon, time.Millisecond)
	require.Equal(t, DefaultState, w.reported(0).GetState())
	require.Zero(t, w.reported(0).GetLoad())
	for i := range 5 {
		w.begin(a, fmt.Sprint(i))
		a.Report()
	}
	a.EndSession(t.Context(), "0", 0)
	a.Report()
	require.Eventually(t, func() bool { return w.reported(0).GetLoad() == 4 }, soon, time.Millisecond)
}

// TestAgentWithoutPodlink: podlink is absent at the start and lost later. The app runs on, one line tells that it is away,
// one that it is back.
func TestAgentWithoutPodlink(t *testing.T) {
	t.Parallel()
	address := proc.FreeAddr(t)
	c := connect(t, address, Options{Timeout: 300 * time.Millisecond})
	const ttl = 15 * time.Second
	var lines logwatch.Log
	var tries atomic.Int32
	a, err := c.NewAgent(testNamespace, testService, AgentOptions{PodName: "chat-0", TTL: ttl, Logger: log.NewStdLogger(&lines), State: func() string {
		tries.Add(1)
		return "here"
	}})
	require.NoError(t, err)
	app, wait := runApp(t, kratos.Server(a))
	for round := 1; round <= 2; round++ {
		tries.Store(0)
		require.Eventually(t, func() bool { return tries.Load() > 3 }, soon, 10*time.Millisecond)
		w := newWorldOn(t, "gRPC", start(t, "PODLINK_SERVER_GRPC_ADDR="+address), Options{})
		w.podlink.WaitReady(t)
		back := time.Now()
		require.Eventually(t, func() bool { return w.reported(0).GetLive() }, soon, 10*time.Millisecond)
		require.Less(t, time.Since(back), ttl/reportsPerTTL+ttl/3) // It connects anew within a third, on a busy machine in two.
		require.Eventually(t, func() bool { return strings.Count(lines.String(), ": reporting again") == round }, soon, time.Millisecond)
		require.Equal(t, round, strings.Count(lines.String(), "report failed, retrying"))
		w.podlink.Kill()
		a.Report()
	}
	require.NoError(t, app.Stop())
	wait()
}

// TestReportsInOrder: a report that hangs does not undo, when it goes on, what has been reported since.
func TestReportsInOrder(t *testing.T) {
	w := newWorld(t, "gRPC")
	hanging, goOn := make(chan struct{}), make(chan struct{})
	var reports atomic.Int32
	a := w.agent(0, AgentOptions{TTL: time.Hour, DrainTimeout: soon, Load: func() int32 {
		if reports.Add(1) == 2 {
			close(hanging)
			<-goOn
		}
		return 0
	}})
	reportPod(t, a)
	w.begin(a, "u")
	done := make(chan error, 2)
	go func() { done <- a.report(context.Background()) }()
	<-hanging
	go func() { done <- a.Drain(context.Background()) }()
	require.Eventually(t, a.draining, soon, time.Millisecond)
	time.Sleep(50 * time.Millisecond) // Time for the drain to do what it must not.
	close(goOn)
	require.NoError(t, <-done)
	require.Eventually(t, func() bool { return w.reported(0).GetRouting() == v1.Routing_DENY_NEW }, soon, time.Millisecond)
	require.Greater(t, reports.Load(), int32(2))
	require.Equal(t, v1.Routing_DENY_NEW, w.reported(0).GetRouting())
	a.EndSession(t.Context(), "u", 0)
	require.NoError(t, <-done)
	require.Equal(t, v1.Routing_SHUTDOWN, w.reported(0).GetRouting())
}

// TestLapse: podlink did not hear of the pod for longer than its TTL. OnLost is told of the sessions that are others' by
// then, and of no other.
func TestLapse(t *testing.T) {
	t.Parallel()
	const ttl = time.Second
	for name, silence := range map[string]func(w *world, a *Agent, meanwhile func()){
		"no reports": func(w *world, a *Agent, meanwhile func()) {
			w.waitDead(0, 1)
			meanwhile()
			require.NoError(w.t, a.report(context.Background()))
		},
		"podlink hangs": func(w *world, a *Agent, meanwhile func()) {
			resume := w.hang()
			for a.guard.lease.holdsNow() {
				time.Sleep(10 * time.Millisecond)
			}
			resume()
			w.waitDead(0, 1)
			meanwhile()
			require.NoError(w.t, a.report(context.Background()))
		},
		"a late report": func(w *world, a *Agent, meanwhile func()) {
			begun, goOn := make(chan struct{}), make(chan struct{})
			a.options.State = func() string { // The report has begun while the last one still counted.
				close(begun)
				<-goOn
				return "late"
			}
			done := make(chan error, 1)
			go func() { done <- a.report(context.Background()) }()
			<-begun
			w.waitDead(0, 1)
			meanwhile()
			close(goOn)
			require.NoError(w.t, <-done)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "gRPC")
			var told lost
			a := w.agent(0, AgentOptions{TTL: ttl, OnLost: told.add})
			w.ready(1)
			const kept = 120
			for i := range kept {
				w.begin(a, fmt.Sprint("kept", i))
			}
			relinked, back, gone := w.begin(a, "relinked"), w.begin(a, "back"), w.begin(a, "gone")
			w.begin(a, "ended")
			a.EndSession(t.Context(), "ended", time.Minute)
			reportPod(t, a)
			require.Empty(t, told.get())
			silence(w, a, func() {
				w.waitRelinked("relinked", 1)
				w.link("back", 1)
				w.link("back", 0) // Another epoch: what the pod holds is out of date.
				w.unlink("gone")
				w.link("ended", 1)
			})
			want := []string{fmt.Sprint("relinked ", relinked), fmt.Sprint("back ", back), fmt.Sprint("gone ", gone)}
			require.ElementsMatch(t, want, told.get())
			require.Equal(t, kept, a.Sessions())
			a.options.State = func() string { return "here" }
			reportPod(t, a)
			require.Len(t, told.get(), 3, "told once")
		})
	}
}

// TestNewLease: a lease that lapsed and was renewed does not make valid again what was known before.
func TestNewLease(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, "gRPC", start(t, unhurried...), Options{Timeout: hangTimeout})
	a := w.agent(0, AgentOptions{TTL: time.Second, CacheTTL: time.Nanosecond})
	w.ready(1)
	reportPod(t, a)
	w.link("u", 0)
	_, err := a.links.get(t.Context(), "u")
	require.NoError(t, err)
	w.waitDead(0, 1)
	w.waitRelinked("u", 1)
	a.options.TTL = time.Hour
	reportPod(t, a)
	require.True(t, a.guard.lease.holdsNow())
	resume := w.hang()
	defer resume()
	_, err = a.links.get(t.Context(), "u")
	require.Error(t, err)
}

// TestDrain: an app stops. The pod takes no new users, serves those it has until their sessions end, and tells podlink.
func TestDrain(t *testing.T) {
	onBoth(t, func(t *testing.T, over string) {
		w := newWorld(t, over)
		var drains atomic.Int32
		a := w.agent(0, AgentOptions{DrainTimeout: 2 * soon, CacheTTL: time.Nanosecond, OnDrain: func(ctx context.Context) {
			_, bounded := ctx.Deadline()
			if bounded && ctx.Err() == nil {
				drains.Add(1)
			}
		}})
		p := newPod(t, 0, a.Guard())
		w.put(p.instance(a.Metadata()))
		_, chat := w.router(RouterOptions{UID: userField, RetryTimeout: 10 * time.Millisecond}, soon)
		app, wait := runApp(t, kratos.Server(a), kratos.Metadata(a.Metadata()), kratos.BeforeStop(a.Drain))
		require.Eventually(t, func() bool { return w.reported(0).GetLive() }, soon, time.Millisecond)
		w.begin(a, "old")
		w.compute("new")
		require.EqualValues(t, 0, w.linked("new").GetPodId())
		w.connected(chat, 1)

		stopped := make(chan error, 1)
		go func() { stopped <- app.Stop() }()
		require.Eventually(t, func() bool { return w.reported(0).GetRouting() == v1.Routing_DENY_NEW }, soon, time.Millisecond)
		require.Eventually(t, func() bool { return drains.Load() == 1 }, soon, time.Millisecond)
		reply, err := chat.set(t.Context(), "old", "text")
		require.NoError(t, err)
		require.Equal(t, "text", reply.GetState())
		_, err = a.StartSession(t.Context(), "old")
		require.NoError(t, err, "it runs already")
		_, err = a.StartSession(t.Context(), "new")
		require.ErrorIs(t, err, ErrWrongPod)
		require.EqualValues(t, -1, w.linked("new").GetPodId())
		require.Empty(t, stopped)

		a.EndSession(t.Context(), "old", time.Minute)
		require.EqualValues(t, -1, w.linked("old").GetPodId(), "a pod that drains keeps nothing")
		require.NoError(t, <-stopped)
		wait()
		require.Equal(t, v1.Routing_SHUTDOWN, w.reported(0).GetRouting())
		require.EqualValues(t, 1, drains.Load())
	})
}

// TestDrainingPodHandsOver: a new user who was linked to a pod that drains gets another pod within one call.
func TestDrainingPodHandsOver(t *testing.T) {
	onBoth(t, func(t *testing.T, over string) {
		w := newWorld(t, over)
		var pods []*pod
		var agents []*Agent
		for id := range int32(2) {
			a := w.agent(id, AgentOptions{DrainTimeout: 2 * soon})
			p := newPod(t, id, a.Guard())
			p.handle = func(ctx context.Context, uid string) error {
				if uid == "" {
					return nil
				}
				epoch, err := a.StartSession(ctx, uid)
				if err == nil && epoch != Epoch(ctx) {
					return errBroken
				}
				return err
			}
			w.put(p.instance(a.Metadata()))
			pods, agents = append(pods, p), append(agents, a)
			run(t, a)
			require.Eventually(t, func() bool { return w.reported(id).GetLive() }, soon, time.Millisecond)
		}
		_, chat := w.router(RouterOptions{UID: userField, RetryTimeout: soon}, soon)
		w.connected(chat, 2)
		reply, err := chat.set(t.Context(), "stays", "text")
		require.NoError(t, err)
		on := reply.GetNamespace()
		draining := agents[0]
		if on == "1" {
			draining = agents[1]
		}
		require.Equal(t, 1, draining.Sessions())
		require.True(t, w.linked("stays").GetPersistent())
		var users []string // who have a link to the pod, and no session yet
		for i := 0; len(users) < 3; i++ {
			uid := fmt.Sprint("u", i)
			if w.compute(uid).GetPodId() == draining.PodID() {
				users = append(users, uid)
			}
		}
		drained := make(chan error, 1)
		go func() { drained <- draining.Drain(context.Background()) }()
		require.Eventually(t, func() bool { return w.reported(draining.PodID()).GetRouting() == v1.Routing_DENY_NEW }, soon, time.Millisecond)
		for _, uid := range users {
			reply, err := chat.set(t.Context(), uid, "text")
			require.NoError(t, err)
			require.Equal(t, number(1-draining.PodID()), reply.GetNamespace())
			require.True(t, w.linked(uid).GetPersistent())
		}
		reply, err = chat.set(t.Context(), "stays", "text")
		require.NoError(t, err)
		require.Equal(t, on, reply.GetNamespace())
		draining.EndSession(t.Context(), "stays", 0)
		require.NoError(t, <-drained)
		reply, err = chat.set(t.Context(), "stays", "text")
		require.NoError(t, err)
		require.NotEqual(t, on, reply.GetNamespace())
		_ = pods
	})
}

// TestDrainTimeout: a session that does not end does not keep the pod for ever. Its link stays, for podlink to give it away.
func TestDrainTimeout(t *testing.T) {
	w := newWorld(t, "gRPC")
	var lines logwatch.Log
	const limit = 300 * time.Millisecond
	ended := make(chan struct{})
	a := w.agent(0, AgentOptions{DrainTimeout: limit, Logger: log.NewStdLogger(&lines), OnDrain: func(ctx context.Context) {
		<-ctx.Done()
		close(ended)
	}})
	run(t, a)
	w.begin(a, "u")
	begin := time.Now()
	require.NoError(t, a.Drain(t.Context()))
	require.GreaterOrEqual(t, time.Since(begin), limit)
	<-ended
	require.Contains(t, lines.String(), "stopping with 1 sessions left")
	require.Equal(t, v1.Routing_SHUTDOWN, w.reported(0).GetRouting())
	require.True(t, w.linked("u").GetPersistent())
	w.ready(1)
	require.EqualValues(t, 1, w.compute("u").GetPodId())
}

// TestStopDrains: an agent that was not drained before drains when it stops. Whoever stops it again waits for that.
func TestStopDrains(t *testing.T) {
	w := newWorld(t, "gRPC")
	var drains atomic.Int32
	a := w.agent(0, AgentOptions{DrainTimeout: 2 * soon, OnDrain: func(context.Context) { drains.Add(1) }})
	app, wait := runApp(t, kratos.Server(a))
	require.Eventually(t, func() bool { return w.reported(0).GetLive() }, soon, time.Millisecond)
	w.begin(a, "u")
	require.NoError(t, app.Stop())
	require.Eventually(t, func() bool { return drains.Load() == 1 }, soon, time.Millisecond)
	again := make(chan error, 2)
	go func() { again <- a.Drain(context.Background()) }()
	go func() { again <- a.Stop(context.Background()) }()
	time.Sleep(50 * time.Millisecond)
	require.Empty(t, again, "they wait for the session")
	a.EndSession(t.Context(), "u", 0)
	require.NoError(t, <-again)
	require.NoError(t, <-again)
	wait()
	require.EqualValues(t, 1, drains.Load())
	require.Equal(t, v1.Routing_SHUTDOWN, w.reported(0).GetRouting())
}

// TestDrainWithoutPodlink: a pod that stops while podlink is away can still save what it holds, and ends in time.
func TestDrainWithoutPodlink(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(w *world){
		"dead":  func(w *world) { w.podlink.Kill() },
		"hangs": func(w *world) { w.hang() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorldOn(t, "gRPC", start(t, unhurried...), Options{Timeout: hangTimeout})
			var a *Agent
			var saved atomic.Bool
			a = w.agent(0, AgentOptions{DrainTimeout: 4 * time.Second, OnDrain: func(ctx context.Context) {
				end, _ := ctx.Deadline()
				saved.Store(time.Until(end) > time.Second) // It is not called only when the time is over.
				a.EndSession(ctx, "u", 0)
			}})
			run(t, a)
			w.begin(a, "u")
			leave(w)
			begin := time.Now()
			require.NoError(t, a.Drain(t.Context()))
			require.Less(t, time.Since(begin), soon)
			require.True(t, saved.Load())
			require.Zero(t, a.Sessions())
		})
	}
}

// TestDrainGivesUp: the drain ends with its context.
func TestDrainGivesUp(t *testing.T) {
	w := newWorld(t, "gRPC")
	a := w.agent(0, AgentOptions{DrainTimeout: time.Hour})
	w.begin(a, "u")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, a.Drain(ctx), context.DeadlineExceeded)
	require.ErrorIs(t, a.Stop(ctx), context.DeadlineExceeded)
}

// TestStopBeforeStart: an app that fails while it starts stops servers that have not started.
func TestStopBeforeStart(t *testing.T) {
	w := newWorld(t, "gRPC")
	a := w.agent(0, AgentOptions{})
	require.NoError(t, a.Stop(t.Context()))
	require.NoError(t, a.Start(t.Context()))
}

func (l *lease) holdsNow() bool {
	state, _ := l.state()
	return state.holds()
}
