package client

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
)

// watch lets the pod hear by a watch: messages go to the returned watcher. The watch makes progress each second until stop.
func (p *guardedPod) watch(t *testing.T) (to agentWatcher, stop func()) {
	t.Helper()
	to = agentWatcher{p.guard, p.sessions}
	stopped := make(chan struct{})
	go func() {
		for {
			select {
			case <-stopped:
				return
			case <-t.Context().Done():
				return
			case <-time.After(time.Second):
				to.noted(&v1.WatchLinksReply{})
			}
		}
	}()
	to.noted(&v1.WatchLinksReply{Resync: v1.WatchLinksReply_START})
	return to, func() { close(stopped); to.broke() }
}

func changeOf(kind v1.LinkChange_Kind, uid string, link *v1.Link) *v1.WatchLinksReply {
	return &v1.WatchLinksReply{Changes: []*v1.LinkChange{{Kind: kind, Link: &v1.Link{
		Uid: uid, PodId: link.GetPodId(), Epoch: link.GetEpoch(), Persistent: true, TtlSeconds: -1,
	}}}}
}

// TestAgentHearsMoves: a session is lost and its user refused as soon as the watch says so, and podlink too.
func TestAgentHearsMoves(t *testing.T) {
	onGuardedPod(t, func(t *testing.T, p *guardedPod) {
		to, _ := p.watch(t)
		for _, uid := range []string{"u", "stays", "visitor"} {
			p.store.put(uid, 0)
		}
		_, session, err := p.play("u")
		require.NoError(t, err)
		_, _, err = p.play("stays")
		require.NoError(t, err)
		_, err = p.guard.check(t.Context(), "visitor")
		require.NoError(t, err)
		time.Sleep(podTTL / 8)
		for _, uid := range []string{"u", "visitor"} {
			p.store.put(uid, 1)
			to.noted(changeOf(v1.LinkChange_MOVED, uid, p.store.of(uid)))
		}
		to.noted(changeOf(v1.LinkChange_MOVED, "stays", &v1.Link{PodId: 1, Epoch: p.store.of("stays").GetEpoch() + 1})) // It is not so.
		time.Sleep(10 * time.Millisecond)
		require.Equal(t, []string{"u " + number(session.Epoch())}, p.losses())
		<-session.Lost()
		_, err = p.guard.check(t.Context(), "visitor")
		refusedWith(t, err, ErrWrongPod, "visitor", 1, p.store.of("visitor").GetEpoch())
		_, _, err = p.play("stays")
		require.NoError(t, err)
	})
}

// TestSessionsOfAWatch are verified at least once per 20 TTL while the watch is healthy, and without it once per 2 TTL.
func TestSessionsOfAWatch(t *testing.T) {
	onGuardedPod(t, func(t *testing.T, p *guardedPod) {
		const users = 50
		to, stop := p.watch(t)
		time.Sleep(time.Millisecond)
		for i := range users {
			mustStart(t, p.podSessions, fmt.Sprint("u", i))
		}
		checks := func(d time.Duration) int {
			before := p.store.counted("BatchVerify")
			time.Sleep(d)
			synctest.Wait()
			return p.store.counted("BatchVerify") - before
		}
		require.Zero(t, checks(9*podTTL))
		require.Equal(t, users, checks(11*podTTL))
		to.noted(&v1.WatchLinksReply{Resync: v1.WatchLinksReply_GAP})
		require.Equal(t, users, checks(2*podTTL))
		require.Zero(t, checks(7*podTTL))
		stop()
		require.GreaterOrEqual(t, checks(3*podTTL), users)
		require.GreaterOrEqual(t, checks(4*podTTL), 2*users)
		require.Empty(t, p.losses())
	})
}

// TestUncertainSession: a session whose link may have changed is verified at once, and once more when it can't happen any more.
func TestUncertainSession(t *testing.T) {
	onGuardedPod(t, func(t *testing.T, p *guardedPod) {
		to, _ := p.watch(t)
		mustStart(t, p.podSessions, "u")
		to.noted(changeOf(v1.LinkChange_UNCERTAIN, "u", &v1.Link{PodId: 1}))
		time.Sleep(10 * time.Millisecond)
		require.Equal(t, 1, p.store.counted("BatchVerify"))
		p.store.put("u", 1)
		time.Sleep(unsureFor + podTTL/sweepsPerTTL)
		synctest.Wait()
		require.Len(t, p.losses(), 1)
	})
}

// TestGuardDoesNotTrustAWatch: what it knows counts for CacheTTL, also while a watch is healthy.
func TestGuardDoesNotTrustAWatch(t *testing.T) {
	onGuardedPod(t, func(t *testing.T, p *guardedPod) {
		p.watch(t)
		p.store.put("visitor", 0)
		_, err := p.guard.check(t.Context(), "visitor")
		require.NoError(t, err)
		p.store.put("visitor", 1) // The watch does not say so.
		time.Sleep(guardCacheTTL)
		_, err = p.guard.check(t.Context(), "visitor")
		require.ErrorIs(t, err, ErrWrongPod)
	})
}
