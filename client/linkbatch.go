package client

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"golang.org/x/sync/errgroup"

	v1 "podlink/api/podlink/v1"
)

const (
	// largestBatch is the number of links in a batch, unless podlink's own limit is lower.
	largestBatch = 1000
	// singlesAtOnce is the number of calls in flight to a podlink without batches.
	singlesAtOnce = 16
)

// linkBatches changes and reads many links of a service's pod in one call each, or one by one where podlink has no batches.
type linkBatches struct {
	links              v1.LinkServiceClient
	namespace, service string
	pod                int32
	timeout            time.Duration

	batchless batchless
	limit     atomic.Int32 // podlink's own, once it has refused a batch; 0: not known
}

// linkResult is podlink's answer about one link of a batch.
type linkResult struct {
	link   *v1.Link       // the current link, where the answer shows it
	linked bool           // the link is set as asked for
	err    *kerrors.Error // the same as of a call for this link alone; nil: none
}

// failed returns the result of a link whose call has failed.
func failed(err error) linkResult {
	cause := kerrors.FromError(err)
	return linkResult{err: cause, link: linkIn(cause.Metadata)}
}

// has reports whether the result is an error with that reason.
func (r linkResult) has(reason v1.ErrorReason) bool {
	return r.err != nil && r.err.Reason == reason.String()
}

// open reports whether the change may have been carried out, or may be carried out yet.
func (r linkResult) open() bool {
	return r.has(v1.ErrorReason_OUTCOME_UNKNOWN) || r.has(v1.ErrorReason_REPLICATION_UNCONFIRMED)
}

// final reports whether podlink will give the same answer for as long as the link does not change.
func (r linkResult) final() bool {
	return r.has(v1.ErrorReason_EPOCH_MISMATCH) || r.has(v1.ErrorReason_SUPERSEDED) || r.has(v1.ErrorReason_INVALID_ARGUMENT) ||
		r.has(v1.ErrorReason_STORE_DATA_CORRUPT)
}

// linkIn returns the link that an error's metadata describes; nil: none.
func linkIn(metadata map[string]string) *v1.Link {
	pod, err := strconv.ParseInt(metadata["pod_id"], 10, 32)
	if err != nil {
		return nil
	}
	epoch, err := strconv.ParseInt(metadata["epoch"], 10, 64)
	if err != nil {
		return nil
	}
	claim, _ := strconv.ParseInt(metadata["claim"], 10, 64) // Not every error shows it.
	return &v1.Link{PodId: int32(pod), Epoch: epoch, Claim: claim}
}

// size is the number of links in the next batch.
func (b *linkBatches) size() int {
	if b.batchless.now() {
		return singlesAtOnce
	}
	if limit := b.limit.Load(); limit != 0 {
		return int(limit)
	}
	return largestBatch
}

// get returns the user's link.
func (b *linkBatches) get(ctx context.Context, uid string) (*v1.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	reply, err := b.links.GetLinkedPod(ctx, &v1.GetLinkedPodRequest{Namespace: b.namespace, Uid: uid, Service: b.service})
	if err != nil {
		return nil, err
	}
	return reply.GetLink(), nil
}

// setOne sets one link. It claims it, so it does no harm when it is carried out twice.
func (b *linkBatches) setOne(ctx context.Context, item *v1.BatchSetLinkedPodRequest_Item) linkResult {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	if item.GetIfAbsent() {
		reply, err := b.links.SetLinkedPodIfAbsent(ctx, &v1.SetLinkedPodIfAbsentRequest{
			Namespace: b.namespace, Uid: item.GetUid(), Service: b.service, PodId: item.PodId, PersistSeconds: item.PersistSeconds,
			Claim: item.GetClaim(), AboveEpoch: item.AboveEpoch,
		}, repeatable)
		if err != nil {
			return failed(err)
		}
		return linkResult{link: reply.GetLink(), linked: reply.GetCreated()}
	}
	reply, err := b.links.SetLinkedPod(ctx, &v1.SetLinkedPodRequest{
		Namespace: b.namespace, Uid: item.GetUid(), Service: b.service, PodId: item.PodId, PersistSeconds: item.PersistSeconds,
		ExpectedEpoch: item.ExpectedEpoch, Claim: item.GetClaim(), AboveEpoch: item.AboveEpoch,
	}, repeatable)
	if err != nil {
		return failed(err)
	}
	return linkResult{link: reply.GetLink(), linked: true}
}

// set sets links. The error is of the whole call; otherwise each item has a result.
func (b *linkBatches) set(ctx context.Context, items []*v1.BatchSetLinkedPodRequest_Item) ([]linkResult, error) {
	return inBatch(ctx, b, items, func(ctx context.Context, items []*v1.BatchSetLinkedPodRequest_Item) ([]linkResult, error) {
		reply, err := b.links.BatchSetLinkedPod(ctx, &v1.BatchSetLinkedPodRequest{
			Namespace: b.namespace, Service: b.service, Items: items,
		})
		results := make([]linkResult, len(reply.GetResults()))
		for i, result := range reply.GetResults() {
			if problem := result.GetProblem(); problem != nil {
				results[i] = failed(problemError(problem))
			} else {
				results[i] = linkResult{link: result.GetLink(), linked: result.GetLinked()}
			}
		}
		return results, err
	}, b.setOne)
}

// remove removes links, or makes them temporary. The error is of the whole call; otherwise each item has a result.
func (b *linkBatches) remove(ctx context.Context, items []*v1.BatchRemoveLinkedPodRequest_Item) ([]linkResult, error) {
	return inBatch(ctx, b, items, func(ctx context.Context, items []*v1.BatchRemoveLinkedPodRequest_Item) ([]linkResult, error) {
		reply, err := b.links.BatchRemoveLinkedPod(ctx, &v1.BatchRemoveLinkedPodRequest{
			Namespace: b.namespace, Service: b.service, Items: items,
		})
		results := make([]linkResult, len(reply.GetResults()))
		for i, result := range reply.GetResults() {
			if problem := result.GetProblem(); problem != nil {
				results[i] = failed(problemError(problem))
			}
		}
		return results, err
	}, func(ctx context.Context, item *v1.BatchRemoveLinkedPodRequest_Item) linkResult {
		_, err := b.links.RemoveLinkedPod(ctx, &v1.RemoveLinkedPodRequest{
			Namespace: b.namespace, Uid: item.GetUid(), Service: b.service, KeepSeconds: item.KeepSeconds, ExpectedEpoch: item.ExpectedEpoch,
		})
		if err != nil {
			return failed(err)
		}
		return linkResult{}
	})
}

// verify returns the links that are not the pod's with those epochs, by uid, and the uids whose link could not be read. The
// error is of the whole call.
func (b *linkBatches) verify(
	ctx context.Context, items []*v1.BatchVerifyLinkedPodRequest_Item,
) (wrong map[string]*v1.Link, unread map[string]bool, err error) {
	wrong, unread = map[string]*v1.Link{}, map[string]bool{}
	var mu sync.Mutex
	results, err := inBatch(ctx, b, items, func(ctx context.Context, items []*v1.BatchVerifyLinkedPodRequest_Item) ([]linkResult, error) {
		reply, err := b.links.BatchVerifyLinkedPod(ctx, &v1.BatchVerifyLinkedPodRequest{
			Namespace: b.namespace, Service: b.service, PodId: &b.pod, Items: items,
		})
		mu.Lock()
		defer mu.Unlock()
		for _, link := range reply.GetLinks() {
			wrong[link.GetUid()] = link
		}
		for _, problem := range reply.GetProblems() {
			unread[problem.GetUid()] = true
		}
		return make([]linkResult, len(items)), err
	}, func(ctx context.Context, item *v1.BatchVerifyLinkedPodRequest_Item) linkResult {
		link, err := b.get(ctx, item.GetUid())
		if err != nil {
			return failed(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if link.GetPodId() != b.pod || link.GetEpoch() != item.GetEpoch() {
			wrong[item.GetUid()] = link
		}
		return linkResult{link: link}
	})
	if err != nil {
		return nil, nil, err
	}
	for i, result := range results {
		if result.err != nil {
			unread[items[i].GetUid()] = true
		}
	}
	return wrong, unread, nil
}

// inBatch sends the items in one call; one by one to a podlink without batches; and in parts where the call is refused,
// because podlink's limit is lower or because of one of the items.
func inBatch[Item any](
	ctx context.Context, b *linkBatches, items []Item,
	together func(context.Context, []Item) ([]linkResult, error), alone func(context.Context, Item) linkResult,
) ([]linkResult, error) {
	if b.batchless.now() {
		return oneByOne(ctx, b, items, alone), nil
	}
	limited, cancel := context.WithTimeout(ctx, b.timeout)
	results, err := together(limited, items)
	cancel()
	if err == nil && len(results) == len(items) {
		return results, nil
	}
	if err == nil {
		return nil, fmt.Errorf("podlink has answered %d items of %d", len(results), len(items))
	}
	cause := kerrors.FromError(err)
	switch {
	case unimplemented(cause):
		b.batchless.note()
		return oneByOne(ctx, b, items, alone), nil
	case cause.Reason != v1.ErrorReason_INVALID_ARGUMENT.String():
		return nil, err
	case len(items) == 1:
		return []linkResult{failed(err)}, nil
	}
	results = nil
	half := len(items) / 2
	if cause.Metadata["field"] == "items" {
		b.limit.Store(int32(half))
	}
	for _, part := range [][]Item{items[:half], items[half:]} {
		answers, err := inBatch(ctx, b, part, together, alone)
		if err != nil {
			return nil, err // What the other part has changed, the next try finds done.
		}
		results = append(results, answers...)
	}
	return results, nil
}

func oneByOne[Item any](ctx context.Context, b *linkBatches, items []Item, alone func(context.Context, Item) linkResult) []linkResult {
	results := make([]linkResult, len(items))
	var calls errgroup.Group
	calls.SetLimit(singlesAtOnce)
	for i, item := range items {
		calls.Go(func() error {
			limited, cancel := context.WithTimeout(ctx, b.timeout)
			defer cancel()
			results[i] = alone(limited, item)
			return nil
		})
	}
	_ = calls.Wait()
	return results
}
