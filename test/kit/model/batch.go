package model

import (
	"context"

	"podlink/internal/biz"
)

// mutateAll carries out the mutations of a batch, all of them in one round trip.
func mutateAll[Item any](
	ctx context.Context, r linkRepo, service biz.ServiceKey, items []Item, of func(Item) (uid string, decide mutation),
) []biz.ChangeResult {
	results := make([]biz.ChangeResult, len(items))
	err := r.call(ctx, true, func() {
		for i, item := range items {
			uid, decide := of(item)
			results[i].LinkChange, results[i].Err = r.apply(biz.LinkKey{Namespace: service.Namespace, UID: uid, Service: service.Service}, decide)
		}
	})
	answers := make([]biz.ChangeResult, len(items)) // A call without a reply may still be carried out, and write to results.
	for i, item := range items {
		if err == nil {
			answers[i] = results[i]
		} else {
			answers[i].Err = err
		}
		if answers[i].Err != nil {
			uid, _ := of(item)
			key := biz.LinkKey{Namespace: service.Namespace, UID: uid, Service: service.Service}
			answers[i].LinkChange = biz.LinkChange{Previous: biz.NoPod, Link: biz.NoLink(key)}
		}
	}
	return answers
}

// BatchSet implements biz.LinkRepo.
func (r linkRepo) BatchSet(ctx context.Context, key biz.ServiceKey, items []biz.SetItem) []biz.ChangeResult {
	return mutateAll(ctx, r, key, items, func(item biz.SetItem) (string, mutation) {
		if item.IfAbsent {
			return item.UID, r.settingIfAbsent(item.Pod, item.TTL, item.Terms)
		}
		return item.UID, r.setting(item.Pod, item.TTL, item.Terms)
	})
}

// BatchSetIfEpoch implements biz.LinkRepo.
func (r linkRepo) BatchSetIfEpoch(ctx context.Context, key biz.ServiceKey, items []biz.MoveItem) []biz.ChangeResult {
	return mutateAll(ctx, r, key, items, func(item biz.MoveItem) (string, mutation) {
		return item.UID, r.moving(item.Pod, item.TTL, item.Terms)
	})
}

// BatchRemove implements biz.LinkRepo.
func (r linkRepo) BatchRemove(ctx context.Context, key biz.ServiceKey, items []biz.RemoveItem) []biz.ChangeResult {
	return mutateAll(ctx, r, key, items, func(item biz.RemoveItem) (string, mutation) {
		if item.Pod != nil {
			return item.UID, r.removingWithID(*item.Pod, item.Keep)
		}
		return item.UID, r.removing(item.Keep, item.Terms)
	})
}

// BatchReserve implements biz.PodRepo.
func (r podRepo) BatchReserve(ctx context.Context, key biz.ServiceKey, requests []biz.ReserveRequest) []biz.ReserveResult {
	reservations, results := make([]biz.Reservation, len(requests)), make([]biz.ReserveResult, len(requests))
	err := r.run(ctx, true, key, func(s *Store, v *service, now int64) {
		for i, request := range requests {
			reservations[i] = s.reserve(v, request, now)
		}
	})
	for i := range results {
		if results[i].Err = err; err == nil {
			results[i].Reservation = reservations[i]
		}
	}
	return results
}

// BatchRelease implements biz.PodRepo.
func (r podRepo) BatchRelease(ctx context.Context, key biz.ServiceKey, reservations []biz.Reservation) error {
	return r.run(ctx, true, key, func(_ *Store, v *service, _ int64) {
		for _, reservation := range reservations {
			v.release(reservation)
		}
	})
}
