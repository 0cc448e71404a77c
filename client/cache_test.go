package client

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
)

// source is a podlink for a cache: how it answers about each user.
type source struct {
	mu     sync.Mutex
	answer map[string]func(ctx context.Context) (*v1.Link, error)
	asked  map[string]int
	known  *entry // what the cache knew when it asked last
}

func (s *source) set(uid string, answer func(ctx context.Context) (*v1.Link, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer[uid] = answer
}

func (s *source) says(uid string, link *v1.Link) {
	s.set(uid, func(context.Context) (*v1.Link, error) { return link, nil })
}

func (s *source) fails(uid string, err error) {
	s.set(uid, func(context.Context) (*v1.Link, error) { return nil, err })
}

// hangs lets questions about the users wait until the function is called, or the client's time is over.
func (s *source) hangs(uids ...string) (answered func()) {
	ready := make(chan struct{})
	for _, uid := range uids {
		s.mu.Lock()
		before := s.answer[uid]
		s.mu.Unlock()
		s.set(uid, func(ctx context.Context) (*v1.Link, error) {
			select {
			case <-ready:
				return before(ctx)
			case <-time.After(DefaultTimeout):
				return nil, withCause(ErrUnavailable, nil)
			case <-ctx.Done():
				return nil, withCause(ErrUnavailable, ctx.Err())
			}
		})
	}
	return func() { close(ready) }
}

func (s *source) count(uid string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[uid]
}

func (s *source) lookup(ctx context.Context, uid string, known *entry) (*v1.Link, error) {
	s.mu.Lock()
	s.asked[uid]++
	s.known = known
	answer := s.answer[uid]
	s.mu.Unlock()
	return answer(ctx)
}

// asRouter and asGuard are policies: a router keeps every link, a guard those of which podlink says nothing.
func asRouter(string, *entry, error) bool { return true }

func asGuard(_ string, _ *entry, err error) bool { return err == nil || unanswered(err) }

const testTTL = 10 * time.Second

// inCache runs a test with a cache in virtual time.
func inCache(t *testing.T, keeps func(string, *entry, error) bool, test func(t *testing.T, l *linkCache, s *source)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &source{answer: map[string]func(context.Context) (*v1.Link, error){}, asked: map[string]int{}}
		l, err := newLinkCache(cachePolicy{size: 100_000, ttl: testTTL, lookup: s.lookup, keeps: keeps})
		require.NoError(t, err)
		defer l.close()
		test(t, l, s)
	})
}

func persistent(pod int32, epoch int64) *v1.Link {
	return &v1.Link{PodId: pod, Epoch: epoch, Persistent: true, TtlSeconds: -1}
}

func temporary(pod int32, epoch int64, seconds int32) *v1.Link {
	return &v1.Link{PodId: pod, Epoch: epoch, TtlSeconds: seconds}
}

// requirePod requires that the cache says that the user is the pod's, within the time.
func requirePod(t *testing.T, l *linkCache, uid string, pod int32, within time.Duration) {
	t.Helper()
	begun := time.Now()
	link, err := l.get(t.Context(), uid)
	require.NoError(t, err)
	require.Equal(t, pod, link.pod)
	require.Equal(t, number(pod), link.ordinal)
	require.LessOrEqual(t, time.Since(begun), within)
}

// TestLookupIsShared: all who need a link wait for one question.
func TestLookupIsShared(t *testing.T) {
	inCache(t, asRouter, func(t *testing.T, l *linkCache, s *source) {
		s.says("u", persistent(3, 7))
		answer := s.hangs("u")
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { requirePod(t, l, "u", 3, time.Second) })
		}
		synctest.Wait()
		answer()
		all.Wait()
		require.Equal(t, 1, s.count("u"))
		time.Sleep(testTTL - 1)
		requirePod(t, l, "u", 3, 0)
		require.Equal(t, 1, s.count("u"), "it is fresh")
		time.Sleep(time.Nanosecond)
		requirePod(t, l, "u", 3, 0)
		require.Equal(t, 2, s.count("u"))
	})
}

// TestLaterQuestionWins: of two answers the one to the later question counts, whatever its epoch is, as a failover of podlink's store
// may bring back an older one. Where the questions overlap the greater epoch counts.
func TestLaterQuestionWins(t *testing.T) {
	at := func(ms int) time.Duration { return time.Duration(ms) * time.Millisecond }
	for name, row := range map[string]struct {
		asked1, answered1, asked2, answered2 int
		epoch1, epoch2                       int64
		wants                                int64
	}{
		"one after the other, a smaller epoch": {0, 10, 20, 30, 9, 5, 5},
		"one after the other, a greater epoch": {0, 10, 20, 30, 5, 9, 9},
		"at once after the other":              {0, 10, 10, 20, 9, 5, 5},
		"overlapping, a smaller epoch":         {0, 10, 5, 15, 9, 5, 9},
		"overlapping, a greater epoch":         {0, 10, 5, 15, 5, 9, 9},
		"within, asked earlier, smaller":       {5, 10, 0, 15, 9, 5, 9},
		"within, asked earlier, greater":       {5, 10, 0, 15, 5, 9, 9},
	} {
		t.Run(name, func(t *testing.T) {
			inCache(t, asRouter, func(t *testing.T, l *linkCache, _ *source) {
				begun := time.Now()
				until := func(ms int) { time.Sleep(time.Until(begun.Add(at(ms)))) }
				until(row.answered1)
				l.store("u", persistent(1, row.epoch1), begun.Add(at(row.asked1)))
				until(row.answered2)
				told := l.store("u", persistent(1, row.epoch2), begun.Add(at(row.asked2)))
				require.Equal(t, row.wants, told.epoch)
				known, ok := l.known("u")
				require.True(t, ok)
				require.Equal(t, row.wants, known.epoch)
			})
		})
	}
}

// TestLateAnswer: an answer that was given before the link was known to be wrong neither replaces what is known by then, nor is it
// what those are given who still wait for it.
func TestLateAnswer(t *testing.T) {
	for name, wrong := range map[string]func(l *linkCache){
		"invalidate":    func(l *linkCache) { l.invalidate("u") },
		"invalidateAll": func(l *linkCache) { l.invalidateAll() },
		"disowned":      func(l *linkCache) { l.doubt("u", &entry{pod: 1, epoch: 10}, disowned) },
		"invalidateIf":  func(l *linkCache) { l.invalidateIf("u", &entry{pod: 1, epoch: 10}) },
	} {
		t.Run(name, func(t *testing.T) {
			inCache(t, asRouter, func(t *testing.T, l *linkCache, s *source) {
				s.says("u", persistent(1, 10))
				requirePod(t, l, "u", 1, 0)
				time.Sleep(testTTL)
				answerLate := s.hangs("u")
				early := make(chan int32, 1)
				go func() {
					link, err := l.fetch(t.Context(), "u")
					if err != nil {
						t.Error(err)
					}
					early <- link.pod
				}()
				synctest.Wait()
				wrong(l)
				s.says("u", persistent(2, 20))
				requirePod(t, l, "u", 2, 0)
				answerLate()
				require.EqualValues(t, 2, <-early)
				requirePod(t, l, "u", 2, 0)
				require.Equal(t, 3, s.count("u"))
			})
		})
	}
}

func TestInvalidateAndDoubt(t *testing.T) {
	link := func(pod int32, epoch int64) *entry { return &entry{pod: pod, epoch: epoch} }
	for name, row := range map[string]struct {
		do    func(l *linkCache)
		asks  bool  // podlink, next time
		lost  bool  // for those who ask while podlink is away
		known doubt // that podlink is asked with
	}{
		"nothing":                             {do: func(*linkCache) {}},
		"invalidateIf":                        {do: func(l *linkCache) { l.invalidateIf("u", link(1, 10)) }, asks: true, lost: true},
		"invalidateIf, an older link":         {do: func(l *linkCache) { l.invalidateIf("u", link(1, 9)) }},
		"invalidateIf, the epoch elsewhere":   {do: func(l *linkCache) { l.invalidateIf("u", link(2, 10)) }},
		"invalidateIf, another user's":        {do: func(l *linkCache) { l.invalidateIf("v", link(1, 10)) }},
		"invalidate":                          {do: func(l *linkCache) { l.invalidate("u") }, asks: true, lost: true},
		"invalidateAll":                       {do: func(l *linkCache) { l.invalidateAll() }, asks: true, lost: true},
		"markStale":                           {do: func(l *linkCache) { l.markStale("u", link(1, 10)) }, asks: true, known: unreached},
		"markStale, an older link":            {do: func(l *linkCache) { l.markStale("u", link(1, 9)) }},
		"disowned":                            {do: func(l *linkCache) { l.doubt("u", link(1, 10), disowned) }, asks: true, known: disowned},
		"a smaller doubt after a greater one": {asks: true, known: disowned, do: func(l *linkCache) { l.doubt("u", link(1, 10), disowned); l.markStale("u", link(1, 10)) }},
		"trust": {asks: true, do: func(l *linkCache) {
			l.markStale("u", link(1, 10))
			doubted, _ := l.known("u")
			l.trust("u", doubted)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inCache(t, asRouter, func(t *testing.T, l *linkCache, s *source) {
				s.says("u", persistent(1, 10))
				requirePod(t, l, "u", 1, 0)
				row.do(l)
				s.fails("u", withCause(ErrUnavailable, nil))
				link, err := l.get(t.Context(), "u")
				if !row.asks {
					require.Equal(t, 1, s.count("u"))
				} else {
					require.Equal(t, 2, s.count("u"))
				}
				if row.lost {
					require.ErrorIs(t, err, ErrUnavailable)
					return
				}
				require.NoError(t, err)
				require.EqualValues(t, 1, link.pod)
				if row.asks {
					require.Equal(t, row.known, s.known.doubt)
				}
			})
		})
	}
}

// TestAnswersAboutOneUser: whatever podlink answers about one user, another one who was moved is noticed as soon as the link is not
// fresh any more: by a router and by a guard.
func TestAnswersAboutOneUser(t *testing.T) {
	for _, err := range []error{
		v1.ErrorStoreDataCorrupt("corrupt"), v1.ErrorInternal("internal"), ErrStoreUnavailable, ErrStoreFull, ErrReplicationUnconfirmed,
		ErrRateLimited, ErrUnauthenticated, ErrPermissionDenied, ErrInvalidArgument, ErrLimitExceeded, ErrNoAvailablePod, ErrUnavailable, ErrDeadlineExceeded,
		ErrOutcomeUnknown,
	} {
		for name, keeps := range map[string]func(string, *entry, error) bool{"router": asRouter, "guard": asGuard} {
			t.Run(fmt.Sprintf("%v/%s", kerrors.Reason(err), name), func(t *testing.T) {
				inCache(t, keeps, func(t *testing.T, l *linkCache, s *source) {
					s.says("good", persistent(1, 10))
					requirePod(t, l, "good", 1, 0)
					s.fails("bad", withCause(err, nil))
					s.says("good", persistent(2, 20))
					for begun := time.Now(); time.Since(begun) < testTTL; time.Sleep(time.Second) {
						_, got := l.get(t.Context(), "bad")
						require.ErrorIs(t, got, err)
					}
					_, _ = l.get(t.Context(), "bad")
					requirePod(t, l, "good", 2, 0)
				})
			})
		}
	}
}

// TestErrorsOfPodlink: to a router an error never takes away a link that is known: it is the pod that says whose user it is. A guard
// keeps it where podlink says nothing about the link. Either way podlink is asked about this user each second at most while it fails,
// and what it says then counts.
func TestErrorsOfPodlink(t *testing.T) {
	for name, row := range map[string]struct {
		err     error
		guarded bool // a guard keeps it
		gone    bool // nobody keeps it
	}{
		"unavailable":       {err: ErrUnavailable, guarded: true},
		"store unavailable": {err: ErrStoreUnavailable, guarded: true},
		"store full":        {err: ErrStoreFull, guarded: true},
		"deadline":          {err: ErrDeadlineExceeded, guarded: true},
		"outcome unknown":   {err: ErrOutcomeUnknown, guarded: true},
		"unconfirmed":       {err: ErrReplicationUnconfirmed, guarded: true},
		"rate limited":      {err: ErrRateLimited, guarded: true},
		"not known":         {err: ErrUnauthenticated, guarded: true},
		"not permitted":     {err: ErrPermissionDenied, guarded: true},
		"corrupt":           {err: v1.ErrorStoreDataCorrupt("")},
		"internal":          {err: v1.ErrorInternal("")},
		"no available pod":  {err: ErrNoAvailablePod},
		"invalid argument":  {err: ErrInvalidArgument},
		"too many links":    {err: ErrLimitExceeded},
		"wrong pod":         {err: ErrWrongPod, gone: true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, guard := range []bool{false, true} {
				keeps := asRouter
				if guard {
					keeps = asGuard
				}
				inCache(t, keeps, func(t *testing.T, l *linkCache, s *source) {
					s.says("u", persistent(1, 10))
					requirePod(t, l, "u", 1, 0)
					time.Sleep(testTTL)
					s.fails("u", withCause(row.err, nil))
					if row.gone {
						_, err := l.await(t.Context(), "u", &entry{}, l.begin(t.Context(), "u", nil))
						if guard {
							require.ErrorIs(t, err, row.err)
						}
						_, ok := l.known("u")
						require.False(t, ok)
						return
					}
					for range 2 {
						link, err := l.get(t.Context(), "u")
						if guard && !row.guarded {
							require.ErrorIs(t, err, row.err)
							continue
						}
						require.NoError(t, err)
						require.EqualValues(t, 1, link.pod)
					}
					synctest.Wait()
					if !guard || row.guarded {
						require.Equal(t, 2, s.count("u"), "once, and not again within a second")
					}
					s.says("u", persistent(2, 20))
					time.Sleep(retryAfterFailure)
					_, err := l.get(t.Context(), "u") // It may not wait for the answer.
					require.NoError(t, err)
					synctest.Wait()
					requirePod(t, l, "u", 2, 0)
				})
			}
		})
	}
}

// TestRefreshGetsAThird: podlink hangs. A call that knows a link waits for a third of its time, at most 300 ms, and then uses it; the
// next ones do not wait while that lookup is in flight, nor while podlink goes on hanging.
func TestRefreshGetsAThird(t *testing.T) {
	for name, row := range map[string]struct{ limit, waits time.Duration }{
		"no limit":     {0, maxRefreshWait},
		"two seconds":  {2 * time.Second, maxRefreshWait},
		"300 ms":       {300 * time.Millisecond, 100 * time.Millisecond},
		"900 ms":       {900 * time.Millisecond, maxRefreshWait},
		"a nanosecond": {1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inCache(t, asGuard, func(t *testing.T, l *linkCache, s *source) {
				s.says("u", persistent(1, 10))
				requirePod(t, l, "u", 1, 0)
				time.Sleep(testTTL)
				answer := s.hangs("u")
				ctx := t.Context()
				if row.limit != 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, row.limit)
					defer cancel()
				}
				require.Equal(t, row.waits, took(func() {
					link, err := l.get(ctx, "u")
					require.NoError(t, err)
					require.EqualValues(t, 1, link.pod)
				}))
				time.Sleep(maxRefreshWait - row.waits)
				for range 100 { // For ten seconds: it is asked again and again, and never waited for.
					requirePod(t, l, "u", 1, 0)
					time.Sleep(100 * time.Millisecond)
				}
				require.InDelta(t, 4, s.count("u"), 1, "one lookup at a time, and a second between them")
				answer()
				s.says("u", persistent(2, 20))
				time.Sleep(testTTL)
				_, _ = l.get(t.Context(), "u")
				synctest.Wait()
				requirePod(t, l, "u", 2, 0)
			})
		})
	}
}

// TestDoubtedLinkIsAskedAbout: also while podlink is away, for as long as a refresh may take; and then it is used.
func TestDoubtedLinkIsAskedAbout(t *testing.T) {
	inCache(t, asRouter, func(t *testing.T, l *linkCache, s *source) {
		s.says("u", persistent(1, 10))
		requirePod(t, l, "u", 1, 0)
		answer := s.hangs("u")
		l.way.away.Store(true)
		for range 3 {
			doubted, _ := l.known("u")
			l.markStale("u", doubted)
			require.Equal(t, maxRefreshWait, took(func() { requirePod(t, l, "u", 1, maxRefreshWait) }))
		}
		answer()
		synctest.Wait()
		requirePod(t, l, "u", 1, 0)
		require.Equal(t, 2, s.count("u"))
	})
}

// TestPodlinkAway: when the lookups of different users have failed on the way, one after the other, those who know a link do not wait
// for podlink. It is asked nevertheless, so its first answer ends that.
func TestPodlinkAway(t *testing.T) {
	inCache(t, asGuard, func(t *testing.T, l *linkCache, s *source) {
		uids := []string{"a", "b", "c", "d", "e"}
		for _, uid := range uids {
			s.says(uid, persistent(1, 10))
			requirePod(t, l, uid, 1, 0)
		}
		time.Sleep(testTTL)
		s.hangs(uids...)
		for _, uid := range uids[:3] {
			requirePod(t, l, uid, 1, maxRefreshWait)
		}
		require.Equal(t, maxRefreshWait, took(func() { requirePod(t, l, "e", 1, maxRefreshWait) }), "not judged yet")
		time.Sleep(DefaultTimeout)
		requirePod(t, l, "d", 1, 0)
		synctest.Wait()
		require.Equal(t, 1+1, s.count("d"), "asked all the same")
		s.says("d", persistent(2, 20))
		l.invalidate("d")
		requirePod(t, l, "d", 2, 0) // A stranger waits, and is answered.
		require.False(t, l.way.away.Load())
	})
}

// TestOneUserIsNotTheWay: the lookups of one user may fail as often as they like, others wait for podlink as before.
func TestOneUserIsNotTheWay(t *testing.T) {
	inCache(t, asGuard, func(t *testing.T, l *linkCache, s *source) {
		s.fails("bad", withCause(ErrUnavailable, nil))
		for range 10 {
			_, err := l.get(t.Context(), "bad")
			require.ErrorIs(t, err, ErrUnavailable)
		}
		require.False(t, l.way.away.Load())
		for i := range 10 { // With an answer in between it is not in a row.
			uid := fmt.Sprint(i)
			s.fails(uid, withCause(ErrUnavailable, nil))
			_, _ = l.get(t.Context(), uid)
			s.fails("other", v1.ErrorStoreDataCorrupt("corrupt"))
			_, _ = l.get(t.Context(), "other")
		}
		require.False(t, l.way.away.Load())
		for i := range awayAfter {
			_, _ = l.get(t.Context(), fmt.Sprint(i))
		}
		require.True(t, l.way.away.Load())
		l.way.note("", nil)
		require.False(t, l.way.away.Load())
	})
}

// TestRefreshesAreBounded: while podlink hangs, not more than that many links are looked up at a time. The others are used as they
// are, and strangers are looked up.
func TestRefreshesAreBounded(t *testing.T) {
	inCache(t, asRouter, func(t *testing.T, l *linkCache, s *source) {
		var uids []string
		for i := range maxRefreshes + 100 {
			uids = append(uids, fmt.Sprint("u", i))
			s.says(uids[i], persistent(1, 10))
			l.store(uids[i], persistent(1, 10), time.Now())
		}
		time.Sleep(testTTL)
		s.hangs(uids...)
		var all sync.WaitGroup
		for _, uid := range uids {
			all.Go(func() { requirePod(t, l, uid, 1, maxRefreshWait) })
		}
		all.Wait()
		l.mu.Lock()
		require.Len(t, l.lookups, maxRefreshes)
		l.mu.Unlock()
		s.says("stranger", persistent(2, 20))
		requirePod(t, l, "stranger", 2, 0)
		time.Sleep(2 * DefaultTimeout)
		l.mu.Lock()
		require.Zero(t, l.refreshes)
		l.mu.Unlock()
	})
}

// TestNoTimeIsLeft: a call whose time is over by the time that it asks uses the link that it knows; one that has left does not.
func TestNoTimeIsLeft(t *testing.T) {
	inCache(t, asRouter, func(t *testing.T, l *linkCache, s *source) {
		s.says("u", persistent(1, 10))
		requirePod(t, l, "u", 1, 0)
		s.hangs("u")
		over, cancel := context.WithTimeout(t.Context(), 0)
		defer cancel()
		for range 100 {
			l.markStale("u", &entry{pod: 1, epoch: 10})
			link, err := l.get(over, "u")
			require.NoError(t, err)
			require.EqualValues(t, 1, link.pod)
		}
		left, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := l.get(left, "u")
		require.ErrorIs(t, err, ErrCanceled)
	})
}

// TestUseEnds: what a policy does not keep is not used, however long podlink takes.
func TestUseEnds(t *testing.T) {
	var holds atomic.Bool
	inCache(t, func(string, *entry, error) bool { return holds.Load() }, func(t *testing.T, l *linkCache, s *source) {
		holds.Store(true)
		s.says("u", persistent(1, 10))
		requirePod(t, l, "u", 1, 0)
		time.Sleep(testTTL)
		s.hangs("u")
		requirePod(t, l, "u", 1, maxRefreshWait)
		holds.Store(false) // As when a lease ends.
		_, err := l.get(t.Context(), "u")
		require.ErrorIs(t, err, ErrUnavailable)
		time.AfterFunc(maxRefreshWait/2, func() { holds.Store(false) })
		holds.Store(true)
		time.Sleep(retryAfterFailure)
		l.markStale("u", &entry{pod: 1, epoch: 10})
		_, err = l.get(t.Context(), "u")
		require.ErrorIs(t, err, ErrUnavailable, "it has ended while podlink was waited for")
	})
}

// TestLinksEnd: a temporary link is used until it may have ended by podlink's clock, a persistent one for an hour.
func TestLinksEnd(t *testing.T) {
	for name, row := range map[string]struct {
		link *v1.Link
		life time.Duration
	}{
		"one second": {temporary(1, 10, 1), 0}, // It may be over by now: the seconds were rounded up.
		"three":      {temporary(1, 10, 3), 2 * time.Second},
		"a minute":   {temporary(1, 10, 60), 59 * time.Second},
		"persistent": {persistent(1, 10), time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			inCache(t, asRouter, func(t *testing.T, l *linkCache, s *source) {
				s.says("u", row.link)
				requirePod(t, l, "u", 1, 0)
				s.fails("u", withCause(ErrUnavailable, nil))
				if row.life > 0 {
					time.Sleep(row.life - 1)
					requirePod(t, l, "u", 1, 0)
					time.Sleep(time.Nanosecond)
				}
				_, err := l.get(t.Context(), "u")
				require.ErrorIs(t, err, ErrUnavailable)
			})
		})
	}
}

// TestNoLinkIsNotKept: that a user has no link, or is another pod's, is not remembered.
func TestNoLinkIsNotKept(t *testing.T) {
	inCache(t, asGuard, func(t *testing.T, l *linkCache, s *source) {
		s.says("u", &v1.Link{PodId: -1, TtlSeconds: -2})
		link, err := l.get(t.Context(), "u")
		require.NoError(t, err)
		require.EqualValues(t, -1, link.pod)
		s.fails("u", withCause(ErrWrongPod, nil))
		_, err = l.get(t.Context(), "u")
		require.ErrorIs(t, err, ErrWrongPod)
		s.says("u", persistent(1, 10))
		requirePod(t, l, "u", 1, 0)
	})
}

// TestWaitEnds: a caller that leaves does not take the question along that others wait for.
func TestWaitEnds(t *testing.T) {
	inCache(t, asRouter, func(t *testing.T, l *linkCache, s *source) {
		s.says("u", persistent(1, 10))
		answer := s.hangs("u")
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		_, err := l.get(ctx, "u")
		require.ErrorIs(t, err, ErrCanceled)
		late, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err = l.get(late, "u")
		require.ErrorIs(t, err, ErrDeadlineExceeded)
		time.AfterFunc(time.Millisecond, answer)
		requirePod(t, l, "u", 1, time.Millisecond)
		require.Equal(t, 1, s.count("u"))
	})
}

// TestCloseEndsLookups: they do not outlive the cache.
func TestCloseEndsLookups(t *testing.T) {
	inCache(t, asRouter, func(t *testing.T, l *linkCache, s *source) {
		s.says("u", persistent(1, 10))
		s.hangs("u")
		time.AfterFunc(time.Millisecond, l.close)
		require.Equal(t, time.Millisecond, took(func() {
			_, err := l.get(t.Context(), "u")
			require.ErrorIs(t, err, ErrUnavailable)
		}))
	})
}

// TestLinksConcurrently: whatever is forgotten, doubted and learned meanwhile, a link is one that podlink has given.
func TestLinksConcurrently(t *testing.T) {
	var epoch atomic.Int64
	cache, err := newLinkCache(cachePolicy{
		size: 10, ttl: time.Millisecond, keeps: asRouter,
		lookup: func(context.Context, string, *entry) (*v1.Link, error) {
			now := epoch.Add(1)
			return persistent(int32(now%3), now), nil
		},
	})
	require.NoError(t, err)
	t.Cleanup(cache.close)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 300 {
				before := epoch.Load()
				link, err := cache.get(t.Context(), "u")
				if err != nil || link.epoch > epoch.Load() {
					t.Errorf("%v, %v after %d", link, err, before)
					return
				}
				cache.invalidateIf("u", link)
				_, _ = cache.get(t.Context(), "u")
				cache.doubt("u", link, disowned)
				cache.trust("u", link)
				cache.markStale("u", link)
			}
		})
	}
	all.Wait()
}
