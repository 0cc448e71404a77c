package client

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
)

func TestEndKeepsTheLink(t *testing.T) {
	for name, row := range map[string]struct {
		keep time.Duration
		ttl  int32 // 0: the link is removed
	}{
		"removed":           {},
		"kept":              {keep: 300 * time.Second, ttl: 300},
		"rounded up":        {keep: 300*time.Second - time.Millisecond, ttl: 300},
		"kept for a blink":  {keep: time.Nanosecond, ttl: 1},
		"kept for less":     {keep: -time.Second},
		"kept for too long": {keep: 1 << 62, ttl: 1<<31 - 1},
	} {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, p *podSessions) {
				h := mustStart(t, p, "u")
				canceled, cancel := context.WithCancel(t.Context())
				cancel()
				h.End(canceled, row.keep) // Whether the caller stays or not.
				synctest.Wait()
				requireCount(t, p, 0, 0)
				require.Empty(t, p.byUID)
				link := p.store.of("u")
				if row.ttl == 0 {
					require.EqualValues(t, -1, link.GetPodId())
					return
				}
				require.Equal(t, row.ttl, link.GetTtlSeconds())
				require.Equal(t, h.Epoch(), link.GetEpoch())
			})
		})
	}
}

// TestEndOfAnothersUser leaves the link of whoever holds the user by now.
func TestEndOfAnothersUser(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		h := mustStart(t, p, "u")
		p.store.put("u", 1)
		h.End(t.Context(), 0)
		synctest.Wait()
		requireCount(t, p, 0, 0)
		require.EqualValues(t, 1, p.store.of("u").GetPodId())
		require.Empty(t, p.losses())
	})
}

// TestEndingNeverBlocks: sessions end while podlink is away, and podlink hears of each when it is back.
func TestEndingNeverBlocks(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		const users = 8000
		var all []*Session
		for i := range users {
			all = append(all, mustStart(t, p, fmt.Sprint("u", i)))
		}
		p.store.setAround(hang)
		begin := time.Now()
		for _, h := range all[1:] {
			h.End(t.Context(), 0)
		}
		require.Zero(t, time.Since(begin))
		requireCount(t, p, 1, users-1)
		sleep(t.Context(), time.Minute)
		requireCount(t, p, 1, users-1)
		p.sessions.mu.Lock()
		require.LessOrEqual(t, len(p.ends)+len(p.delayed), users, "the queue is bounded by the sessions")
		p.sessions.mu.Unlock()
		p.store.setAround(nil)
		sleep(t.Context(), podTimeout+3*longestBackoff)
		requireCount(t, p, 1, 0)
		requireHeld(t, p, "u0", all[0].Epoch())
		require.Equal(t, 1, p.store.size())
	})
}

// TestOneEndThatFails holds up no other.
func TestOneEndThatFails(t *testing.T) {
	for name, row := range map[string]struct {
		problem error
		left    int
	}{
		"its node is away": {problem: v1.ErrorStoreUnavailable("away"), left: 1},
		"for good":         {problem: v1.ErrorStoreDataCorrupt("corrupt")},
	} {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, p *podSessions) {
				bad := mustStart(t, p, "bad")
				good := []*Session{mustStart(t, p, "u1"), mustStart(t, p, "u2"), mustStart(t, p, "u3")}
				p.store.fail("bad", row.problem)
				bad.End(t.Context(), 0)
				synctest.Wait()
				for _, h := range good {
					h.End(t.Context(), 0)
				}
				synctest.Wait()
				requireCount(t, p, 0, row.left)
				require.Equal(t, 1, p.store.size())
				begin := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				_, ending := p.handOver(ctx)
				require.Equal(t, row.left, ending)
				require.LessOrEqual(t, p.store.count("BatchRemove"), 20, "in %s", time.Since(begin))
				p.store.fail("bad", nil)
				sleep(t.Context(), 2*longestBackoff)
				requireCount(t, p, 0, 0)
			})
		})
	}
}

// TestStartWhileTheEndIsQueued: the session that starts again does not lose its link to the end of the one before.
func TestStartWhileTheEndIsQueued(t *testing.T) {
	for name, keep := range map[string]time.Duration{"removed": 0, "kept": time.Minute} {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, p *podSessions) {
				before := mustStart(t, p, "u")
				var back atomic.Bool
				p.store.setAround(func(_ context.Context, method string, do func()) error {
					if method == "BatchRemove" && !back.Load() {
						return ErrUnavailable
					}
					do()
					return nil
				})
				before.End(t.Context(), keep)
				sleep(t.Context(), 5*time.Second)
				requireCount(t, p, 0, 1)
				h, err := p.start(t.Context(), "u", before.Epoch())
				require.NoError(t, err)
				require.Greater(t, h.Epoch(), before.Epoch())
				back.Store(true)
				sleep(t.Context(), podTTL)
				requireHeld(t, p, "u", h.Epoch())
				requireCount(t, p, 1, 0)
				require.Empty(t, p.losses())
				h.End(t.Context(), 0)
				synctest.Wait()
				require.EqualValues(t, -1, p.store.of("u").GetPodId())
			})
		})
	}
}

// TestEndAfterALostRestore: the end is sent again with the epoch of the restore whose answer was lost.
func TestEndAfterALostRestore(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		h := mustStart(t, p, "u")
		p.store.setAround(func(ctx context.Context, method string, do func()) error {
			if method == "BatchSet" || method == "SetIfAbsent" {
				return loses(ctx, method, do)
			}
			if method == "BatchVerify" && p.store.of("u").GetClaim() == p.process && p.store.of("u").GetEpoch() > h.Epoch() {
				return ErrUnavailable // So that it learns nothing.
			}
			do()
			return nil
		})
		p.store.flush()
		sleep(t.Context(), 2*podTTL)
		require.Greater(t, p.store.of("u").GetEpoch(), h.Epoch(), "it is restored")
		p.store.setAround(func(_ context.Context, method string, do func()) error {
			if method == "BatchSet" {
				return ErrUnavailable
			}
			do()
			return nil
		})
		h.End(t.Context(), 0)
		sleep(t.Context(), podTTL)
		requireCount(t, p, 0, 1)
		p.store.setAround(nil)
		sleep(t.Context(), podTTL)
		requireCount(t, p, 0, 0)
		require.EqualValues(t, -1, p.store.of("u").GetPodId())
	})
}

// TestEndThatShowsTheOwnClaim: the link has a greater epoch that this process has claimed.
func TestEndThatShowsTheOwnClaim(t *testing.T) {
	onFake(t, func(t *testing.T, p *podSessions) {
		h := mustStart(t, p, "u")
		greater := h.Epoch() + 5
		p.store.mu.Lock()
		p.store.links["u"] = fakeLink{pod: 0, epoch: greater, claim: p.process}
		p.store.mu.Unlock()
		h.End(t.Context(), 0)
		synctest.Wait()
		requireCount(t, p, 0, 0)
		require.EqualValues(t, -1, p.store.of("u").GetPodId())

		h = mustStart(t, p, "v")
		p.store.mu.Lock()
		p.store.links["v"] = fakeLink{pod: 0, epoch: h.Epoch() + 5, claim: p.process + 1}
		p.store.mu.Unlock()
		h.End(t.Context(), 0)
		synctest.Wait()
		requireCount(t, p, 0, 0)
		require.EqualValues(t, 0, p.store.of("v").GetPodId(), "another process has claimed it")
	})
}
