package client

import (
	"context"
	"errors"
	"time"

	v1 "podlink/api/podlink/v1"
)

// start begins a session of the user, or adds a handle to the one that runs. seen is the epoch with which the guard has let
// the request in; 0: it is not known. It waits for ctx, and for the timeout of a call at most.
func (s *sessions) start(ctx context.Context, uid string, seen int64) (*Session, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	// Counted before it asks: a drain either is seen here, or sees this start and waits for it.
	s.countStart(1)
	defer s.countStart(-1)
	if s.draining() {
		if h := s.join(uid, seen); h != nil { // The user can't be served elsewhere before the session has ended.
			return h, nil
		}
		s.release(uid, s.standing(ctx, uid, seen), 0)
		return nil, s.wrongPod(uid, nil)
	}
	claims, err := s.lease.wait(ctx, func(l leaseState) bool { return l.generation != 0 || l.superseded })
	if err != nil {
		return nil, s.linkUncertain(uid, err)
	}
	if claims.superseded {
		return nil, withCause(ErrSuperseded, nil)
	}
	s.look()
	if h := s.join(uid, seen); h != nil {
		return h, nil
	}
	if err := s.turns.enter(ctx, uid); err != nil {
		return nil, s.linkUncertain(uid, err)
	}
	defer s.turns.leave(uid)
	if h := s.join(uid, seen); h != nil { // Whoever had the turn has started it.
		return h, nil
	}
	if x := s.session(uid, sessionRunning); x != nil || seen == 0 {
		begun := s.now()
		link, err := s.batches.get(ctx, uid)
		if err != nil {
			return s.joinUnseen(x, seen, err)
		}
		if x != nil {
			s.saw(uid, link, begun)
			if err := s.settle(ctx, x, true); err != nil {
				return nil, err
			}
			if h := s.hold(x); h != nil {
				return h, nil
			}
			if s.session(uid, sessionRunning) != nil { // Its link was seen wrong again meanwhile. To claim it would begin a second session.
				return nil, s.linkUncertain(uid, errUndecided)
			}
		}
		if link.GetPodId() != s.pod {
			s.forget(uid)
			return nil, s.wrongPod(uid, link)
		}
		seen = link.GetEpoch()
	}
	return s.claim(ctx, uid, seen, claims.generation)
}

// standing returns the epoch of the user's link that the pod is about to release: the one that the guard has seen, or else podlink's;
// 0: the link is not this pod's, or not known.
func (s *sessions) standing(ctx context.Context, uid string, seen int64) int64 {
	if seen != 0 || s.session(uid, sessionRunning) != nil {
		return seen
	}
	link, err := s.batches.get(ctx, uid)
	if err != nil || link.GetPodId() != s.pod {
		return 0
	}
	return link.GetEpoch()
}

func (s *sessions) countStart(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starting += n
	s.left()
}

// session returns the user's session if it is in that state.
func (s *sessions) session(uid string, state sessionState) *userSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.byUID[uid]; x != nil && x.state == state {
		return x
	}
	return nil
}

// join returns a further handle of the session that runs, if its link is known to be right.
func (s *sessions) join(uid string, seen int64) *Session {
	x := s.session(uid, sessionRunning)
	if x == nil || seen > x.epoch.Load() {
		return nil
	}
	if seen == 0 {
		s.mu.Lock()
		recent := time.Since(x.checked) <= s.cacheTTL
		s.mu.Unlock()
		if !recent {
			return nil
		}
	}
	return s.hold(x)
}

// joinUnseen is for a podlink that has not said whose the user is: a session goes on for as long as the lease holds, for until
// then podlink moves no user by itself.
func (s *sessions) joinUnseen(x *userSession, seen int64, cause error) (*Session, error) {
	if x == nil {
		return nil, cause
	}
	if state, _ := s.lease.state(); state.holds() && seen <= x.epoch.Load() {
		if h := s.hold(x); h != nil {
			return h, nil
		}
	}
	return nil, s.linkUncertain(x.uid, cause)
}

// claim makes the link of that epoch persistent and this process's, with an epoch that no process ever held. The caller has
// the uid's turn.
func (s *sessions) claim(ctx context.Context, uid string, expected, generation int64) (*Session, error) {
	above := expected
	if old := s.session(uid, sessionEnding); old != nil {
		above = max(above, old.epoch.Load())
	}
	item := &v1.BatchSetLinkedPodRequest_Item{
		Uid: uid, PodId: &s.pod, ExpectedEpoch: &expected, Claim: generation, AboveEpoch: &above,
	}
	for {
		begun := s.now()
		result := s.batches.setOne(ctx, item)
		switch {
		case result.err == nil:
			return s.begin(uid, result.link, begun)
		case result.has(v1.ErrorReason_EPOCH_MISMATCH) && s.claimed(result.link, generation) && ctx.Err() == nil:
			// An earlier claim of this process, whose answer was lost.
			expected = result.link.GetEpoch()
			above = max(above, expected)
			continue
		case result.has(v1.ErrorReason_EPOCH_MISMATCH):
			s.dropEnding(uid, result.link)
			s.forget(uid)
			return nil, s.wrongPod(uid, result.link)
		case result.has(v1.ErrorReason_SUPERSEDED):
			// The next report says whether that holds for this process, or for this link alone.
			s.log.Warnf("pod %d of %s: a session is refused, because a later process of the pod has claimed its link", s.pod, s.service)
			s.forget(uid)
			s.report()
		case result.open():
			s.abandon(item)
		}
		return nil, result.err
	}
}

// claimed reports whether the link is this process's.
func (s *sessions) claimed(link *v1.Link, generation int64) bool {
	return link != nil && link.GetPodId() == s.pod && link.GetClaim() == generation && generation != 0
}

// begin adds the session of a link that podlink has just said to be this process's.
func (s *sessions) begin(uid string, link *v1.Link, begun time.Time) (*Session, error) {
	defer s.forget(uid)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.byUID[uid]; old != nil {
		s.over(old) // Its end is void: the link goes on.
	}
	x := &userSession{uid: uid, handles: 1}
	s.byUID[uid] = x
	s.running++
	s.order.push(x)
	s.right(x, link.GetEpoch(), begun)
	if s.superseded {
		s.lose(x)
		return nil, withCause(ErrSuperseded, nil)
	}
	return &Session{in: s, user: x}, nil
}

// wrongPod is ErrWrongPod with whose the user is; nil: no pod's.
func (s *sessions) wrongPod(uid string, link *v1.Link) error {
	if link == nil {
		link = &v1.Link{PodId: -1}
	}
	return withCause(ErrWrongPod, nil, metadataNamespace, s.namespace, metadataService, s.service, metadataUID, uid,
		MetadataPodID, number(link.GetPodId()), "epoch", number(link.GetEpoch()), metadataRefusedBy, number(s.pod))
}

// linkUncertain is ErrLinkUncertain of the user.
func (s *sessions) linkUncertain(uid string, cause error) error {
	if errors.Is(cause, context.Canceled) {
		return withCause(ErrCanceled, cause)
	}
	return withCause(ErrLinkUncertain, cause, metadataNamespace, s.namespace, metadataService, s.service, metadataUID, uid,
		MetadataPodID, number(s.pod), metadataRefusedBy, number(s.pod))
}
