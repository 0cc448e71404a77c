package biz

import (
	"context"
	"errors"
)

// Relocate moves the links of the uids from the pod to the best other pods, with the steps of a BatchCompute: a link is moved once its
// pod is no longer usable, on the condition that it is still the one that was read. It keeps the TTL that was read. A uid whose link is
// not to the pod, or that has none, is left as it is: the outcome is Existing then, with the link that there is.
func (u *LinkUsecase) Relocate(ctx context.Context, key ServiceKey, from PodID, uids []string) ([]ComputedResult, error) {
	items := make([]ComputeItem, len(uids))
	for i, uid := range uids {
		items[i].UID = uid
	}
	batch := newComputeBatch(u, key, &BatchComputeRequest{TTL: Forever, Items: items})
	batch.from = &from
	if err := batch.run(ctx); err != nil {
		return nil, err
	}
	return batch.computed(), nil
}

// concerns reports whether the batch is about the link: a Relocate is about links to one pod.
func (b *computeBatch) concerns(link Link) bool { return b.from == nil || link.Pod == *b.from }

// ttlOf returns the TTL of the link after the step that moves it.
func (b *computeBatch) ttlOf(item *batchedCompute) TTL {
	if b.from != nil {
		return item.link.TTL
	}
	return item.request.TTL
}

// link is the step that links. A compute makes a link if there is none any more; a Relocate must not bring back a user who has left.
func (b *computeBatch) link(ctx context.Context, moves []MoveItem) []ChangeResult {
	if b.from == nil {
		return b.links.BatchSetIfEpoch(ctx, b.service, moves)
	}
	items := make([]SetItem, len(moves))
	for i, move := range moves {
		// A user who has left has a temporary link with the same epoch: it must not last.
		persistent := move.TTL == Forever
		terms := SetTerms{Expected: &move.Terms.Epoch, Own: b.from, Persistent: &persistent}
		items[i] = SetItem{UID: move.UID, Pod: move.Pod, TTL: move.TTL, Terms: terms}
	}
	results := b.links.BatchSet(ctx, b.service, items)
	for i := range results {
		var changed *EpochMismatchError
		if errors.As(results[i].Err, &changed) {
			results[i] = ChangeResult{LinkChange: LinkChange{Previous: changed.Current.Pod, Link: changed.Current}}
		}
	}
	return results
}
