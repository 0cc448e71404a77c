package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/stretchr/testify/require"
)

// guardedContext is the context of a request that has passed the agent's Guard.
func guardedContext(ctx context.Context, a *Agent, uid string, epoch int64) context.Context {
	passed := &userContext{Context: ctx, by: a.guard}
	passed.user.Store(&guardedUser{uid, epoch})
	return passed
}

// TestStartSession: the link becomes persistent with the epoch that it has, and only if it is the one the pod knows.
func TestStartSession(t *testing.T) {
	w := newWorld(t, "gRPC")
	w.ready(0)
	a := w.agent(0, AgentOptions{CacheTTL: time.Nanosecond})

	computed := w.compute("u")
	require.False(t, computed.GetPersistent())
	epoch, err := a.StartSession(t.Context(), "u")
	require.NoError(t, err)
	require.Equal(t, computed.GetEpoch(), epoch)
	link := w.linked("u")
	require.True(t, link.GetPersistent())
	require.Equal(t, epoch, link.GetEpoch())
	require.Equal(t, 1, a.Sessions())

	sets := w.calls("SetLinkedPod")
	again, err := a.StartSession(t.Context(), "u")
	require.NoError(t, err)
	require.Equal(t, epoch, again)
	require.Equal(t, 1, a.Sessions())
	require.Equal(t, sets, w.calls("SetLinkedPod"))

	elsewhere := w.link("elsewhere", 1)
	stale := w.link("moved", 0)
	moved := w.link("moved", 1)
	returned := w.link("returned", 0)
	w.link("returned", 1)
	current := w.link("returned", 0)
	removed := w.link("removed", 0)
	w.unlink("removed")
	for name, row := range map[string]struct {
		uid   string
		seen  int64 // the epoch that the Guard has found; 0: none
		pod   string
		epoch int64
	}{
		"another's":            {uid: "elsewhere", pod: "1", epoch: elsewhere},
		"nobody's":             {uid: "nobody", pod: "-1"},
		"another's since":      {uid: "moved", seen: stale, pod: "1", epoch: moved},
		"nobody's since":       {uid: "removed", seen: removed, pod: "-1"},
		"its own, yet another": {uid: "returned", seen: returned, pod: "0", epoch: current},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if row.seen != 0 {
				ctx = guardedContext(ctx, a, row.uid, row.seen)
			}
			before := w.linked(row.uid)
			_, err := a.StartSession(ctx, row.uid)
			require.ErrorIs(t, err, ErrWrongPod)
			require.Equal(t, row.pod, kerrors.FromError(err).Metadata["pod_id"])
			require.Equal(t, fmt.Sprint(row.epoch), kerrors.FromError(err).Metadata["epoch"])
			require.Equal(t, 1, a.Sessions())
			require.Equal(t, before.GetPodId(), w.linked(row.uid).GetPodId())
		})
	}
	t.Run("of another user than the request's", func(t *testing.T) {
		epoch := w.link("v", 0)
		got, err := a.StartSession(guardedContext(t.Context(), a, "u", 1), "v")
		require.NoError(t, err)
		require.Equal(t, epoch, got)
	})
}

// TestSessionStartsAnew: the user was another pod's in between. What the pod held is lost, and a new session begins.
func TestSessionStartsAnew(t *testing.T) {
	w := newWorld(t, "gRPC")
	var told lost
	a := w.agent(0, AgentOptions{OnLost: told.add})
	old := w.begin(a, "u")
	w.link("u", 1)
	epoch := w.link("u", 0)
	got, err := a.StartSession(guardedContext(t.Context(), a, "u", epoch), "u")
	require.NoError(t, err)
	require.Equal(t, epoch, got)
	require.Equal(t, []string{fmt.Sprint("u ", old)}, told.get())
	require.Equal(t, 1, a.Sessions())
}

func TestEndSession(t *testing.T) {
	w := newWorld(t, "gRPC")
	a := w.agent(0, AgentOptions{})
	for name, row := range map[string]struct {
		keep time.Duration
		ttl  int32 // of the link after it; 0: there is none
	}{
		"at once":           {},
		"kept":              {keep: 300 * time.Second, ttl: 300},
		"kept, rounded up":  {keep: 300*time.Second - time.Millisecond, ttl: 300},
		"kept for a blink":  {keep: time.Nanosecond, ttl: 1},
		"kept for less":     {keep: -time.Second},
		"kept for too long": {keep: 1 << 62, ttl: 1<<31 - 1},
	} {
		t.Run(name, func(t *testing.T) {
			epoch := w.begin(a, "u")
			a.EndSession(t.Context(), "u", row.keep)
			link := w.linked("u")
			require.Zero(t, a.Sessions())
			require.Empty(t, a.sessions)
			if row.ttl == 0 {
				require.EqualValues(t, -1, link.GetPodId())
				return
			}
			require.False(t, link.GetPersistent())
			if row.ttl > 1 { // Else it may be over.
				require.Equal(t, epoch, link.GetEpoch())
				require.InDelta(t, row.ttl, link.GetTtlSeconds(), 30)
			}
			a.EndSession(t.Context(), "u", 0)
			require.Equal(t, link.GetPodId(), w.linked("u").GetPodId(), "there is no session to end")
			w.unlink("u")
		})
	}
	t.Run("with a caller who has left", func(t *testing.T) {
		w.begin(a, "u")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		a.EndSession(ctx, "u", 0)
		require.EqualValues(t, -1, w.linked("u").GetPodId())
	})
	t.Run("of a user who has moved", func(t *testing.T) {
		w.begin(a, "u")
		w.link("u", 1)
		a.EndSession(t.Context(), "u", 0)
		require.EqualValues(t, 1, w.linked("u").GetPodId())
		require.Empty(t, a.sessions)
	})
}

// TestEndSessionWithoutPodlink: podlink hears of the end of a session when it is back, unless the session has started again.
func TestEndSessionWithoutPodlink(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, "gRPC", start(t, unhurried...), Options{Timeout: hangTimeout})
	a := w.agent(0, AgentOptions{TTL: 3 * time.Second})
	w.begin(a, "ends")
	w.begin(a, "kept")
	epoch := w.begin(a, "starts")
	run(t, a)
	require.Eventually(t, func() bool { return w.reported(0) != nil }, soon, time.Millisecond)
	resume := w.hang()
	var ends sync.WaitGroup
	for uid, keep := range map[string]time.Duration{"ends": 0, "kept": time.Hour, "starts": 0} {
		ends.Go(func() { a.EndSession(context.Background(), uid, keep) })
	}
	ends.Wait()
	require.Zero(t, a.Sessions())
	_, ending := a.count()
	require.Equal(t, 3, ending)

	again := make(chan struct{})
	go func() {
		defer close(again)
		for { // It tries while podlink hangs, and when it is back.
			ctx := guardedContext(context.Background(), a, "starts", epoch)
			got, err := a.StartSession(ctx, "starts")
			if err == nil {
				if got != epoch {
					t.Errorf("epoch %d instead of %d", got, epoch)
				}
				return
			}
			link, err := w.client.GetLinkedPod(ctx, get("starts"))
			if err == nil && link.GetLink().GetPodId() != 0 { // Its end was faster.
				epoch = w.link("starts", 0)
			}
		}
	}()
	resume()
	<-again
	require.Eventually(t, func() bool { _, ending := a.count(); return ending == 0 }, soon, time.Millisecond)
	require.EqualValues(t, -1, w.linked("ends").GetPodId())
	kept := w.linked("kept")
	require.False(t, kept.GetPersistent())
	require.EqualValues(t, 0, kept.GetPodId())
	require.Equal(t, 1, a.Sessions())
	starts := w.linked("starts")
	require.True(t, starts.GetPersistent())
	require.Equal(t, a.sessionEpoch("starts"), starts.GetEpoch())
}

// TestSessionThatDidNotStart: nobody knows whether the link is persistent by now. Without a session it does not stay so.
func TestSessionThatDidNotStart(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, "gRPC", start(t, unhurried...), Options{Timeout: hangTimeout})
	w.ready(0)
	a := w.agent(0, AgentOptions{TTL: 3 * time.Second})
	epoch := w.compute("u").GetEpoch()
	resume := w.hang()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := a.StartSession(guardedContext(ctx, a, "u", epoch), "u")
	require.ErrorIs(t, err, ErrOutcomeUnknown)
	require.Zero(t, a.Sessions())
	resume()
	run(t, a)
	require.Eventually(t, func() bool { _, ending := a.count(); return ending == 0 }, soon, time.Millisecond)
	require.False(t, w.linked("u").GetPersistent())
}

// TestSessionsTakeTurns: a caller who leaves while another one changes the session changes nothing.
func TestSessionsTakeTurns(t *testing.T) {
	w := newWorld(t, "gRPC")
	a := w.agent(0, AgentOptions{})
	w.link("u", 0)
	_, leave, err := a.enter(t.Context(), "u")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = a.StartSession(ctx, "u")
	require.ErrorIs(t, err, ErrCanceled)
	leave()
	require.Empty(t, a.sessions)
	_, err = a.StartSession(t.Context(), "u")
	require.NoError(t, err)
}

// TestSessionsAtRandom: whatever starts and ends at the same time, in the end a session runs exactly where the link is
// persistent.
func TestSessionsAtRandom(t *testing.T) {
	w := newWorld(t, "gRPC")
	w.ready(0)
	var told lost
	a := w.agent(0, AgentOptions{OnLost: told.add, CacheTTL: time.Millisecond})
	run(t, a)
	const users, callers, steps = 3, 8, 60
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range steps {
				uid := fmt.Sprint("u", rand.IntN(users))
				switch rand.IntN(4) {
				case 0:
					a.EndSession(context.Background(), uid, 0)
				case 1:
					a.EndSession(context.Background(), uid, time.Minute)
				default:
					if _, err := a.StartSession(context.Background(), uid); err != nil {
						w.compute(uid)
					}
				}
			}
		})
	}
	all.Wait()
	require.Empty(t, told.get())
	_, ending := a.count()
	require.Zero(t, ending)
	for i := range users {
		uid := fmt.Sprint("u", i)
		link := w.linked(uid)
		epoch := a.sessionEpoch(uid)
		require.Equal(t, epoch != 0, link.GetPersistent(), "%s: epoch %d, %v", uid, epoch, link)
		if epoch != 0 {
			require.Equal(t, epoch, link.GetEpoch())
		}
	}
}

// TestLateRequestLeavesTheSession: a request that the Guard let in before the user was another pod's for a while is about the
// session that runs now.
func TestLateRequestLeavesTheSession(t *testing.T) {
	w := newWorld(t, "gRPC")
	gone := &lost{}
	a := w.agent(0, AgentOptions{OnLost: gone.add})
	late := w.link("u", 0)
	w.link("u", 1)
	w.link("u", 0)
	current := w.begin(a, "u")
	require.Greater(t, current, late)

	epoch, err := a.StartSession(guardedContext(t.Context(), a, "u", late), "u")
	require.NoError(t, err)
	require.Equal(t, current, epoch)
	require.Empty(t, gone.get())
	require.Equal(t, 1, a.Sessions())
	require.True(t, w.linked("u").GetPersistent())
}
