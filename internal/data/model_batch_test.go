package data

import (
	"context"

	"pgregory.net/rapid"

	"podlink/internal/biz"
)

// batch draws the items of a batch: for one service, each uid once.
func batch[Item any](t *rapid.T, draw func(*rapid.T) (biz.LinkKey, Item)) (keys []biz.LinkKey, items []Item) {
	for range rapid.IntRange(1, 4).Draw(t, "items") {
		key, item := draw(t)
		fits := len(keys) == 0 || key.Service == keys[0].Service
		for _, other := range keys {
			fits = fits && other.UID != key.UID
		}
		if fits {
			keys, items = append(keys, key), append(items, item)
		}
	}
	return keys, items
}

func (m *model) batchSetLinks(t *rapid.T) {
	const call = "Links.BatchSet"
	keys, items := batch(t, func(t *rapid.T) (biz.LinkKey, biz.SetItem) {
		key, item := m.someSet(t)
		if item.IfAbsent = rapid.Bool().Draw(t, "if absent"); item.IfAbsent {
			item.Terms.Expected = nil
		}
		return key, item
	})
	results := m.repos.Links.BatchSet(context.Background(), m.service(keys[0].Service), items)
	agree(t, call+": one result per item", len(items), len(results))
	for i, item := range items {
		check := m.checkSet
		if item.IfAbsent {
			check = m.checkSetIfAbsent
		}
		check(t, call, keys[i], item, results[i].LinkChange, results[i].Err)
	}
}

func (m *model) batchComputeLinks(t *rapid.T) {
	const call = "Links.BatchSetIfEpoch"
	keys, items := batch(t, m.someMove)
	results := m.repos.Links.BatchSetIfEpoch(context.Background(), m.service(keys[0].Service), items)
	agree(t, call+": one result per item", len(items), len(results))
	for i, item := range items {
		m.checkSetIfEpoch(t, call, keys[i], item, results[i].LinkChange, results[i].Err)
	}
}

func (m *model) batchRemoveLinks(t *rapid.T) {
	const call = "Links.BatchRemove"
	keys, items := batch(t, func(t *rapid.T) (biz.LinkKey, biz.RemoveItem) {
		key := m.someLink(t)
		item := biz.RemoveItem{UID: key.UID, Keep: someKeep.Draw(t, "keep")}
		if rapid.Bool().Draw(t, "with id") {
			item.Pod = ptr(somePod.Draw(t, "pod"))
		} else {
			item.Terms = m.someRemoval(t, key)
		}
		return key, item
	})
	results := m.repos.Links.BatchRemove(context.Background(), m.service(keys[0].Service), items)
	agree(t, call+": one result per item", len(items), len(results))
	for i, item := range items {
		m.checkRemove(t, call, keys[i], item, results[i].LinkChange, results[i].Err)
	}
}

// batchReserve reserves for several links. What the model says of a single choice must hold for each of them in turn.
func (m *model) batchReserve(t *rapid.T) {
	const call = "Pods.BatchReserve"
	key, selector := m.someService(t), someSelector.Draw(t, "selector")
	var requests []biz.ReserveRequest
	for range rapid.IntRange(1, 6).Draw(t, "items") {
		requests = append(requests, m.someRequest(t, selector))
	}
	results := m.repos.Pods.BatchReserve(context.Background(), key, requests)
	agree(t, call+": one result per item", len(requests), len(results))
	for i, request := range requests {
		succeeds(t, call, results[i].Err)
		agree(t, call, m.choose(key, request), results[i].Reservation)
		m.reserved(key, results[i].Reservation)
	}
}

// batchRelease releases all reservations of a service that the model has kept.
func (m *model) batchRelease(t *rapid.T) {
	if len(m.reservations) == 0 {
		t.Skip("nothing was reserved")
	}
	key := m.reservations[0].service
	var some []biz.Reservation
	for _, reservation := range m.reservations {
		if reservation.service == key {
			some = append(some, reservation.Reservation)
		}
	}
	succeeds(t, "Pods.BatchRelease", m.repos.Pods.BatchRelease(context.Background(), key, some))
	for _, reservation := range some {
		m.released(key, reservation)
	}
}
