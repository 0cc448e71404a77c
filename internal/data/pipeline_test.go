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

// concurrency is the number of concurrent callers of a test.
const concurrency = 64

func guestKey(i int) biz.LinkKey {
	return biz.LinkKey{Namespace: "ns", UID: "guest-" + strconv.Itoa(i), Service: "game"}
}

// callDuringPause makes concurrent calls while the server is paused, and returns their errors and durations. The first calls
// have their own round trips, and the others are queued and share the next ones.
func callDuringPause(t *testing.T, server *redistest.Server, pause time.Duration, call func(i int) error) ([]error, []time.Duration) {
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
	time.Sleep(pause)
	server.Resume()
	calls.Wait()
	return errs, took
}

// readEvents returns how often the server has read from a connection.
func readEvents(t *testing.T, client *redis.Client) int {
	t.Helper()
	info, err := client.Info(context.Background(), "stats").Result()
	require.NoError(t, err)
	n, err := strconv.Atoi(redistest.InfoField(info, "total_reads_processed"))
	require.NoError(t, err)
	return n
}

// TestCallsShareRoundTrips: concurrent calls share round trips, unless Coalesce is off.
func TestCallsShareRoundTrips(t *testing.T) {
	for name, shared := range map[string]bool{"auto_pipeline": true, "no auto_pipeline": false} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			store := openStore(t, onServer(server.Addr()), func(c *testOptions) { c.Coalesce = shared })
			require.NoError(t, store.Check(t.Context()))
			links, direct := reposOf(store).Links, server.Client(t)
			for kind, call := range map[string]func(i int) error{
				"mutations": func(i int) error {
					return second(links.Set(context.Background(), guestKey(i), 1, biz.Forever, biz.SetTerms{}))
				},
				"reads": func(i int) error { return second(links.Get(context.Background(), guestKey(i))) },
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

// TestQueuedCallsMeetTheirDeadline: a queued call returns at its deadline like any other call, and is not sent later.
func TestQueuedCallsMeetTheirDeadline(t *testing.T) {
	const timeout, tolerance = 200 * time.Millisecond, 100 * time.Millisecond
	server := redistest.Start(t)
	store := openStore(t, onServer(server.Addr()))
	require.NoError(t, store.Check(t.Context()))
	links := reposOf(store).Links
	errs, took := callDuringPause(t, server, 2*timeout, func(i int) error {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		return second(links.Set(ctx, guestKey(i), 1, biz.Forever, biz.SetTerms{}))
	})
	require.NoError(t, second(links.Set(t.Context(), fresh.link(), 1, biz.Forever, biz.SetTerms{})), "the next call works")
	time.Sleep(100 * time.Millisecond) // Then all sent calls are executed.
	refused := 0
	for i, err := range errs {
		require.LessOrEqual(t, took[i], timeout+tolerance)
		requireOneOf(t, err, biz.ErrStoreUnavailable, biz.ErrOutcomeUnknown)
		if errors.Is(err, biz.ErrStoreUnavailable) {
			refused++
			link, err := links.Get(t.Context(), guestKey(i))
			require.NoError(t, err)
			require.False(t, link.Exists(), "its error says that it was not executed")
		}
	}
	require.Positive(t, refused, "calls that were never sent")
}

// TestCanceledCallLeavesTheQueue: a call that is canceled while it is queued is not sent.
func TestCanceledCallLeavesTheQueue(t *testing.T) {
	server := redistest.Start(t)
	store := openStore(t, onServer(server.Addr()), withLongTimeouts)
	require.NoError(t, store.Check(t.Context()))
	direct := server.Client(t)
	before := executions(t, direct)
	links := reposOf(store).Links
	const inFlight = 2 // round trips at once, see docs/decisions/0007-own-pipeline.md
	errs, _ := callDuringPause(t, server, 800*time.Millisecond, func(i int) error {
		if i < inFlight {
			return second(links.Set(context.Background(), guestKey(i), 1, biz.Forever, biz.SetTerms{}))
		}
		time.Sleep(250 * time.Millisecond) // Until both round trips are in flight.
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(50*time.Millisecond, cancel)
		return second(links.Set(ctx, guestKey(i), 1, biz.Forever, biz.SetTerms{}))
	})
	for i, err := range errs {
		if i < inFlight {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, biz.ErrCanceled)
		}
	}
	require.Equal(t, before+inFlight, executions(t, direct))
}

// TestLostReplyInABatch: when a batch loses its connection, commands with a reply succeed, the outcome of the others is
// unknown, and none is executed twice.
func TestLostReplyInABatch(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.NewProxy(t, server.Addr())
	store := openStore(t, onServer(proxy.Addr()))
	require.NoError(t, store.Check(t.Context()))
	direct := server.Client(t)
	links := reposOf(store).Links
	before, sent, unknown := executions(t, direct), 0, 0
	const rounds = 10
	for round := range rounds {
		proxy.LoseEvery(concurrency / 3)
		errs, _ := callDuringPause(t, server, 20*time.Millisecond, func(i int) error {
			return second(links.Set(context.Background(), guestKey(i), biz.PodID(round), biz.Forever, biz.SetTerms{}))
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
				unknown++
			default:
				require.ErrorIs(t, err, biz.ErrStoreUnavailable)
			}
		}
	}
	executed := executions(t, direct) - before
	require.LessOrEqual(t, executed, sent, "none twice")
	require.GreaterOrEqual(t, executed, sent-unknown+proxy.Lost(), "all with a reply, and those whose replies were lost")
	require.GreaterOrEqual(t, proxy.Lost(), rounds)
	require.GreaterOrEqual(t, unknown, proxy.Lost())
	require.Less(t, unknown, sent, "replies before the lost one are not lost with it")
}

// TestLostReplyInABatchRequest: when a batch request loses replies, items with a reply are done, the outcome of some others is
// unknown, the rest was not executed, and none is executed twice.
func TestLostReplyInABatchRequest(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.NewProxy(t, server.Addr())
	store := openStore(t, onServer(proxy.Addr()))
	require.NoError(t, store.Check(t.Context()))
	direct, links := server.Client(t), reposOf(store).Links
	const items, rounds = 600, 5
	seen := make(map[string]int)
	for round := range rounds {
		before, lost := executions(t, direct), proxy.Lost()
		var sets []biz.SetItem
		for i := range items {
			sets = append(sets, biz.SetItem{UID: guestKey(round*items + i).UID, Pod: 1, TTL: biz.Forever})
		}
		proxy.LoseEvery(200)
		results := links.BatchSet(t.Context(), game, sets)
		proxy.LoseEvery(0)
		done, unknown := 0, 0
		for i, result := range results {
			link, err := links.Get(t.Context(), guestKey(round*items+i))
			require.NoError(t, err)
			switch {
			case result.Err == nil:
				done++
				require.Equal(t, link, result.Link)
			case errors.Is(result.Err, biz.ErrOutcomeUnknown):
				unknown++
			default:
				seen["refused"]++
				require.ErrorIs(t, result.Err, biz.ErrStoreUnavailable)
				require.False(t, link.Exists(), "its error says that it was not executed")
			}
		}
		executed := executions(t, direct) - before
		require.GreaterOrEqual(t, executed, done+proxy.Lost()-lost)
		require.LessOrEqual(t, executed, done+unknown, "none twice")
		seen["done"] += done
		seen["unknown"] += unknown
	}
	t.Logf("%d replies lost: %v", proxy.Lost(), seen)
	require.Positive(t, proxy.Lost())
	require.Positive(t, seen["done"])
	require.Positive(t, seen["unknown"])
}

// TestErrorsStayWithTheirCommands: an error reply to one command of a batch does not affect the others.
func TestErrorsStayWithTheirCommands(t *testing.T) {
	server := redistest.Start(t)
	store := openStore(t, onServer(server.Addr()))
	require.NoError(t, store.Check(t.Context()))
	const foreign = 40
	require.NoError(t, store.client.Set(t.Context(), store.keys.links("ns", guestKey(foreign).UID), "text", 0).Err())
	links := reposOf(store).Links
	for kind, call := range map[string]func(i int) error{
		"mutations": func(i int) error {
			return second(links.Set(context.Background(), guestKey(i), 1, biz.Forever, biz.SetTerms{}))
		},
		"reads": func(i int) error { return second(links.Get(context.Background(), guestKey(i))) },
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

// TestConfirmedBatch: a batch sends WAIT once, and each of its mutations gets the result.
func TestConfirmedBatch(t *testing.T) {
	server := redistest.Start(t)
	store := openStore(t, onServer(server.Addr()), confirmedBy(1, 20*time.Millisecond))
	require.NoError(t, store.Check(t.Context()))
	links := reposOf(store).Links
	errs, _ := callDuringPause(t, server, 200*time.Millisecond, func(i int) error {
		return second(links.Set(context.Background(), guestKey(i), 1, biz.Forever, biz.SetTerms{}))
	})
	for i, err := range errs {
		require.True(t, isUnconfirmed(err), "%d: %v", i, err)
	}
	require.Less(t, redistest.StatsOf(t, server.Client(t), "wait").Calls, concurrency/4)
}
