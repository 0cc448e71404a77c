package client

import (
	"context"
	"errors"
	"io"
	"net"
	nethttp "net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	v1 "podlink/api/podlink/v1"
)

// answering is a podlink in this process that answers each request with the error, and counts them.
type answering struct {
	grpc.ClientConnInterface
	answer   func(ctx context.Context) error
	requests atomic.Int64
}

func (a *answering) Invoke(ctx context.Context, _ string, _, _ any, _ ...grpc.CallOption) error {
	a.requests.Add(1)
	return a.answer(ctx)
}

func always(err error) func(context.Context) error { return func(context.Context) error { return err } }

// errAway is the error of a podlink that was not reached.
var errAway = &net.OpError{Op: "dial", Err: errors.New("connection refused")}

// TestRetryBudget: a podlink that answers everything with an error gets at most 10 % more requests than there are calls, or one
// more a second.
func TestRetryBudget(t *testing.T) {
	t.Parallel()
	read := &v1.GetLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "room"}
	compute := &v1.ComputeLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "room"}
	const whole = time.Minute
	for name, row := range map[string]struct {
		answer func(ctx context.Context) error
		every  time.Duration
		call   func(ctx context.Context, c *Client) error
		want   error
		most   float64 // requests a call
	}{
		"a store that is away": {always(ErrStoreUnavailable), 10 * time.Millisecond, func(ctx context.Context, c *Client) error {
			_, err := setLink(ctx, c)
			return err
		}, ErrStoreUnavailable, 1.1},
		"few calls": {always(ErrStoreUnavailable), time.Second, func(ctx context.Context, c *Client) error {
			_, err := setLink(ctx, c)
			return err
		}, ErrStoreUnavailable, 2},
		"a read without an answer": {always(errors.New("connection lost")), 10 * time.Millisecond, func(ctx context.Context, c *Client) error {
			_, err := c.GetLinkedPod(ctx, read)
			return err
		}, ErrUnavailable, 1.1},
		"a compute of unknown outcome": {always(ErrOutcomeUnknown), 10 * time.Millisecond, func(ctx context.Context, c *Client) error {
			_, err := c.ComputeLinkedPod(ctx, compute, repeatable)
			return err
		}, ErrOutcomeUnknown, 1.1},
		"a mutation of unknown outcome": {always(ErrOutcomeUnknown), 10 * time.Millisecond, func(ctx context.Context, c *Client) error {
			_, err := setLink(ctx, c)
			return err
		}, ErrOutcomeUnknown, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				podlink := &answering{answer: row.answer}
				c := NewOver(podlink, DefaultTimeout)
				defer c.Close()
				calls := int(whole / row.every)
				errs := make(chan error, calls)
				for range calls {
					go func() { errs <- row.call(t.Context(), c) }()
					time.Sleep(row.every)
				}
				for range calls {
					require.ErrorIs(t, <-errs, row.want)
				}
				// The first retry of a client is free, and so is one a second in the time after the last call.
				free := 1 + int64(DefaultTimeout/time.Second)
				perCall := float64(podlink.requests.Load()-free) / float64(calls)
				require.LessOrEqual(t, perCall, row.most)
				if row.most > 1 {
					require.Greater(t, perCall, 1+(row.most-1)*.9, "the budget is used")
				}
			})
		})
	}
}

// TestRouterHasTheBudget: the computes of a router are its client's calls, also the ones that it repeats by itself.
func TestRouterHasTheBudget(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{"a store that is away": ErrStoreUnavailable, "an unknown outcome": ErrOutcomeUnknown} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				podlink := &answering{answer: always(failure)}
				c := NewOver(podlink, DefaultTimeout)
				defer c.Close()
				r, err := c.NewRouter("game", "room", RouterOptions{})
				require.NoError(t, err)
				const calls = 6000
				errs := make(chan error, calls)
				for i := range calls {
					go func() {
						_, err := r.Route(t.Context(), strconv.Itoa(i))
						errs <- err
					}()
					time.Sleep(10 * time.Millisecond)
				}
				for range calls {
					require.Error(t, <-errs)
				}
				require.LessOrEqual(t, podlink.requests.Load(), int64(calls*11/10+1+int(DefaultTimeout/time.Second)))
			})
		})
	}
}

// TestRetryBudgetOnTheWire: the same over both transports.
func TestRetryBudgetOnTheWire(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, http bool) {
		t.Parallel()
		target, requests := answersGRPC(t, ErrStoreUnavailable)
		if http {
			target, requests = answersHTTP(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
				w.WriteHeader(nethttp.StatusServiceUnavailable)
				_, _ = io.WriteString(w, `{"code":503,"reason":"STORE_UNAVAILABLE","message":"no"}`)
			})
		}
		c := dialed(t, target, Options{HTTP: http, Timeout: 2 * time.Second})
		const calls = 300
		begin := time.Now()
		errs := make(chan error, calls)
		for range calls {
			go func() {
				_, err := setLink(t.Context(), c)
				errs <- err
			}()
		}
		for range calls {
			require.Error(t, <-errs)
		}
		require.LessOrEqual(t, requests.Load(), int32(calls*11/10+2+int(time.Since(begin)/time.Second)))
	})
}

// TestUnreachedIsNoRequest: while podlink is not there, calls wait for it whatever the budget is, and are all carried out.
func TestUnreachedIsNoRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := time.Now().Add(2 * time.Second)
		var carriedOut atomic.Int64
		podlink := &answering{answer: func(context.Context) error {
			if time.Now().Before(back) {
				return errAway
			}
			carriedOut.Add(1)
			return nil
		}}
		c := NewOver(podlink, DefaultTimeout)
		defer c.Close()
		const calls = 100
		errs := make(chan error, calls)
		for range calls {
			go func() {
				_, err := setLink(t.Context(), c)
				errs <- err
			}()
		}
		for range calls {
			require.NoError(t, <-errs)
		}
		require.EqualValues(t, calls, carriedOut.Load())
	})
}

// TestLoneCallIsRepeatedOncePerSecond: a client of few calls outlives a failover of the store.
func TestLoneCallIsRepeatedOncePerSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := time.Now().Add(2 * time.Second)
		podlink := &answering{answer: func(context.Context) error {
			if time.Now().Before(back) {
				return ErrStoreUnavailable
			}
			return nil
		}}
		c := NewOver(podlink, DefaultTimeout)
		defer c.Close()
		_, err := setLink(t.Context(), c)
		require.NoError(t, err)
		require.LessOrEqual(t, podlink.requests.Load(), int64(4))
	})
}

// TestReportsHaveNoBudget: a report is one attempt, whatever it meets, and takes nothing from the calls.
func TestReportsHaveNoBudget(t *testing.T) {
	for name, answer := range map[string]error{
		"a store that is away": ErrStoreUnavailable, "a podlink that is away": errAway, "no answer": errors.New("connection lost"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				podlink := &answering{answer: always(answer)}
				c := NewOver(podlink, DefaultTimeout)
				defer c.Close()
				begin := time.Now()
				_, err := c.reports.SetServiceState(t.Context(), &v1.SetServiceStateRequest{Namespace: "game", Service: "room"})
				require.Error(t, err)
				require.EqualValues(t, 1, podlink.requests.Load())
				require.Zero(t, time.Since(begin))
				require.True(t, c.retries.spend(), "the retry that a new client has")
			})
		})
	}
}

// TestDoubtRemains: when an attempt of a repeatable mutation may have been carried out, only success or podlink's look at the link
// is more certain than that.
func TestDoubtRemains(t *testing.T) {
	for name, row := range map[string]struct {
		then, want error
	}{
		"carried out":               {nil, nil},
		"podlink is away":           {errAway, ErrOutcomeUnknown},
		"its store is away":         {ErrStoreUnavailable, ErrOutcomeUnknown},
		"its store is full":         {ErrStoreFull, ErrOutcomeUnknown},
		"the rate is exceeded":      {ErrRateLimited, ErrOutcomeUnknown},
		"another link is there now": {ErrEpochMismatch, ErrEpochMismatch},
		"another process is there":  {ErrSuperseded, ErrSuperseded},
		"no pod is there":           {ErrNoAvailablePod, ErrNoAvailablePod},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first := true
				c := NewOver(&answering{answer: func(context.Context) error {
					if first {
						first = false
						return errors.New("connection lost")
					}
					return row.then
				}}, DefaultTimeout)
				defer c.Close()
				_, err := c.ComputeLinkedPod(t.Context(), &v1.ComputeLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "room"}, repeatable)
				require.ErrorIs(t, err, row.want)
			})
		})
	}
}

// TestRepeatableEndsInTime: a call that is repeated for as long as its outcome is unknown ends with the client's timeout, and at
// once when its caller leaves.
func TestRepeatableEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewOver(&answering{answer: always(ErrOutcomeUnknown)}, DefaultTimeout)
		defer c.Close()
		compute := &v1.ComputeLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "room"}
		begin := time.Now()
		_, err := c.ComputeLinkedPod(t.Context(), compute, repeatable)
		require.ErrorIs(t, err, ErrOutcomeUnknown)
		require.LessOrEqual(t, time.Since(begin), DefaultTimeout)

		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		begin = time.Now()
		_, err = c.ComputeLinkedPod(ctx, compute, repeatable)
		require.ErrorIs(t, err, ErrOutcomeUnknown, "it may have been carried out")
		require.LessOrEqual(t, time.Since(begin), time.Second)
	})
}

func BenchmarkAttempt(b *testing.B) {
	c := NewOver(&answering{answer: always(nil)}, time.Hour)
	b.Cleanup(func() { _ = c.Close() })
	request := &v1.GetLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "room"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.GetLinkedPod(context.Background(), request); err != nil {
			b.Fatal(err)
		}
	}
}
