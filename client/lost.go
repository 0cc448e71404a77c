package client

import (
	"context"
	"runtime/debug"
)

// lostSession is a session whose loss the pod is to be told of.
type lostSession struct {
	uid   string
	epoch int64
}

// lose ends a running session whose user another process holds, or may hold. The caller holds s.mu.
func (s *sessions) lose(x *userSession) {
	if x.state != sessionRunning {
		return
	}
	s.stop(x)
	s.over(x)
	if x.lost == nil {
		x.lost = closedChannel // For those who ask for it later.
	} else {
		close(x.lost)
	}
	s.lost = append(s.lost, lostSession{x.uid, x.epoch.Load()})
	s.lostNow.set()
}

// closedChannel is what Session.Lost returns for all sessions that were lost before.
var closedChannel = func() chan struct{} {
	closed := make(chan struct{})
	close(closed)
	return closed
}()

// revokeLost ends the streams of each lost session's user until ctx ends, and passes the session on to tellLost: an OnLost that
// blocks must not keep another user's streams open.
func (s *sessions) revokeLost(ctx context.Context) {
	for ctx.Err() == nil {
		s.mu.Lock()
		lost := s.lost
		s.lost = nil
		s.mu.Unlock()
		if len(lost) == 0 {
			s.lostNow.wait(ctx, 0)
			continue
		}
		s.log.Warnf("pod %d of %s: sessions lost, because another process holds their users or may hold them: %d",
			s.pod, s.service, len(lost))
		for _, each := range lost {
			s.forget(each.uid)
			s.revoke(each.uid, each.epoch)
		}
		s.mu.Lock()
		s.untold = append(s.untold, lost...)
		s.mu.Unlock()
		s.tellNow.set()
	}
}

// tellLost calls OnLost for each lost session until ctx ends, one after the other. No lock is held meanwhile and no request
// waits for it, so OnLost may start and end sessions, and may wait for a handler that does.
func (s *sessions) tellLost(ctx context.Context) {
	for ctx.Err() == nil {
		s.mu.Lock()
		lost := s.untold
		s.untold = nil
		s.mu.Unlock()
		for i, each := range lost {
			if ctx.Err() != nil { // The next run tells of the others.
				s.mu.Lock()
				s.untold = append(lost[i:len(lost):len(lost)], s.untold...)
				s.mu.Unlock()
				return
			}
			if s.onLost != nil {
				s.tell(each)
			}
		}
		if len(lost) == 0 {
			s.tellNow.wait(ctx, 0)
		}
	}
}

func (s *sessions) tell(lost lostSession) {
	defer func() {
		if cause := recover(); cause != nil {
			s.log.Errorf("pod %d of %s: OnLost has panicked: %v\n%s", s.pod, s.service, cause, debug.Stack())
		}
	}()
	s.onLost(lost.uid, lost.epoch)
}
