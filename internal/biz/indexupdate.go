package biz

import (
	"context"
	"errors"
	"time"
)

// maxIndexUpdates is how many updates a part of a flush has at most.
const maxIndexUpdates = 512

// addOf returns the update that puts a link into the index of its pod. asOf is when the link was read or made.
func addOf(link Link, asOf time.Time) IndexUpdate {
	entry := IndexEntry{UID: link.Key.UID, Epoch: link.Epoch}
	if !link.Persistent() {
		entry.Expires = asOf.Add(time.Duration(link.TTL) * time.Second)
	}
	return IndexUpdate{Op: AddEntry, Entry: entry}
}

// removalOf returns the update that removes an entry, unless the pod has got a later link of the uid since the entry was read.
func removalOf(entry IndexEntry) IndexUpdate { return IndexUpdate{Op: RemoveEntry, Entry: entry} }

// podIndex names the index of a pod.
type podIndex struct {
	service ServiceKey
	pod     PodID
}

// indexUpdates are updates that wait to be carried out.
type indexUpdates map[podIndex][]IndexUpdate

func (u indexUpdates) add(key ServiceKey, pod PodID, update IndexUpdate) {
	at := podIndex{key, pod}
	u[at] = append(u[at], update)
}

// flush carries out the updates, and keeps those that are to be repeated. Updates of an index that podlink did not write are
// dropped, as they would fail each time; the error is ErrStoreDataCorrupt then, even if others are kept.
func (u indexUpdates) flush(ctx context.Context, feed FeedRepo) error {
	var failure, corrupt error
	for len(u) > 0 && failure == nil {
		parts := u.parts()
		for i, err := range feed.Flush(ctx, parts) {
			at, done := podIndex{parts[i].Service, parts[i].Pod}, len(parts[i].Updates)
			switch {
			case errors.Is(err, ErrStoreDataCorrupt):
				corrupt = err
				delete(u, at)
			case err != nil:
				failure = err
			case done == len(u[at]):
				delete(u, at)
			default:
				u[at] = u[at][done:]
			}
		}
	}
	return errors.Join(corrupt, failure)
}

// parts returns the next part of each index.
func (u indexUpdates) parts() []FlushPart {
	parts := make([]FlushPart, 0, len(u))
	for at, updates := range u {
		parts = append(parts, FlushPart{Service: at.service, Pod: at.pod, Updates: updates[:min(len(updates), maxIndexUpdates)]})
	}
	return parts
}
