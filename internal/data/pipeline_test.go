package data

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	redistest "podlink/test/kit/redis"
)

// concurrency is how many callers a test lets call at once.
const concurrency = 64

func guestKey(i int) biz.LinkKey {
	return biz.LinkKey{Namespace: "ns", UID: "guest-" + strconv.Itoa(i), Service: "game"}
}

// callDuringPause lets a crowd call while the server stands still, and returns what they got and how long that took. They come
// one after the other, so that the first ones have a round trip of their own and the others share the next ones.
func callDuringPause(t *testing.T, server *redistest.Server, stands time.Duration, call func(i int) error) ([]error, []time.Duration) {
	t.Helper()
	errs, took := make([]error, concurrency), make([]time.Duration, concurrency)
	server.Pause()
	var calls sync.WaitGroup
	for i := range concurrency {
		calls.Go(func() {
			start := time.Now()
			errs[i] = call(i)
			took[i] = time.Since(start)
		})
	}
	time.Sleep(stands)
	server.Resume()
	calls.Wait()
	return errs, took
}

// readEvents counts how often the server has read from a connection.
func readEvents(t *testing.T, client *redis.Client) int {
	t.Helper()
	info, err := client.Info(context.Background(), "stats").Result()
	require.NoError(t, err)
	n, err := strconv.Atoi(redistest.InfoField(info, "total_reads_processed"))
	require.NoError(t, err)
	return n
}

// TestCallsShareRoundTrips, unless they are told not to.
func TestCallsShareRoundTrips(t *testing.T) {
	for name, shared := range map[string]bool{"auto_pipeline": true, "no auto_pipeline": false} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			store := openStore(t, onServer(server.Addr()), func(c *testOptions) { c.Coalesce = shared })
			require.NoError(t, store.Check(t.Context()))
			links, direct := reposOf(store).Links, server.Client(t)
			for kind, call := range map[string]func(i int) error{
				"mutations": func(i int) error { return second(links.Set(context.Background(), guestKey(i), 1, biz.Forever, nil)) },
				"reads":     func(i int) error { return second(links.Get(context.Background(), guestKey(i))) },
			} {
				before := readEvents(t, direct)
				errs, _ := callDuringPause(t, server, 200*time.Millisecond, call)
				require.NoError(t, errors.Join(errs...), kind)
				if events := readEvents(t, direct) - before; shared {
					require.Less(t, events, concurrency/4, kind)
				} else {
					require.GreaterOrEqual(t, events, concurrency, kind)
				}
			}
			require.EqualValues(t, concurrency, len(store.client.Keys(t.Context(), string(store.keys)+":link:*").Val()))
		})
	}
}

// TestWaitingCallsEndInTime: a call that waits for a round trip ends with its deadline like any other, and one that was
// not sent by then is not sent later.
func TestWaitingCallsEndInTime(t *testing.T) {
	const timeout, tolerance = 200 * time.Millisecond, 100 * time.Millisecond
	server := redistest.Start(t)
	store := openStore(t, onServer(server.Addr()))
	require.NoError(t, store.Check(t.Context()))
	links := reposOf(store).Links
	errs, took := callDuringPause(t, server, 2*timeout, func(i int) error {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		return second(links.Set(ctx, guestKey(i), 1, biz.Forever, nil))
	})
	require.NoError(t, second(links.Set(t.Context(), fresh.link(), 1, biz.Forever, nil)), "the next call works")
	time.Sleep(100 * time.Millisecond) // What was sent is done by now.
	refused := 0
	for i, err := range errs {
		require.LessOrEqual(t, took[i], timeout+tolerance)
		requireOneOf(t, err, biz.ErrStoreUnavailable, biz.ErrOutcomeUnknown)
		if errors.Is(err, biz.ErrStoreUnavailable) {
			refused++
			link, err := links.Get(t.Context(), guestKey(i))
			require.NoError(t, err)
			require.False(t, link.Exists(), "it was said not to be carried out")
		}
	}
	require.Positive(t, refused, "those that never had a round trip")
}

// TestCallerLeavesTheQueue: a caller that leaves before its command has a round trip sends nothing.
func TestCallerLeavesTheQueue(t *testing.T) {
	server := redistest.Start(t)
	store := openStore(t, onServer(server.Addr()), longTimeouts)
	require.NoError(t, store.Check(t.Context()))
	direct := server.Client(t)
	before := executions(t, direct)
	links := reposOf(store).Links
	const stay = 2 // calls in flight at once, as docs/decisions/0007-own-pipeline.md says
	errs, _ := callDuringPause(t, server, 800*time.Millisecond, func(i int) error {
		if i < stay {
			return second(links.Set(context.Background(), guestKey(i), 1, biz.Forever, nil))
		}
		time.Sleep(250 * time.Millisecond) // Both round trips are taken.
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(50*time.Millisecond, cancel)
		return second(links.Set(ctx, guestKey(i), 1, biz.Forever, nil))
	})
	for i, err := range errs {
		if i < stay {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, biz.ErrCanceled)
		}
	}
	require.Equal(t, before+stay, executions(t, direct))
}

// TestLostReplyInABatch: of the commands that share a round trip, those whose replies came are done, the others unknown,
// and none is executed twice.
func TestLostReplyInABatch(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.NewProxy(t, server.Addr())
	store := openStore(t, onServer(proxy.Addr()))
	require.NoError(t, store.Check(t.Context()))
	direct := server.Client(t)
	links := reposOf(store).Links
	before, sent, told := executions(t, direct), 0, 0
	const rounds = 10
	for round := range rounds {
		proxy.LoseEvery(concurrency / 3)
		errs, _ := callDuringPause(t, server, 20*time.Millisecond, func(i int) error {
			return second(links.Set(context.Background(), guestKey(i), biz.PodID(round), biz.Forever, nil))
		})
		proxy.LoseEvery(0)
		for i, err := range errs {
			switch {
			case err == nil:
				sent++
				link, err := links.Get(t.Context(), guestKey(i))
				require.NoError(t, err)
				require.EqualValues(t, round, link.Pod)
			case errors.Is(err, biz.ErrOutcomeUnknown):
				sent++
				told++
			default:
				require.ErrorIs(t, err, biz.ErrStoreUnavailable)
			}
		}
	}
	executed := executions(t, direct) - before
	require.LessOrEqual(t, executed, sent, "none twice")
	require.GreaterOrEqual(t, executed, sent-told+proxy.Lost(), "all that were answered, and those whose replies were lost")
	require.GreaterOrEqual(t, proxy.Lost(), rounds)
	require.GreaterOrEqual(t, told, proxy.Lost())
	require.Less(t, told, sent, "replies that came before the lost one are not lost with it")
}

// TestErrorsStayWithTheirCommands: what Redis refuses in a batch is refused alone.
func TestErrorsStayWithTheirCommands(t *testing.T) {
	server := redistest.Start(t)
	store := openStore(t, onServer(server.Addr()))
	require.NoError(t, store.Check(t.Context()))
	const foreign = 40
	require.NoError(t, store.client.Set(t.Context(), store.keys.links("ns", guestKey(foreign).UID), "text", 0).Err())
	links := reposOf(store).Links
	for kind, call := range map[string]func(i int) error{
		"mutations": func(i int) error { return second(links.Set(context.Background(), guestKey(i), 1, biz.Forever, nil)) },
		"reads":     func(i int) error { return second(links.Get(context.Background(), guestKey(i))) },
	} {
		errs, _ := callDuringPause(t, server, 200*time.Millisecond, call)
		for i, err := range errs {
			if i == foreign {
				require.ErrorIs(t, err, biz.ErrStoreDataCorrupt, kind)
			} else {
				require.NoError(t, err, kind)
			}
		}
	}
}

// TestConfirmedBatch: replicas are asked once for a whole batch, and each of its mutations is told.
func TestConfirmedBatch(t *testing.T) {
	server := redistest.Start(t)
	store := openStore(t, onServer(server.Addr()), confirmedBy(1, 20*time.Millisecond))
	require.NoError(t, store.Check(t.Context()))
	links := reposOf(store).Links
	errs, _ := callDuringPause(t, server, 200*time.Millisecond, func(i int) error {
		return second(links.Set(context.Background(), guestKey(i), 1, biz.Forever, nil))
	})
	for i, err := range errs {
		require.True(t, isUnconfirmed(err), "%d: %v", i, err)
	}
	require.Less(t, redistest.StatsOf(t, server.Client(t), "wait").Calls, concurrency/4)
}
