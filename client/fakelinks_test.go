package client

import (
	"context"
	"io"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/log"
	"google.golang.org/grpc"

	v1 "podlink/api/podlink/v1"
)

// fakeLinks is the links of one service in memory, with the contract's rules for those calls that sessions make.
type fakeLinks struct {
	v1.LinkServiceClient // nil: other calls panic

	// around carries out a call; nil: at once. It may wait, fail, or lose the answer.
	around func(ctx context.Context, method string, do func()) error
	// singles refuses batches, and limit longer ones.
	singles bool
	limit   int

	mu       sync.Mutex
	links    map[string]fakeLink
	latest   map[string]int64 // the latest epoch, also of links that are gone
	problems map[string]error // of the calls for a uid
	calls    map[string]int
	items    map[string]int
	store    string // store_id
}

type fakeLink struct {
	pod          int32
	epoch, claim int64
	end          time.Time // zero: persistent
}

func newFakeLinks() *fakeLinks {
	return &fakeLinks{
		links: map[string]fakeLink{}, latest: map[string]int64{}, problems: map[string]error{}, calls: map[string]int{},
		items: map[string]int{}, store: "store-1",
	}
}

// flush loses everything, as FLUSHALL does.
func (f *fakeLinks) flush() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.links, f.latest = map[string]fakeLink{}, map[string]int64{}
	f.store += "'"
}

// put links a uid as a caller would who claims nothing, and returns the epoch.
func (f *fakeLinks) put(uid string, pod int32) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	link, ok := f.live(uid)
	if !ok || link.pod != pod {
		link = fakeLink{pod: pod, epoch: f.next(uid, 0)}
	}
	f.links[uid] = link
	return link.epoch
}

func (f *fakeLinks) drop(uid string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.links, uid)
}

// of returns the uid's link.
func (f *fakeLinks) of(uid string) *v1.Link {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.link(uid)
}

func (f *fakeLinks) count(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[method]
}

// counted returns how many items the calls have had.
func (f *fakeLinks) counted(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.items[method]
}

// size returns how many links there are.
func (f *fakeLinks) size() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.links)
}

func (f *fakeLinks) storeID() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.store
}

func (f *fakeLinks) fail(uid string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.problems[uid] = err
}

func (f *fakeLinks) live(uid string) (fakeLink, bool) {
	link, ok := f.links[uid]
	if ok && !link.end.IsZero() && !time.Now().Before(link.end) {
		delete(f.links, uid)
		return fakeLink{}, false
	}
	return link, ok
}

func (f *fakeLinks) next(uid string, above int64) int64 {
	f.latest[uid] = max(f.latest[uid]+1, above+1, time.Now().UnixMicro())
	return f.latest[uid]
}

func (f *fakeLinks) link(uid string) *v1.Link {
	link, ok := f.live(uid)
	switch {
	case !ok:
		return &v1.Link{Uid: uid, PodId: -1, TtlSeconds: -2}
	case link.end.IsZero():
		return &v1.Link{Uid: uid, PodId: link.pod, Persistent: true, TtlSeconds: -1, Epoch: link.epoch, Claim: link.claim}
	}
	left := int32((time.Until(link.end)-1)/time.Second + 1)
	return &v1.Link{Uid: uid, PodId: link.pod, TtlSeconds: left, Epoch: link.epoch, Claim: link.claim}
}

func (f *fakeLinks) mismatch(uid string) error {
	link := f.link(uid)
	return withCause(ErrEpochMismatch, nil, "pod_id", number(link.GetPodId()), "epoch", number(link.GetEpoch()), "claim", number(link.GetClaim()))
}

// set is SetLinkedPod and, with IfAbsent, SetLinkedPodIfAbsent.
func (f *fakeLinks) set(item *v1.BatchSetLinkedPodRequest_Item) (linked bool, err error) {
	if err := f.problems[item.GetUid()]; err != nil {
		return false, err
	}
	link, ok := f.live(item.GetUid())
	if item.GetIfAbsent() {
		if ok {
			return false, nil
		}
		f.links[item.GetUid()] = fakeLink{
			pod: item.GetPodId(), epoch: f.next(item.GetUid(), item.GetAboveEpoch()), claim: item.GetClaim(),
		}
		return true, nil
	}
	expected := item.ExpectedEpoch
	mine := ok && link.pod == item.GetPodId()
	renew := !mine
	if claim := item.GetClaim(); mine && claim != 0 {
		switch {
		case link.claim == claim && (item.AboveEpoch == nil || item.GetAboveEpoch() < link.epoch):
			expected = nil
		case link.claim > claim:
			return false, withCause(ErrSuperseded, nil, "generation", number(link.claim), "final", "false")
		default:
			renew = true
		}
	}
	if expected != nil && *expected != link.epoch {
		return false, f.mismatch(item.GetUid())
	}
	if renew {
		link = fakeLink{pod: item.GetPodId(), epoch: f.next(item.GetUid(), item.GetAboveEpoch()), claim: item.GetClaim()}
	}
	link.end = time.Time{}
	f.links[item.GetUid()] = link
	return true, nil
}

func (f *fakeLinks) remove(item *v1.BatchRemoveLinkedPodRequest_Item) (removed bool, err error) {
	if err := f.problems[item.GetUid()]; err != nil {
		return false, err
	}
	link, ok := f.live(item.GetUid())
	if item.ExpectedEpoch != nil && item.GetExpectedEpoch() != link.epoch {
		return false, f.mismatch(item.GetUid())
	}
	if keep := item.GetKeepSeconds(); keep > 0 && ok {
		link.end, link.claim = time.Now().Add(time.Duration(keep)*time.Second), 0
		f.links[item.GetUid()] = link
	} else {
		delete(f.links, item.GetUid())
	}
	return ok, nil
}

// answer carries out one call, and repeats it as a client would.
func answer[Reply any](
	ctx context.Context, f *fakeLinks, method string, items int, options []grpc.CallOption, do func() (Reply, error),
) (reply Reply, err error) {
	var open error
	for between := pauses(); ; {
		var attempt struct { // A late one has its own.
			reply Reply
			err   error
		}
		err := f.attempt(ctx, method, items, func() { attempt.reply, attempt.err = do() })
		switch {
		case err == nil:
			return attempt.reply, attempt.err
		case uncertain(err) && isRepeatable(options):
			open = err
		case open == nil:
			return reply, err
		}
		if !pause(ctx, between.NextBackOff()) {
			return reply, open
		}
	}
}

// attempt sends one request.
func (f *fakeLinks) attempt(ctx context.Context, method string, items int, do func()) error {
	f.mu.Lock()
	f.calls[method]++
	f.items[method] += items
	around := f.around
	f.mu.Unlock()
	locked := func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		do()
	}
	if around == nil {
		locked()
		return nil
	}
	return around(ctx, method, locked)
}

func (f *fakeLinks) setAround(around func(ctx context.Context, method string, do func()) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.around = around
}

// refused returns why a batch is refused; nil: it is not.
func (f *fakeLinks) refused(items int) error {
	if f.singles {
		return kerrors.New(501, "", "unknown method")
	}
	if f.limit > 0 && items > f.limit {
		return withCause(ErrInvalidArgument, nil, "field", "items")
	}
	return nil
}

func asProblem(err error) *v1.Problem {
	cause := kerrors.FromError(err)
	return &v1.Problem{Reason: cause.Reason, Message: cause.Message, Metadata: cause.Metadata}
}

// GetLinkedPod implements v1.LinkServiceClient.
func (f *fakeLinks) GetLinkedPod(ctx context.Context, r *v1.GetLinkedPodRequest, o ...grpc.CallOption) (*v1.GetLinkedPodReply, error) {
	return answer(ctx, f, "Get", 1, o, func() (*v1.GetLinkedPodReply, error) {
		return &v1.GetLinkedPodReply{Link: f.link(r.GetUid())}, f.problems[r.GetUid()]
	})
}

// SetLinkedPod implements v1.LinkServiceClient.
func (f *fakeLinks) SetLinkedPod(ctx context.Context, r *v1.SetLinkedPodRequest, o ...grpc.CallOption) (*v1.SetLinkedPodReply, error) {
	return answer(ctx, f, "Set", 1, o, func() (*v1.SetLinkedPodReply, error) {
		_, err := f.set(&v1.BatchSetLinkedPodRequest_Item{
			Uid: r.GetUid(), PodId: r.PodId, ExpectedEpoch: r.ExpectedEpoch, Claim: r.GetClaim(), AboveEpoch: r.AboveEpoch,
		})
		return &v1.SetLinkedPodReply{Link: f.link(r.GetUid())}, err
	})
}

// SetLinkedPodIfAbsent implements v1.LinkServiceClient.
func (f *fakeLinks) SetLinkedPodIfAbsent(
	ctx context.Context, r *v1.SetLinkedPodIfAbsentRequest, o ...grpc.CallOption,
) (*v1.SetLinkedPodIfAbsentReply, error) {
	return answer(ctx, f, "SetIfAbsent", 1, o, func() (*v1.SetLinkedPodIfAbsentReply, error) {
		created, err := f.set(&v1.BatchSetLinkedPodRequest_Item{
			Uid: r.GetUid(), PodId: r.PodId, IfAbsent: true, Claim: r.GetClaim(), AboveEpoch: r.AboveEpoch,
		})
		return &v1.SetLinkedPodIfAbsentReply{Created: created, Link: f.link(r.GetUid())}, err
	})
}

// RemoveLinkedPod implements v1.LinkServiceClient.
func (f *fakeLinks) RemoveLinkedPod(
	ctx context.Context, r *v1.RemoveLinkedPodRequest, o ...grpc.CallOption,
) (*v1.RemoveLinkedPodReply, error) {
	return answer(ctx, f, "Remove", 1, o, func() (*v1.RemoveLinkedPodReply, error) {
		removed, err := f.remove(&v1.BatchRemoveLinkedPodRequest_Item{
			Uid: r.GetUid(), KeepSeconds: r.KeepSeconds, ExpectedEpoch: r.ExpectedEpoch,
		})
		return &v1.RemoveLinkedPodReply{Removed: removed}, err
	})
}

// BatchSetLinkedPod implements v1.LinkServiceClient.
func (f *fakeLinks) BatchSetLinkedPod(
	ctx context.Context, r *v1.BatchSetLinkedPodRequest, o ...grpc.CallOption,
) (*v1.BatchSetLinkedPodReply, error) {
	if err := f.refused(len(r.GetItems())); err != nil {
		return nil, err
	}
	return answer(ctx, f, "BatchSet", len(r.GetItems()), o, func() (*v1.BatchSetLinkedPodReply, error) {
		reply := &v1.BatchSetLinkedPodReply{}
		for _, item := range r.GetItems() {
			linked, err := f.set(item)
			result := &v1.BatchSetLinkedPodReply_Result{Linked: linked, Link: f.link(item.GetUid())}
			if err != nil {
				result.Link, result.Problem = &v1.Link{Uid: item.GetUid()}, asProblem(err)
			}
			reply.Results = append(reply.Results, result)
		}
		return reply, nil
	})
}

// BatchRemoveLinkedPod implements v1.LinkServiceClient.
func (f *fakeLinks) BatchRemoveLinkedPod(
	ctx context.Context, r *v1.BatchRemoveLinkedPodRequest, o ...grpc.CallOption,
) (*v1.BatchRemoveLinkedPodReply, error) {
	if err := f.refused(len(r.GetItems())); err != nil {
		return nil, err
	}
	return answer(ctx, f, "BatchRemove", len(r.GetItems()), o, func() (*v1.BatchRemoveLinkedPodReply, error) {
		reply := &v1.BatchRemoveLinkedPodReply{}
		for _, item := range r.GetItems() {
			removed, err := f.remove(item)
			result := &v1.BatchRemoveLinkedPodReply_Result{Uid: item.GetUid(), Removed: removed}
			if err != nil {
				result.Problem = asProblem(err)
			}
			reply.Results = append(reply.Results, result)
		}
		return reply, nil
	})
}

// BatchVerifyLinkedPod implements v1.LinkServiceClient.
func (f *fakeLinks) BatchVerifyLinkedPod(
	ctx context.Context, r *v1.BatchVerifyLinkedPodRequest, o ...grpc.CallOption,
) (*v1.BatchVerifyLinkedPodReply, error) {
	if err := f.refused(len(r.GetItems())); err != nil {
		return nil, err
	}
	return answer(ctx, f, "BatchVerify", len(r.GetItems()), o, func() (*v1.BatchVerifyLinkedPodReply, error) {
		reply := &v1.BatchVerifyLinkedPodReply{}
		for _, item := range r.GetItems() {
			link := f.link(item.GetUid())
			switch err := f.problems[item.GetUid()]; {
			case err != nil:
				reply.Problems = append(reply.Problems, &v1.BatchGetLinkedPodReply_Problem{
					Uid: item.GetUid(), Reason: kerrors.Reason(err), Message: err.Error(),
				})
			case link.GetPodId() != r.GetPodId() || link.GetEpoch() != item.GetEpoch():
				reply.Links = append(reply.Links, link)
			}
		}
		return reply, nil
	})
}

// loses carries calls out and loses their answers.
func loses(_ context.Context, _ string, do func()) error {
	do()
	return withCause(ErrOutcomeUnknown, nil)
}

// hang is a podlink that answers nothing.
func hang(ctx context.Context, method string, _ func()) error {
	<-ctx.Done()
	if method == "Get" || method == "BatchVerify" {
		return withCause(ErrDeadlineExceeded, ctx.Err())
	}
	return withCause(ErrOutcomeUnknown, ctx.Err())
}

// podTTL is the TTL of the pods of these tests, and podTimeout the timeout of their clients.
const (
	podTTL     = 15 * time.Second
	podTimeout = 3 * time.Second
)

// podSessions are the sessions of one process of a pod, with a lease that is renewed as a reporter would.
type podSessions struct {
	*sessions
	store    *fakeLinks
	process  int64 // its generation
	drain    atomic.Bool
	silent   atomic.Bool // podlink gets no reports
	mu       sync.Mutex
	told     []string // what OnLost got: "<uid> <epoch>"
	onLostDo func(uid string, epoch int64)
}

// newPodSessions returns the sessions of a process that has this generation. Nothing runs yet.
func newPodSessions(store *fakeLinks, pod int32, generation int64) *podSessions {
	p := &podSessions{store: store, process: generation}
	p.sessions = newSessions(sessionOptions{
		links: store, lease: newLease(podTTL), namespace: testNamespace, service: testService, pod: pod, timeout: podTimeout,
		cacheTTL: DefaultGuardCacheTTL,
		onLost: func(uid string, epoch int64) {
			p.mu.Lock()
			p.told = append(p.told, uid+" "+strconv.FormatInt(epoch, 10))
			do := p.onLostDo
			p.mu.Unlock()
			if do != nil {
				do(uid, epoch)
			}
		},
		log: log.NewHelper(log.NewStdLogger(io.Discard)), draining: p.drain.Load, forget: func(string) {},
		report: func() {
			if !p.silent.Load() && generation != 0 {
				p.lease.renew(renewal{begun: time.Now(), generation: generation, storeID: store.storeID()})
			}
		},
	})
	return p
}

// runPod runs the sessions, and reports each third of the TTL, until the test ends.
func runPod(t *testing.T, p *podSessions) *podSessions {
	t.Helper()
	p.report()
	go p.run(t.Context())
	go func() {
		for t.Context().Err() == nil {
			sleep(t.Context(), podTTL/3)
			p.report()
		}
	}()
	return p
}

// losses returns what OnLost got, sorted.
func (p *podSessions) losses() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(slices.Values(p.told))
}
