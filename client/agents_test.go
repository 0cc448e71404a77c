package client

import (
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	"podlink/test/kit/inproc"
	"podlink/test/kit/model"
)

// fleet is the pods of a service on a podlink in this process, in virtual time.
type fleet struct {
	t      *testing.T
	store  *model.Store
	server *inproc.Server
	client *Client
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{t: t, store: model.NewStore()}
	f.server = inproc.NewServer(f.store)
	t.Cleanup(f.server.Kill)
	f.client = f.connect()
	return f
}

// connect returns a client on a connection of its own.
func (f *fleet) connect() *Client {
	c := NewOver(inproc.Dial(time.Second, f.server), DefaultTimeout)
	f.t.Cleanup(func() { _ = c.Close() })
	return c
}

// agent runs an agent of the pod.
func (f *fleet) agent(pod int32, ttl time.Duration) *Agent {
	f.t.Helper()
	a, err := f.connect().NewAgent(testNamespace, testService, AgentOptions{PodOrdinal: &pod, TTL: ttl, Logger: log.NewStdLogger(io.Discard)})
	require.NoError(f.t, err)
	run(f.t, a)
	return a
}

func (f *fleet) compute(uid string) *v1.ComputeLinkedPodReply {
	f.t.Helper()
	reply, err := f.client.ComputeLinkedPod(f.t.Context(), &v1.ComputeLinkedPodRequest{
		Namespace: testNamespace, Service: testService, Uid: uid, PersistSeconds: proto.Int32(3600),
	})
	require.NoError(f.t, err)
	return reply
}

func (f *fleet) pod(pod int32) *v1.Pod {
	f.t.Helper()
	reply, err := f.client.GetServicePod(f.t.Context(), &v1.GetServicePodRequest{Namespace: testNamespace, Service: testService, PodId: &pod})
	require.NoError(f.t, err)
	return reply.GetPod()
}

// TestOutagesMoveNobody: podlink or its store was away, for less than the TTL or for longer. When it is back, all pods report before
// any of them is taken for dead.
func TestOutagesMoveNobody(t *testing.T) {
	t.Parallel()
	for name, outage := range map[string]func(*fleet) (over func()){
		"podlink killed": func(f *fleet) func() { f.server.Kill(); return f.server.Start },
		"podlink frozen": func(f *fleet) func() { f.server.Freeze(); return f.server.Unfreeze },
		"store killed":   func(f *fleet) func() { f.store.Kill(); return f.store.Restart },
		"store frozen":   func(f *fleet) func() { f.store.Freeze(); return f.store.Unfreeze },
	} {
		for _, ttl := range []time.Duration{3 * time.Second, 15 * time.Second} {
			for _, part := range []float64{.5, 1.3, 4} {
				t.Run(fmt.Sprint(name, " ", ttl, " ", part), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						f := newFleet(t)
						agents := make([]*Agent, 5)
						for i := range agents {
							agents[i] = f.agent(int32(i), ttl)
							require.NoError(t, agents[i].Ready(t.Context()))
							time.Sleep(ttl / 20)
						}
						time.Sleep(ttl)
						users := map[string]int32{}
						for i := range 20 {
							uid := fmt.Sprint(i)
							users[uid] = f.compute(uid).GetLink().GetPodId()
						}
						over := outage(f)
						time.Sleep(time.Duration(part * float64(ttl)))
						over()
						time.Sleep(time.Second)
						for begin := time.Now(); time.Since(begin) < 2*ttl; time.Sleep(ttl / 10) {
							for uid, pod := range users {
								reply := f.compute(uid)
								require.Equal(t, v1.ComputeLinkedPodReply_EXISTING, reply.GetOutcome(), "%s after %s", uid, time.Since(begin))
								require.Equal(t, pod, reply.GetLink().GetPodId())
							}
						}
						for _, a := range agents {
							state, _ := a.lease.state()
							require.True(t, state.holds())
						}
					})
				})
			}
		}
	}
}

// TestNobodyComesBeforeReady: a pod whose app has not started gets no new users, and keeps those of the ordinal.
func TestNobodyComesBeforeReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		const ttl = 15 * time.Second
		require.NoError(t, f.agent(0, ttl).Ready(t.Context()))
		time.Sleep(time.Second)
		for i := range 10 {
			require.EqualValues(t, 0, f.compute(fmt.Sprint(i)).GetLink().GetPodId())
		}
		starting := f.agent(1, ttl)
		time.Sleep(time.Second)
		for i := range 10 {
			require.EqualValues(t, 0, f.compute(fmt.Sprint("new", i)).GetLink().GetPodId())
		}
		require.NoError(t, starting.Ready(t.Context()))
		time.Sleep(time.Second)
		require.EqualValues(t, 1, f.compute("next").GetLink().GetPodId())

		restarting := f.agent(1, ttl)
		time.Sleep(2 * ttl)
		require.Equal(t, restarting.reporter.instance.id, f.pod(1).GetInstanceId())
		require.Equal(t, v1.Routing_DENY_NEW, f.pod(1).GetRouting())
		require.Equal(t, v1.ComputeLinkedPodReply_EXISTING, f.compute("next").GetOutcome())
	})
}

// TestLateShutdown: a process that drains is replaced meanwhile. Its SHUTDOWN moves no user of its successor.
func TestLateShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		const ttl = 15 * time.Second
		old := f.agent(0, ttl)
		require.NoError(t, old.Ready(t.Context()))
		require.NoError(t, f.agent(1, ttl).Ready(t.Context()))
		time.Sleep(time.Second)
		pod := f.compute("u").GetLink().GetPodId()
		for i := 0; pod != 0; i++ {
			pod = f.compute(fmt.Sprint("u", i)).GetLink().GetPodId()
		}
		successor := f.agent(0, ttl)
		require.NoError(t, successor.Ready(t.Context()))
		time.Sleep(time.Second)
		begin := time.Now()
		require.NoError(t, old.Stop(t.Context()))
		require.Less(t, time.Since(begin), 2*ttl)
		time.Sleep(ttl)
		require.Equal(t, v1.Routing_READY, f.pod(0).GetRouting())
		require.Equal(t, successor.reporter.instance.id, f.pod(0).GetInstanceId())
		require.True(t, old.reporter.superseded())
		require.False(t, successor.reporter.superseded())
	})
}

// TestCordonOnPodlink: an operator cordons the pod. It gets no new users until that is lifted.
func TestCordonOnPodlink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		const ttl = 15 * time.Second
		for pod := range int32(2) {
			require.NoError(t, f.agent(pod, ttl).Ready(t.Context()))
		}
		cordoned := f.agent(2, ttl)
		require.NoError(t, cordoned.Ready(t.Context()))
		time.Sleep(time.Second)
		cordon := func(routing v1.Routing) {
			_, err := f.client.CordonPod(t.Context(), &v1.CordonPodRequest{
				Namespace: testNamespace, Service: testService, PodId: proto.Int32(2), Cordon: &routing,
			})
			require.NoError(t, err)
			time.Sleep(ttl / 2)
		}
		cordon(v1.Routing_DENY_NEW)
		require.Equal(t, v1.Routing_DENY_NEW, cordoned.Cordoned())
		for i := range 20 {
			require.NotEqualValues(t, 2, f.compute(fmt.Sprint(i)).GetLink().GetPodId())
		}
		cordon(v1.Routing_READY)
		require.Equal(t, v1.Routing_READY, cordoned.Cordoned())
		chosen := map[int32]bool{}
		for i := range 9 {
			chosen[f.compute(fmt.Sprint("next", i)).GetLink().GetPodId()] = true
		}
		require.True(t, chosen[2])
	})
}

// TestStoreLosesThePods: after a flush of the store each process is its pod again, with the generation that it had.
func TestStoreLosesThePods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		const ttl = 15 * time.Second
		a := f.agent(0, ttl)
		require.NoError(t, a.Ready(t.Context()))
		time.Sleep(ttl)
		before, _ := a.lease.state()
		f.store.Flush()
		time.Sleep(ttl)
		after, _ := a.lease.state()
		require.True(t, after.holds())
		require.Equal(t, before.generation, after.generation)
		require.NotEqual(t, before.storeID, after.storeID)
		require.Equal(t, before.generation, f.pod(0).GetGeneration())
	})
}
