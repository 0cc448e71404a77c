package client

import (
	"context"
	"fmt"
	"testing"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
)

func get(uid string) *v1.GetLinkedPodRequest {
	return &v1.GetLinkedPodRequest{Namespace: testNamespace, Uid: uid, Service: testService}
}

// TestGuard: only users who are linked to the pod pass. The others are told whose they are.
func TestGuard(t *testing.T) {
	onBoth(t, func(t *testing.T, over string) {
		w := newWorld(t, over)
		p := w.guarded(1, AgentOptions{})[0]
		chat := w.stub(soon, nil)
		w.connected(chat, 1) // So requests about no user pass.
		p.done.Store(0)
		epoch, elsewhere := w.link("here", 0), w.link("elsewhere", 1)
		for range 2 {
			reply, err := chat.set(t.Context(), "here", "text")
			require.NoError(t, err)
			require.Equal(t, epoch, reply.GetUpdateMs())
			for uid, metadata := range map[string]map[string]string{
				"elsewhere": {"pod_id": "1", "epoch": fmt.Sprint(elsewhere)},
				"nowhere":   {"pod_id": "-1", "epoch": "0"},
			} {
				_, err := chat.set(t.Context(), uid, "text")
				require.ErrorIs(t, kerrors.FromError(err), ErrWrongPod)
				require.Equal(t, metadata, kerrors.FromError(err).Metadata)
			}
		}
		require.EqualValues(t, 2, p.done.Load())
		w.link("nowhere", 0)
		_, err := chat.set(t.Context(), "nowhere", "text")
		require.NoError(t, err, "a refusal is not remembered")
		require.Zero(t, Epoch(t.Context()))
	})
}

// TestGuardWithoutPodlink: known users pass as long as the pod's last report counts, strangers do not.
func TestGuardWithoutPodlink(t *testing.T) {
	onBoth(t, func(t *testing.T, over string) {
		t.Parallel()
		w := newWorldOn(t, over, start(t, unhurried...), Options{Timeout: hangTimeout})
		a := w.agent(0, AgentOptions{TTL: 4 * time.Second, CacheTTL: time.Millisecond})
		p := newPod(t, 0, a.Guard())
		w.put(p.instance(a.Metadata()))
		chat := w.stub(soon, nil)
		w.connected(chat, 1)
		for _, uid := range []string{"u", "v"} {
			w.link(uid, 0)
			_, err := chat.set(t.Context(), uid, "text")
			require.NoError(t, err)
		}
		w.link("stranger", 0)
		reportPod(t, a)
		reported := time.Now() // The lease has begun before.
		resume := w.hang()
		passed := 0
		for {
			began := time.Now()
			_, err := chat.set(t.Context(), "u", "text")
			if err != nil {
				require.ErrorIs(t, kerrors.FromError(err), ErrLinkUncertain)
				break
			}
			require.Less(t, began.Sub(reported), 4*time.Second)
			if passed++; passed == 1 {
				_, err = chat.set(t.Context(), "stranger", "text")
				require.ErrorIs(t, kerrors.FromError(err), ErrLinkUncertain)
			}
		}
		require.Positive(t, passed)
		_, err := chat.set(t.Context(), "v", "text")
		require.ErrorIs(t, kerrors.FromError(err), ErrLinkUncertain)
		resume()
		for _, uid := range []string{"u", "v", "stranger"} {
			_, err := chat.set(t.Context(), uid, "text")
			require.NoError(t, err)
		}
	})
}

// TestGuardNeverReported: without a report there is no lease, and nobody passes while podlink is away.
func TestGuardNeverReported(t *testing.T) {
	w := newWorldOn(t, "gRPC", start(t, unhurried...), Options{Timeout: hangTimeout})
	a := w.agent(0, AgentOptions{CacheTTL: time.Nanosecond})
	pass := guardAlone(a)
	w.link("u", 0)
	require.NoError(t, pass(t.Context(), "u"))
	w.podlink.Kill()
	require.ErrorIs(t, pass(t.Context(), "u"), ErrLinkUncertain)
}

// guardAlone is the Guard in front of a pod that does nothing.
func guardAlone(a *Agent) func(ctx context.Context, uid string) error {
	guarded := a.Guard()(func(context.Context, any) (any, error) { return nil, nil })
	return func(ctx context.Context, uid string) error {
		_, err := guarded(ctx, &v1.SetWorkloadStateRequest{Service: uid})
		return err
	}
}

// TestGuardLeavesTime: the caller of a pod hears that podlink hangs before its own time is over.
func TestGuardLeavesTime(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, "gRPC", start(t, unhurried...), Options{Timeout: soon})
	pass := guardAlone(w.agent(0, AgentOptions{}))
	w.link("u", 0)
	resume := w.hang()
	defer resume()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	require.ErrorIs(t, pass(ctx, "u"), ErrLinkUncertain)
	require.NoError(t, ctx.Err())
}

// TestGuardNoticesMoves: a user who was linked to another pod is refused when what is known is not fresh any more, and the
// session is given up.
func TestGuardNoticesMoves(t *testing.T) {
	onBoth(t, func(t *testing.T, over string) {
		w := newWorld(t, over)
		const freshFor = 300 * time.Millisecond
		var told lost
		a := w.agent(0, AgentOptions{CacheTTL: freshFor, OnLost: told.add})
		p := newPod(t, 0, a.Guard())
		w.put(p.instance(a.Metadata()))
		chat := w.stub(soon, nil)
		w.connected(chat, 1)
		epoch := w.begin(a, "u")
		_, err := chat.set(t.Context(), "u", "text")
		require.NoError(t, err)
		moved := w.link("u", 1)
		at := time.Now()
		for {
			began := time.Now()
			_, err := chat.set(t.Context(), "u", "text")
			if err != nil {
				require.ErrorIs(t, kerrors.FromError(err), ErrWrongPod)
				require.Equal(t, fmt.Sprint(moved), kerrors.FromError(err).Metadata["epoch"])
				break
			}
			require.Less(t, began.Sub(at), freshFor)
		}
		require.Equal(t, []string{fmt.Sprint("u ", epoch)}, told.get())
		require.Zero(t, a.Sessions())
	})
}

// TestGuardAfterSilence: podlink was away and is back. The pod has heard from it, and so asks it before it lets users pass.
func TestGuardAfterSilence(t *testing.T) {
	w := newWorld(t, "gRPC")
	a := w.agent(0, AgentOptions{CacheTTL: time.Nanosecond})
	pass := guardAlone(a)
	w.link("u", 0)
	reportPod(t, a)
	require.NoError(t, pass(t.Context(), "u"))
	w.link("u", 1)
	a.links.way.away.Store(true)
	require.NoError(t, pass(t.Context(), "u"), "while the lease lasts")
	reportPod(t, a)
	require.ErrorIs(t, pass(t.Context(), "u"), ErrWrongPod)
}

// TestGuardPassesErrorsOn: what podlink says about a request goes to the caller.
func TestGuardPassesErrorsOn(t *testing.T) {
	w := newWorld(t, "gRPC")
	require.ErrorIs(t, guardAlone(w.agent(0, AgentOptions{}))(t.Context(), "a\x00b"), ErrInvalidArgument)
}
