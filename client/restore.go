package client

import (
	"context"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"

	v1 "podlink/api/podlink/v1"
)

// restoring returns the change that makes the session's link right. The caller holds s.mu.
func (s *sessions) restoring(x *userSession) *v1.BatchSetLinkedPodRequest_Item {
	above := x.epoch.Load()
	item := &v1.BatchSetLinkedPodRequest_Item{Uid: x.uid, PodId: &s.pod, Claim: s.generation, AboveEpoch: &above}
	if x.doubt.pod < 0 {
		item.IfAbsent = true
	} else {
		expected := x.doubt.epoch
		item.ExpectedEpoch = &expected
	}
	return item
}

// restored takes in the answer to a change that restores the link. The caller holds s.mu and has the uid's turn.
func (s *sessions) restored(x *userSession, item *v1.BatchSetLinkedPodRequest_Item, result linkResult, begun time.Time) {
	done := result.linked || result.has(v1.ErrorReason_REPLICATION_UNCONFIRMED) && result.link != nil
	if result.open() && !done {
		x.open = item
	}
	doubted := x.doubt
	switch {
	case x.state == sessionOver && done: // It was lost meanwhile.
		s.releaseLost(x.uid, result.link.GetEpoch())
	case x.state == sessionEnding && done:
		x.epoch.Store(result.link.GetEpoch())
	case x.state != sessionRunning:
	case done:
		s.right(x, result.link.GetEpoch(), begun)
	case result.has(v1.ErrorReason_SUPERSEDED), result.has(v1.ErrorReason_INVALID_ARGUMENT):
		s.lose(x)
	case result.link != nil:
		s.take(x, result.link, begun)
	}
	if doubted != nil && x.doubt == doubted {
		doubted.tried = time.Now()
	}
}

// restoreDoubted restores or gives up the sessions whose link was seen wrong, until ctx ends.
func (s *sessions) restoreDoubted(ctx context.Context) {
	between := growingPauses()
	for ctx.Err() == nil {
		restores, rechecks, wait := s.takeDoubted(s.batches.size())
		if len(restores)+len(rechecks) == 0 {
			s.restoreNow.wait(ctx, wait)
			continue
		}
		err := s.restoreBatch(ctx, restores)
		if len(rechecks) > 0 && err == nil {
			err = s.check(ctx, rechecks)
		}
		if err != nil {
			sleep(ctx, between.NextBackOff())
		} else {
			between.Reset()
		}
	}
}

// takeDoubted returns at most n sessions to restore now, with the turns of their uids, and as many to verify once more; or else
// how long it is until there may be one, 0: the next report decides.
func (s *sessions) takeDoubted(n int) (restores []*userSession, rechecks []*v1.BatchVerifyLinkedPodRequest_Item, wait time.Duration) {
	state := s.look()
	report := false
	defer func() {
		if report {
			s.report()
		}
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.doubted[:0]
	for _, x := range s.doubted {
		d := x.doubt
		if d == nil {
			x.listed = false
			continue
		}
		left = append(left, x)
		switch s.remedy(x, state) {
		case remedyLose:
			s.lose(x)
		case remedyWait:
			if state.storeIDAsOf.Before(d.since) {
				wait = longestBackoff // Not each report says store_id.
				report = time.Since(s.asked) >= longestBackoff
			}
		case remedyRecheck:
			if time.Since(d.tried) < longestBackoff {
				wait = longestBackoff
			} else if len(rechecks) < n {
				d.tried = time.Now()
				rechecks = append(rechecks, &v1.BatchVerifyLinkedPodRequest_Item{Uid: x.uid, Epoch: x.epoch.Load()})
			}
		case remedyRestore:
			switch {
			case len(restores) == n:
			case time.Since(d.tried) < longestBackoff || !s.turns.try(x.uid):
				wait = longestBackoff
			default:
				restores = append(restores, x)
			}
		case remedyNone:
		}
	}
	clear(s.doubted[len(left):])
	s.doubted = left
	if len(left) == 0 {
		s.doubted = nil // It may have been long.
	}
	if report {
		s.asked = time.Now()
	}
	return restores, rechecks, wait
}

// restoreBatch restores the links of these sessions. The caller has their turns, which end with it.
func (s *sessions) restoreBatch(ctx context.Context, batch []*userSession) error {
	if len(batch) == 0 {
		return nil
	}
	defer func() {
		for _, x := range batch {
			s.forget(x.uid)
			s.turns.leave(x.uid)
		}
	}()
	var users []*userSession
	var items []*v1.BatchSetLinkedPodRequest_Item
	s.mu.Lock()
	for _, x := range batch {
		if x.state == sessionRunning && x.doubt != nil {
			users, items = append(users, x), append(items, s.restoring(x))
		}
	}
	s.mu.Unlock()
	begun := s.now()
	results, err := s.batches.set(ctx, items)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, x := range users {
		if err != nil {
			s.restored(x, items[i], failed(err), begun)
		} else {
			s.restored(x, items[i], results[i], begun)
		}
	}
	return err
}

// restore makes the link of the user's session right now, if that is decided already: ErrLinkUncertain otherwise, and
// ErrWrongPod if the session is lost by it. It returns what the pod holds then.
func (s *sessions) restore(ctx context.Context, uid string) (holding, error) {
	if err := s.turns.enter(ctx, uid); err != nil {
		return s.holding(uid), s.linkUncertain(uid, err)
	}
	defer s.turns.leave(uid)
	x := s.session(uid, sessionRunning)
	if x == nil {
		return holding{}, nil
	}
	err := s.settle(ctx, x, false)
	held := s.holding(uid)
	if err == nil && held.epoch == 0 {
		err = s.wrongPod(uid, nil)
	}
	return held, err
}

// settle does what is to be done about a session until its link is right or it is lost. With patience it waits for the report
// that decides. The caller has the uid's turn.
func (s *sessions) settle(ctx context.Context, x *userSession, patience bool) error {
	for {
		state := s.look()
		s.mu.Lock()
		decided := s.remedy(x, state)
		doubted := x.doubt
		var item *v1.BatchSetLinkedPodRequest_Item
		switch decided {
		case remedyRestore:
			item = s.restoring(x)
		case remedyLose:
			s.lose(x)
		case remedyNone, remedyRecheck, remedyWait:
		}
		s.mu.Unlock()
		begun := s.now()
		switch decided {
		case remedyNone, remedyLose:
			return nil
		case remedyRestore:
			result := s.batches.setOne(ctx, item)
			s.mu.Lock()
			s.restored(x, item, result, begun)
			unchanged := x.doubt == doubted
			s.mu.Unlock()
			s.forget(x.uid)
			if unchanged && result.err != nil {
				return s.linkUncertain(x.uid, result.err)
			}
			if unchanged {
				return s.linkUncertain(x.uid, errUndecided)
			}
		case remedyRecheck:
			link, err := s.batches.get(ctx, x.uid)
			if err != nil {
				return s.linkUncertain(x.uid, err)
			}
			s.saw(x.uid, link, begun)
		case remedyWait:
			if !state.storeIDAsOf.Before(doubted.since) || !patience {
				return s.linkUncertain(x.uid, errUndecided)
			}
			s.report()
			if _, err := s.lease.wait(ctx, func(l leaseState) bool { return !l.storeIDAsOf.Before(doubted.since) }); err != nil {
				return s.linkUncertain(x.uid, err)
			}
		}
	}
}

// errUndecided is why a session can't go on yet.
var errUndecided = kerrors.New(503, "UNDECIDED", "the link is gone, and podlink has not said yet whether its store has lost it")
