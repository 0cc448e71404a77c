package client

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"

	v1 "podlink/api/podlink/v1"
)

const (
	// batchesAtOnce is the number of batches in flight that tell podlink of sessions that have ended.
	batchesAtOnce = 4
	// longestBackoff is the longest pause between two tries while podlink does not answer, and the pause before podlink is told
	// again of one session of which it could not be told.
	longestBackoff = time.Second
)

// delayedEnd is the end of a session that podlink is told of later.
type delayedEnd struct {
	user *userSession
	at   time.Time
}

// enqueue makes podlink be told of an end now. The caller holds s.mu.
func (s *sessions) enqueue(x *userSession) {
	if !x.queued {
		x.queued = true
		s.ends = append(s.ends, x)
		s.endNow.set()
	}
}

// delay makes podlink be told of an end later. The caller holds s.mu.
func (s *sessions) delay(x *userSession) {
	if !x.queued {
		x.queued = true
		s.delayed = append(s.delayed, delayedEnd{x, time.Now().Add(longestBackoff)})
		s.endNow.set() // Whoever waits may wait for too long.
	}
}

// takeEnds returns at most n sessions of whose end podlink is to be told now, with the turns of their uids; or else how long
// it is until then, 0: there is none.
func (s *sessions) takeEnds(n int) (taken []*userSession, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	due := 0
	for due < len(s.delayed) && !time.Now().Before(s.delayed[due].at) {
		s.ends = append(s.ends, s.delayed[due].user)
		due++
	}
	s.delayed = s.delayed[due:]
	looked := 0
	for looked < len(s.ends) && len(taken) < n {
		x := s.ends[looked]
		looked++
		x.queued = false
		switch {
		case x.state != sessionEnding: // It has started again, or its link is another pod's.
		case s.turns.try(x.uid):
			taken = append(taken, x)
		default:
			s.delay(x)
		}
	}
	s.ends = s.ends[looked:]
	if len(s.ends) == 0 {
		s.ends = nil
	}
	if len(s.delayed) == 0 {
		s.delayed = nil
	} else if len(taken) == 0 {
		wait = max(time.Until(s.delayed[0].at), time.Nanosecond)
	}
	return taken, wait
}

// tellEnds tells podlink of the sessions that have ended, until ctx ends.
func (s *sessions) tellEnds(ctx context.Context) {
	var calls errgroup.Group
	calls.SetLimit(batchesAtOnce)
	defer func() { _ = calls.Wait() }()
	var away atomic.Bool // Whether a call has failed as a whole: then one at a time is tried.
	between := growingPauses()
	for ctx.Err() == nil {
		taken, wait := s.takeEnds(s.batches.size())
		switch {
		case len(taken) == 0:
			s.endNow.wait(ctx, wait)
		case !away.Load():
			calls.Go(func() error {
				if err := s.tellBatch(ctx, taken); err != nil && !away.Swap(true) {
					s.log.Warnf("pod %d of %s: releasing the links of ended sessions failed, retrying: %v", s.pod, s.service, err)
				}
				return nil
			})
		case s.tellBatch(ctx, taken) != nil:
			sleep(ctx, between.NextBackOff())
		default:
			between.Reset()
			away.Store(false)
			s.log.Infof("pod %d of %s: releasing the links of ended sessions again", s.pod, s.service)
		}
	}
}

// growingPauses are between the tries of what goes on for as long as podlink does not answer. They are few, and do not vary.
func growingPauses() *backoff.ExponentialBackOff {
	growing := pauses()
	growing.MaxInterval, growing.RandomizationFactor = longestBackoff, 0
	return growing
}

// tellBatch tells podlink that these sessions have ended. The caller has their turns, which end with it. The error says that
// podlink has not answered.
func (s *sessions) tellBatch(ctx context.Context, batch []*userSession) error {
	defer func() {
		for _, x := range batch {
			s.turns.leave(x.uid)
			s.forget(x.uid) // A request may have asked meanwhile.
		}
		s.requeue(batch)
	}()
	if err := s.closeOpen(ctx, batch); err != nil {
		return err
	}
	draining := s.draining()
	var ends []*userSession
	var items []*v1.BatchRemoveLinkedPodRequest_Item
	s.mu.Lock()
	for _, x := range batch {
		if x.state != sessionEnding || x.open != nil {
			continue
		}
		keep, epoch := keepSeconds(x.keep), x.epoch.Load()
		if draining {
			keep = 0 // The user's next request has to reach another pod.
		}
		ends = append(ends, x)
		items = append(items, &v1.BatchRemoveLinkedPodRequest_Item{Uid: x.uid, KeepSeconds: &keep, ExpectedEpoch: &epoch})
	}
	s.mu.Unlock()
	if len(items) == 0 {
		return nil
	}
	results, err := s.batches.remove(ctx, items)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, result := range results {
		s.ended(ends[i], result)
	}
	return nil
}

// requeue makes podlink be told again of those of whose end it does not know yet: later, or at once where the end has another
// epoch than it was told.
func (s *sessions) requeue(batch []*userSession) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range batch {
		switch {
		case x.state != sessionEnding:
		case x.again:
			x.again = false
			s.enqueue(x)
		default:
			s.delay(x)
		}
	}
}

// closeOpen repeats the changes whose outcome is unknown, so that the epoch to end is known and none is carried out later. The
// caller has the turns.
func (s *sessions) closeOpen(ctx context.Context, batch []*userSession) error {
	var ends []*userSession
	var items []*v1.BatchSetLinkedPodRequest_Item
	s.mu.Lock()
	for _, x := range batch {
		if x.state == sessionEnding && x.open != nil {
			ends = append(ends, x)
			items = append(items, x.open)
		}
	}
	s.mu.Unlock()
	if len(items) == 0 {
		return nil
	}
	results, err := s.batches.set(ctx, items)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, result := range results {
		x := ends[i]
		switch {
		case x.state != sessionEnding:
		case result.link != nil && (result.linked || result.has(v1.ErrorReason_REPLICATION_UNCONFIRMED) ||
			s.claimed(result.link, items[i].GetClaim())):
			x.epoch.Store(result.link.GetEpoch())
			x.open = nil
		case result.err == nil || result.final() || result.has(v1.ErrorReason_LIMIT_EXCEEDED):
			s.over(x) // The link is another's, and the change can't be carried out any more.
		}
	}
	return nil
}

// ended takes in podlink's answer about an end. The caller holds s.mu.
func (s *sessions) ended(x *userSession, result linkResult) {
	switch {
	case x.state != sessionEnding:
	case result.has(v1.ErrorReason_EPOCH_MISMATCH) && s.claimed(result.link, s.generation) &&
		result.link.GetEpoch() != x.epoch.Load():
		// A restore has been carried out whose answer was lost.
		x.epoch.Store(result.link.GetEpoch())
		x.again = true
	case result.err == nil || result.has(v1.ErrorReason_EPOCH_MISMATCH) || result.has(v1.ErrorReason_REPLICATION_UNCONFIRMED):
		s.over(x) // The link is released, or was another's already.
	case result.final():
		s.log.Warnf("pod %d of %s: the link of an ended session can't be released: %v", s.pod, s.service, result.err)
		s.over(x)
	}
}
