package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/go-kratos/kratos/v2/selector"
	"github.com/go-kratos/kratos/v2/transport"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "podlink/api/podlink/v1"
)

// fakeService is a service in this process, called as by a Kratos client over gRPC, for tests in virtual time.
type fakeService struct {
	router *Router
	filter selector.NodeFilter

	mu    sync.Mutex
	nodes []selector.Node
	pods  map[string]func(ctx context.Context, uid string) error // by ordinal; nil answers
	calls []string                                               // the ordinals of the pods that were called
}

// newFakeService returns a service of that many pods.
func newFakeService(t testing.TB, r *Router, count int32) *fakeService {
	t.Helper()
	s := &fakeService{router: r, filter: r.NodeFilter(), pods: map[string]func(context.Context, string) error{}}
	for id := range count {
		s.nodes = append(s.nodes, node(t, id))
	}
	return s
}

// gone removes the pod from discovery, and back adds it.
func (s *fakeService) gone(id int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var left []selector.Node
	for _, one := range s.nodes {
		if ordinalOf(one) != number(id) {
			left = append(left, one)
		}
	}
	s.nodes = left
}

func (s *fakeService) back(t testing.TB, id int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes = append(s.nodes, node(t, id))
}

func (s *fakeService) handle(id int32, how func(ctx context.Context, uid string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods[number(id)] = how
}

// count returns how many calls have reached a pod, and forgets them.
func (s *fakeService) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.calls)
	s.calls = nil
	return n
}

// call calls the service for the user. It returns the pod that has answered last.
func (s *fakeService) call(ctx context.Context, uid string) (pod string, err error) {
	ctx = transport.NewClientContext(WithUID(ctx, uid), &call{header{}})
	var peer selector.Peer
	ctx = selector.NewPeerContext(ctx, &peer)
	_, err = s.router.Middleware()(func(ctx context.Context, _ any) (any, error) {
		s.mu.Lock()
		found := s.filter(ctx, s.nodes)
		if len(found) == 0 {
			s.mu.Unlock()
			return nil, selector.ErrNoAvailable
		}
		peer.Node = found[0]
		pod = ordinalOf(found[0])
		s.calls = append(s.calls, pod)
		how := s.pods[pod]
		s.mu.Unlock()
		if how == nil {
			return nil, nil
		}
		return nil, how(ctx, uid)
	})(ctx, nil)
	return pod, err
}

// within calls as README's callers do: Kratos gives each call two seconds.
func (s *fakeService) within(uid string) (pod string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return s.call(ctx, uid)
}

// refusal is what the guard of a pod answers.
func refusal(err error, uid, refusedBy string) error {
	return withCause(err, nil, metadataNamespace, testNamespace, metadataService, testService, metadataUID, uid, metadataRefusedBy, refusedBy)
}

// inService runs a test with a podlink, a router, and a service of some pods, in virtual time.
func inService(t *testing.T, o RouterOptions, pods int32, test func(t *testing.T, f *fakePodlink, s *fakeService)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFakePodlink()
		test(t, f, newFakeService(t, f.router(t, o), pods))
	})
}

// TestKnownUsersSurvivePodlink: with README's snippets, a podlink that is killed or hangs costs a user whose link is known no failed
// call, and no call more than 300 ms.
func TestKnownUsersSurvivePodlink(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(f *fakePodlink){
		"killed": func(f *fakePodlink) { f.down() },
		"hangs":  func(f *fakePodlink) { f.hang() },
		"store": func(f *fakePodlink) {
			f.fail = func(context.Context, string) error { return withCause(ErrStoreUnavailable, nil) }
		},
		"no pod": func(f *fakePodlink) {
			f.fail = func(context.Context, string) error { return withCause(ErrNoAvailablePod, nil) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			inService(t, RouterOptions{}, 3, func(t *testing.T, f *fakePodlink, s *fakeService) {
				for i, uid := range users(60) {
					f.set(uid, int32(i%3), -1)
					_, err := s.within(uid)
					require.NoError(t, err)
				}
				away(f)
				var waited atomic.Int32
				for range 60 { // A minute.
					var all sync.WaitGroup
					for i, uid := range users(60) {
						all.Go(func() {
							begun := time.Now()
							pod, err := s.within(uid)
							if err != nil || pod != fmt.Sprint(i%3) || time.Since(begun) > maxRefreshWait {
								t.Errorf("%v, pod %s after %s", err, pod, time.Since(begun))
							}
							if time.Since(begun) > missWindow {
								waited.Add(1)
							}
						})
						synctest.Wait()
					}
					all.Wait()
					time.Sleep(time.Second)
				}
				require.LessOrEqual(t, waited.Load(), int32(60), "a user waits once")
			})
		})
	}
}

// TestMovedUsersAreFoundAfterAnOutage: what podlink answers after it was away counts, at once for users who wait for it.
func TestMovedUsersAreFoundAfterAnOutage(t *testing.T) {
	inService(t, RouterOptions{}, 3, func(t *testing.T, f *fakePodlink, s *fakeService) {
		for _, uid := range users(10) {
			f.set(uid, 0, -1)
			_, err := s.within(uid)
			require.NoError(t, err)
		}
		up := f.down()
		for range 20 {
			for _, uid := range users(10) {
				_, _ = s.within(uid)
			}
			time.Sleep(time.Second)
		}
		up()
		for _, uid := range users(10) {
			f.set(uid, 1, -1)
		}
		time.Sleep(5 * time.Second)
		for _, uid := range users(10) {
			_, _ = s.within(uid)
		}
		synctest.Wait()
		time.Sleep(2 * missWindow)
		for _, uid := range users(10) {
			pod, err := s.within(uid)
			require.NoError(t, err)
			require.Equal(t, "1", pod)
		}
	})
}

// TestNoPodKeepsTheLink: that podlink has no pod for the user is no reason not to try the one that is known.
func TestNoPodKeepsTheLink(t *testing.T) {
	inService(t, RouterOptions{}, 3, func(t *testing.T, f *fakePodlink, s *fakeService) {
		f.set("u", 2, -1)
		_, err := s.within("u")
		require.NoError(t, err)
		f.fail = func(context.Context, string) error { return withCause(ErrNoAvailablePod, nil) }
		s.handle(2, func(_ context.Context, uid string) error { return refusal(ErrLinkUncertain, uid, "2") })
		for range 30 {
			time.Sleep(time.Second)
			pod, err := s.within("u")
			require.Equal(t, "2", pod)
			require.ErrorIs(t, err, ErrLinkUncertain)
		}
		s.handle(2, nil)
		_, err = s.within("u")
		require.NoError(t, err)
		_, err = s.within("stranger")
		require.ErrorIs(t, err, ErrNoAvailablePod)
	})
}

// TestLinkUncertainIsItself: a pod that can't say whether it holds the user was reached. The call is repeated while RetryTimeout
// lasts, at that pod alone, also with Fallback.
func TestLinkUncertainIsItself(t *testing.T) {
	for name, o := range map[string]RouterOptions{"strict": {}, "fallback": {Fallback: true}} {
		t.Run(name, func(t *testing.T) {
			inService(t, o, 3, func(t *testing.T, f *fakePodlink, s *fakeService) {
				f.set("u", 1, -1)
				uncertainUntil := time.Now().Add(time.Hour)
				s.handle(1, func(_ context.Context, uid string) error {
					if time.Now().Before(uncertainUntil) {
						return refusal(ErrLinkUncertain, uid, "1")
					}
					return nil
				})
				require.InDelta(t, time.Second, took(func() {
					_, err := s.within("u")
					require.ErrorIs(t, err, ErrLinkUncertain)
					require.NotErrorIs(t, err, ErrPodUnreachable)
				}), float64(600*time.Millisecond))
				for _, pod := range s.calls {
					require.Equal(t, "1", pod)
				}
				uncertainUntil = time.Now().Add(300 * time.Millisecond)
				_, err := s.within("u")
				require.NoError(t, err)
			})
		})
	}
}

// TestErrorsOfOtherCalls: a handler that has done its work may return the error of a call of its own, which it made for the same user
// or through a router. It has the same reason as this router's own, and is not repeated.
func TestErrorsOfOtherCalls(t *testing.T) {
	foreign := func(err error, namespace, service, uid, refusedBy string) error {
		return withCause(err, nil, metadataNamespace, namespace, metadataService, service, metadataUID, uid, metadataRefusedBy, refusedBy)
	}
	errs := map[string]error{
		"no_available_node":       selector.ErrNoAvailable,
		"NODE_NOT_FOUND":          kerrors.ServiceUnavailable("NODE_NOT_FOUND", "no node"),
		"POD_UNREACHABLE":         ErrPodUnreachable,
		"PODLINK_UNAVAILABLE":     ErrUnavailable,
		"a status without reason": status.Error(codes.Unavailable, "connection error: dial tcp: connection refused"),
	}
	for _, refused := range []error{ErrWrongPod, ErrLinkUncertain} {
		name := kerrors.Reason(refused)
		errs[name+" without metadata"] = refused
		errs[name+" of another service"] = foreign(refused, testNamespace, "rooms", "u", "1")
		errs[name+" of another namespace"] = foreign(refused, "other", testService, "u", "1")
		errs[name+" about another user"] = foreign(refused, testNamespace, testService, "v", "1")
		errs[name+" of another pod"] = foreign(refused, testNamespace, testService, "u", "2")
	}
	for name, err := range errs {
		t.Run(name, func(t *testing.T) {
			for _, o := range []RouterOptions{{}, {Fallback: true}} {
				inService(t, o, 3, func(t *testing.T, f *fakePodlink, s *fakeService) {
					f.set("u", 1, -1)
					s.handle(1, func(context.Context, string) error { return err })
					_, got := s.within("u")
					require.ErrorIs(t, got, err)
					require.Equal(t, kerrors.FromError(err).Metadata, kerrors.FromError(got).Metadata)
					require.Equal(t, 1, s.count(), "carried out once")
				})
			}
		})
	}
}

// TestOwnRefusalsAreRepeated: where the guard has refused the user.
func TestOwnRefusalsAreRepeated(t *testing.T) {
	inService(t, RouterOptions{CacheTTL: time.Hour}, 3, func(t *testing.T, f *fakePodlink, s *fakeService) {
		for id := range int32(3) {
			s.handle(id, func(_ context.Context, uid string) error {
				if f.links[uid].GetPodId() != id {
					return refusal(ErrWrongPod, uid, number(id))
				}
				return nil
			})
		}
		for i := range int32(9) {
			f.set("u", i%3, -1)
			require.LessOrEqual(t, took(func() {
				pod, err := s.within("u")
				require.NoError(t, err)
				require.Equal(t, number(i%3), pod)
			}), missWindow, "podlink knows, so it is not paused for")
		}
	})
}

// TestRefusalsEnd: a pod that refuses a user whom podlink links to it is called until RetryTimeout ends. What it said is the error.
func TestRefusalsEnd(t *testing.T) {
	inService(t, RouterOptions{}, 3, func(t *testing.T, f *fakePodlink, s *fakeService) {
		f.set("u", 1, -1)
		s.handle(1, func(_ context.Context, uid string) error { return refusal(ErrWrongPod, uid, "1") })
		require.LessOrEqual(t, took(func() {
			_, err := s.within("u")
			require.ErrorIs(t, err, ErrWrongPod)
		}), DefaultRetryTimeout)
		require.Greater(t, s.count(), 3)
	})
}

// TestDisownedLinkIsNotPutBack: podlink is asked with the link that is known, so that it puts it back if its store has lost it; but not
// with one that a pod has refused since.
func TestDisownedLinkIsNotPutBack(t *testing.T) {
	inService(t, RouterOptions{}, 3, func(t *testing.T, f *fakePodlink, s *fakeService) {
		link := f.set("u", 1, -1)
		_, err := s.within("u")
		require.NoError(t, err)
		require.Nil(t, f.last().GetKnown(), "nothing was known")
		time.Sleep(DefaultCacheTTL)
		_, err = s.within("u")
		require.NoError(t, err)
		require.EqualValues(t, 1, f.last().GetKnown().GetPodId())
		require.Equal(t, link.GetEpoch(), f.last().GetKnown().GetEpoch())

		s.gone(1) // It is not reached: that says nothing about the link.
		_, err = s.within("u")
		require.ErrorIs(t, err, ErrPodUnreachable)
		require.Equal(t, link.GetEpoch(), f.last().GetKnown().GetEpoch())
		s.back(t, 1)
		_, err = s.within("u")
		require.NoError(t, err)

		s.handle(1, func(_ context.Context, uid string) error { return refusal(ErrWrongPod, uid, "1") })
		_, err = s.within("u")
		require.ErrorIs(t, err, ErrWrongPod)
		require.Nil(t, f.last().GetKnown())
	})
}

// TestRefusedLinkIsUsedWithoutPodlink: a link that a pod has refused is asked about; without an answer it is used again, as the pod
// may hold the user by now.
func TestRefusedLinkIsUsedWithoutPodlink(t *testing.T) {
	inService(t, RouterOptions{}, 3, func(t *testing.T, f *fakePodlink, s *fakeService) {
		f.set("u", 1, -1)
		_, err := s.within("u")
		require.NoError(t, err)
		f.hang()
		refuse := true
		s.handle(1, func(_ context.Context, uid string) error {
			if refuse {
				refuse = false
				return refusal(ErrWrongPod, uid, "1")
			}
			return nil
		})
		require.LessOrEqual(t, took(func() {
			_, err := s.within("u")
			require.NoError(t, err)
		}), maxRefreshWait)
		require.Zero(t, took(func() { _, err = s.within("u") }), "the pod has answered: no doubt is left")
		require.NoError(t, err)
	})
}

// TestStoreClockSetBack: podlink refuses an epoch that is far ahead of its store's clock. The user is not lost for that.
func TestStoreClockSetBack(t *testing.T) {
	inService(t, RouterOptions{}, 3, func(t *testing.T, f *fakePodlink, s *fakeService) {
		f.set("u", 1, -1)
		_, err := s.within("u")
		require.NoError(t, err)
		f.set("u", 2, -1)
		f.fail = func(context.Context, string) error {
			if f.last().GetKnown() != nil {
				return malformed("known.epoch", "is too far ahead")
			}
			return nil
		}
		time.Sleep(DefaultCacheTTL)
		pod, err := s.within("u")
		require.NoError(t, err)
		require.Equal(t, "2", pod)
	})
}

// TestUnreachablePod: a pod without an instance in discovery costs its user's call RetryTimeout, and the error names it.
func TestUnreachablePod(t *testing.T) {
	inService(t, RouterOptions{}, 3, func(t *testing.T, f *fakePodlink, s *fakeService) {
		f.set("u", 1, -1)
		s.gone(1)
		_, err := s.within("u")
		require.ErrorIs(t, err, ErrPodUnreachable)
		require.Equal(t, "1", kerrors.FromError(err).Metadata[MetadataPodID])
		require.Zero(t, s.count())
		time.AfterFunc(500*time.Millisecond, func() { s.back(t, 1) })
		_, err = s.within("u")
		require.NoError(t, err)
	})
}

// TestMiddlewareRefuses: an error of a middleware between router and transport is not the pod's, and is not repeated.
func TestMiddlewareRefuses(t *testing.T) {
	inService(t, RouterOptions{}, 3, func(t *testing.T, f *fakePodlink, s *fakeService) {
		f.set("u", 1, -1)
		ctx := selector.NewPeerContext(transport.NewClientContext(WithUID(t.Context(), "u"), &call{header{}}), &selector.Peer{})
		for _, err := range []error{errors.New("circuit open"), kerrors.New(503, "CIRCUITBREAKER", "open"), kerrors.BadRequest("VALIDATOR", "")} {
			times := 0
			_, got := s.router.Middleware()(func(context.Context, any) (any, error) {
				times++
				return nil, err
			})(ctx, nil)
			require.ErrorIs(t, got, err)
			require.Equal(t, 1, times)
		}
	})
}

// TestPodlinkHangsForStrangers: with Fallback, podlink gets a third of the time for a user of whom nothing is known.
func TestPodlinkHangsForStrangers(t *testing.T) {
	inService(t, RouterOptions{Fallback: true}, 3, func(t *testing.T, f *fakePodlink, s *fakeService) {
		f.hang()
		require.Equal(t, 2*time.Second/3, took(func() {
			_, err := s.within("u")
			require.NoError(t, err)
		}))
	})
	inService(t, RouterOptions{}, 3, func(t *testing.T, f *fakePodlink, s *fakeService) {
		f.hang()
		require.LessOrEqual(t, took(func() {
			_, err := s.within("u")
			require.ErrorIs(t, err, ErrDeadlineExceeded)
		}), 2*time.Second)
	})
}

// TestFallback: a call whose pod has no instance goes to any pod. What that says about the user says nothing about the link.
func TestFallback(t *testing.T) {
	inService(t, RouterOptions{Fallback: true}, 3, func(t *testing.T, f *fakePodlink, s *fakeService) {
		link := f.set("u", 1, -1)
		_, err := s.within("u")
		require.NoError(t, err)
		s.gone(1)
		for range 3 {
			pod, err := s.within("u")
			require.NoError(t, err)
			require.NotEqual(t, "1", pod)
		}
		s.count()
		for _, id := range []int32{0, 2} {
			s.handle(id, func(_ context.Context, uid string) error { return refusal(ErrWrongPod, uid, number(id)) })
		}
		_, err = s.within("u")
		require.ErrorIs(t, err, ErrWrongPod)
		require.Equal(t, 1, s.count(), "any pod is as good")
		time.Sleep(DefaultCacheTTL)
		_, err = s.within("u")
		require.ErrorIs(t, err, ErrWrongPod)
		require.Equal(t, link.GetEpoch(), f.last().GetKnown().GetEpoch())
		s.back(t, 1)
		pod, err := s.within("u")
		require.NoError(t, err)
		require.Equal(t, "1", pod)
	})
}

// TestProcessOfThePod: of two instances of one ordinal the router prefers the process that podlink has named last.
func TestProcessOfThePod(t *testing.T) {
	process := func(id int32, instance string) selector.Node {
		return selector.NewNode("grpc", instance+":9000", &registry.ServiceInstance{
			ID: instance, Name: testService, Metadata: map[string]string{MetadataPodID: number(id), MetadataInstanceID: instance},
		})
	}
	inService(t, RouterOptions{}, 0, func(t *testing.T, f *fakePodlink, s *fakeService) {
		s.nodes = []selector.Node{process(0, "old"), process(0, "new"), process(1, "other")}
		f.set("u", 0, -1)
		instances := func() (names []string) {
			link, err := s.router.links.get(t.Context(), "u")
			require.NoError(t, err)
			for _, found := range s.filter(context.WithValue(t.Context(), podCallKey{s.router}, &podCall{link: link}), s.nodes) {
				names = append(names, found.Metadata()[MetadataInstanceID])
			}
			return names
		}
		require.Equal(t, []string{"old", "new"}, instances(), "podlink has named none")
		for _, want := range []string{"old", "new"} {
			f.pods[0] = &v1.Pod{PodId: 0, InstanceId: want}
			time.Sleep(DefaultCacheTTL)
			require.Equal(t, []string{want}, instances())
		}
		f.pods[0] = &v1.Pod{PodId: 0, InstanceId: "not in discovery yet"}
		time.Sleep(DefaultCacheTTL)
		require.Equal(t, []string{"old", "new"}, instances())
	})
}

// TestRouterWithoutItsNodeFilter: a client that is wired by half hears of it with its first call, whatever the pod answers.
func TestRouterWithoutItsNodeFilter(t *testing.T) {
	onBoth(t, func(t *testing.T, over string) {
		w := newWorld(t, over)
		p := newPod(t, 0)
		w.put(p.instance(nil))
		r, err := w.client.NewRouter(testNamespace, testService, RouterOptions{UID: userField})
		require.NoError(t, err)
		chat := w.stub(soon, nil, r.Middleware())
		w.connected(chat, 1)
		w.link("u", 0)
		var answer error
		p.handle = func(context.Context, string) error { return answer }
		for _, answer = range []error{nil, refusal(ErrWrongPod, "u", "0"), kerrors.New(400, "OWN", "the pod's own")} {
			before := p.done.Load()
			_, err = chat.set(t.Context(), "u", "text")
			require.ErrorIs(t, err, errMiswired)
			require.ErrorContains(t, err, "WithNodeFilter")
			require.Equal(t, before+1, p.done.Load(), "it is not repeated")
		}
		answer = nil
		_, err = chat.batch(t.Context())
		require.NoError(t, err, "it is about no user")
	})
}
