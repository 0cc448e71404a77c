package client

import (
	"time"

	"github.com/maypok86/otter/v2"

	v1 "podlink/api/podlink/v1"
)

const (
	// unsureFor is how long a link counts by time only after a change whose outcome is unknown: it may still happen, and is not said
	// again then.
	unsureFor = 10 * time.Second
	// maxNoted is how many changes of a link are kept while it is looked up.
	maxNoted = 8
)

// effect is what a change makes of a link that is known.
type effect int8

const (
	effectNone  effect = iota // the change is older, or is what is known
	effectRead                // podlink is asked first
	effectUnset               // the same, and what it answers counts by time
	effectDrop
	effectAdopt // the link is the change's
)

// effectOf returns what the change means to the link: the greater epoch is newer, and of one epoch REMOVED is last. Between PERSISTED and
// EXPIRING of one epoch podlink has to say which came last. When a temporary link ends is not known from a change, which may come late.
func (e *entry) effectOf(c *v1.LinkChange) effect {
	link := c.GetLink()
	switch c.GetKind() {
	case v1.LinkChange_LINKED, v1.LinkChange_MOVED, v1.LinkChange_PERSISTED, v1.LinkChange_EXPIRING:
	case v1.LinkChange_REMOVED:
		if link.GetEpoch() < e.epoch {
			return effectNone
		}
		return effectDrop
	default: // UNCERTAIN, or a later podlink's.
		return effectUnset
	}
	switch {
	case link.GetEpoch() < e.epoch:
		return effectNone
	case link.GetEpoch() > e.epoch && link.GetPersistent():
		return effectAdopt
	case link.GetEpoch() > e.epoch:
		return effectDrop
	case link.GetPodId() != e.pod, link.GetPersistent() != e.persistent, c.GetKind() == v1.LinkChange_EXPIRING:
		return effectRead
	}
	return effectNone
}

// noted implements linkWatcher.
func (l *linkCache) noted(message *v1.WatchLinksReply) {
	now := time.Now()
	for _, c := range message.GetChanges() {
		l.change(c, now)
	}
	resync := message.GetResync() != v1.WatchLinksReply_RESYNC_UNSPECIFIED
	l.cover.Store(l.cover.Load().noting(resync, now, l.policy.ttl))
}

// broke implements linkWatcher.
func (l *linkCache) broke() { l.cover.Store(l.cover.Load().broken()) }

// vouched reports whether the watch vouches for a link that is not fresh by time.
func (l *linkCache) vouched(e *entry, now time.Time) bool {
	c := l.cover.Load()
	if c == nil || !l.policy.watched || e.fresh == 0 || e.asked.Before(e.unsure.Add(unsureFor)) {
		return false
	}
	most := min(e.end, time.Duration((1+e.part)*float64(maxEntryAge)/2)) // Not all at the same time.
	return now.Sub(e.asked) < most && c.vouches(e.asked, e.part, now, l.policy.ttl)
}

// change takes in what a watch says about a link.
func (l *linkCache) change(c *v1.LinkChange, now time.Time) {
	uid := c.GetLink().GetUid()
	l.mu.Lock()
	defer l.mu.Unlock()
	if asked := l.lookups[uid]; asked != nil { // Its answer may be older.
		if asked.noted = append(asked.noted, c); len(asked.noted) > maxNoted {
			l.abandon(uid)
		}
	}
	l.apply(uid, c, now)
}

// apply does to the link, if it is known, what the change means. The caller holds the lock.
func (l *linkCache) apply(uid string, c *v1.LinkChange, now time.Time) {
	if _, known := l.cache.GetEntryQuietly(uid); !known {
		return
	}
	l.cache.ComputeIfPresent(uid, func(held *entry) (*entry, otter.ComputeOp) {
		what := held.effectOf(c)
		if what == effectAdopt && !l.policy.watched { // A guard believes podlink's answers only.
			what = effectDrop
			if c.GetLink().GetPodId() == held.pod {
				what = effectRead
			}
		}
		switch what {
		case effectNone:
			return held, otter.CancelOp
		case effectDrop:
			return nil, otter.InvalidateOp
		case effectAdopt:
			adopted := newEntry(c.GetLink(), now, l.policy.ttl)
			if adopted.unsure = held.unsure; held.asked.Before(held.unsure.Add(unsureFor)) { // That may have come after this change.
				adopted.doubt, adopted.fresh = unreached, 0
			}
			return adopted, otter.WriteOp
		case effectRead, effectUnset:
		}
		stale := *held
		stale.doubt, stale.fresh = max(held.doubt, unreached), 0
		if what == effectUnset {
			stale.unsure = now
		}
		return &stale, otter.WriteOp
	})
}
