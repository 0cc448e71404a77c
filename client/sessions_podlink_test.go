package client

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// withoutBatches is a podlink that is older than its batches.
type withoutBatches struct{ v1.LinkServiceClient }

func (withoutBatches) BatchSetLinkedPod(context.Context, *v1.BatchSetLinkedPodRequest, ...grpc.CallOption) (*v1.BatchSetLinkedPodReply, error) {
	return nil, status.Error(codes.Unimplemented, "unknown method")
}

func (withoutBatches) BatchRemoveLinkedPod(
	context.Context, *v1.BatchRemoveLinkedPodRequest, ...grpc.CallOption,
) (*v1.BatchRemoveLinkedPodReply, error) {
	return nil, status.Error(codes.Unimplemented, "unknown method")
}

func (withoutBatches) BatchVerifyLinkedPod(
	context.Context, *v1.BatchVerifyLinkedPodRequest, ...grpc.CallOption,
) (*v1.BatchVerifyLinkedPodReply, error) {
	return nil, status.Error(codes.Unimplemented, "unknown method")
}

// processOf runs the sessions of a new process of the pod on podlink, and reports the pod as its reporter would.
func (w *world) processOf(links v1.LinkServiceClient, pod int32, instance string, supersedes int64) *podSessions {
	w.t.Helper()
	const ttl = 3 * time.Second
	p := newPodSessions(nil, pod, 0)
	p.links, p.lease = links, newLease(ttl)
	p.batches.links = links
	sequence := int64(0)
	report := func(ctx context.Context) error {
		sequence++
		state, _ := p.lease.state()
		request := &v1.SetServiceStateRequest{
			Namespace: testNamespace, Service: testService, PodId: &pod, State: "here", TtlSeconds: proto.Int32(int32(ttl / time.Second)),
			InstanceId: instance, Sequence: sequence, Generation: state.generation,
		}
		if state.generation == 0 {
			request.Supersedes = supersedes
		}
		begun := time.Now()
		reply, err := w.client.SetServiceState(ctx, request)
		if err == nil {
			p.lease.renew(renewal{begun: begun, generation: reply.GetPod().GetGeneration(), storeID: reply.GetStoreId()})
		}
		return err
	}
	require.NoError(w.t, report(context.Background()))
	state, _ := p.lease.state()
	p.process = state.generation
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{}, 2)
	go func() {
		p.run(ctx)
		ended <- struct{}{}
	}()
	go func() {
		for ctx.Err() == nil {
			sleep(ctx, ttl/6)
			_ = report(ctx)
		}
		ended <- struct{}{}
	}()
	w.t.Cleanup(func() { cancel(); <-ended; <-ended })
	return p
}

// TestSessionsOnPodlink: with podlink itself, its user is moved, its store is flushed, and its process is replaced.
func TestSessionsOnPodlink(t *testing.T) {
	t.Parallel()
	t.Run("in batches", func(t *testing.T) {
		t.Parallel()
		testSessionsOnPodlink(t, func(c *Client) v1.LinkServiceClient { return c })
	})
	t.Run("one by one", func(t *testing.T) {
		t.Parallel()
		testSessionsOnPodlink(t, func(c *Client) v1.LinkServiceClient { return withoutBatches{c} })
	})
}

func testSessionsOnPodlink(t *testing.T, links func(*Client) v1.LinkServiceClient) {
	redis := redistest.Start(t)
	w := newWorldOn(t, "gRPC", start(t, append(podlinktest.OnRedis("standalone", redis.Addr()), unhurried...)...), Options{})
	p := w.processOf(links(w.client), 0, "first", 0)
	w.ready(1)
	held := func(p *podSessions, uid string, h *Session) bool {
		link := w.linked(uid)
		return link.GetPodId() == 0 && link.GetPersistent() && link.GetEpoch() == h.Epoch() &&
			link.GetClaim() == p.process && p.holding(uid).epoch == h.Epoch()
	}
	begin := func(uid string) *Session {
		seen := w.link(uid, 0)
		h, err := p.start(t.Context(), uid, seen)
		require.NoError(t, err)
		require.Greater(t, h.Epoch(), seen)
		require.True(t, held(p, uid, h))
		return h
	}
	kept, removed, moved := begin("kept"), begin("removed"), begin("moved")
	var all []*Session
	for i := range 50 {
		all = append(all, begin(fmt.Sprint("u", i)))
	}

	kept.End(t.Context(), time.Hour)
	removed.End(t.Context(), 0)
	require.Eventually(t, func() bool { _, ending := p.count(); return ending == 0 }, soon, time.Millisecond)
	require.Equal(t, kept.Epoch(), w.linked("kept").GetEpoch())
	require.False(t, w.linked("kept").GetPersistent())
	require.EqualValues(t, -1, w.linked("removed").GetPodId())

	w.link("moved", 1)
	w.link("moved", 0)
	select {
	case <-moved.Lost():
	case <-time.After(soon):
		t.Fatal("the loss is not noticed")
	}

	before := all[0].Epoch()
	require.NoError(t, redis.Client(t).FlushAll(t.Context()).Err())
	require.Eventually(t, func() bool {
		for i, h := range all {
			if !held(p, fmt.Sprint("u", i), h) {
				return false
			}
		}
		return true
	}, soon, 10*time.Millisecond)
	require.Greater(t, all[0].Epoch(), before)

	next := w.processOf(links(w.client), 0, "second", p.process)
	h, err := next.start(t.Context(), "u0", 0)
	require.NoError(t, err)
	require.Greater(t, h.Epoch(), all[0].Epoch())
	_, err = p.start(t.Context(), "u0", h.Epoch())
	require.ErrorIs(t, err, ErrSuperseded)
	<-all[0].Lost()
	require.True(t, held(next, "u0", h))
	require.Equal(t, []string{fmt.Sprint("moved ", moved.Epoch()), fmt.Sprint("u0 ", all[0].Epoch())}, p.losses())
}
