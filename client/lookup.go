package client

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	v1 "podlink/api/podlink/v1"
)

const (
	// maxRefreshWait is how long a call waits at most for the refresh of a link that it knows.
	maxRefreshWait = 300 * time.Millisecond
	// retryAfterFailure is how long podlink is not asked again about a link after a lookup has failed.
	retryAfterFailure = time.Second
	// maxRefreshes is how many links that are known are looked up at a time. While podlink hangs, the others are used as they are.
	maxRefreshes = 1024
	// awayAfter is how many users' lookups in a row have to fail on the way for podlink to be unavailable.
	awayAfter = 3
)

// lookup is a question to podlink, for all callers who need its answer.
type lookup struct {
	asked     time.Time
	abandoned bool             // its answer may be out of date, and is not stored; linkCache.mu guards it
	noted     []*v1.LinkChange // since it was begun; linkCache.mu guards them
	done      chan struct{}
	link      *entry // these two when it is done
	err       error
}

// get returns the link of the uid: the known one while it is fresh, else podlink's. For the refresh of a link that is known it
// waits only as long as refreshWait says, and then uses that, if the policy permits; the lookup goes on.
func (l *linkCache) get(ctx context.Context, uid string) (*entry, error) {
	now := time.Now()
	held, ok := l.cache.GetIfPresent(uid)
	switch {
	case ok && l.isFresh(held, now):
		return held, nil
	case !ok, !held.isUsable(now), !l.policy.keeps(uid, held, held.failure()):
		return l.fetch(ctx, uid)
	case held.doubt != trusted:
		return l.await(ctx, uid, held, l.begin(ctx, uid, nil))
	case held.rests(now):
		return held, nil
	}
	asked := l.begin(ctx, uid, held)
	if asked == nil || unanswered(held.failure()) || l.way.away.Load() || now.Sub(asked.asked) >= maxRefreshWait {
		return held, nil // Podlink may hang for all of its timeout: a caller who knows a link does not wait for that.
	}
	return l.await(ctx, uid, held, asked)
}

// await waits for the answer about a link that is known, and then, or without one in time, for as long as the policy demands.
func (l *linkCache) await(ctx context.Context, uid string, held *entry, asked *lookup) (*entry, error) {
	timer := time.NewTimer(refreshWait(ctx))
	defer timer.Stop()
	select {
	case <-asked.done:
		if asked.err != nil && l.policy.keeps(uid, held, asked.err) {
			return held, nil
		}
		return asked.link, asked.err
	case <-timer.C:
	case <-ctx.Done():
	}
	if !errors.Is(ctx.Err(), context.Canceled) && l.policy.keeps(uid, held, nil) {
		return held, nil
	}
	return asked.wait(ctx)
}

// refreshWait is how long a call waits for the refresh of a link that it knows: the rest of its time is its pod's.
func refreshWait(ctx context.Context) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return min(maxRefreshWait, time.Until(end)/3)
	}
	return maxRefreshWait
}

// fetch asks podlink, and waits for the answer as long as ctx.
func (l *linkCache) fetch(ctx context.Context, uid string) (*entry, error) {
	return l.begin(ctx, uid, nil).wait(ctx)
}

func (k *lookup) wait(ctx context.Context) (*entry, error) {
	select {
	case <-k.done:
		return k.link, k.err
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, withCause(ErrCanceled, ctx.Err())
		}
		return nil, withCause(ErrDeadlineExceeded, ctx.Err())
	}
}

// begin asks podlink, together with all callers that need the link now. With a link that will do without the answer it returns nil
// if too many of those are being looked up, or if a lookup of this one has just failed.
func (l *linkCache) begin(ctx context.Context, uid string, instead *entry) *lookup {
	l.mu.Lock()
	defer l.mu.Unlock()
	if asked := l.lookups[uid]; asked != nil {
		return asked
	}
	asked := &lookup{asked: time.Now(), done: make(chan struct{})}
	known, ok := l.cache.GetIfPresent(uid)
	if ok && l.isFresh(known, asked.asked) { // Another caller's lookup was faster.
		asked.link = known
		close(asked.done)
		return asked
	}
	refresh := instead != nil
	if refresh {
		if l.refreshes >= maxRefreshes || ok && known.rests(asked.asked) {
			return nil
		}
		l.refreshes++
	}
	l.lookups[uid] = asked
	go l.ask(context.WithoutCancel(ctx), uid, known, asked, refresh)
	return asked
}

// ask carries out a lookup.
func (l *linkCache) ask(ctx context.Context, uid string, known *entry, asked *lookup, refresh bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.open, cancel)() //nolint:contextcheck // Close ends the lookups, and has no context.
	link, err := l.policy.lookup(ctx, uid, known)

	l.mu.Lock()
	defer l.mu.Unlock()
	defer close(asked.done)
	l.way.note(uid, err)
	if refresh {
		l.refreshes--
	}
	if l.lookups[uid] == asked {
		delete(l.lookups, uid)
	}
	switch {
	case err != nil:
		asked.err = err
		l.fail(uid, asked, err)
	case asked.abandoned:
		asked.link = newEntry(link, asked.asked, l.policy.ttl)
		if known, ok := l.known(uid); ok && !known.asked.Before(asked.asked) {
			asked.link = known
		}
	default:
		asked.link = l.store(uid, link, asked.asked)
		for _, c := range asked.noted {
			l.apply(uid, c, time.Now())
		}
	}
}

// abandon makes the next caller ask again, also if a lookup is in flight. The caller holds the lock.
func (l *linkCache) abandon(uid string) {
	if asked := l.lookups[uid]; asked != nil {
		asked.abandoned = true
		delete(l.lookups, uid)
	}
}

// fail notes that podlink could not say anything new about a link that is known, or that it is no longer the pod's.
func (l *linkCache) fail(uid string, asked *lookup, err error) {
	l.cache.ComputeIfPresent(uid, func(held *entry) (*entry, otter.ComputeOp) {
		switch {
		case held.asked.After(asked.asked), asked.abandoned:
			return held, otter.CancelOp
		case errors.Is(err, ErrWrongPod):
			return nil, otter.InvalidateOp
		}
		failed := *held
		failed.failed = &failedLookup{err, time.Now().Add(retryAfterFailure)}
		return &failed, otter.WriteOp
	})
}

// way judges whether podlink is away: by what happens on the way to it, over different users. An answer about one user, whatever it
// is, proves that podlink is there.
type way struct {
	away atomic.Bool

	mu     sync.Mutex
	failed []string // the users whose lookups have failed since the last answer, up to awayAfter
}

// note takes in how a lookup has ended.
func (w *way) note(uid string, err error) {
	if errors.Is(err, ErrCanceled) || errors.Is(err, errTooManyLookups) {
		return // Nothing has been tried.
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !wayFailed(err):
		w.failed = w.failed[:0]
		w.away.Store(false)
	case len(w.failed) < awayAfter && !slices.Contains(w.failed, uid):
		w.failed = append(w.failed, uid)
		w.away.Store(len(w.failed) == awayAfter)
	}
}

// wayFailed reports whether podlink was not reached, or has not answered.
func wayFailed(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrDeadlineExceeded) || errors.Is(err, ErrOutcomeUnknown)
}

// unanswered reports whether podlink has said nothing about the link: it was not reached, can't say now, or does not say it to this
// process.
func unanswered(err error) bool {
	return err != nil && (wayFailed(err) || errors.Is(err, ErrStoreUnavailable) || errors.Is(err, ErrStoreFull) ||
		errors.Is(err, ErrReplicationUnconfirmed) || errors.Is(err, ErrRateLimited) || denied(err))
}

// denied reports whether podlink does not accept this process's credentials, or what they permit is too little.
func denied(err error) bool {
	return errors.Is(err, ErrUnauthenticated) || errors.Is(err, ErrPermissionDenied)
}
