package biz

import (
	"context"
	"errors"
	"time"
)

// FleetUsecase answers questions about all links of a service: who is on a pod, and how many are on each.
//
// It finds links by the index, which has every link that it should have, or says that it is incomplete. Beside them it may have stale
// entries; so each link is read before it is returned.
type FleetUsecase struct {
	index    IndexRepo
	feed     FeedRepo
	links    LinkRepo
	pods     *PodViews
	complete func() bool
	enabled  bool
}

// FleetOptions are the settings of a FleetUsecase.
type FleetOptions struct {
	Index bool // the index is kept; without it every list fails with ErrIndexDisabled
}

// NewFleetUsecase returns the use-case on the repos. complete must return false while this process has noted changes that the index
// should have, and has not.
func NewFleetUsecase(
	index IndexRepo, feed FeedRepo, links LinkRepo, pods *PodViews, complete func() bool, o FleetOptions,
) *FleetUsecase {
	return &FleetUsecase{index: index, feed: feed, links: links, pods: pods, complete: complete, enabled: o.Index}
}

// PodLinks is a page of the links to a pod.
type PodLinks struct {
	Links []Link
	Next  string // the token of the next page; "": this was the last one
	// Complete is set if no link is missing until this page: on the last page, if the walk has returned every link that existed from
	// 10 s before its first page until now.
	Complete bool
}

// PodLinks returns a page of the links to the pod, in no order. A link that exists during the whole walk is on at least one page.
func (u *FleetUsecase) PodLinks(ctx context.Context, key ServiceKey, pod *PodID, page Page) (PodLinks, error) {
	if err := firstError(key.validate(), validatePod(pod), page.validate()); err != nil {
		return PodLinks{}, err
	}
	walk, err := parsePodWalk(page.Token, key, *pod)
	if err != nil {
		return PodLinks{}, err
	}
	if !u.enabled {
		return PodLinks{}, ErrIndexDisabled
	}
	if walk.at == "" {
		if walk.complete, walk.gaps, err = u.completeness(ctx); err != nil {
			return PodLinks{}, err
		}
	}
	entries, next, err := u.index.Entries(ctx, key, *pod, walk.at, page.size())
	if err != nil {
		return PodLinks{}, err
	}
	links, all, err := u.verified(ctx, key, *pod, entries)
	if err != nil {
		return PodLinks{}, err
	}
	walk.complete = walk.complete && all
	if next != "" {
		walk.at = next
		return PodLinks{Links: links, Next: walk.token(key, *pod), Complete: walk.complete}, nil
	}
	complete, err := u.stillComplete(ctx, walk.complete, walk.gaps)
	return PodLinks{Links: links, Complete: complete}, err
}

// LinkCounts is how many links the pods of a service have.
type LinkCounts struct {
	Counts      []IndexedPod // sorted by pod; without the pods that have none
	Complete    bool         // as in PodLinks
	Approximate bool         // links that have expired or were removed a moment ago may be counted
}

// CountPodLinks returns how many links each pod of the service has.
func (u *FleetUsecase) CountPodLinks(ctx context.Context, key ServiceKey) (LinkCounts, error) {
	if err := key.validate(); err != nil {
		return LinkCounts{}, err
	}
	if !u.enabled {
		return LinkCounts{}, ErrIndexDisabled
	}
	complete, gaps, err := u.completeness(ctx)
	if err != nil {
		return LinkCounts{}, err
	}
	counts, err := u.indexedPods(ctx, key)
	if err != nil {
		return LinkCounts{}, err
	}
	complete, err = u.stillComplete(ctx, complete, gaps)
	return LinkCounts{Counts: counts, Complete: complete, Approximate: len(counts) > 0}, err
}

// indexedPods returns the pods that have entries.
func (u *FleetUsecase) indexedPods(ctx context.Context, key ServiceKey) ([]IndexedPod, error) {
	pods, err := u.index.IndexedPods(ctx, key)
	if err != nil {
		return nil, err
	}
	counted := make([]IndexedPod, 0, len(pods))
	for _, pod := range pods {
		if pod.Entries > 0 {
			counted = append(counted, pod)
		}
	}
	return counted, nil
}

// completeness reports whether the index has every link, and the number of gaps that were covered then.
func (u *FleetUsecase) completeness(ctx context.Context) (complete bool, gaps int64, err error) {
	gaps, covered, err := u.index.Completeness(ctx)
	return err == nil && covered >= gaps && u.complete(), gaps, err
}

// stillComplete reports whether the index had every link from a moment at which completeness was read until now. It had not if there
// was another gap, even if a census has covered it: what it has found may have been missing when it was to be read.
func (u *FleetUsecase) stillComplete(ctx context.Context, complete bool, gaps int64) (bool, error) {
	if !complete {
		return false, nil
	}
	complete, now, err := u.completeness(ctx)
	return complete && now == gaps, err
}

// verified returns the links of the entries that are really to the pod, and false if some of them can't be read. It drops stale
// entries.
func (u *FleetUsecase) verified(ctx context.Context, key ServiceKey, pod PodID, entries []IndexEntry) (links []Link, all bool, err error) {
	results, err := readEntries(ctx, u.links, key, entries)
	if err != nil {
		return nil, false, err
	}
	stale, all := indexUpdates{}, true
	for _, entry := range entries {
		if result := results[entry.UID]; !entry.Uncertain && result.Err == nil && result.Link.Pod != pod {
			stale.add(key, pod, removalOf(entry))
		}
	}
	for _, result := range results {
		switch {
		case errors.Is(result.Err, ErrStoreDataCorrupt):
			all = false
		case result.Err != nil:
			return nil, false, result.Err
		case result.Link.Pod == pod:
			links = append(links, result.Link)
		}
	}
	u.drop(ctx, stale)
	return links, all, nil
}

// dropTimeout bounds how long a list waits until stale entries are dropped.
const dropTimeout = 100 * time.Millisecond

// drop removes stale entries. It may fail: they are found again, by the next list or by the sweep.
func (u *FleetUsecase) drop(ctx context.Context, stale indexUpdates) {
	ctx, cancel := context.WithTimeout(ctx, dropTimeout)
	defer cancel()
	_ = stale.flush(ctx, u.feed)
}

// readEntries reads the links of entries of one service, by uid: an entry may be in a page twice, and beside an uncertain one.
func readEntries(ctx context.Context, links LinkRepo, key ServiceKey, entries []IndexEntry) (map[string]LinkResult, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	uids := make([]string, len(entries))
	for i, entry := range entries {
		uids[i] = entry.UID
	}
	uids = distinct(uids)
	read, err := links.BatchGet(ctx, key.Namespace, key.Service, uids)
	if err != nil {
		return nil, err
	}
	results := make(map[string]LinkResult, len(read))
	for i, result := range read {
		results[uids[i]] = result
	}
	return results, nil
}
