package biz

import (
	"context"
	"errors"
)

// notedLinks is a LinkRepo that notes in a feed what its mutations have changed.
type notedLinks struct {
	LinkRepo
	feed *Feed
}

// NoteChanges returns the repo, whose mutations are noted in the feed.
func NoteChanges(links LinkRepo, feed *Feed) LinkRepo { return notedLinks{links, feed} }

// Set implements LinkRepo.
func (l notedLinks) Set(ctx context.Context, key LinkKey, pod PodID, ttl TTL, terms SetTerms) (LinkChange, error) {
	return l.mutate(ctx, bound(key, pod, ttl, terms.Own), func() (LinkChange, error) {
		return l.LinkRepo.Set(ctx, key, pod, ttl, terms)
	})
}

// TrySet implements LinkRepo.
func (l notedLinks) TrySet(ctx context.Context, key LinkKey, pod PodID, ttl TTL, own *PodID) (LinkChange, error) {
	return l.mutate(ctx, bound(key, pod, ttl, own), func() (LinkChange, error) {
		return l.LinkRepo.TrySet(ctx, key, pod, ttl, own)
	})
}

// SetIfAbsent implements LinkRepo.
func (l notedLinks) SetIfAbsent(ctx context.Context, key LinkKey, pod PodID, ttl TTL, terms SetTerms) (LinkChange, error) {
	return l.mutate(ctx, bound(key, pod, ttl, nil), func() (LinkChange, error) {
		return l.LinkRepo.SetIfAbsent(ctx, key, pod, ttl, terms)
	})
}

// SetIfEpoch implements LinkRepo.
func (l notedLinks) SetIfEpoch(ctx context.Context, key LinkKey, pod PodID, ttl TTL, move MoveTerms) (LinkChange, error) {
	return l.mutate(ctx, bound(key, pod, ttl, nil), func() (LinkChange, error) {
		return l.LinkRepo.SetIfEpoch(ctx, key, pod, ttl, move)
	})
}

// Remove implements LinkRepo.
func (l notedLinks) Remove(ctx context.Context, key LinkKey, keep int32, terms RemoveTerms) (LinkChange, error) {
	return l.mutate(ctx, unbound(key, terms.Own), func() (LinkChange, error) {
		return l.LinkRepo.Remove(ctx, key, keep, terms)
	})
}

// RemoveWithID implements LinkRepo.
func (l notedLinks) RemoveWithID(ctx context.Context, key LinkKey, pod PodID, keep int32) (LinkChange, error) {
	return l.mutate(ctx, unbound(key, &pod), func() (LinkChange, error) {
		return l.LinkRepo.RemoveWithID(ctx, key, pod, keep)
	})
}

// BatchSet implements LinkRepo.
func (l notedLinks) BatchSet(ctx context.Context, key ServiceKey, items []SetItem) []ChangeResult {
	return mutateEach(ctx, l.feed, key, items, l.LinkRepo.BatchSet, func(i SetItem) Change {
		return bound(key.link(i.UID), i.Pod, i.TTL, i.Terms.Own)
	})
}

// BatchSetIfEpoch implements LinkRepo.
func (l notedLinks) BatchSetIfEpoch(ctx context.Context, key ServiceKey, items []MoveItem) []ChangeResult {
	return mutateEach(ctx, l.feed, key, items, l.LinkRepo.BatchSetIfEpoch, func(i MoveItem) Change {
		return bound(key.link(i.UID), i.Pod, i.TTL, nil)
	})
}

// BatchRemove implements LinkRepo.
func (l notedLinks) BatchRemove(ctx context.Context, key ServiceKey, items []RemoveItem) []ChangeResult {
	return mutateEach(ctx, l.feed, key, items, l.LinkRepo.BatchRemove, func(i RemoveItem) Change {
		if i.Pod != nil {
			return unbound(key.link(i.UID), i.Pod)
		}
		return unbound(key.link(i.UID), i.Terms.Own)
	})
}

// bound returns the change of a mutation of unknown outcome that links to the pod; own is the pod that the link had, nil if not known.
func bound(key LinkKey, pod PodID, ttl TTL, own *PodID) Change {
	return Change{Kind: Uncertain, Link: Link{Key: key, Pod: pod, TTL: ttl}, Previous: podOr(own)}
}

// unbound returns the change of a mutation of unknown outcome that removes the link, or lets it expire.
func unbound(key LinkKey, own *PodID) Change {
	return Change{Kind: Uncertain, Link: NoLink(key), Previous: podOr(own)}
}

func podOr(own *PodID) PodID {
	if own == nil {
		return NoPod
	}
	return *own
}

// mutate runs a mutation and notes its change. unknown is the change if its outcome is unknown.
func (l notedLinks) mutate(ctx context.Context, unknown Change, run func() (LinkChange, error)) (LinkChange, error) {
	heard := l.feed.writers.announce(ctx)
	change, err := run()
	if c, changed := changeAfter(unknown, change, err); changed {
		c.By = l.feed.by(ctx)
		l.feed.noteOf(c, heard)
	}
	return change, err
}

// mutateEach runs a batch of mutations and notes their changes.
func mutateEach[Item any](
	ctx context.Context, feed *Feed, key ServiceKey, items []Item,
	run func(context.Context, ServiceKey, []Item) []ChangeResult, unknown func(Item) Change,
) []ChangeResult {
	heard := feed.writers.announce(ctx)
	results := run(ctx, key, items)
	by := feed.by(ctx)
	for i, result := range results {
		if c, changed := changeAfter(unknown(items[i]), result.LinkChange, result.Err); changed {
			c.By = by
			feed.noteOf(c, heard)
		}
	}
	return results
}

// changeAfter returns the change that a mutation has made, as its result says, and whether it may have made one. A mutation that was
// executed, and whose result does not say what it has changed, is as good as one of unknown outcome: who needs the link reads it.
func changeAfter(unknown Change, result LinkChange, err error) (Change, bool) {
	switch {
	case err == nil:
		return changeOf(result), result.Applied && !result.Kept
	case errors.Is(err, ErrOutcomeUnknown):
		return unknown, true
	case !errors.As(err, new(*UnconfirmedError)):
		return Change{}, false
	case result.Applied:
		return changeOf(result), !result.Kept
	default:
		return unknown, true
	}
}

// noteOf notes a change. If the others may have counted this process as dead, what they found complete then may lack it: a gap says so.
func (f *Feed) noteOf(c Change, heard bool) {
	f.Note(c.Link.Key.service(), c)
	if !heard {
		f.gaps.want(GapWriterDied)
	}
}

// notedPods is a PodRepo that registers in a feed the services whose pods report.
type notedPods struct {
	PodRepo
	feed *Feed
}

// NoteServices returns the repo, whose services are registered with the feed: those without links are known by their pods.
func NoteServices(pods PodRepo, feed *Feed) PodRepo { return notedPods{pods, feed} }

// Set implements PodRepo.
func (p notedPods) Set(ctx context.Context, key ServiceKey, report Report) (ReportResult, error) {
	result, err := p.PodRepo.Set(ctx, key, report)
	if executed(err) {
		p.feed.queue.register(key)
	}
	return result, err
}
