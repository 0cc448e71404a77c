package biz

import "time"

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
