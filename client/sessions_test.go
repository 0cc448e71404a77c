package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
)

// onFake runs a test of the sessions of pod 0, generation 7, in virtual time.
func onFake(t *testing.T, test func(t *testing.T, p *podSessions)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, runPod(t, newPodSessions(newFakeLinks(), 0, 7))) })
}

// mustStart starts the session of a user who is linked to the pod.
func mustStart(t *testing.T, p *podSessions, uid string) *Session {
	t.Helper()
	epoch := p.store.put(uid, p.pod)
	h, err := p.start(t.Context(), uid, epoch)
	require.NoError(t, err)
	requireHeld(t, p, uid, h.Epoch())
	return h
}

// requireHeld requires that the session runs with that epoch, and that podlink agrees.
func requireHeld(t *testing.T, p *podSessions, uid string, epoch int64) {
	t.Helper()
	held := p.holding(uid)
	require.Equal(t, epoch, held.epoch)
	require.False(t, held.uncertain)
	require.False(t, held.verified.IsZero())
	link := p.store.of(uid)
	require.Equal(t, p.pod, link.GetPodId())
	require.Equal(t, epoch, link.GetEpoch())
	require.Equal(t, p.process, link.GetClaim())
	require.True(t, link.GetPersistent())
}

func requireCount(t *testing.T, p *podSessions, running, ending int) {
	t.Helper()
	gotRunning, gotEnding := p.count()
	require.Equal(t, []int{running, ending}, []int{gotRunning, gotEnding})
}

func TestStartClaimsTheLink(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		seen := p.store.put("u", 0)
		h, err := p.start(t.Context(), "u", seen)
		require.NoError(t, err)
		require.Greater(t, h.Epoch(), seen, "an epoch that no other process ever held")
		requireHeld(t, p, "u", h.Epoch())

		calls := p.store.count("Set")
		for _, seen := range []int64{seen, h.Epoch(), 0} {
			again, err := p.start(t.Context(), "u", seen)
			require.NoError(t, err)
			require.Equal(t, h.Epoch(), again.Epoch())
		}
		require.Equal(t, calls, p.store.count("Set"), "the session runs already")
		require.Zero(t, p.store.count("Get"))
		requireCount(t, p, 1, 0)

		seen = p.store.put("without a guard", 0)
		h, err = p.start(t.Context(), "without a guard", 0)
		require.NoError(t, err)
		require.Greater(t, h.Epoch(), seen)
		requireHeld(t, p, "without a guard", h.Epoch())
	})
}

func TestStartOfAnothersUser(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		other := p.store.put("elsewhere", 1)
		moved := p.store.put("moved", 0)
		movedTo := p.store.put("moved", 1)
		stale := p.store.put("returned", 0)
		p.store.put("returned", 1)
		current := p.store.put("returned", 0)
		removed := p.store.put("removed", 0)
		p.store.drop("removed")
		for name, row := range map[string]struct {
			uid   string
			seen  int64
			pod   string
			epoch int64
		}{
			"another's":            {uid: "elsewhere", pod: "1", epoch: other},
			"nobody's":             {uid: "nobody", pod: "-1"},
			"another's since":      {uid: "moved", seen: moved, pod: "1", epoch: movedTo},
			"nobody's since":       {uid: "removed", seen: removed, pod: "-1"},
			"its own, yet another": {uid: "returned", seen: stale, pod: "0", epoch: current},
		} {
			before := p.store.of(row.uid)
			_, err := p.start(t.Context(), row.uid, row.seen)
			require.ErrorIs(t, err, ErrWrongPod, name)
			metadata := kerrors.FromError(err).Metadata
			require.Equal(t, row.pod, metadata["pod_id"], name)
			require.Equal(t, fmt.Sprint(row.epoch), metadata["epoch"], name)
			require.Equal(t, before, p.store.of(row.uid), name)
		}
		requireCount(t, p, 0, 0)
	})
}

// TestEveryHandleCounts: two connections of one user are one session, which ends with the last of them.
func TestEveryHandleCounts(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		first := mustStart(t, p, "u")
		second, err := p.start(t.Context(), "u", first.Epoch())
		require.NoError(t, err)
		first.End(t.Context(), 0)
		first.End(t.Context(), 0) // It has ended already.
		synctest.Wait()
		requireHeld(t, p, "u", second.Epoch())
		requireCount(t, p, 1, 0)

		second.End(t.Context(), time.Minute)
		require.Equal(t, holding{}, p.holding("u"))
		synctest.Wait()
		requireCount(t, p, 0, 0)
		link := p.store.of("u")
		require.EqualValues(t, 60, link.GetTtlSeconds())
		require.Equal(t, second.Epoch(), link.GetEpoch())
		require.Empty(t, p.losses())
		select {
		case <-first.Lost():
			t.Error("it has ended, and was not lost")
		default:
		}
	})
}

// TestStartsNeedAGeneration: before podlink knows the process no session starts.
func TestStartsNeedAGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPodSessions(newFakeLinks(), 0, 7)
		go p.run(t.Context())
		seen := p.store.put("u", 0)
		begin := time.Now()
		_, err := p.start(t.Context(), "u", seen)
		require.ErrorIs(t, err, ErrLinkUncertain)
		require.Equal(t, podTimeout, time.Since(begin))
		require.Zero(t, p.store.count("Set"))

		go func() { sleep(t.Context(), time.Second); p.report() }()
		begin = time.Now()
		h, err := p.start(t.Context(), "u", seen)
		require.NoError(t, err)
		require.Equal(t, time.Second, time.Since(begin))
		requireHeld(t, p, "u", h.Epoch())
	})
}

// TestTwoProcessesOfAnOrdinal never hold one epoch, and the older one's end leaves the younger one's link alone.
func TestTwoProcessesOfAnOrdinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeLinks()
		old, young := runPod(t, newPodSessions(store, 0, 7)), runPod(t, newPodSessions(store, 0, 8))
		before := mustStart(t, old, "u")
		mustStart(t, old, "v").End(t.Context(), 0)
		after, err := young.start(t.Context(), "u", before.Epoch())
		require.NoError(t, err)
		require.Greater(t, after.Epoch(), before.Epoch())
		requireHeld(t, young, "u", after.Epoch())

		_, err = old.start(t.Context(), "u", after.Epoch())
		require.ErrorIs(t, err, ErrSuperseded)
		before.End(t.Context(), 0)
		sleep(t.Context(), 2*podTTL)
		requireHeld(t, young, "u", after.Epoch())
		require.Equal(t, []string{fmt.Sprint("u ", before.Epoch())}, old.losses())
		require.Empty(t, young.losses())

		_, err = old.start(t.Context(), "u", after.Epoch())
		require.ErrorIs(t, err, ErrSuperseded)
		requireCount(t, old, 0, 0)
		state, _ := old.lease.state()
		require.False(t, state.superseded, "a report decides about that")
	})
}

// TestRestartedProcess: what a process before it has claimed gets a new epoch.
func TestRestartedProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeLinks()
		crashed := runPod(t, newPodSessions(store, 0, 7))
		before := mustStart(t, crashed, "u")
		next := runPod(t, newPodSessions(store, 0, 8))
		h, err := next.start(t.Context(), "u", 0)
		require.NoError(t, err)
		require.Greater(t, h.Epoch(), before.Epoch())
		requireHeld(t, next, "u", h.Epoch())
	})
}

// TestSuperseded: all sessions of a process are lost with its pod, and no further one starts.
func TestSuperseded(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		u, v := mustStart(t, p, "u"), mustStart(t, p, "v")
		p.lease.supersede()
		<-u.Lost()
		<-v.Lost()
		synctest.Wait()
		require.Len(t, p.losses(), 2)
		_, err := p.start(t.Context(), "u", u.Epoch())
		require.ErrorIs(t, err, ErrSuperseded)
		u.End(t.Context(), 0)
		requireCount(t, p, 0, 0)
	})
}

// TestStartEndsInTime also where podlink answers nothing, or loses each answer.
func TestStartEndsInTime(t *testing.T) {
	for name, around := range map[string]func(context.Context, string, func()) error{"hangs": hang, "loses answers": loses} {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, p *podSessions) {
				seen := p.store.put("u", 0)
				p.store.setAround(around)
				begin := time.Now()
				_, err := p.start(context.Background(), "u", seen)
				require.ErrorIs(t, err, ErrOutcomeUnknown)
				require.LessOrEqual(t, time.Since(begin), podTimeout)

				short, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				begin = time.Now()
				_, err = p.start(short, "u", seen)
				require.Error(t, err)
				require.LessOrEqual(t, time.Since(begin), time.Second)

				// Whether the link is claimed or not: without a session it does not stay persistent.
				p.store.setAround(nil)
				sleep(t.Context(), podTTL)
				requireCount(t, p, 0, 0)
				require.False(t, p.store.of("u").GetPersistent())
				h, err := p.start(t.Context(), "u", 0)
				require.NoError(t, err)
				requireHeld(t, p, "u", h.Epoch())
			})
		})
	}
}

// TestLateClaim: a claim that podlink carries out after the start has failed leaves no persistent link behind.
func TestLateClaim(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		seen := p.store.put("u", 0)
		p.store.setAround(func(ctx context.Context, method string, do func()) error {
			if method != "Set" {
				do()
				return nil
			}
			go func() { sleep(context.Background(), 3500*time.Millisecond); do() }()
			return hang(ctx, method, do)
		})
		_, err := p.start(t.Context(), "u", seen)
		require.ErrorIs(t, err, ErrOutcomeUnknown)
		sleep(t.Context(), podTTL)
		requireCount(t, p, 0, 0)
		require.False(t, p.store.of("u").GetPersistent())
	})
}

// TestLostAnswers: a claim whose answer is lost is repeated, and is one claim.
func TestLostAnswers(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		tries := 0
		p.store.setAround(func(ctx context.Context, method string, do func()) error {
			if tries++; tries < 3 {
				return loses(ctx, method, do)
			}
			do()
			return nil
		})
		h := mustStart(t, p, "u")
		require.Equal(t, 3, tries)
		requireHeld(t, p, "u", h.Epoch())
	})
}

// TestStartsTakeTurns: two starts of one user at once are one claim.
func TestStartsTakeTurns(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		seen := p.store.put("u", 0)
		p.store.setAround(func(_ context.Context, _ string, do func()) error {
			time.Sleep(time.Second)
			do()
			return nil
		})
		var starts sync.WaitGroup
		for range 5 {
			starts.Go(func() {
				if _, err := p.start(t.Context(), "u", seen); err != nil {
					t.Error(err)
				}
			})
		}
		starts.Wait()
		require.Equal(t, 1, p.store.count("Set"))
		short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.NoError(t, p.turns.enter(t.Context(), "v"))
		_, err := p.start(short, "v", p.store.put("v", 0))
		require.ErrorIs(t, err, ErrLinkUncertain)
		p.turns.leave("v")
		require.Empty(t, p.turns.held)
	})
}

// TestDrainWaitsForStarts, and a start that comes after it is refused.
func TestDrainWaitsForStarts(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		seen := p.store.put("u", 0)
		p.store.setAround(func(_ context.Context, _ string, do func()) error {
			time.Sleep(time.Second)
			do()
			return nil
		})
		started := make(chan *Session, 1)
		go func() {
			h, err := p.start(t.Context(), "u", seen)
			if err != nil {
				t.Error(err)
			}
			started <- h
		}()
		synctest.Wait()
		p.drain.Store(true)
		go func() {
			h := <-started
			sleep(t.Context(), time.Second)
			h.End(t.Context(), time.Hour)
		}()
		begin := time.Now()
		running, ending := p.handOver(t.Context())
		require.Equal(t, []int{0, 0}, []int{running, ending})
		require.Equal(t, 3*time.Second, time.Since(begin), "the start, the session, and its end")
		require.EqualValues(t, -1, p.store.of("u").GetPodId(), "a pod that drains keeps no link")

		late := p.store.put("late", 0)
		_, err := p.start(t.Context(), "late", late)
		require.ErrorIs(t, err, ErrWrongPod)
		require.Equal(t, "-1", kerrors.FromError(err).Metadata["pod_id"])
		_, _ = p.handOver(t.Context())
		require.EqualValues(t, -1, p.store.of("late").GetPodId(), "the next request reaches another pod")
	})
}

// TestHandOverIsBounded whatever podlink does, and says what is left.
func TestHandOverIsBounded(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		var all []*Session
		for i := range 60 {
			all = append(all, mustStart(t, p, fmt.Sprint("u", i)))
		}
		p.drain.Store(true)
		p.store.setAround(hang)
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		for _, h := range all[:50] {
			h.End(ctx, 0)
		}
		require.Zero(t, time.Since(begin), "an end waits for nothing")
		running, ending := p.handOver(ctx)
		require.Equal(t, []int{10, 50}, []int{running, ending})
		require.Equal(t, 30*time.Second, time.Since(begin))
	})
}

// TestHandOverInParallel: thousands of sessions that end at once are told in batches.
func TestHandOverInParallel(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		const users = 5000
		var all []*Session
		for i := range users {
			all = append(all, mustStart(t, p, fmt.Sprint("u", i)))
		}
		p.store.setAround(func(_ context.Context, _ string, do func()) error {
			time.Sleep(40 * time.Millisecond)
			do()
			return nil
		})
		begin := time.Now()
		for _, h := range all {
			h.End(t.Context(), 0)
		}
		running, ending := p.handOver(t.Context())
		require.Equal(t, []int{0, 0}, []int{running, ending})
		require.LessOrEqual(t, time.Since(begin), 200*time.Millisecond)
		require.LessOrEqual(t, p.store.count("BatchRemove"), 10)
	})
}

// TestLostUserIsToldWithoutLocks: OnLost may start and end sessions, may wait for a handler that does, and may panic.
func TestLostUserIsToldWithoutLocks(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		var users sync.Mutex // The pod's own, which its handlers hold while they start a session.
		other := mustStart(t, p, "other")
		restarted := make(chan error, 1)
		p.onLostDo = func(string, int64) {
			users.Lock()
			defer users.Unlock()
			other.End(context.Background(), 0)
			_, err := p.start(context.Background(), "third", p.store.put("third", 0))
			restarted <- err
			var none *Session
			_ = none.Epoch() // It panics.
		}
		for i := range 3 {
			uid := fmt.Sprint("u", i)
			h := mustStart(t, p, uid)
			p.store.put(uid, 1)
			users.Lock()
			epoch := p.store.put(uid, 0)
			again, err := p.start(t.Context(), uid, epoch) // It finds that the session before is lost, after a while.
			for begun := time.Now(); err != nil && time.Since(begun) < 2*settleTime; {
				require.ErrorIs(t, err, ErrLinkUncertain)
				users.Unlock()
				sleep(t.Context(), time.Second)
				users.Lock()
				again, err = p.start(t.Context(), uid, epoch)
			}
			require.NoError(t, err)
			require.Greater(t, again.Epoch(), epoch)
			users.Unlock()
			<-h.Lost()
			require.NoError(t, <-restarted)
			synctest.Wait()
			require.Len(t, p.losses(), i+1)
			requireHeld(t, p, uid, again.Epoch())
		}
	})
}

// TestWithoutBatches: an older podlink is asked one by one, and one with a lower limit in smaller batches.
func TestWithoutBatches(t *testing.T) {
	for name, row := range map[string]struct {
		singles bool
		limit   int
	}{"none": {singles: true}, "small ones": {limit: 3}} {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, p *podSessions) {
				p.store.singles, p.store.limit = row.singles, row.limit
				var all []*Session
				for i := range 20 {
					all = append(all, mustStart(t, p, fmt.Sprint("u", i)))
				}
				p.store.put("u0", 1)
				p.store.drop("u1")
				sleep(t.Context(), 2*podTTL+10*time.Second)
				require.Len(t, p.losses(), 2)
				p.store.flush()
				sleep(t.Context(), 2*podTTL)
				require.Len(t, p.losses(), 2)
				for i, h := range all[2:] {
					requireHeld(t, p, fmt.Sprint("u", i+2), h.Epoch())
					h.End(t.Context(), 0)
				}
				sleep(t.Context(), podTTL)
				requireCount(t, p, 0, 0)
				require.Zero(t, p.store.size())
				require.Equal(t, row.singles, p.store.count("Get") > 0)
			})
		})
	}
}

// TestStartWithoutPodlink: a further handle needs no answer while the lease holds.
func TestStartWithoutPodlink(t *testing.T) {
	for name, why := range map[string]error{"away": ErrUnavailable, "not known": ErrUnauthenticated, "not permitted": ErrPermissionDenied} {
		t.Run(name, func(t *testing.T) { startWithoutPodlink(t, why) })
	}
}

func startWithoutPodlink(t *testing.T, why error) {
	t.Helper()
	onFake(t, func(t *testing.T, p *podSessions) {
		h := mustStart(t, p, "u")
		sleep(t.Context(), DefaultGuardCacheTTL+time.Second)
		p.store.setAround(func(context.Context, string, func()) error { return why })
		again, err := p.start(t.Context(), "u", 0)
		require.NoError(t, err)
		require.Equal(t, h.Epoch(), again.Epoch())
		p.silent.Store(true)
		sleep(t.Context(), podTTL+time.Second)
		_, err = p.start(t.Context(), "u", 0)
		require.ErrorIs(t, err, ErrLinkUncertain)
		_, err = p.start(t.Context(), "v", 0)
		require.ErrorIs(t, err, why)
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, p.turns.enter(t.Context(), "v"))
		_, err = p.start(canceled, "v", 1)
		require.ErrorIs(t, err, ErrCanceled)
		p.turns.leave("v")
		requireCount(t, p, 1, 0)
	})
}

// TestSessionForItsHandler: a handler can refuse its user as the guard does, and see that the pod hands its sessions over.
func TestSessionForItsHandler(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		h := mustStart(t, p, "u")
		refusal := h.Refusal()
		require.ErrorIs(t, refusal, ErrWrongPod)
		require.Equal(t, map[string]string{
			"namespace": testNamespace, "service": testService, "uid": "u", "pod_id": "-1", "epoch": "0", "refused_by": number(p.pod),
		}, kerrors.FromError(refusal).Metadata)
		require.False(t, h.Draining())
		p.drain.Store(true)
		require.True(t, h.Draining())
		h.End(t.Context(), 0)
		require.ErrorIs(t, h.Refusal(), ErrWrongPod, "of a session that has ended, too")
	})
}

func TestProblemsAreFinalOrNot(t *testing.T) {
	require.True(t, failed(withCause(ErrEpochMismatch, nil)).final())
	require.False(t, failed(errors.New("broken pipe")).final())
	require.True(t, failed(ErrOutcomeUnknown).open())
	require.False(t, failed(ErrUnavailable).open())
	require.Nil(t, linkIn(map[string]string{"pod_id": "1"}))
	require.Equal(t, int64(3), linkIn(map[string]string{"pod_id": "1", "epoch": "2", "claim": "3"}).GetClaim())
	require.Nil(t, failed(v1.ErrorStoreUnavailable("")).link)
}
