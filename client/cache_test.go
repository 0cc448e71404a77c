package client

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
)

// question is one call to the podlink of asked, which the test answers.
type question struct {
	uid    string
	answer chan<- answer
}

type answer struct {
	link *v1.Link
	err  error
}

// asked is a cache whose questions the test answers, and may use links past their freshness.
type asked struct {
	*linkCache
	t         *testing.T
	questions chan question
	count     atomic.Int32
	mayUse    atomic.Bool
}

func newAsked(t *testing.T, freshFor time.Duration) *asked {
	t.Helper()
	a := &asked{t: t, questions: make(chan question, 100)}
	a.mayUse.Store(true)
	cache, err := newLinkCache(1000, freshFor, a.mayUse.Load, func(_ context.Context, uid string) (*v1.Link, error) {
		a.count.Add(1)
		got := make(chan answer)
		a.questions <- question{uid, got}
		reply := <-got
		return reply.link, reply.err
	})
	require.NoError(t, err)
	t.Cleanup(cache.close)
	a.linkCache = cache
	return a
}

// later is what get returns, some time.
func (a *asked) later(uid string) func() (*entry, error) {
	type result struct {
		link *entry
		err  error
	}
	got := make(chan result, 1)
	go func() {
		link, err := a.get(context.Background(), uid)
		got <- result{link, err}
	}()
	return func() (*entry, error) {
		r := <-got
		return r.link, r.err
	}
}

// learn makes the cache know a link.
func (a *asked) learn(uid string, link *v1.Link) {
	a.t.Helper()
	got := a.later(uid)
	(<-a.questions).answer <- answer{link: link}
	_, err := got()
	require.NoError(a.t, err)
}

func persistent(pod int32, epoch int64) *v1.Link {
	return &v1.Link{PodId: pod, Epoch: epoch, Persistent: true, TtlSeconds: -1}
}

func temporary(pod int32, epoch int64, seconds int32) *v1.Link {
	return &v1.Link{PodId: pod, Epoch: epoch, TtlSeconds: seconds}
}

func TestLinksAskOnce(t *testing.T) {
	a := newAsked(t, time.Hour)
	var all []func() (*entry, error)
	for range 20 {
		all = append(all, a.later("u"))
	}
	(<-a.questions).answer <- answer{link: persistent(3, 7)}
	for _, got := range all {
		link, err := got()
		require.NoError(t, err)
		require.EqualValues(t, 3, link.pod)
		require.Equal(t, "3", link.ordinal)
		require.EqualValues(t, 7, link.epoch)
	}
	require.EqualValues(t, 1, a.count.Load())
}

// TestLateAnswer: an answer that was given before the link moved, and arrives after, neither replaces what is known by then,
// nor is it what anybody is told.
func TestLateAnswer(t *testing.T) {
	a := newAsked(t, time.Hour)
	early := a.later("u")
	old := <-a.questions
	a.invalidate("u")
	a.learn("u", persistent(2, 20))
	old.answer <- answer{link: persistent(1, 10)}
	for _, get := range []func() (*entry, error){early, a.later("u")} {
		link, err := get()
		require.NoError(t, err)
		require.EqualValues(t, 2, link.pod)
	}
	require.EqualValues(t, 2, a.count.Load())
}

func TestDropAndDoubt(t *testing.T) {
	link := func(pod int32, epoch int64) *entry { return &entry{pod: pod, epoch: epoch} }
	for name, row := range map[string]struct {
		do    func(a *asked)
		asks  bool  // podlink, next time
		lost  bool  // for those who ask while podlink is silent
		wants int32 // the pod
	}{
		"nothing":                       {do: func(*asked) {}, wants: 1},
		"drop":                          {do: func(a *asked) { a.invalidateIf("u", link(1, 10)) }, asks: true, lost: true},
		"drop an older link":            {do: func(a *asked) { a.invalidateIf("u", link(1, 9)) }, wants: 1},
		"drop the same epoch elsewhere": {do: func(a *asked) { a.invalidateIf("u", link(2, 10)) }, wants: 1},
		"drop another user's":           {do: func(a *asked) { a.invalidateIf("v", link(1, 10)) }, wants: 1},
		"doubt":                         {do: func(a *asked) { a.markStale("u", link(1, 10)) }, asks: true, wants: 1},
		"doubt twice":                   {do: func(a *asked) { a.markStale("u", link(1, 10)); a.markStale("u", link(1, 10)) }, asks: true, wants: 1},
		"doubt an older link":           {do: func(a *asked) { a.markStale("u", link(1, 9)) }, wants: 1},
		"forget":                        {do: func(a *asked) { a.invalidate("u") }, asks: true, lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAsked(t, time.Hour)
			a.learn("u", persistent(1, 10))
			row.do(a)
			got := a.later("u")
			if row.asks {
				(<-a.questions).answer <- answer{err: explain(ErrUnavailable, nil)}
			}
			found, err := got()
			if row.lost {
				require.ErrorIs(t, err, ErrUnavailable)
				return
			}
			require.NoError(t, err)
			require.Equal(t, row.wants, found.pod)
		})
	}
}

// TestErrorsOfPodlink: a link that is known is lost only by an answer about it. A podlink that is away, full or busy has not
// said anything about it.
func TestErrorsOfPodlink(t *testing.T) {
	for name, row := range map[string]struct {
		err  error
		lost bool
	}{
		"unavailable":       {err: ErrUnavailable},
		"store unavailable": {err: ErrStoreUnavailable},
		"store full":        {err: ErrStoreFull},
		"deadline":          {err: ErrDeadlineExceeded},
		"outcome unknown":   {err: ErrOutcomeUnknown},
		"unconfirmed":       {err: ErrReplicationUnconfirmed},
		"rate limited":      {err: v1.ErrorRateLimited("")},
		"unauthenticated":   {err: v1.ErrorUnauthenticated("")},
		"denied":            {err: v1.ErrorPermissionDenied("")},
		"internal":          {err: v1.ErrorInternal("")},
		"wrong pod":         {err: ErrWrongPod, lost: true},
		"no available pod":  {err: ErrNoAvailablePod, lost: true},
		"invalid argument":  {err: ErrInvalidArgument, lost: true},
		"too many links":    {err: ErrLimitExceeded, lost: true},
		"superseded":        {err: ErrSuperseded, lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAsked(t, time.Nanosecond)
			a.learn("u", persistent(1, 10))
			for range 2 { // What is known stays known.
				a.asleep.Store(0)
				got := a.later("u")
				(<-a.questions).answer <- answer{err: explain(row.err, nil)}
				link, err := got()
				if row.lost {
					require.ErrorIs(t, err, row.err)
					continue
				}
				require.NoError(t, err)
				require.EqualValues(t, 1, link.pod)
			}
		})
	}
}

// TestNobodyWaitsForASilentPodlink: once podlink did not answer, those who know a link use it at once, and one of them asks
// from time to time, without waiting. When it answers, links are fresh again.
func TestNobodyWaitsForASilentPodlink(t *testing.T) {
	t.Parallel()
	a := newAsked(t, time.Nanosecond)
	for i := range 3 {
		a.learn(fmt.Sprint(i), persistent(1, 10))
	}
	first := a.later("0")
	(<-a.questions).answer <- answer{err: ErrUnavailable}
	link, err := first()
	require.NoError(t, err)
	require.EqualValues(t, 1, link.pod)

	count := a.count.Load()
	for end := time.Now().Add(2 * retryAfterFailure); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for i := range 3 {
			link, err := a.get(t.Context(), fmt.Sprint(i)) // It would hang if it waited for the answer that the test does not give.
			require.NoError(t, err)
			require.EqualValues(t, 1, link.pod)
		}
	}
	again := a.count.Load() - count
	require.Positive(t, again)
	require.LessOrEqual(t, again, int32(3), "one asks at a time, each second")

	asks := <-a.questions
	asks.answer <- answer{link: persistent(2, 20)}
	require.Eventually(t, func() bool { return a.asleep.Load() == 0 }, soon, time.Millisecond)
	held, ok := a.cache.GetIfPresent(asks.uid)
	require.True(t, ok)
	require.EqualValues(t, 2, held.pod)
	for len(a.questions) > 0 { // The others that were asked meanwhile.
		(<-a.questions).answer <- answer{err: ErrUnavailable}
	}
}

// TestStrangersAreAskedFor: who knows no link waits for podlink also when it did not answer lately.
func TestStrangersAreAskedFor(t *testing.T) {
	a := newAsked(t, time.Hour)
	a.asleep.Store(time.Now().Add(time.Hour).UnixNano())
	a.learn("u", persistent(1, 10))
	require.Zero(t, a.asleep.Load())
}

// TestUseEnds: what may not be used any more is not, whatever podlink answers.
func TestUseEnds(t *testing.T) {
	a := newAsked(t, time.Nanosecond)
	a.learn("u", persistent(1, 10))
	a.mayUse.Store(false)
	for _, asleep := range []int64{0, time.Now().Add(time.Hour).UnixNano()} {
		a.asleep.Store(asleep)
		got := a.later("u")
		(<-a.questions).answer <- answer{err: explain(ErrUnavailable, nil)}
		_, err := got()
		require.ErrorIs(t, err, ErrUnavailable)
	}
}

func TestTemporaryLinksEnd(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		seconds int32
		life    time.Duration // in which it is surely used
	}{
		"one second": {seconds: 1}, // It may be over by now: the seconds were rounded up.
		"three":      {seconds: 3, life: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAsked(t, time.Hour)
			begin := time.Now()
			a.learn("u", temporary(1, 10, row.seconds))
			for time.Since(begin) < row.life {
				_, err := a.get(t.Context(), "u")
				require.NoError(t, err)
			}
			time.Sleep(time.Until(begin.Add(time.Duration(row.seconds-1)*time.Second + 10*time.Millisecond)))
			got := a.later("u")
			(<-a.questions).answer <- answer{err: explain(ErrUnavailable, nil)}
			_, err := got()
			require.ErrorIs(t, err, ErrUnavailable)
		})
	}
}

// TestWaitEnds: a caller that leaves does not take the question along that others wait for.
func TestWaitEnds(t *testing.T) {
	a := newAsked(t, time.Hour)
	other := a.later("u")
	asks := <-a.questions
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := a.get(canceled, "u")
	require.ErrorIs(t, err, ErrCanceled)
	late, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = a.get(late, "u")
	require.ErrorIs(t, err, ErrDeadlineExceeded)
	asks.answer <- answer{link: persistent(1, 10)}
	_, err = other()
	require.NoError(t, err)
	require.EqualValues(t, 1, a.count.Load())
}

// TestLinksConcurrently: readers never see an epoch fall, whatever is dropped, doubted and learned meanwhile.
func TestLinksConcurrently(t *testing.T) {
	var epoch atomic.Int64
	cache, err := newLinkCache(10, time.Millisecond, func() bool { return true }, func(context.Context, string) (*v1.Link, error) {
		now := epoch.Add(1)
		return persistent(int32(now%3), now), nil
	})
	require.NoError(t, err)
	t.Cleanup(cache.close)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 500 {
				before := epoch.Load()
				link, err := cache.get(t.Context(), "u")
				if err != nil || link.epoch > epoch.Load() {
					t.Errorf("%v, %v after %d", link, err, before)
					return
				}
				cache.invalidateIf("u", link)
				_, _ = cache.get(t.Context(), "u")
				cache.markStale("u", link)
			}
		})
	}
	all.Wait()
}
