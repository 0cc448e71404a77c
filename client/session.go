package client

import (
	"context"
	"math"
	"sync/atomic"
	"time"
)

// Session is a user's session on this pod: from its start on the pod holds the user's state, until Session.End or until the
// session is lost. A user may have several, one for each connection for instance: they are one session with one epoch, and
// the user's link is released when the last of them ends. It is safe for concurrent use.
type Session struct {
	in    *sessions
	user  *userSession
	ended atomic.Bool
}

// Epoch is the fencing token that each write of the user's state has to carry, so that storage can refuse the write of a pod
// that has lost the user. No other process ever holds the same epoch. It may grow while the session goes on, when podlink's
// store has lost the link and the agent has restored it: read it at each write.
func (h *Session) Epoch() int64 { return h.user.epoch.Load() }

// End ends the session: with the last Session of the user, the link is released. It lives on for keep, rounded up to whole
// seconds, so that a user who comes back soon finds the pod again; with 0, and on a pod that drains, it is removed at once.
//
// End returns at once, and a second call does nothing. The agent tells podlink in the background, for as long as it takes:
// there is nothing that the caller could do.
func (h *Session) End(_ context.Context, keep time.Duration) {
	if !h.ended.Swap(true) {
		h.in.end(h.user, keep)
	}
}

// Lost returns a channel that is closed when the session is lost: another process holds the user by now, or may hold it. The
// pod must not save what it holds of the user. AgentOptions.OnLost is called for it, too.
func (h *Session) Lost() <-chan struct{} {
	h.in.mu.Lock()
	defer h.in.mu.Unlock()
	if h.user.lost == nil {
		h.user.lost = make(chan struct{})
	}
	return h.user.lost
}

// Refusal returns the error with which a handler refuses a call of the session's user that this pod can't serve any more, as when
// storage knows a greater epoch: ErrWrongPod about this user. A Router then asks podlink, and repeats the call at the user's pod, so
// nothing of the call may have been carried out.
func (h *Session) Refusal() error { return h.in.wrongPod(h.user.uid, nil) }

// Draining reports whether the pod hands its sessions over, for it is about to stop, or cordoned: whoever holds the user's connection
// may send it away.
func (h *Session) Draining() bool { return h.in.draining() }

// hold returns a further handle of the session; nil if it does not run, or its link is in doubt.
func (s *sessions) hold(x *userSession) *Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.state != sessionRunning || x.doubt != nil {
		return nil
	}
	x.handles++
	return &Session{in: s, user: x}
}

// keepSeconds returns for how long the link of a session that has ended lives on, in whole seconds.
func keepSeconds(keep time.Duration) int32 {
	if keep <= 0 {
		return 0
	}
	return int32(min((keep-1)/time.Second+1, math.MaxInt32))
}
