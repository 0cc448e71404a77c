package client

import (
	"time"

	v1 "podlink/api/podlink/v1"
)

// settleTime is how long podlink may take to notice that its store is another one. Until then a link that is gone, or was made
// again for this pod, may have been lost with the store before, though store_id has not changed.
const settleTime = 6 * time.Second

// linkDoubt is about a session whose link was seen wrong.
type linkDoubt struct {
	pod   int32 // of the link; -1: it is gone
	epoch int64
	since time.Time // when an answer arrived that showed this link first, or one before it that was gone or somebody else's work, too
	begun time.Time // when the last call was begun that has shown it
	tried time.Time // when restoring it failed last
}

// older reports whether the link that was seen is one from before the session's epoch, which only a store that has lost data shows.
func (d *linkDoubt) older(epoch int64) bool { return d.pod >= 0 && d.epoch < epoch }

// remedy is what is to be done about a session whose link was seen wrong.
type remedy uint8

const (
	remedyNone    remedy = iota // it is right again
	remedyWait                  // a later report decides
	remedyRecheck               // it is lost if the link still is as it was seen
	remedyRestore
	remedyLose
)

// judge takes in the link of a running session, as a call has shown it that was begun then. The caller holds s.mu.
func (s *sessions) judge(x *userSession, link *v1.Link, begun time.Time) {
	epoch := x.epoch.Load()
	if !begun.After(x.known) && link.GetEpoch() <= epoch || x.doubt != nil && begun.Before(x.doubt.begun) && link.GetEpoch() <= x.doubt.epoch {
		return // It may be older than what is known. Of two answers that overlap, the greater epoch is the later one.
	}
	s.take(x, link, begun)
}

// take takes in a link that is not older than what is known. The caller holds s.mu.
func (s *sessions) take(x *userSession, link *v1.Link, begun time.Time) {
	epoch := x.epoch.Load()
	switch mine := link.GetPodId() == s.pod; {
	case mine && (link.GetEpoch() == epoch || link.GetEpoch() > epoch && s.claimed(link, s.generation)):
		s.right(x, link.GetEpoch(), begun)
	case !mine && link.GetPodId() >= 0 || mine && link.GetClaim() > s.generation:
		s.lose(x)
	default:
		s.doubtLink(x, link, begun)
	}
}

// right notes that the link is the session's and has that epoch. The caller holds s.mu; the session runs.
func (s *sessions) right(x *userSession, epoch int64, begun time.Time) {
	x.epoch.Store(epoch)
	x.known = s.now()
	if begun.After(s.storeSince) {
		x.store = s.store
	} // Else the link may have been right before the store has changed.
	x.unread, x.open = time.Time{}, nil
	x.doubt = nil
	s.checkedAt(x, begun)
}

// doubtLink notes that the link is not the session's, or gone. The caller holds s.mu.
func (s *sessions) doubtLink(x *userSession, link *v1.Link, begun time.Time) {
	if x.doubt == nil || x.doubt.pod != link.GetPodId() || x.doubt.epoch != link.GetEpoch() {
		since := time.Now()
		if x.doubt != nil && !x.doubt.older(x.epoch.Load()) {
			since = x.doubt.since // What podlink says about that decides, whatever has become of the link since.
		}
		x.doubt = &linkDoubt{pod: link.GetPodId(), epoch: link.GetEpoch(), since: since}
		if !x.listed {
			x.listed = true
			s.doubted = append(s.doubted, x)
		}
		s.restoreNow.set()
	}
	x.doubt.begun = begun
	s.checkedAt(x, begun)
}

// remedy decides about a session. The caller holds s.mu.
//
// podlink's reports say by store_id whether its store has lost links since this one was right: then it is restored. Otherwise
// podlink has given the user to another process, or somebody has removed the link, and the session is lost.
func (s *sessions) remedy(x *userSession, state leaseState) remedy {
	d, epoch := x.doubt, x.epoch.Load()
	switch {
	case d == nil:
		return remedyNone
	case d.older(epoch), state.storeID != x.store, state.storeID == "":
		return remedyRestore
	case state.storeIDAsOf.Before(d.since.Add(settleTime)):
		return remedyWait
	case d.begun.Before(d.since.Add(settleTime)):
		return remedyRecheck
	}
	return remedyLose
}
