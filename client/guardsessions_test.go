package client

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kratos/kratos/v2/transport"
	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
)

// guardedPod is a pod with its sessions and its guard, on a podlink in memory.
type guardedPod struct {
	*podSessions
	guard *guard
}

// onGuardedPod runs a test of pod 0, which reports and asks the store, in virtual time.
func onGuardedPod(t *testing.T, test func(t *testing.T, p *guardedPod)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newPodSessions(newFakeLinks(), 0, 7)
		p := &guardedPod{podSessions: s}
		var err error
		p.guard, err = newGuard(guardOptions{
			links: s.store, lease: s.lease, sessions: s.sessions, namespace: testNamespace, service: testService, pod: 0,
			uid: userField, cacheTTL: guardCacheTTL, timeout: podTimeout, log: s.log,
		})
		require.NoError(t, err)
		t.Cleanup(p.guard.close)
		s.forget, s.onLostDo = p.guard.forget, p.guard.lost
		s.watchedSince = func(now time.Time, within time.Duration) time.Time {
			return p.guard.cache.cover.Load().sinceWhen(now, within)
		}
		runPod(t, s)
		test(t, p)
	})
}

// play is a request of the user, which has a second, and whose handler starts a session. It returns the epochs of both.
func (p *guardedPod) play(uid string) (seen int64, session *Session, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err = p.guard.middleware(func(ctx context.Context, _ any) (any, error) {
		seen = Epoch(ctx)
		session, err = p.start(ctx, uid, p.guard.seen(ctx, uid))
		return nil, err
	})(transport.NewServerContext(ctx, &call{header{}}), &v1.SetWorkloadStateRequest{Service: uid})
	return seen, session, err
}

// TestGuardOfSessions: requests of a user with a session see its epoch, and ask podlink no more often than those of others.
func TestGuardOfSessions(t *testing.T) {
	onGuardedPod(t, func(t *testing.T, p *guardedPod) {
		linked := p.store.put("u", 0)
		seen, session, err := p.play("u")
		require.NoError(t, err)
		require.Equal(t, linked, seen)
		require.Greater(t, session.Epoch(), linked)
		asked := p.store.count("Get")
		for range 100 {
			seen, again, err := p.play("u")
			require.NoError(t, err)
			require.Equal(t, session.Epoch(), seen)
			require.Equal(t, session.Epoch(), again.Epoch())
			time.Sleep(100 * time.Millisecond)
		}
		require.LessOrEqual(t, p.store.count("Get")-asked, int(10*time.Second/guardCacheTTL))
	})
}

// TestGuardNoticesLoss: a request of a user who was moved is refused within CacheTTL, and the session is lost with it.
func TestGuardNoticesLoss(t *testing.T) {
	onGuardedPod(t, func(t *testing.T, p *guardedPod) {
		p.store.put("u", 0)
		_, session, err := p.play("u")
		require.NoError(t, err)
		moved := p.store.put("u", 1)
		begin := time.Now()
		for err == nil {
			time.Sleep(100 * time.Millisecond)
			_, _, err = p.play("u")
		}
		refusedWith(t, err, ErrWrongPod, "u", 1, moved)
		require.LessOrEqual(t, time.Since(begin), guardCacheTTL+100*time.Millisecond)
		synctest.Wait()
		require.Equal(t, []string{"u " + number(session.Epoch())}, p.losses())
		<-session.Lost()
	})
}

// TestGuardOfLostStore: when podlink's store has lost everything, a session's user is refused at most until the next reports, and
// then served under a greater epoch; the session goes on. A user without a session is nobody's.
func TestGuardOfLostStore(t *testing.T) {
	onGuardedPod(t, func(t *testing.T, p *guardedPod) {
		p.store.put("u", 0)
		p.store.put("visitor", 0)
		_, session, err := p.play("u")
		require.NoError(t, err)
		before := session.Epoch()
		time.Sleep(guardCacheTTL)
		p.store.flush()
		begin := time.Now()
		for {
			seen, _, err := p.play("u")
			if err == nil {
				require.Equal(t, session.Epoch(), seen)
				break
			}
			require.ErrorIs(t, err, ErrLinkUncertain)
			time.Sleep(100 * time.Millisecond)
		}
		require.LessOrEqual(t, time.Since(begin), podTTL/3+time.Second)
		require.Greater(t, session.Epoch(), before)
		require.Empty(t, p.losses())
		_, _, err = p.play("visitor")
		refusedWith(t, err, ErrWrongPod, "visitor", -1, 0)
	})
}

// TestGuardOfOlderLink: a failover of podlink's store has brought back the link from before the session. It is claimed again within
// the request that finds it, which is served.
func TestGuardOfOlderLink(t *testing.T) {
	onGuardedPod(t, func(t *testing.T, p *guardedPod) {
		older := p.store.put("u", 0)
		_, session, err := p.play("u")
		require.NoError(t, err)
		before := session.Epoch()
		time.Sleep(guardCacheTTL)
		p.store.mu.Lock()
		p.store.links["u"] = fakeLink{pod: 0, epoch: older}
		p.store.mu.Unlock()
		seen, _, err := p.play("u")
		require.NoError(t, err)
		require.Greater(t, seen, before)
		require.Equal(t, seen, session.Epoch())
		require.Empty(t, p.losses())
	})
}

// TestGuardOfSessionWithoutPodlink: a session that has just begun is known, though podlink falls silent, or does not accept the pod's
// token any more, before it was asked again.
func TestGuardOfSessionWithoutPodlink(t *testing.T) {
	for name, why := range map[string]error{"away": ErrUnavailable, "not known": ErrUnauthenticated, "not permitted": ErrPermissionDenied} {
		t.Run(name, func(t *testing.T) { guardWithoutPodlink(t, why) })
	}
}

func guardWithoutPodlink(t *testing.T, why error) {
	t.Helper()
	onGuardedPod(t, func(t *testing.T, p *guardedPod) {
		p.store.put("u", 0)
		_, session, err := p.play("u")
		require.NoError(t, err)
		p.silent.Store(true)
		p.store.setAround(func(context.Context, string, func()) error { return withCause(why, nil) })
		begin := time.Now()
		for err == nil {
			time.Sleep(500 * time.Millisecond)
			_, _, err = p.play("u")
		}
		require.ErrorIs(t, err, ErrLinkUncertain)
		require.InDelta(t, podTTL, time.Since(begin), float64(time.Second))
		p.store.setAround(nil)
		p.silent.Store(false)
		p.guard.cache.way.note("", nil)
		p.report()
		time.Sleep(time.Second)
		seen, again, err := p.play("u")
		require.NoError(t, err)
		require.Equal(t, session.Epoch(), seen, "nobody has moved the user")
		require.Equal(t, seen, again.Epoch())
		require.Empty(t, p.losses())
	})
}
