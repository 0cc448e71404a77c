package biztest

import (
	"context"

	"podlink/internal/biz"
)

// batchedLinks makes each mutation a batch of one.
type batchedLinks struct{ biz.LinkRepo }

func serviceOf(key biz.LinkKey) biz.ServiceKey {
	return biz.ServiceKey{Namespace: key.Namespace, Service: key.Service}
}

// only returns the result of a batch of one.
func only(results []biz.ChangeResult) (biz.LinkChange, error) {
	if err := results[0].Err; err != nil {
		return biz.LinkChange{}, err
	}
	return results[0].LinkChange, nil
}

func (r batchedLinks) Set(
	ctx context.Context, key biz.LinkKey, pod biz.PodID, ttl biz.TTL, terms biz.SetTerms,
) (biz.LinkChange, error) {
	return only(r.BatchSet(ctx, serviceOf(key), []biz.SetItem{{UID: key.UID, Pod: pod, TTL: ttl, Terms: terms}}))
}

func (r batchedLinks) SetIfAbsent(
	ctx context.Context, key biz.LinkKey, pod biz.PodID, ttl biz.TTL, terms biz.SetTerms,
) (biz.LinkChange, error) {
	return only(r.BatchSet(ctx, serviceOf(key), []biz.SetItem{{UID: key.UID, Pod: pod, TTL: ttl, Terms: terms, IfAbsent: true}}))
}

func (r batchedLinks) SetIfEpoch(
	ctx context.Context, key biz.LinkKey, pod biz.PodID, ttl biz.TTL, move biz.MoveTerms,
) (biz.LinkChange, error) {
	return only(r.BatchSetIfEpoch(ctx, serviceOf(key), []biz.MoveItem{{UID: key.UID, Pod: pod, TTL: ttl, Terms: move}}))
}

func (r batchedLinks) Remove(
	ctx context.Context, key biz.LinkKey, keep int32, terms biz.RemoveTerms,
) (biz.LinkChange, error) {
	return only(r.BatchRemove(ctx, serviceOf(key), []biz.RemoveItem{{UID: key.UID, Keep: keep, Terms: terms}}))
}

func (r batchedLinks) RemoveWithID(ctx context.Context, key biz.LinkKey, pod biz.PodID, keep int32) (biz.LinkChange, error) {
	return only(r.BatchRemove(ctx, serviceOf(key), []biz.RemoveItem{{UID: key.UID, Keep: keep, Pod: &pod}}))
}

// batchedPods makes each reservation a batch of one.
type batchedPods struct{ biz.PodRepo }

func (r batchedPods) Reserve(ctx context.Context, key biz.ServiceKey, request biz.ReserveRequest) (biz.Reservation, error) {
	result := r.BatchReserve(ctx, key, []biz.ReserveRequest{request})[0]
	return result.Reservation, result.Err
}

func (r batchedPods) Release(ctx context.Context, key biz.ServiceKey, reservation biz.Reservation) error {
	return r.BatchRelease(ctx, key, []biz.Reservation{reservation})
}

// batchedComputer makes each compute a batch of one.
type batchedComputer struct{ *biz.LinkUsecase }

// Compute implements computer.
func (c batchedComputer) Compute(ctx context.Context, key biz.LinkKey, request biz.ComputeRequest) (biz.Computed, error) {
	results, err := c.BatchCompute(ctx, serviceOf(key), biz.BatchComputeRequest{
		TTL: request.TTL, Selector: request.Selector,
		Items: []biz.ComputeItem{{UID: key.UID, Avoid: request.Avoid, AvoidEpoch: request.AvoidEpoch, Known: request.Known}},
	})
	if err != nil {
		return biz.Computed{}, err
	}
	return results[0].Computed, results[0].Err
}
