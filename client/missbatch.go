package client

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"golang.org/x/sync/errgroup"

	v1 "podlink/api/podlink/v1"
)

// send computes a batch, and repeats what of it had no certain outcome: to compute twice does no harm.
func (m *misses) send(ctx context.Context, batch []*miss) {
	for between := pauses(); ; {
		switch {
		case len(batch) == 1 || m.batchless.now():
			m.singles(batch) //nolint:contextcheck // Each lookup has its caller\'s context.
			return
		case len(batch) == 0:
			return
		}
		reply, err := m.links.BatchComputeLinkedPod(ctx, m.batchRequest(batch), repeatable)
		switch {
		case err == nil && len(reply.GetResults()) == len(batch):
			batch = settle(batch, reply)
		case err == nil:
			err = withCause(ErrUnavailable, fmt.Errorf("%d results for %d items", len(reply.GetResults()), len(batch)))
			finish(batch, err)
			return
		case unimplemented(err):
			m.batchless.note()
			continue
		case v1.IsInternal(err): // One of the users may be the cause.
			m.singles(batch) //nolint:contextcheck // Each lookup has its caller\'s context.
			return
		case errors.Is(err, ErrInvalidArgument):
			batch = m.isolate(ctx, batch, err)
			continue
		default:
			finish(batch, err)
			return
		}
		if len(batch) > 0 && !m.again(ctx, between) {
			finish(batch, nil)
			return
		}
	}
}

// isolate handles a batch that podlink has refused as a whole, because of one item or because it is too large. It returns what is
// to be sent again.
func (m *misses) isolate(ctx context.Context, batch []*miss, err error) []*miss {
	field := kerrors.FromError(err).Metadata["field"]
	index, _, _ := strings.Cut(strings.TrimPrefix(field, "items["), "]")
	if i, err := strconv.Atoi(index); err == nil && i >= 0 && i < len(batch) {
		m.singles(batch[i : i+1]) //nolint:contextcheck // Each lookup has its caller\'s context.
		return append(append([]*miss(nil), batch[:i]...), batch[i+1:]...)
	}
	half := len(batch) / 2
	if field == "items" {
		m.mu.Lock()
		m.size = max(1, min(m.size, half))
		m.mu.Unlock()
	}
	m.send(ctx, batch[:half])
	return batch[half:]
}

func (m *misses) batchRequest(batch []*miss) *v1.BatchComputeLinkedPodRequest {
	request := &v1.BatchComputeLinkedPodRequest{
		Namespace: m.request.GetNamespace(), Service: m.request.GetService(), PersistSeconds: m.request.PersistSeconds,
		Items: make([]*v1.BatchComputeLinkedPodRequest_Item, len(batch)),
	}
	for i, one := range batch {
		request.Items[i] = one.item
	}
	return request
}

// settle gives the results to those who wait. It returns the ones whose outcome is not certain, or that podlink could not carry out
// now.
func settle(batch []*miss, reply *v1.BatchComputeLinkedPodReply) (again []*miss) {
	pods := make(map[int32]*v1.Pod, len(reply.GetPods()))
	for _, pod := range reply.GetPods() {
		pods[pod.GetPodId()] = pod
	}
	for i, result := range reply.GetResults() {
		one, err := batch[i], problemError(result.GetProblem())
		one.computed, one.err = computed{result.GetLink(), pods[result.GetLink().GetPodId()]}, err
		if err != nil && one.ctx.Err() == nil && (uncertain(err) || errors.Is(err, ErrStoreUnavailable)) {
			one.lastErr.Store(&err)
			again = append(again, one)
			continue
		}
		close(one.done)
	}
	return again
}

// finish ends the computes with the error; nil: with the one that each has.
func finish(batch []*miss, err error) {
	for _, one := range batch {
		if err != nil {
			one.err = err
		}
		one.err = notCarriedOut(one.err)
		close(one.done)
	}
}

// notCarriedOut is what a lost compute means to a router's caller: nothing was carried out for it.
func notCarriedOut(err error) error {
	if uncertain(err) {
		return withCause(ErrUnavailable, err)
	}
	return err
}

// singles computes each link by a call for it alone.
func (m *misses) singles(batch []*miss) {
	var calls errgroup.Group
	calls.SetLimit(maxSingles)
	for _, one := range batch {
		calls.Go(func() error {
			defer close(one.done)
			ctx, cancel := context.WithCancel(one.ctx)
			defer cancel()
			defer context.AfterFunc(m.open, cancel)()
			one.computed, one.err = m.single(ctx, one.item)
			return nil
		})
	}
	_ = calls.Wait()
}

// single computes a link by a call for it alone.
func (m *misses) single(ctx context.Context, item *v1.BatchComputeLinkedPodRequest_Item) (computed, error) {
	reply, err := m.links.ComputeLinkedPod(ctx, &v1.ComputeLinkedPodRequest{
		Namespace: m.request.GetNamespace(), Uid: item.GetUid(), Service: m.request.GetService(), PersistSeconds: m.request.PersistSeconds,
		AvoidPods: item.GetAvoidPods(), AvoidEpoch: item.GetAvoidEpoch(), Known: item.GetKnown(),
	}, repeatable)
	return computed{reply.GetLink(), reply.GetPod()}, notCarriedOut(err)
}
