package client

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
	"podlink/test/kit/logwatch"
	"podlink/test/kit/proc"
)

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

// begin starts a session of a user whom it links to the agent's pod. The agent must run.
func (w *world) begin(a *Agent, uid string) *Session {
	w.t.Helper()
	epoch := w.link(uid, a.PodID())
	session, err := a.StartSession(context.Background(), uid)
	require.NoError(w.t, err)
	require.Greater(w.t, session.Epoch(), epoch)
	return session
}

// agent returns an agent of a pod of this podlink, for tests in virtual time. It is not ready.
func (s *states) agent(t *testing.T, o AgentOptions) *Agent {
	t.Helper()
	s.links = newFakeLinks()
	c := &Client{
		StateServiceClient: s, reports: s, LinkServiceClient: s.links, timeout: DefaultTimeout, hangUp: func() error { return nil },
	}
	t.Cleanup(func() { _ = c.Close() })
	o.PodName, o.UID, o.ReleaseAfter = "chat-0", userField, -1
	if o.Logger == nil {
		o.Logger = log.NewStdLogger(io.Discard)
	}
	a, err := c.NewAgent(testNamespace, testService, o)
	require.NoError(t, err)
	return a
}

// hold starts sessions of users 0 to n-1. The agent must run.
func (s *states) hold(t *testing.T, a *Agent, n int) []*Session {
	t.Helper()
	sessions := make([]*Session, n)
	for i := range n {
		uid := fmt.Sprint(i)
		s.links.put(uid, a.PodID())
		var err error
		sessions[i], err = a.StartSession(t.Context(), uid)
		require.NoError(t, err)
	}
	return sessions
}

// linksAway makes podlink unreachable for all calls about links.
func (s *states) linksAway() {
	s.links.setAround(func(context.Context, string, func()) error { return ErrUnavailable })
}

func TestOrdinal(t *testing.T) {
	for name, row := range map[string]struct {
		option, env string
		want        int32
		refused     string // part of the error; empty: it is not
	}{
		"option":                 {option: "chat-2", want: 2},
		"option before env":      {option: "chat-2", env: "chat-3", want: 2},
		"env":                    {env: "chat-3", want: 3},
		"zero":                   {option: "chat-0", want: 0},
		"many digits":            {option: "my-chat-12000", want: 12000},
		"a set with a number":    {option: "shard-10-0", want: 0},
		"a set with a version":   {option: "chat-v2-1", want: 1},
		"a set like a hash":      {option: "chat-24567", want: 24567},
		"too many digits":        {option: "chat-120000", refused: `AgentOptions.PodName is "chat-120000": its last number has more than 5 digits`},
		"a time":                 {option: "chat-1700000000", refused: "more than 5 digits"},
		"leading zeros":          {option: "chat-007", refused: "begins with 0"},
		"zeros":                  {option: "chat-00", refused: "begins with 0"},
		"a Deployment's":         {option: "chat-7d4b9c-x2v9q", refused: `AgentOptions.PodName is "chat-7d4b9c-x2v9q": it does not end with an ordinal`},
		"a Deployment's, digits": {option: "chat-7d9f8b5c6-24567", refused: "a Deployment's pod"},
		"a machine's":            {option: "ip-10-0-0-12", refused: "a machine with this address"},
		"no ordinal":             {option: "chat-", refused: "does not end with an ordinal"},
		"no set":                 {option: "-2", refused: "does not end with an ordinal"},
		"no dash":                {option: "2", refused: "does not end with an ordinal"},
		"a sign":                 {option: "chat-+2", refused: "does not end with an ordinal"},
		"other digits":           {option: "chat-٢", refused: "does not end with an ordinal"},
		"bad env":                {env: "laptop", refused: `POD_NAME is "laptop"`},
		"the host name's turn":   {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("POD_NAME", row.env)
			if row.option == "" && row.env == "" {
				host, err := os.Hostname()
				require.NoError(t, err)
				if row.want, err = parseOrdinal(host); err != nil {
					row.refused = fmt.Sprintf("the host name is %q", host)
				}
			}
			got, err := podOrdinal(AgentOptions{PodName: row.option})
			if row.refused != "" {
				require.ErrorContains(t, err, row.refused)
				require.ErrorContains(t, err, "AgentOptions.PodOrdinal")
				return
			}
			require.NoError(t, err)
			require.Equal(t, row.want, got)
		})
	}
	for ordinal, refused := range map[int32]bool{0: false, math.MaxInt32: false, -1: true} {
		got, err := podOrdinal(AgentOptions{PodName: "chat-7d9f8b5c6-24567", PodOrdinal: &ordinal})
		require.Equal(t, refused, err != nil)
		if !refused {
			require.Equal(t, ordinal, got)
		}
	}
}

func TestAgentOptions(t *testing.T) {
	c := connect(t, proc.FreeAddr(t), Options{})
	for name, row := range map[string]struct {
		o       AgentOptions
		refused string
	}{
		"none": {},
		"all": {o: AgentOptions{
			TTL: time.Second, DrainTimeout: 1, CacheTTL: 1, Capacity: 1, Address: "[::1]:80", InstanceID: "pod:1",
			Labels: map[string]string{"zone.example-1": "ä b", "empty": ""},
		}},
		"half a second":          {o: AgentOptions{TTL: time.Second / 2}, refused: "AgentOptions.TTL"},
		"a second and a half":    {o: AgentOptions{TTL: 3 * time.Second / 2}, refused: "AgentOptions.TTL"},
		"a negative TTL":         {o: AgentOptions{TTL: -time.Second}, refused: "AgentOptions.TTL"},
		"a TTL beyond the API's": {o: AgentOptions{TTL: (1 << 31) * time.Second}, refused: "AgentOptions.TTL"},
		"a negative drain limit": {o: AgentOptions{DrainTimeout: -1}, refused: "AgentOptions.DrainTimeout"},
		"a negative cache TTL":   {o: AgentOptions{CacheTTL: -1}, refused: "CacheTTL"},
		"a negative capacity":    {o: AgentOptions{Capacity: -1}, refused: "AgentOptions.Capacity"},
		"no port":                {o: AgentOptions{Address: "10.0.0.1"}, refused: "AgentOptions.Address"},
		"no host":                {o: AgentOptions{Address: ":80"}, refused: "AgentOptions.Address"},
		"a port by name":         {o: AgentOptions{Address: "a:http"}, refused: "AgentOptions.Address"},
		"a bad instance":         {o: AgentOptions{InstanceID: "a b"}, refused: "AgentOptions.InstanceID"},
		"a label's name":         {o: AgentOptions{Labels: map[string]string{"-a": ""}}, refused: "AgentOptions.Labels"},
		"a label's value":        {o: AgentOptions{Labels: map[string]string{"a": "\n"}}, refused: "AgentOptions.Labels"},
		"a label's long value":   {o: AgentOptions{Labels: map[string]string{"a": strings.Repeat("x", 129)}}, refused: "AgentOptions.Labels"},
		"too many labels": {o: AgentOptions{Labels: func() map[string]string {
			all := map[string]string{}
			for i := range 17 {
				all[fmt.Sprint(i)] = ""
			}
			return all
		}()}, refused: "AgentOptions.Labels"},
	} {
		t.Run(name, func(t *testing.T) {
			row.o.PodName = "chat-0"
			a, err := c.NewAgent(testNamespace, testService, row.o)
			if row.refused != "" {
				require.ErrorContains(t, err, "podlink: ")
				require.ErrorContains(t, err, row.refused)
				return
			}
			require.NoError(t, err)
			require.Equal(t, map[string]string{"pod_id": "0", "instance_id": a.reporter.instance.id}, a.Metadata())
		})
	}
	for _, bad := range []string{"", "a b", "-a"} {
		_, err := c.NewAgent(bad, testService, AgentOptions{PodName: "chat-0"})
		require.ErrorContains(t, err, "the agent's namespace")
		_, err = c.NewAgent(testNamespace, bad, AgentOptions{PodName: "chat-0"})
		require.ErrorContains(t, err, "the agent's service")
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
	first := w.begin(a, "0")
	for i := range 4 {
		w.begin(a, fmt.Sprint(i+1))
		a.Report()
	}
	first.End(t.Context(), 0)
	a.Report()
	require.Eventually(t, func() bool { return w.reported(0).GetLoad() == 4 }, soon, time.Millisecond)
}

// TestDrainingPodHandsOver: a new user who was linked to a pod that drains gets another pod within one call.
func TestDrainingPodHandsOver(t *testing.T) {
	onBoth(t, func(t *testing.T, over string) {
		w := newWorld(t, over)
		var mu sync.Mutex
		held := map[string][]*Session{}
		handles := func(uid string) []*Session {
			mu.Lock()
			defer mu.Unlock()
			return held[uid]
		}
		var pods []*pod
		var agents []*Agent
		for id := range int32(2) {
			a := w.agent(id, AgentOptions{DrainTimeout: 2 * soon})
			p := newPod(t, id, a.Guard())
			p.handle = func(ctx context.Context, uid string) error {
				if uid == "" {
					return nil
				}
				session, err := a.StartSession(ctx, uid)
				if err != nil {
					return err
				}
				if session.Epoch() < Epoch(ctx) {
					return errBroken
				}
				mu.Lock()
				defer mu.Unlock()
				held[uid] = append(held[uid], session)
				return nil
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
		for _, session := range handles("stays") { // Two calls have started it.
			session.End(t.Context(), 0)
		}
		require.NoError(t, <-drained)
		reply, err = chat.set(t.Context(), "stays", "text")
		require.NoError(t, err)
		require.NotEqual(t, on, reply.GetNamespace())
		_ = pods
	})
}

// TestLapseIsLogged: one line when the lease ends, however long that lasts.
func TestLapseIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 15 * time.Second
		var lines logwatch.Log
		s := &states{}
		a := s.agent(t, AgentOptions{TTL: ttl, Logger: log.NewStdLogger(&lines)})
		run(t, a)
		require.NoError(t, a.Ready(t.Context()))
		ended := func() int { return strings.Count(lines.String(), "the lease has ended") }
		time.Sleep(time.Minute)
		require.Zero(t, ended())
		for outage := range 2 {
			s.set(isAway)
			time.Sleep(ttl / 2)
			require.Equal(t, outage, ended(), "the lease holds for a TTL")
			time.Sleep(10 * ttl)
			require.Equal(t, outage+1, ended())
			s.set(nil)
			time.Sleep(ttl)
		}
		require.Equal(t, 2, ended())
	})
}

// TestLostStoreIsLogged, once, where it concerns sessions.
func TestLostStoreIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines logwatch.Log
		s := &states{storeID: "first"}
		a := s.agent(t, AgentOptions{Logger: log.NewStdLogger(&lines)})
		run(t, a)
		require.NoError(t, a.Ready(t.Context()))
		s.hold(t, a, 3)
		time.Sleep(time.Minute)
		s.mu.Lock()
		s.storeID = "second"
		s.mu.Unlock()
		time.Sleep(time.Minute)
		require.Equal(t, 1, strings.Count(lines.String(), "podlink's store may have lost links: checking 3 sessions"))
	})
}
