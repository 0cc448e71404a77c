package biz

import (
	"context"
	"sync"
	"time"
)

// feedLinks is a LinkRepo in memory whose mutations may end without a reply.
type feedLinks struct {
	LinkRepo

	mu    sync.Mutex
	links map[LinkKey]Link
	epoch Epoch
	reads int

	// fate decides about a mutation; nil: it is executed and answered.
	fate func() linkFate
	// readErr is the error of reads.
	readErr error
}

// linkFate is what happens to a mutation.
type linkFate struct {
	err      error
	executed bool
	late     time.Duration // executed so much later
}

func newFeedLinks() *feedLinks { return &feedLinks{links: make(map[LinkKey]Link)} }

// mutate executes the step as the fate wants.
func (l *feedLinks) mutate(key LinkKey, step func(before Link) (Link, bool)) (LinkChange, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fate := linkFate{executed: true}
	if l.fate != nil {
		fate = l.fate()
	}
	if fate.late > 0 {
		time.AfterFunc(fate.late, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.execute(key, step)
		})
	}
	if !fate.executed {
		return LinkChange{}, fate.err
	}
	change := l.execute(key, step)
	if fate.err != nil && !executed(fate.err) {
		return LinkChange{}, fate.err
	}
	return change, fate.err
}

func (l *feedLinks) execute(key LinkKey, step func(before Link) (Link, bool)) LinkChange {
	before := l.get(key)
	after, applied := step(before)
	if !applied {
		return LinkChange{Previous: before.Pod, Link: before}
	}
	change := LinkChange{Applied: true, Previous: before.Pod, Link: after, Kept: before == after}
	if after.Exists() {
		l.links[key] = after
	} else {
		change.Removed = before.Epoch
		delete(l.links, key)
	}
	return change
}

func (l *feedLinks) get(key LinkKey) Link {
	if link, found := l.links[key]; found {
		return link
	}
	return NoLink(key)
}

func (l *feedLinks) bind(key LinkKey, pod PodID, ttl TTL, unless func(before Link) bool) (LinkChange, error) {
	return l.mutate(key, func(before Link) (Link, bool) {
		if unless(before) {
			return Link{}, false
		}
		after := Link{Key: key, Pod: pod, TTL: ttl, Epoch: before.Epoch}
		if before.Pod != pod {
			l.epoch++
			after.Epoch = l.epoch
		}
		return after, true
	})
}

func (l *feedLinks) Set(_ context.Context, key LinkKey, pod PodID, ttl TTL, _ SetTerms) (LinkChange, error) {
	return l.bind(key, pod, ttl, func(Link) bool { return false })
}

func (l *feedLinks) TrySet(_ context.Context, key LinkKey, pod PodID, ttl TTL, _ *PodID) (LinkChange, error) {
	return l.bind(key, pod, ttl, func(before Link) bool { return before.Persistent() && before.Pod != pod })
}

func (l *feedLinks) SetIfAbsent(_ context.Context, key LinkKey, pod PodID, ttl TTL, _ SetTerms) (LinkChange, error) {
	return l.bind(key, pod, ttl, Link.Exists)
}

func (l *feedLinks) SetIfEpoch(_ context.Context, key LinkKey, pod PodID, ttl TTL, move MoveTerms) (LinkChange, error) {
	return l.bind(key, pod, ttl, func(before Link) bool { return before.Exists() && before.Epoch != move.Epoch })
}

func (l *feedLinks) Remove(_ context.Context, key LinkKey, keep int32, _ RemoveTerms) (LinkChange, error) {
	return l.mutate(key, func(before Link) (Link, bool) {
		if !before.Exists() {
			return before, false
		}
		if keep > 0 {
			before.TTL = TTL(keep)
			return before, true
		}
		return NoLink(key), true
	})
}

func (l *feedLinks) RemoveWithID(ctx context.Context, key LinkKey, pod PodID, keep int32) (LinkChange, error) {
	l.mu.Lock()
	other := l.get(key).Pod != pod
	l.mu.Unlock()
	if other {
		return LinkChange{Previous: NoPod, Link: NoLink(key)}, nil
	}
	return l.Remove(ctx, key, keep, RemoveTerms{})
}

// batchResult blanks the change of an item that failed.
func batchResult(key LinkKey, change LinkChange, err error) ChangeResult {
	if err != nil {
		change = LinkChange{Previous: NoPod, Link: NoLink(key)}
	}
	return ChangeResult{change, err}
}

func (l *feedLinks) BatchSet(ctx context.Context, key ServiceKey, items []SetItem) []ChangeResult {
	results := make([]ChangeResult, len(items))
	for i, item := range items {
		change, err := l.Set(ctx, key.link(item.UID), item.Pod, item.TTL, item.Terms)
		results[i] = batchResult(key.link(item.UID), change, err)
	}
	return results
}

func (l *feedLinks) BatchSetIfEpoch(ctx context.Context, key ServiceKey, items []MoveItem) []ChangeResult {
	results := make([]ChangeResult, len(items))
	for i, item := range items {
		change, err := l.SetIfEpoch(ctx, key.link(item.UID), item.Pod, item.TTL, item.Terms)
		results[i] = batchResult(key.link(item.UID), change, err)
	}
	return results
}

func (l *feedLinks) BatchRemove(ctx context.Context, key ServiceKey, items []RemoveItem) []ChangeResult {
	results := make([]ChangeResult, len(items))
	for i, item := range items {
		change, err := l.Remove(ctx, key.link(item.UID), item.Keep, item.Terms)
		results[i] = batchResult(key.link(item.UID), change, err)
	}
	return results
}

func (l *feedLinks) BatchGet(_ context.Context, namespace, service string, uids []string) ([]LinkResult, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	if l.readErr != nil {
		return nil, l.readErr
	}
	results := make([]LinkResult, len(uids))
	for i, uid := range uids {
		results[i].Link = l.get(LinkKey{Namespace: namespace, UID: uid, Service: service})
	}
	return results, nil
}

func (l *feedLinks) locked(do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	do()
}
