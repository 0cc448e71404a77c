package client

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
)

// TestLostStore: after podlink's store has lost all links, each session of the living pods has its link again within 2 TTL,
// with a greater epoch.
func TestLostStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeLinks()
		handles := map[*podSessions][]*Session{}
		before := map[*Session]int64{}
		for pod := range int32(3) {
			p := runPod(t, newPodSessions(store, pod, int64(7+pod)))
			for i := range 20 {
				h := mustStart(t, p, fmt.Sprint("u", pod, "-", i))
				handles[p] = append(handles[p], h)
				before[h] = h.Epoch()
			}
		}
		sleep(t.Context(), podTTL/2)
		store.flush()
		sleep(t.Context(), 2*podTTL)
		for p, all := range handles {
			require.Empty(t, p.losses())
			for i, h := range all {
				requireHeld(t, p, fmt.Sprint("u", p.pod, "-", i), h.Epoch())
				require.Greater(t, h.Epoch(), before[h])
			}
		}
		require.LessOrEqual(t, store.count("BatchSet"), 30, "in batches")
		require.Zero(t, store.count("SetIfAbsent"))
	})
}

// TestLostStoreAndOthers: meanwhile routers have made new links: to the same pod, which claims it, or to another one, which
// has the user now.
func TestLostStoreAndOthers(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		same, other := mustStart(t, p, "same"), mustStart(t, p, "other")
		temporary := mustStart(t, p, "temporary")
		p.store.flush()
		p.store.mu.Lock()
		p.store.latest["same"] = same.Epoch() // A caller that knew it has put it back.
		p.store.mu.Unlock()
		routed := p.store.put("same", 0)
		require.Greater(t, routed, same.Epoch())
		p.store.put("other", 1)
		p.store.mu.Lock()
		p.store.links["temporary"] = fakeLink{pod: 0, epoch: 5, end: time.Now().Add(time.Hour)}
		p.store.mu.Unlock()
		lostEpoch := temporary.Epoch()
		sleep(t.Context(), 2*podTTL)
		require.Equal(t, []string{fmt.Sprint("other ", other.Epoch())}, p.losses())
		require.Greater(t, same.Epoch(), routed)
		requireHeld(t, p, "same", same.Epoch())
		require.Greater(t, temporary.Epoch(), lostEpoch)
		requireHeld(t, p, "temporary", temporary.Epoch())
	})
}

// TestFailover brings back the link as it was before it was claimed.
func TestFailover(t *testing.T) {
	for name, store := range map[string]string{"noticed": "store-2", "not noticed": "store-1"} {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, p *podSessions) {
				seen := p.store.put("u", 0)
				h, err := p.start(t.Context(), "u", seen)
				require.NoError(t, err)
				before := h.Epoch()
				p.store.mu.Lock()
				p.store.store = store
				p.store.links["u"] = fakeLink{pod: 0, epoch: seen}
				p.store.mu.Unlock()
				sleep(t.Context(), podTTL/3)
				begun := time.Now()
				p.saw("u", p.store.of("u"), begun)
				if held := p.holding("u"); held.epoch == before { // Else the sweep was faster, at this very moment.
					require.Equal(t, holding{epoch: before, uncertain: true}, held)
				}
				held, err := p.restore(t.Context(), "u")
				require.NoError(t, err)
				require.Equal(t, begun, time.Now(), "at once")
				require.Greater(t, held.epoch, before)
				requireHeld(t, p, "u", held.epoch)
				require.Equal(t, held.epoch, h.Epoch())
				require.Empty(t, p.losses())
			})
		})
	}
}

// TestLateRestore: a restore that is carried out when its session is lost releases the link again, and the session keeps the epoch with
// which it was lost: with the greater one its pod could write over what the user's next pod stores.
func TestLateRestore(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		h := mustStart(t, p, "u")
		before := h.Epoch()
		var first sync.Once
		arrived, carryOut := make(chan struct{}), make(chan struct{})
		p.store.setAround(func(_ context.Context, method string, do func()) error {
			if method == "BatchSet" {
				first.Do(func() { close(arrived) })
				<-carryOut
			}
			do()
			return nil
		})
		p.store.flush()
		<-arrived
		p.lease.supersede()
		<-h.Lost()
		close(carryOut)
		sleep(t.Context(), podTTL)
		require.Equal(t, []string{fmt.Sprint("u ", before)}, p.losses())
		require.Equal(t, before, h.Epoch())
		require.EqualValues(t, -1, p.store.of("u").GetPodId(), "the link is released")
		requireCount(t, p, 0, 0)
	})
}

// TestRemovedLink: a link that somebody has removed is not restored. The session is lost, but not before podlink would have
// noticed the loss of its store.
func TestRemovedLink(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		h := mustStart(t, p, "u")
		sleep(t.Context(), time.Second)
		p.store.drop("u")
		seen := time.Now()
		p.saw("u", p.store.of("u"), seen)
		sleep(t.Context(), settleTime-time.Second)
		require.Equal(t, holding{epoch: h.Epoch(), uncertain: true}, p.holding("u"))
		held, err := p.restore(t.Context(), "u")
		require.ErrorIs(t, err, ErrLinkUncertain)
		require.True(t, held.uncertain)
		_, err = p.start(t.Context(), "u", h.Epoch())
		require.ErrorIs(t, err, ErrLinkUncertain)
		require.Empty(t, p.losses())
		<-h.Lost()
		require.LessOrEqual(t, time.Since(seen), settleTime+podTTL/3+time.Second)
		synctest.Wait()
		require.Equal(t, []string{fmt.Sprint("u ", h.Epoch())}, p.losses())
		require.EqualValues(t, -1, p.store.of("u").GetPodId())
		held, err = p.restore(t.Context(), "u")
		require.NoError(t, err)
		require.Zero(t, held)
	})
}

// TestRemovedLinkThatIsMadeAgain: a caller makes a link for the pod in place of the one that was removed. The session is lost as soon as it
// would be without that.
func TestRemovedLinkThatIsMadeAgain(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		h := mustStart(t, p, "u")
		p.store.drop("u")
		p.saw("u", p.store.of("u"), p.now())
		sleep(t.Context(), settleTime-time.Second)
		p.store.put("u", p.pod)
		p.saw("u", p.store.of("u"), p.now())
		require.Empty(t, p.losses())
		sleep(t.Context(), time.Second+podTTL/2+longestBackoff)
		require.Equal(t, []string{fmt.Sprint("u ", h.Epoch())}, p.losses())
	})
}

// TestSlowlyNoticedLossOfAUserWhoCameBack: a failover loses the link, the next request makes it again for the same pod, and
// podlink notices the failover a moment later. The session goes on.
func TestSlowlyNoticedLossOfAUserWhoCameBack(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		h := mustStart(t, p, "u")
		before := h.Epoch()
		sleep(t.Context(), time.Second)
		p.store.flush()
		lost := p.store.storeID()
		setStore := func(id string) {
			p.store.mu.Lock()
			defer p.store.mu.Unlock()
			p.store.store = id
		}
		setStore("store-1")
		p.store.mu.Lock()
		p.store.latest["u"] = before
		p.store.mu.Unlock()
		routed := p.store.put("u", 0)
		p.saw("u", p.store.of("u"), time.Now())
		p.report()
		sleep(t.Context(), settleTime/2)
		require.True(t, p.holding("u").uncertain)
		setStore(lost)
		p.report()
		sleep(t.Context(), podTTL)
		require.Empty(t, p.losses())
		require.Greater(t, h.Epoch(), routed)
		requireHeld(t, p, "u", h.Epoch())
	})
}

// TestSlowlyNoticedLoss: podlink needs some seconds to notice that a node with links has lost them, while the service's pods
// are on another one. The session waits for that.
func TestSlowlyNoticedLoss(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		h := mustStart(t, p, "u")
		before := h.Epoch()
		sleep(t.Context(), time.Second)
		p.store.drop("u")
		p.saw("u", p.store.of("u"), time.Now())
		sleep(t.Context(), 5*time.Second)
		p.store.mu.Lock()
		p.store.store = "store-2"
		p.store.mu.Unlock()
		sleep(t.Context(), podTTL/3)
		require.Empty(t, p.losses())
		require.Greater(t, h.Epoch(), before)
		requireHeld(t, p, "u", h.Epoch())
	})
}

// TestGoneForAMoment: a link that is back before the session is given up was never lost.
func TestGoneForAMoment(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		h := mustStart(t, p, "u")
		sleep(t.Context(), time.Second)
		p.saw("u", &v1.Link{PodId: -1}, time.Now())
		require.True(t, p.holding("u").uncertain)
		sleep(t.Context(), podTTL)
		requireHeld(t, p, "u", h.Epoch())
		require.Empty(t, p.losses())
	})
}

// TestRestoreIsRepeated: its answer is lost, podlink is away for a while, or one user's link can't be restored.
func TestRestoreIsRepeated(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		u, bad := mustStart(t, p, "u"), mustStart(t, p, "bad")
		sleep(t.Context(), time.Second)
		p.store.fail("bad", v1.ErrorLimitExceeded("full"))
		var lostAnswers atomic.Int32
		p.store.setAround(func(ctx context.Context, method string, do func()) error {
			if method == "BatchSet" && lostAnswers.Add(1) <= 3 {
				return loses(ctx, method, do)
			}
			do()
			return nil
		})
		p.store.flush()
		for _, uid := range []string{"u", "bad"} {
			p.saw(uid, &v1.Link{PodId: -1}, time.Now())
		}
		sleep(t.Context(), 2*podTTL)
		require.Greater(t, lostAnswers.Load(), int32(3))
		requireHeld(t, p, "u", u.Epoch())
		require.True(t, p.holding("bad").uncertain)
		require.Empty(t, p.losses())
		require.LessOrEqual(t, p.store.count("BatchSet"), 50)
		p.store.fail("bad", nil)
		sleep(t.Context(), 2*longestBackoff)
		requireHeld(t, p, "bad", bad.Epoch())
	})
}

// TestRestoreForRequests: a start waits for the report that decides.
func TestRestoreForRequests(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		h := mustStart(t, p, "u")
		before := h.Epoch()
		sleep(t.Context(), time.Second)
		p.store.flush()
		p.store.mu.Lock()
		p.store.latest["u"] = before
		p.store.mu.Unlock()
		routed := p.store.put("u", 0)
		again, err := p.start(t.Context(), "u", routed)
		require.NoError(t, err)
		require.Equal(t, h.Epoch(), again.Epoch())
		require.Greater(t, h.Epoch(), routed)
		requireHeld(t, p, "u", h.Epoch())

		sleep(t.Context(), time.Second)
		p.silent.Store(true)
		p.store.put("u", 1)
		greater := p.store.put("u", 0)
		_, err = p.start(t.Context(), "u", greater)
		require.ErrorIs(t, err, ErrLinkUncertain, "no report says that the store has not lost the link")
		p.silent.Store(false)
		_, err = p.start(t.Context(), "u", greater)
		require.ErrorIs(t, err, ErrLinkUncertain, "podlink may not have noticed yet that its store is another one")
		sleep(t.Context(), settleTime)
		renewed, err := p.start(t.Context(), "u", greater)
		require.NoError(t, err)
		require.Greater(t, renewed.Epoch(), greater)
		synctest.Wait()
		require.Equal(t, []string{fmt.Sprint("u ", h.Epoch())}, p.losses())
	})
}

// TestClaimedByALaterProcess: such a link is not claimed back, whatever the store has lost.
func TestClaimedByALaterProcess(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		h := mustStart(t, p, "u")
		p.store.flush()
		p.store.mu.Lock()
		p.store.links["u"] = fakeLink{pod: 0, epoch: 5, claim: p.process + 1}
		p.store.mu.Unlock()
		sleep(t.Context(), 2*podTTL)
		<-h.Lost()
		require.EqualValues(t, 5, p.store.of("u").GetEpoch())
	})
}

// TestWithoutStoreID: where reports never say which store it is, a link that is gone is restored.
func TestWithoutStoreID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPodSessions(newFakeLinks(), 0, 7)
		p.lease.renew(renewal{begun: time.Now(), generation: 7, unconfirmed: true})
		go p.run(t.Context())
		h := mustStart(t, p, "u")
		p.store.drop("u")
		sleep(t.Context(), 2*podTTL)
		requireHeld(t, p, "u", h.Epoch())
		require.Empty(t, p.losses())
	})
}

// TestManyLosses: OnLost is called once for each of thousands of sessions, though all parts see the loss at once.
func TestManyLosses(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		const users = 3000
		for i := range users {
			mustStart(t, p, fmt.Sprint("u", i))
		}
		sleep(t.Context(), time.Second)
		for i := range users {
			p.store.put(fmt.Sprint("u", i), 1)
		}
		var all sync.WaitGroup
		for part := range 4 {
			all.Go(func() {
				for i := part; i < users; i += 2 {
					p.saw(fmt.Sprint("u", i), &v1.Link{PodId: 1, Epoch: 1 << 60}, time.Now())
				}
			})
		}
		all.Wait()
		sleep(t.Context(), 2*podTTL)
		losses := p.losses()
		require.Len(t, losses, users)
		for i := 1; i < len(losses); i++ {
			uid, _, _ := strings.Cut(losses[i], " ")
			require.False(t, strings.HasPrefix(losses[i-1], uid+" "))
		}
		requireCount(t, p, 0, 0)
		require.Empty(t, p.byUID)
		require.Nil(t, p.order.first)
	})
}

// TestLateCheck: the answer of a check was in flight while the store lost the link and podlink reported so.
func TestLateCheck(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		h := mustStart(t, p, "u")
		before := h.Epoch()
		var checks atomic.Int32
		p.store.setAround(func(_ context.Context, method string, do func()) error {
			do()
			if method == "BatchVerify" {
				checks.Add(1)
				time.Sleep(2 * time.Second)
			}
			return nil
		})
		for checks.Load() == 0 {
			sleep(t.Context(), time.Second)
		}
		p.store.flush()
		p.report()
		sleep(t.Context(), 2*podTTL)
		require.Empty(t, p.losses())
		require.Greater(t, h.Epoch(), before)
		requireHeld(t, p, "u", h.Epoch())
	})
}

// TestStreamsOfLostUsersEnd also while OnLost blocks for another user.
func TestStreamsOfLostUsersEnd(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		first, second := mustStart(t, p, "first"), mustStart(t, p, "second")
		revoked := make(chan string, 2)
		p.revoke = func(uid string, epoch int64) { revoked <- fmt.Sprint(uid, " ", epoch) }
		block := make(chan struct{})
		p.onLostDo = func(string, int64) { <-block }
		sleep(t.Context(), time.Second)
		p.saw("first", &v1.Link{PodId: 1, Epoch: 1}, time.Now())
		require.Equal(t, fmt.Sprint("first ", first.Epoch()), <-revoked)
		synctest.Wait()
		p.saw("second", &v1.Link{PodId: 1, Epoch: 1}, time.Now())
		require.Equal(t, fmt.Sprint("second ", second.Epoch()), <-revoked)
		synctest.Wait()
		require.Len(t, p.losses(), 1)
		close(block)
		synctest.Wait()
		require.Len(t, p.losses(), 2)
	})
}
