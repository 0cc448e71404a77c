package client

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	v1 "podlink/api/podlink/v1"
)

// maxEntryAge is how long a persistent link is used while podlink can't be asked.
const maxEntryAge = time.Hour

// doubt is why podlink is asked about a link before it is used again. A greater one includes the smaller ones.
type doubt int8

const (
	trusted   doubt = iota
	unreached       // its pod was not reached, or can't say
	disowned        // its pod has refused the user: podlink must not put this link back
	avoided         // its pod is unreachable, and podlink may choose another one
)

// entry is a link as podlink answered it. It is immutable: a change makes a copy.
type entry struct {
	pod        int32 // -1: no link, which is never cached
	ordinal    string
	epoch      int64
	claim      int64
	persistent bool

	asked    time.Time     // when the question was begun; the following count from then
	answered time.Duration // when its answer was there
	fresh    time.Duration // until when podlink is not asked again
	end      time.Duration // from when it is not used, whatever podlink answers

	doubt  doubt
	part   float64       // its place, from 0 to 1, where what many links do is spread over a time
	unsure time.Time     // when a watch last said that the link may have changed or not
	failed *failedLookup // the last one since the answer; nil: none has failed
}

// failedLookup is a lookup in which podlink did not say what a link is.
type failedLookup struct {
	err        error
	retryAfter time.Time // until when podlink is not asked again
}

// newEntry is podlink's answer, which has come just now to a question that was begun at that time.
func newEntry(link *v1.Link, asked time.Time, ttl time.Duration) *entry {
	e := &entry{
		pod: link.GetPodId(), ordinal: number(link.GetPodId()), epoch: link.GetEpoch(), claim: link.GetClaim(),
		persistent: link.GetPersistent(), asked: asked, answered: time.Since(asked), end: maxEntryAge,
		part: rand.Float64(), //nolint:gosec // It is no secret.
	}
	if !e.persistent { // The seconds left are rounded up: one less has certainly not passed. Without a link they are -2.
		e.end = time.Duration(link.GetTtlSeconds()-1) * time.Second
	}
	e.fresh = min(ttl, e.end)
	return e
}

// newer reports whether the answer is newer than the other one. The later question wins, whatever the epochs are: a failover of
// podlink's store may have brought back an older one. Of questions that overlap the greater epoch is the newer.
func (e *entry) newer(other *entry) bool {
	switch later := e.asked.Sub(other.asked); {
	case later >= other.answered:
		return true
	case -later >= e.answered:
		return false
	case e.epoch != other.epoch:
		return e.epoch > other.epoch
	default:
		return later >= 0
	}
}

func (e *entry) isFresh(now time.Time) bool { return now.Sub(e.asked) < e.fresh }

func (e *entry) isUsable(now time.Time) bool { return now.Sub(e.asked) < e.end }

// rests reports whether podlink is not asked because the last lookup has just failed.
func (e *entry) rests(now time.Time) bool { return e.failed != nil && now.Before(e.failed.retryAfter) }

// failure is the error of the last lookup since the answer.
func (e *entry) failure() error {
	if e.failed == nil {
		return nil
	}
	return e.failed.err
}

func (e *entry) same(other *entry) bool { return e.epoch == other.epoch && e.pod == other.pod }

// cachePolicy is what a router and a guard want of their caches: the one keeps hints, the other what it may serve.
type cachePolicy struct {
	size int
	// ttl is how long a link is used without asking podlink.
	ttl time.Duration
	// watched makes a link count for longer while a watch vouches for it, and be what the watch says.
	watched bool
	// lookup asks podlink. known is the link that the cache holds, nil if none. It bounds itself: its context has the values of the
	// first caller, and not its end. ErrWrongPod is an answer: the known link is no longer the pod's.
	lookup func(ctx context.Context, uid string, known *entry) (*v1.Link, error)
	// keeps reports whether the known link is used though it is not fresh: the lookup has failed with err, or, if err is nil, has no
	// answer yet.
	keeps func(uid string, known *entry, err error) bool
}

// linkCache caches links. A link is looked up once, however many callers need it.
type linkCache struct {
	policy cachePolicy
	cache  *otter.Cache[string, *entry]
	way    way
	cover  atomic.Pointer[coverage] // by a watch; nil: there is none, or it has said nothing yet
	open   context.Context          //nolint:containedctx // Its end is the cache's, not a call's.
	shut   func()

	mu        sync.Mutex
	lookups   map[string]*lookup // in flight, by uid
	refreshes int                // how many of them are about known links
}

func newLinkCache(policy cachePolicy) (*linkCache, error) {
	cache, err := otter.New(&otter.Options[string, *entry]{
		MaximumSize: policy.size,
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, *entry]) time.Duration {
			return time.Until(e.Value.asked.Add(e.Value.end))
		}),
	})
	if err != nil {
		return nil, err
	}
	l := &linkCache{policy: policy, cache: cache, lookups: map[string]*lookup{}}
	l.open, l.shut = context.WithCancel(context.Background())
	return l, nil
}

// close ends the lookups.
func (l *linkCache) close() {
	l.shut()
	l.cache.StopAllGoroutines()
}

// peek returns the link if podlink need not be asked about it.
func (l *linkCache) peek(uid string) (*entry, bool) { return l.peekAt(uid, time.Now()) }

func (l *linkCache) peekAt(uid string, now time.Time) (*entry, bool) {
	held, ok := l.cache.GetIfPresent(uid)
	return held, ok && l.isFresh(held, now)
}

// isFresh reports whether podlink need not be asked about the link.
func (l *linkCache) isFresh(e *entry, now time.Time) bool { return e.isFresh(now) || l.vouched(e, now) }

// known returns the link if there is one, fresh or not.
func (l *linkCache) known(uid string) (*entry, bool) {
	held, ok := l.cache.GetIfPresent(uid)
	return held, ok && held.isUsable(time.Now())
}

// store caches what podlink has answered to a question that was begun at that time, unless something newer is known. It returns
// the link that is known now.
func (l *linkCache) store(uid string, link *v1.Link, asked time.Time) *entry {
	e := newEntry(link, asked, l.policy.ttl)
	l.cache.Compute(uid, func(held *entry, found bool) (*entry, otter.ComputeOp) {
		switch {
		case found && !e.newer(held):
			e = held
			return held, otter.CancelOp
		case !e.isUsable(time.Now()):
			return nil, otter.InvalidateOp
		}
		if found {
			e.unsure = held.unsure
		}
		return e, otter.WriteOp
	})
	return e
}

// invalidate forgets the link. The answer of a lookup in flight may be as old, and is not stored.
func (l *linkCache) invalidate(uid string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.abandon(uid)
	l.cache.Invalidate(uid)
}

// invalidateAll forgets all links.
func (l *linkCache) invalidateAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for uid := range l.lookups {
		l.abandon(uid)
	}
	l.cache.InvalidateAll()
}

// invalidateIf forgets the link, unless another one is known already.
func (l *linkCache) invalidateIf(uid string, wrong *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cache.ComputeIfPresent(uid, func(held *entry) (*entry, otter.ComputeOp) {
		if !held.same(wrong) {
			return held, otter.CancelOp
		}
		l.abandon(uid)
		return nil, otter.InvalidateOp
	})
}

// markStale makes the next caller ask podlink first, unless another link is known already. Without an answer the link is used.
func (l *linkCache) markStale(uid string, doubtful *entry) { l.doubt(uid, doubtful, unreached) }

// doubt is markStale with a reason. What is being looked up for a smaller reason answers another question, and is not waited for.
func (l *linkCache) doubt(uid string, doubtful *entry, why doubt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cache.ComputeIfPresent(uid, func(held *entry) (*entry, otter.ComputeOp) {
		if !held.same(doubtful) {
			return held, otter.CancelOp
		}
		if why > unreached {
			l.abandon(uid)
		}
		stale := *held
		stale.doubt, stale.fresh = max(held.doubt, why), 0
		return &stale, otter.WriteOp
	})
}

// trust ends the doubt about a link whose pod has answered.
func (l *linkCache) trust(uid string, right *entry) {
	l.cache.ComputeIfPresent(uid, func(held *entry) (*entry, otter.ComputeOp) {
		if !held.same(right) || held.doubt != right.doubt {
			return held, otter.CancelOp
		}
		again := *held
		again.doubt = trusted
		return &again, otter.WriteOp
	})
}
