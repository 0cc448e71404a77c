package client

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/transport"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	v1 "podlink/api/podlink/v1"
)

// guardTTL is the lease of a report in the guard's tests, and guardCacheTTL how long podlink's answers count.
const guardTTL, guardCacheTTL, guardTimeout = 15 * time.Second, 5 * time.Second, 3 * time.Second

// guardPodlink is a podlink that a guard asks.
type guardPodlink struct {
	v1.LinkServiceClient

	mu     sync.Mutex
	links  map[string]*v1.Link
	errs   map[string]error // by user
	down   error            // of all
	hangs  bool
	asked  map[string]int
	before func() // of an answer
}

// GetLinkedPod implements v1.LinkServiceClient.
func (p *guardPodlink) GetLinkedPod(ctx context.Context, r *v1.GetLinkedPodRequest, _ ...grpc.CallOption) (*v1.GetLinkedPodReply, error) {
	p.mu.Lock()
	p.asked[r.GetUid()]++
	link, err, hangs, before := p.links[r.GetUid()], p.errs[r.GetUid()], p.hangs, p.before
	if p.down != nil {
		err = p.down
	}
	p.mu.Unlock()
	if before != nil {
		before()
	}
	switch {
	case hangs:
		<-ctx.Done()
		return nil, withCause(ErrDeadlineExceeded, ctx.Err())
	case err != nil:
		return nil, err
	case link == nil:
		return &v1.GetLinkedPodReply{Link: &v1.Link{PodId: -1, TtlSeconds: -2}}, nil
	}
	return &v1.GetLinkedPodReply{Link: link}, nil
}

func (p *guardPodlink) set(how func(p *guardPodlink)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	how(p)
}

// link links the user to the pod; -1 removes the link.
func (p *guardPodlink) link(uid string, pod int32, epoch int64) {
	p.set(func(p *guardPodlink) {
		p.links[uid] = &v1.Link{PodId: pod, Epoch: epoch, Persistent: true, TtlSeconds: -1}
		if pod < 0 {
			delete(p.links, uid)
		}
	})
}

// questions is how often podlink was asked about the user.
func (p *guardPodlink) questions(uid string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[uid]
}

// guardSessions are the sessions of a guard's pod.
type guardSessions struct {
	mu        sync.Mutex
	held      map[string]holding
	seen      []*v1.Link
	restores  int
	restoring func(ctx context.Context, uid string) (holding, error) // nil: restore changes nothing
}

func (s *guardSessions) holding(uid string) holding {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[uid]
}

func (s *guardSessions) hold(uid string, h holding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[uid] = h
}

func (s *guardSessions) saw(_ string, link *v1.Link, _ time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, link)
}

func (s *guardSessions) restore(ctx context.Context, uid string) (holding, error) {
	s.mu.Lock()
	s.restores++
	s.mu.Unlock()
	if s.restoring != nil {
		return s.restoring(ctx, uid)
	}
	return s.holding(uid), nil
}

// guardWorld is the guard of pod 0 of chat, with all that it needs.
type guardWorld struct {
	*guard
	podlink *guardPodlink
	held    *guardSessions
	leased  *lease
}

// newGuardWorld returns a guard whose pod has just reported.
func newGuardWorld(t testing.TB, how func(o *guardOptions)) *guardWorld {
	t.Helper()
	w := &guardWorld{
		podlink: &guardPodlink{links: map[string]*v1.Link{}, errs: map[string]error{}, asked: map[string]int{}},
		held:    &guardSessions{held: map[string]holding{}}, leased: newLease(guardTTL),
	}
	o := guardOptions{
		links: w.podlink, lease: w.leased, sessions: w.held, namespace: testNamespace, service: testService, pod: 0,
		uid: userField, cacheTTL: guardCacheTTL, timeout: guardTimeout, log: log.NewHelper(log.NewStdLogger(io.Discard)),
	}
	if how != nil {
		how(&o)
	}
	var err error
	w.guard, err = newGuard(o)
	require.NoError(t, err)
	t.Cleanup(w.close)
	w.report()
	return w
}

func (w *guardWorld) report() {
	w.leased.renew(renewal{begun: time.Now(), generation: 1, storeID: "a"})
}

// reportFor lets time pass, in which the pod reports three times per TTL.
func (w *guardWorld) reportFor(d time.Duration) {
	for ; d > guardTTL/3; d -= guardTTL / 3 {
		time.Sleep(guardTTL / 3)
		w.report()
	}
	time.Sleep(d)
}

// request is a request for the user, as its handler gets it if the guard lets it pass.
func (w *guardWorld) request(ctx context.Context, uid string) (inner context.Context, err error) {
	ctx = transport.NewServerContext(ctx, &call{header{}})
	_, err = w.middleware(func(passed context.Context, _ any) (any, error) {
		inner = passed
		return nil, nil
	})(ctx, &v1.SetWorkloadStateRequest{Service: uid})
	return inner, err
}

// serve is the error of a request for the user, which has a second.
func (w *guardWorld) serve(uid string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := w.request(ctx, uid)
	return err
}
