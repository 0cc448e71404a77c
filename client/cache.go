package client

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"

	v1 "podlink/api/podlink/v1"
)

const (
	// maxEntryAge is how long a persistent link is used while podlink can't be asked.
	maxEntryAge = time.Hour
	// retryAfterFailure is how long podlink, once it did not answer, is not asked about links that are known.
	retryAfterFailure = time.Second
)

// entry is a link as it was when podlink was asked last.
type entry struct {
	pod     int32
	ordinal string // the pod, as instances name it
	epoch   int64
	fresh   time.Time // until when podlink is not asked anew
	end     time.Time // from when on it is not used, even if podlink does not answer
}

// links caches links. Concurrent misses of a uid are one call.
type linkCache struct {
	ask      func(ctx context.Context, uid string) (*v1.Link, error)
	freshFor time.Duration
	// mayUse tells whether a link may be used past its freshness while podlink does not answer.
	mayUse func() bool

	cache  *otter.Cache[string, *entry]
	flight singleflight.Group
	asleep atomic.Int64 // 0, or when podlink, which did not answer, is asked again about links that are known: Unix time in ns
}

func newLinkCache(size int, freshFor time.Duration, mayUse func() bool, ask func(context.Context, string) (*v1.Link, error)) (*linkCache, error) {
	cache, err := otter.New(&otter.Options[string, *entry]{
		MaximumSize: size,
		ExpiryCalculator: otter.ExpiryWritingFunc(func(entry otter.Entry[string, *entry]) time.Duration {
			return time.Until(entry.Value.end)
		}),
	})
	if err != nil {
		return nil, err
	}
	return &linkCache{ask: ask, freshFor: freshFor, mayUse: mayUse, cache: cache}, nil
}

func (l *linkCache) close() { l.cache.StopAllGoroutines() }

// peek returns the link of the uid if podlink need not be asked about it.
func (l *linkCache) peek(uid string) (*entry, bool) {
	held, ok := l.cache.GetIfPresent(uid)
	return held, ok && time.Now().Before(held.fresh)
}

// get returns the link of the uid: from the cache while it is fresh, or while podlink does not answer; else from podlink.
func (l *linkCache) get(ctx context.Context, uid string) (*entry, error) {
	held, ok := l.cache.GetIfPresent(uid)
	now := time.Now()
	if ok && now.Before(held.fresh) {
		return held, nil
	}
	usable := ok && now.Before(held.end) && l.mayUse()
	if until := l.asleep.Load(); usable && until != 0 {
		// Podlink may hang for all of its timeout: nobody waits for that who knows a link. One of them asks, now and then.
		if now.UnixNano() >= until && l.asleep.CompareAndSwap(until, now.Add(retryAfterFailure).UnixNano()) {
			l.refresh(ctx, uid)
		}
		return held, nil
	}
	link, err := l.fetch(ctx, uid)
	if err != nil && usable && silent(err) {
		return held, nil
	}
	return link, err
}

// silent tells whether podlink has said nothing about the link: it is away, full, too busy, or has another excuse.
func silent(err error) bool {
	return !errors.Is(err, ErrWrongPod) && !errors.Is(err, ErrNoAvailablePod) && !errors.Is(err, ErrInvalidArgument) &&
		!errors.Is(err, ErrLimitExceeded) && !errors.Is(err, ErrSuperseded) && !errors.Is(err, ErrCanceled)
}

// refresh asks podlink, together with all who ask for the same uid now.
func (l *linkCache) refresh(ctx context.Context, uid string) <-chan singleflight.Result {
	return l.flight.DoChan(uid, func() (any, error) {
		if held, ok := l.peek(uid); ok {
			return held, nil // Somebody has asked since this caller found nothing.
		}
		begin := time.Now()
		link, err := l.ask(context.WithoutCancel(ctx), uid) // It is not one caller's alone, and has a timeout of its own.
		if err != nil {
			if silent(err) {
				l.asleep.Store(time.Now().Add(retryAfterFailure).UnixNano())
			} else {
				l.cache.Invalidate(uid)
			}
			return nil, err
		}
		answered := l.store(uid, link, begin)
		l.asleep.Store(0) // Only now: who finds podlink awake finds its answer, too.
		return answered, nil
	})
}

// fetch asks podlink, and waits for the answer.
func (l *linkCache) fetch(ctx context.Context, uid string) (*entry, error) {
	select {
	case answer := <-l.refresh(ctx, uid):
		if answer.Err != nil {
			return nil, answer.Err
		}
		return answer.Val.(*entry), nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, explain(ErrCanceled, ctx.Err())
		}
		return nil, explain(ErrDeadlineExceeded, ctx.Err())
	}
}

// store caches what podlink has answered to a call that began at that time, and returns the link as it is known now.
func (l *linkCache) store(uid string, link *v1.Link, begin time.Time) *entry {
	k := &entry{pod: link.GetPodId(), ordinal: number(link.GetPodId()), epoch: link.GetEpoch(), end: begin.Add(maxEntryAge)}
	if !link.GetPersistent() {
		// The seconds left are rounded up, so that one less has not passed yet.
		k.end = begin.Add(time.Duration(link.GetTtlSeconds()-1) * time.Second)
	}
	k.fresh = begin.Add(l.freshFor)
	if k.end.Before(k.fresh) {
		k.fresh = k.end
	}
	l.cache.Compute(uid, func(held *entry, found bool) (*entry, otter.ComputeOp) {
		switch {
		case found && held.epoch > k.epoch: // An answer that comes late.
			k = held
			return held, otter.CancelOp
		case !time.Now().Before(k.end):
			return nil, otter.InvalidateOp
		}
		return k, otter.WriteOp
	})
	return k
}

// invalidate makes whoever asks next ask podlink anew, also if somebody is asking already: that answer may be out of date.
func (l *linkCache) invalidate(uid string) {
	l.flight.Forget(uid)
	l.cache.Invalidate(uid)
}

// invalidateIf forgets a link that a pod has disowned, unless another one is known already. Whoever asks next asks podlink anew.
func (l *linkCache) invalidateIf(uid string, wrong *entry) {
	l.cache.ComputeIfPresent(uid, func(held *entry) (*entry, otter.ComputeOp) {
		if !held.same(wrong) {
			return held, otter.CancelOp
		}
		l.flight.Forget(uid) // What is being answered may be as old.
		return nil, otter.InvalidateOp
	})
}

// markStale makes whoever asks next ask podlink anew, unless another link is known already; but if podlink does not answer, the
// link still counts.
func (l *linkCache) markStale(uid string, doubtful *entry) {
	l.cache.ComputeIfPresent(uid, func(held *entry) (*entry, otter.ComputeOp) {
		if !held.same(doubtful) {
			return held, otter.CancelOp
		}
		stale := *held
		stale.fresh = time.Time{}
		return &stale, otter.WriteOp
	})
}

func (k *entry) same(other *entry) bool { return k.epoch == other.epoch && k.pod == other.pod }
