package client

import (
	"time"

	v1 "podlink/api/podlink/v1"
)

// end counts a handle's end. The last one ends the session.
func (s *sessions) end(x *userSession, keep time.Duration) {
	s.mu.Lock()
	if x.handles--; x.handles > 0 || x.state != sessionRunning {
		s.mu.Unlock()
		return
	}
	s.stop(x)
	x.state, x.keep = sessionEnding, keep
	s.ending++
	s.enqueue(x)
	s.mu.Unlock()
	s.forget(x.uid)
}

// release removes the link of that epoch, to which no session belongs, after keep.
func (s *sessions) release(uid string, epoch int64, keep time.Duration) {
	if epoch != 0 {
		s.addEnding(uid, epoch, keep, nil)
	}
}

// releaseLost removes the link that was restored while the user's session was being lost. The session keeps its epoch: with the
// greater one its pod could write over what the user's next pod stores. The caller holds s.mu.
func (s *sessions) releaseLost(uid string, epoch int64) {
	if s.byUID[uid] == nil {
		s.addEndingLocked(uid, epoch, 0, nil)
	}
}

// abandon is for a start that does not know whether the link is claimed: without a session it must not stay so.
func (s *sessions) abandon(item *v1.BatchSetLinkedPodRequest_Item) {
	s.addEnding(item.GetUid(), item.GetExpectedEpoch(), DefaultLinkTTL, item)
}

// addEnding makes podlink be told of an end, unless the user has a session.
func (s *sessions) addEnding(uid string, epoch int64, keep time.Duration, open *v1.BatchSetLinkedPodRequest_Item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addEndingLocked(uid, epoch, keep, open)
}

// addEndingLocked is addEnding for a caller that holds s.mu.
func (s *sessions) addEndingLocked(uid string, epoch int64, keep time.Duration, open *v1.BatchSetLinkedPodRequest_Item) {
	x := s.byUID[uid]
	if x == nil {
		x = &userSession{uid: uid, state: sessionEnding, keep: keep}
		x.epoch.Store(epoch)
		s.byUID[uid] = x
		s.ending++
	}
	if x.state != sessionEnding {
		return
	}
	if open != nil {
		x.open = open
	}
	s.enqueue(x)
}

// stop takes a session off those that run. The caller holds s.mu, and decides what it is then.
func (s *sessions) stop(x *userSession) {
	s.order.remove(x)
	x.doubt = nil
	s.running--
}

// over forgets a session. The caller holds s.mu.
func (s *sessions) over(x *userSession) {
	if x.state == sessionEnding {
		s.ending--
	}
	x.state = sessionOver
	if s.byUID[x.uid] == x {
		delete(s.byUID, x.uid)
	}
	s.left()
}

// dropEnding forgets a session that has ended and whose link is another one by now.
func (s *sessions) dropEnding(uid string, current *v1.Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.byUID[uid]; x != nil && x.state == sessionEnding && (current.GetPodId() != s.pod || current.GetEpoch() != x.epoch.Load()) {
		s.over(x)
	}
}
