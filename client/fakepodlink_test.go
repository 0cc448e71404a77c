package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	kerrors "github.com/go-kratos/kratos/v2/errors"

	v1 "podlink/api/podlink/v1"
)

// fakePodlink computes links in this process, for tests in virtual time.
type fakePodlink struct {
	mu       sync.Mutex
	links    map[string]*v1.Link
	pods     map[int32]*v1.Pod
	epoch    int64
	choose   func(avoid []int32) int32                   // the pod of a new link; -1: none is available
	fail     func(ctx context.Context, uid string) error // of an item, or of a single call
	failCall func(ctx context.Context, items int) error  // of a call; it may block
	refuses  func(uid string) bool                       // as not valid
	maxBatch int
	computes []*v1.ComputeLinkedPodRequest // the single ones
	batches  []*v1.BatchComputeLinkedPodRequest
	asked    []*v1.BatchComputeLinkedPodRequest_Item // all items, in order
}

func newFakePodlink() *fakePodlink {
	return &fakePodlink{links: map[string]*v1.Link{}, pods: map[int32]*v1.Pod{}, choose: func([]int32) int32 { return 0 }, maxBatch: maxBatch}
}

// client returns a client of the podlink.
func (f *fakePodlink) client(t testing.TB) *Client {
	t.Helper()
	c := NewOver(f, DefaultTimeout)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// router returns a router over the podlink.
func (f *fakePodlink) router(t testing.TB, o RouterOptions) *Router {
	t.Helper()
	r, err := f.client(t).NewRouter(testNamespace, testService, o)
	require.NoError(t, err)
	return r
}

// set links the user to the pod: for ttl seconds, or persistently if that is -1.
func (f *fakePodlink) set(uid string, pod, ttl int32) *v1.Link {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epoch++
	f.links[uid] = &v1.Link{PodId: pod, Epoch: f.epoch, Persistent: ttl == -1, TtlSeconds: ttl}
	return f.links[uid]
}

// down makes all calls fail as if nothing listened, and hang makes them hang, until the function is called.
func (f *fakePodlink) down() (up func()) {
	return f.failing(func(context.Context, int) error { return errRefused })
}

func (f *fakePodlink) hang() (resume func()) {
	return f.failing(func(ctx context.Context, _ int) error {
		<-ctx.Done()
		return ctx.Err()
	})
}

func (f *fakePodlink) failing(how func(context.Context, int) error) (works func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failCall = how
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.failCall = nil
	}
}

// items returns how many items were asked about the user.
func (f *fakePodlink) items(uid string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	sum := 0
	for _, item := range f.asked {
		if item.GetUid() == uid {
			sum++
		}
	}
	return sum
}

// last returns the last item that was asked.
func (f *fakePodlink) last() *v1.BatchComputeLinkedPodRequest_Item {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[len(f.asked)-1]
}

// calls returns how many single computes, and how many batches were asked.
func (f *fakePodlink) calls() (singles, batches int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.computes), len(f.batches)
}

// errRefused is what a client gets when nothing listens.
var errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}

// Invoke implements grpc.ClientConnInterface.
func (f *fakePodlink) Invoke(ctx context.Context, method string, request, reply any, _ ...grpc.CallOption) error {
	var items []*v1.BatchComputeLinkedPodRequest_Item
	f.mu.Lock()
	switch request := request.(type) {
	case *v1.ComputeLinkedPodRequest:
		f.computes = append(f.computes, request)
		items = append(items, &v1.BatchComputeLinkedPodRequest_Item{
			Uid: request.GetUid(), Known: request.GetKnown(), AvoidPods: request.GetAvoidPods(), AvoidEpoch: request.GetAvoidEpoch(),
		})
	case *v1.BatchComputeLinkedPodRequest:
		f.batches = append(f.batches, request)
		items = request.GetItems()
	default:
		f.mu.Unlock()
		return errors.ErrUnsupported
	}
	f.asked = append(f.asked, items...)
	failCall := f.failCall
	f.mu.Unlock()
	if failCall != nil {
		if err := failCall(ctx, len(items)); err != nil {
			return err
		}
	}
	if len(items) > f.maxBatch {
		return malformed("items", "are too many")
	}
	for i, item := range items {
		if f.refuses == nil || !f.refuses(item.GetUid()) {
			continue
		}
		if method == v1.LinkService_BatchComputeLinkedPod_FullMethodName {
			return malformed(fmt.Sprintf("items[%d].uid", i), "is bad")
		}
		return malformed("uid", "is bad")
	}
	var results []*v1.BatchComputeLinkedPodReply_Result
	pods := map[int32]*v1.Pod{}
	for _, item := range items {
		link, err := f.compute(ctx, item)
		result := &v1.BatchComputeLinkedPodReply_Result{Link: link, Problem: problemOf(err)}
		results = append(results, result)
		f.mu.Lock()
		if pod := f.pods[link.GetPodId()]; pod != nil {
			pods[pod.GetPodId()] = pod
		}
		f.mu.Unlock()
		if err != nil && method == v1.LinkService_ComputeLinkedPod_FullMethodName {
			return err
		}
	}
	var answer proto.Message = &v1.ComputeLinkedPodReply{Link: results[0].GetLink(), Pod: pods[results[0].GetLink().GetPodId()]}
	if method == v1.LinkService_BatchComputeLinkedPod_FullMethodName {
		batch := &v1.BatchComputeLinkedPodReply{Results: results}
		for _, pod := range pods {
			batch.Pods = append(batch.Pods, pod)
		}
		answer = batch
	}
	proto.Merge(reply.(proto.Message), answer)
	return nil
}

func problemOf(err error) *v1.Problem {
	if err == nil {
		return nil
	}
	e := kerrors.FromError(err)
	return &v1.Problem{Reason: e.Reason, Message: e.Message, Metadata: e.Metadata}
}

// compute does what podlink's ComputeLinkedPod does.
func (f *fakePodlink) compute(ctx context.Context, item *v1.BatchComputeLinkedPodRequest_Item) (*v1.Link, error) {
	f.mu.Lock()
	fail := f.fail
	f.mu.Unlock()
	if fail != nil {
		if err := fail(ctx, item.GetUid()); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	link := f.links[item.GetUid()]
	moves := link != nil && !link.GetPersistent() && link.GetEpoch() == item.GetAvoidEpoch() &&
		slices.Contains(item.GetAvoidPods(), link.GetPodId())
	if link != nil && !moves {
		return proto.CloneOf(link), nil
	}
	pod := f.choose(item.GetAvoidPods())
	switch {
	case pod < 0 && link != nil:
		return proto.CloneOf(link), nil
	case pod < 0:
		return nil, ErrNoAvailablePod
	}
	f.epoch++
	f.links[item.GetUid()] = &v1.Link{PodId: pod, Epoch: f.epoch, TtlSeconds: 60}
	return proto.CloneOf(f.links[item.GetUid()]), nil
}

// NewStream implements grpc.ClientConnInterface.
func (f *fakePodlink) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.ErrUnsupported
}

// took returns how long the function takes.
func took(do func()) time.Duration {
	begun := time.Now()
	do()
	return time.Since(begun)
}
