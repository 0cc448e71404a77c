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
	// keepKnown is how long a persistent link is used while podlink can't be asked.
	keepKnown = time.Hour
	// askAgain is how long podlink, once it did not answer, is not asked about links that are known.
	askAgain = time.Second
)

// known is a link as it was when podlink was asked last.
type known struct {
	pod     int32
	ordinal string // the pod, as instances name it
	epoch   int64
	fresh   time.Time // until when podlink is not asked anew
	end     time.Time // from when on it is not used, even if podlink does not answer
}

// links caches links. Concurrent misses of a uid are one call.
type links struct {
	ask      func(ctx context.Context, uid string) (*v1.Link, error)
	freshFor time.Duration
	// mayUse tells whether a link may be used past its freshness while podlink does not answer.
	mayUse func() bool

	cache  *otter.Cache[string, *known]
	flight singleflight.Group
	asleep atomic.Int64 // 0, or when podlink, which did not answer, is asked again about links that are known: Unix time in ns
}

func newLinks(size int, freshFor time.Duration, mayUse func() bool, ask func(context.Context, string) (*v1.Link, error)) (*links, error) {
	cache, err := otter.New(&otter.Options[string, *known]{
		MaximumSize: size,
		ExpiryCalculator: otter.ExpiryWritingFunc(func(entry otter.Entry[string, *known]) time.Duration {
			return time.Until(entry.Value.end)
		}),
	})
	if err != nil {
		return nil, err
	}
	return &links{ask: ask, freshFor: freshFor, mayUse: mayUse, cache: cache}, nil
}

func (l *links) close() { l.cache.StopAllGoroutines() }

// fresh returns the link of the uid if podlink need not be asked about it.
func (l *links) fresh(uid string) (*known, bool) {
	held, ok := l.cache.GetIfPresent(uid)
	return held, ok && time.Now().Before(held.fresh)
}

// get returns the link of the uid: from the cache while it is fresh, or while podlink does not answer; else from podlink.
func (l *links) get(ctx context.Context, uid string) (*known, error) {
	held, ok := l.cache.GetIfPresent(uid)
	now := time.Now()
	if ok && now.Before(held.fresh) {
		return held, nil
	}
	usable := ok && now.Before(held.end) && l.mayUse()
	if until := l.asleep.Load(); usable && until != 0 {
		// Podlink may hang for all of its timeout: nobody waits for that who knows a link. One of them asks, now and then.
		if now.UnixNano() >= until && l.asleep.CompareAndSwap(until, now.Add(askAgain).UnixNano()) {
			l.send(ctx, uid)
		}
		return held, nil
	}
	link, err := l.look(ctx, uid)
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

// send asks podlink, together with all who ask for the same uid now.
func (l *links) send(ctx context.Context, uid string) <-chan singleflight.Result {
	return l.flight.DoChan(uid, func() (any, error) {
		if held, ok := l.fresh(uid); ok {
			return held, nil // Somebody has asked since this caller found nothing.
		}
		begin := time.Now()
		link, err := l.ask(context.WithoutCancel(ctx), uid) // It is not one caller's alone, and has a timeout of its own.
		if err != nil {
			if silent(err) {
				l.asleep.Store(time.Now().Add(askAgain).UnixNano())
			} else {
				l.cache.Invalidate(uid)
			}
			return nil, err
		}
		answered := l.keep(uid, link, begin)
		l.asleep.Store(0) // Only now: who finds podlink awake finds its answer, too.
		return answered, nil
	})
}

// look asks podlink, and waits for the answer.
func (l *links) look(ctx context.Context, uid string) (*known, error) {
	select {
	case answer := <-l.send(ctx, uid):
		if answer.Err != nil {
			return nil, answer.Err
		}
		return answer.Val.(*known), nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, explain(ErrCanceled, ctx.Err())
		}
		return nil, explain(ErrDeadlineExceeded, ctx.Err())
	}
}

// keep caches what podlink has answered to a call that began at that time, and returns the link as it is known now.
func (l *links) keep(uid string, link *v1.Link, begin time.Time) *known {
	k := &known{pod: link.GetPodId(), ordinal: number(link.GetPodId()), epoch: link.GetEpoch(), end: begin.Add(keepKnown)}
	if !link.GetPersistent() {
		// The seconds left are rounded up, so that one less has not passed yet.
		k.end = begin.Add(time.Duration(link.GetTtlSeconds()-1) * time.Second)
	}
	k.fresh = begin.Add(l.freshFor)
	if k.end.Before(k.fresh) {
		k.fresh = k.end
	}
	l.cache.Compute(uid, func(held *known, found bool) (*known, otter.ComputeOp) {
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

// forget makes whoever asks next ask podlink anew, also if somebody is asking already: that answer may be out of date.
func (l *links) forget(uid string) {
	l.flight.Forget(uid)
	l.cache.Invalidate(uid)
}

// drop forgets a link that a pod has disowned, unless another one is known already. Whoever asks next asks podlink anew.
func (l *links) drop(uid string, wrong *known) {
	l.cache.ComputeIfPresent(uid, func(held *known) (*known, otter.ComputeOp) {
		if !held.same(wrong) {
			return held, otter.CancelOp
		}
		l.flight.Forget(uid) // What is being answered may be as old.
		return nil, otter.InvalidateOp
	})
}

// doubt makes whoever asks next ask podlink anew, unless another link is known already; but if podlink does not answer, the
// link still counts.
func (l *links) doubt(uid string, doubtful *known) {
	l.cache.ComputeIfPresent(uid, func(held *known) (*known, otter.ComputeOp) {
		if !held.same(doubtful) {
			return held, otter.CancelOp
		}
		stale := *held
		stale.fresh = time.Time{}
		return &stale, otter.WriteOp
	})
}

func (k *known) same(other *known) bool { return k.epoch == other.epoch && k.pod == other.pod }
