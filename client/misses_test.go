package client

import (
	"context"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	v1 "podlink/api/podlink/v1"
)

// lookUp looks the users up, all at once, and returns the errors.
func lookUp(ctx context.Context, r *Router, uids ...string) map[string]error {
	var (
		mu   sync.Mutex
		errs = map[string]error{}
		all  sync.WaitGroup
	)
	for _, uid := range uids {
		all.Go(func() {
			_, err := r.links.get(ctx, uid)
			mu.Lock()
			defer mu.Unlock()
			errs[uid] = err
		})
	}
	all.Wait()
	return errs
}

func users(n int) []string {
	uids := make([]string, n)
	for i := range uids {
		uids[i] = fmt.Sprint("u", i)
	}
	return uids
}

func requireAll(t *testing.T, want error, errs map[string]error) {
	t.Helper()
	for uid, err := range errs {
		if want == nil {
			require.NoError(t, err, uid)
			continue
		}
		require.ErrorIs(t, err, want, uid)
	}
}

// TestMissesShareBatches: the first of many misses is a call, at once; the others go in batches, each with as many as podlink takes.
func TestMissesShareBatches(t *testing.T) {
	for n, batches := range map[int][]int{1: nil, 2: nil, 3: {2}, 1001: {1000}, 2500: {1000, 1000, 499}} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakePodlink()
				r := f.router(t, RouterOptions{})
				require.LessOrEqual(t, took(func() { requireAll(t, nil, lookUp(t.Context(), r, users(n)...)) }), missWindow)
				var sizes []int
				for _, batch := range f.batches {
					sizes = append(sizes, len(batch.GetItems()))
					require.Equal(t, testNamespace, batch.GetNamespace())
					require.Equal(t, testService, batch.GetService())
					require.EqualValues(t, 60, batch.GetPersistSeconds())
				}
				require.ElementsMatch(t, batches, sizes)
				require.Len(t, f.asked, n)
			})
		})
	}
}

// TestLoneMissDoesNotWait: a miss now and then is a call, at once.
func TestLoneMissDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakePodlink()
		r := f.router(t, RouterOptions{})
		for _, uid := range users(10) {
			require.Zero(t, took(func() { requireAll(t, nil, lookUp(t.Context(), r, uid)) }))
			time.Sleep(missWindow + 1)
		}
		require.Len(t, f.computes, 10)
	})
}

// TestSteadyMissesAreBatched: of misses that keep coming each window's are a batch.
func TestSteadyMissesAreBatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakePodlink()
		r := f.router(t, RouterOptions{})
		var all sync.WaitGroup
		for _, uid := range users(1000) {
			all.Go(func() { requireAll(t, nil, lookUp(t.Context(), r, uid)) })
			time.Sleep(100 * time.Microsecond)
		}
		all.Wait()
		singles, batches := f.calls()
		require.LessOrEqual(t, singles, 2)
		require.InDelta(t, 50, batches, 2)
	})
}

// TestItemErrorsAreTheirOwn: one user's error, over a batch, is what a call for that user returns, and no other user's.
func TestItemErrorsAreTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakePodlink()
		errs := map[string]error{
			"u5": v1.ErrorStoreDataCorrupt("corrupt"), "u6": v1.ErrorLimitExceeded("too many").WithMetadata(map[string]string{"limit": "x"}),
			"u7": ErrNoAvailablePod,
		}
		f.fail = func(_ context.Context, uid string) error { return errs[uid] }
		got := lookUp(t.Context(), f.router(t, RouterOptions{}), users(20)...)
		for uid, err := range got {
			if want := errs[uid]; want != nil {
				require.ErrorIs(t, err, want)
				require.Equal(t, kerrors.FromError(want).Metadata["limit"], kerrors.FromError(err).Metadata["limit"])
				continue
			}
			require.NoError(t, err)
		}
	})
}

// TestMissesAreRepeated: what has no certain outcome, or what podlink could not do now, is computed again: a whole batch, and single
// items of one. To compute twice does no harm.
func TestMissesAreRepeated(t *testing.T) {
	for _, failure := range []error{ErrOutcomeUnknown, ErrReplicationUnconfirmed, ErrStoreUnavailable} {
		t.Run(kerrors.Reason(failure), func(t *testing.T) {
			for name, whole := range map[string]bool{"a batch": true, "items": false} {
				t.Run(name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						f := newFakePodlink()
						r := f.router(t, RouterOptions{})
						requireAll(t, nil, lookUp(t.Context(), r, "warm"))
						var mu sync.Mutex
						failed := map[string]bool{}
						once := func(key string) error {
							mu.Lock()
							defer mu.Unlock()
							if failed[key] {
								return nil
							}
							failed[key] = true
							return withCause(failure, nil)
						}
						if whole {
							f.failCall = func(context.Context, int) error { return once("") }
						} else {
							f.fail = func(_ context.Context, uid string) error {
								if uid == "u3" || uid == "u4" {
									return once(uid)
								}
								return nil
							}
						}
						requireAll(t, nil, lookUp(t.Context(), r, users(10)...))
						if !whole {
							require.Equal(t, 2, f.items("u3"))
							require.Equal(t, 1, f.items("u5"))
						}
					})
				})
			}
		})
	}
}

// TestMissesEnd: a podlink that never answers makes lookups end with the client's timeout, and what was not carried out for the
// caller is never called unknown.
func TestMissesEnd(t *testing.T) {
	for name, failure := range map[string]func(f *fakePodlink){
		"down":  func(f *fakePodlink) { f.down() },
		"hangs": func(f *fakePodlink) { f.hang() },
		"unknown": func(f *fakePodlink) {
			f.failing(func(context.Context, int) error { return withCause(ErrOutcomeUnknown, nil) })
		},
		"items": func(f *fakePodlink) {
			f.fail = func(context.Context, string) error { return withCause(ErrOutcomeUnknown, nil) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakePodlink()
				r := f.router(t, RouterOptions{})
				failure(f)
				require.LessOrEqual(t, took(func() { requireAll(t, ErrUnavailable, lookUp(t.Context(), r, users(100)...)) }), DefaultTimeout)
			})
		})
	}
}

// TestMissesLeave: each caller waits as long as its own context, and what nobody waits for any more is not sent.
func TestMissesLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakePodlink()
		r := f.router(t, RouterOptions{})
		resume := f.hang()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		require.Equal(t, 100*time.Millisecond, took(func() { requireAll(t, ErrDeadlineExceeded, lookUp(ctx, r, users(50)...)) }))
		time.Sleep(DefaultTimeout)
		resume()
		requireAll(t, nil, lookUp(t.Context(), r, "next"))
		require.NotEmpty(t, f.asked)
	})
}

// TestMissesWaitInTheQueue: while podlink hangs, calls and queue are bounded; when it is back, what is still waited for is sent.
func TestMissesWaitInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakePodlink()
		r := f.router(t, RouterOptions{})
		resume := f.hang()
		var all sync.WaitGroup
		for _, uid := range users(100) {
			all.Go(func() { lookUp(t.Context(), r, uid) })
			time.Sleep(2 * missWindow)
		}
		r.misses.mu.Lock()
		require.LessOrEqual(t, r.misses.calls, maxMissCalls)
		require.NotEmpty(t, r.misses.queue)
		r.misses.mu.Unlock()
		resume()
		all.Wait()
		r.misses.mu.Lock()
		defer r.misses.mu.Unlock()
		require.Empty(t, r.misses.queue)
	})
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakePodlink()
		r := f.router(t, RouterOptions{})
		f.hang()
		r.misses.calls = maxMissCalls
		r.misses.queue = make([]*miss, maxMisses)
		_, err := r.links.get(t.Context(), "u")
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, errTooManyLookups)
		r.misses.queue = nil
		require.Empty(t, r.links.way.failed, "it says nothing about podlink")
	})
}

// TestOlderPodlink: one that knows no batches, over gRPC or over HTTP, is asked by single calls; later it may have been upgraded.
func TestOlderPodlink(t *testing.T) {
	for _, code := range []int{501, 404, 405} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakePodlink()
				r := f.router(t, RouterOptions{})
				f.failing(func(_ context.Context, items int) error {
					if items > 1 {
						return kerrors.New(code, "", "unknown")
					}
					return nil
				})
				requireAll(t, nil, lookUp(t.Context(), r, users(100)...))
				singles, batches := f.calls()
				require.Equal(t, 100, singles)
				require.Equal(t, 1, batches)
				f.failing(nil)
				requireAll(t, nil, lookUp(t.Context(), r, "a", "b", "c"))
				_, batches = f.calls()
				require.Equal(t, 1, batches)
				time.Sleep(batchesRetry)
				requireAll(t, nil, lookUp(t.Context(), r, "d", "e", "f"))
				_, batches = f.calls()
				require.Equal(t, 2, batches)
			})
		})
	}
}

// TestRefusedBatch: podlink refuses a batch for one item, or for its size. The other items don't suffer.
func TestRefusedBatch(t *testing.T) {
	t.Run("an item", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFakePodlink()
			r := f.router(t, RouterOptions{})
			f.refuses = func(uid string) bool { return strings.HasSuffix(uid, "7") }
			for uid, err := range lookUp(t.Context(), r, users(30)...) {
				if strings.HasSuffix(uid, "7") {
					require.ErrorIs(t, err, ErrInvalidArgument, uid)
					require.Equal(t, "uid", kerrors.FromError(err).Metadata["field"])
					continue
				}
				require.NoError(t, err, uid)
			}
		})
	})
	t.Run("an item that breaks podlink", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFakePodlink()
			r := f.router(t, RouterOptions{})
			f.failing(func(_ context.Context, items int) error {
				if items > 1 {
					return v1.ErrorInternal("broken")
				}
				return nil
			})
			requireAll(t, nil, lookUp(t.Context(), r, users(30)...))
			require.False(t, r.misses.batchless.now())
		})
	})
	t.Run("the size", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFakePodlink()
			r := f.router(t, RouterOptions{})
			f.maxBatch = 100
			requireAll(t, nil, lookUp(t.Context(), r, users(1000)...))
			before := len(f.batches)
			var uids []string
			for i := range 1000 {
				uids = append(uids, fmt.Sprint("v", i))
			}
			requireAll(t, nil, lookUp(t.Context(), r, uids...))
			require.LessOrEqual(t, len(f.batches)-before, 1000/50+1, "it has learned the size")
		})
	})
}

// TestBadUsersStayAlone: a uid that podlink refuses is not sent together with others.
func TestBadUsersStayAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakePodlink()
		r := f.router(t, RouterOptions{})
		bad := []string{"a\x00b", "\xff", strings.Repeat("x", maxUIDLength+1)}
		f.refuses = func(uid string) bool { return !isUID(uid) }
		for uid, err := range lookUp(t.Context(), r, append(users(20), bad...)...) {
			if !strings.HasPrefix(uid, "u") {
				require.ErrorIs(t, err, ErrInvalidArgument, "%q", uid)
				continue
			}
			require.NoError(t, err, "%q", uid)
		}
		_, batches := f.calls()
		require.Equal(t, 1, batches)
	})
}

// TestUserTwiceInTheQueue: a user about whom two questions wait is in two batches, as podlink takes each uid once.
func TestUserTwiceInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakePodlink()
		r := f.router(t, RouterOptions{})
		var all sync.WaitGroup
		all.Go(func() { lookUp(t.Context(), r, "first") })
		synctest.Wait()
		for range 3 {
			all.Go(func() { requireAll(t, nil, lookUp(t.Context(), r, "u", "v")) })
			synctest.Wait()
			r.links.invalidate("u")
		}
		all.Wait()
		for _, batch := range f.batches {
			seen := map[string]bool{}
			for _, item := range batch.GetItems() {
				require.False(t, seen[item.GetUid()])
				seen[item.GetUid()] = true
			}
		}
		require.Equal(t, 3, f.items("u"))
		require.Equal(t, 1, f.items("v"))
	})
}

// TestStoreOutageDoesNotMultiply: while podlink can't use its store, the lookups of many users make few more requests than lookups.
func TestStoreOutageDoesNotMultiply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakePodlink()
		r := f.router(t, RouterOptions{})
		f.fail = func(context.Context, string) error { return withCause(ErrStoreUnavailable, nil) }
		const rounds = 100
		for range rounds {
			requireAll(t, ErrStoreUnavailable, lookUp(t.Context(), r, users(10)...))
		}
		require.LessOrEqual(t, f.items("u5"), rounds*3)
		singles, batches := f.calls()
		t.Log(singles, batches)
	})
}

// olderLinks is the LinkService of a podlink that knows no batches.
type olderLinks struct {
	v1.UnimplementedLinkServiceServer
}

func (olderLinks) ComputeLinkedPod(_ context.Context, r *v1.ComputeLinkedPodRequest) (*v1.ComputeLinkedPodReply, error) {
	return &v1.ComputeLinkedPodReply{Link: &v1.Link{Uid: r.GetUid(), PodId: 3, Epoch: 1, TtlSeconds: 60}}, nil
}

// TestOlderPodlinkOnTheWire: what it answers to a batch is taken for what it is.
func TestOlderPodlinkOnTheWire(t *testing.T) {
	desc := v1.LinkService_ServiceDesc
	desc.Methods = slices.DeleteFunc(slices.Clone(desc.Methods), func(m grpc.MethodDesc) bool { return strings.HasPrefix(m.MethodName, "Batch") })
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		return l
	}
	atGRPC, atHTTP := listen(), listen()
	over := kgrpc.NewServer(kgrpc.Listener(atGRPC))
	over.RegisterService(&desc, olderLinks{})
	web := khttp.NewServer(khttp.Listener(atHTTP))
	web.HandleFunc("/v1/namespaces/{namespace}/links/{rest:.*}", func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"link": {"podId": 3, "epoch": "1", "ttlSeconds": 60}}`)
	})
	var running sync.WaitGroup
	running.Go(func() { _ = over.Start(context.Background()) })
	running.Go(func() { _ = web.Start(context.Background()) })
	t.Cleanup(func() {
		over.Server.Stop()
		_ = web.Close()
		running.Wait()
	})
	for name, at := range map[string]net.Listener{"gRPC": atGRPC, "HTTP": atHTTP} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, at.Addr().String(), Options{HTTP: name == "HTTP", Timeout: soon})
			r, err := c.NewRouter(testNamespace, testService, RouterOptions{})
			require.NoError(t, err)
			requireAll(t, nil, lookUp(t.Context(), r, users(100)...))
			require.True(t, r.misses.batchless.now())
		})
	}
}
