package client

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"google.golang.org/grpc"
)

// minRecheck is the shortest pause between two checks of a stream.
const minRecheck = 100 * time.Millisecond

// StreamGuard is the Guard of streams over gRPC. A stream is about one user: the one of the Router's header, or the one that
// AgentOptions.UID finds in the stream's context (the request is nil then) or in its first message that names one. Such a message is
// refused before the handler gets it, and so is a later one that names another user.
//
// A stream ends with ErrWrongPod when its user is lost or moved, also if no message is sent, and with ErrLinkUncertain when the pod
// can't know any more: the handler's context ends, and its RecvMsg and SendMsg return that error. A handler that waits for anything
// else has to watch the context. What the pod holds by a session is lost when the session is; for others podlink is asked each
// AgentOptions.CacheTTL, once for all streams of a user.
func (a *Agent) StreamGuard() grpc.StreamServerInterceptor { return a.guard.stream }

// stream guards a stream.
func (g *guard) stream(srv any, of grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if isBuiltIn(info.FullMethod) {
		return handler(srv, of)
	}
	ctx, revoke := context.WithCancelCause(of.Context())
	s := &guardedStream{
		ServerStream: of, guard: g, operation: info.FullMethod, ctx: &userContext{Context: ctx, by: g}, revoke: revoke,
	}
	defer s.close()
	if err := s.open(); err != nil {
		return err
	}
	err := handler(srv, s)
	if revoked := s.revoked(); revoked != nil {
		return revoked
	}
	return err
}

// guardedStream is a stream that the guard can end.
type guardedStream struct {
	grpc.ServerStream

	guard     *guard
	operation string
	ctx       *userContext // of the handler
	revoke    context.CancelCauseFunc
	matched   bool // a message has named the user of the header

	checking sync.Mutex  // held by the one who checks the user, and to begin and end that
	timer    *time.Timer // for the next check; nil: the user is not known yet
}

// Context implements grpc.ServerStream.
func (s *guardedStream) Context() context.Context { return s.ctx }

// open checks the user, if it is known before the first message.
func (s *guardedStream) open() error {
	uid, err := s.guard.find(s.ctx, s.guard.uid, s.operation, nil)
	switch {
	case err == nil && uid != "":
		return s.admit(uid)
	case s.guard.byHeader && !s.guard.publicOperations[s.operation]:
		return uidRequired(s.operation, "the stream names no user")
	}
	return nil // A message has to name it.
}

// admit checks the user of the stream for the first time.
func (s *guardedStream) admit(uid string) error {
	s.checking.Lock()
	defer s.checking.Unlock()
	epoch, err := s.guard.check(s.ctx, uid)
	if err == nil {
		err = s.ctx.Err() // Close has been waiting.
	}
	if err != nil {
		return err
	}
	s.ctx.first = guardedUser{uid, epoch}
	s.ctx.user.Store(&s.ctx.first)
	s.timer = time.AfterFunc(s.guard.recheckAfter(uid), s.recheck)
	s.guard.streams.add(uid, s)
	return nil
}

// recheckAfter is the time until a stream of the user is checked again: as long as what is known of the user counts.
func (g *guard) recheckAfter(uid string) time.Duration {
	after := g.cacheTTL
	if link, fresh := g.cache.peek(uid); fresh {
		after = time.Until(link.asked.Add(link.fresh))
	}
	after = max(after, minRecheck)
	if state, _ := g.lease.state(); state.holds() {
		after = min(after, time.Until(state.until))
	}
	return after
}

// recheck ends the stream if its user is not the pod's any more.
func (s *guardedStream) recheck() {
	s.checking.Lock()
	defer s.checking.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	user := s.ctx.user.Load()
	epoch, err := s.guard.stillHolds(s.ctx, user.uid)
	switch {
	case s.ctx.Err() != nil:
	case err != nil:
		s.revoke(err)
	default:
		if epoch != user.epoch {
			s.ctx.user.Store(&guardedUser{user.uid, epoch})
		}
		s.timer.Reset(s.guard.recheckAfter(user.uid))
	}
}

// stillHolds is check for the user of a stream. Podlink is not asked about a session: the sessions find out by themselves when they
// lose it.
func (g *guard) stillHolds(ctx context.Context, uid string) (epoch int64, err error) {
	state, since := g.leaseNow()
	held := g.sessions.holding(uid)
	if state.holds() && held.epoch != 0 && !held.uncertain && !held.verified.Before(since) {
		return held.epoch, nil
	}
	return g.check(ctx, uid)
}

// lost ends the streams of a user whose session of that epoch was lost.
func (g *guard) lost(uid string, epoch int64) {
	g.forget(uid)
	for _, s := range g.streams.of(uid) {
		if s.ctx.first.epoch <= epoch {
			s.revoke(g.refusal(ErrWrongPod, "the user's session is lost", nil, uid, -1, 0))
		}
	}
}

// changed makes the streams of a user be checked now.
func (g *guard) changed(uid string) {
	for _, s := range g.streams.of(uid) {
		s.timer.Reset(0)
	}
}

// close ends the checks.
func (s *guardedStream) close() {
	s.revoke(nil)
	s.checking.Lock() // A check that is running ends with the context.
	defer s.checking.Unlock()
	if s.timer != nil {
		s.timer.Stop()
		s.guard.streams.remove(s.ctx.user.Load().uid, s)
	}
}

// revoked is why the guard has ended the stream; nil: it has not.
func (s *guardedStream) revoked() error {
	if cause, ours := context.Cause(s.ctx), (*kerrors.Error)(nil); errors.As(cause, &ours) {
		return ours
	}
	return nil
}

// SendMsg implements grpc.ServerStream.
func (s *guardedStream) SendMsg(message any) error {
	if err := s.revoked(); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(message)
}

// RecvMsg implements grpc.ServerStream.
func (s *guardedStream) RecvMsg(message any) error {
	if err := s.revoked(); err != nil {
		return err // The call before may wait for a message still, and there must be no second one.
	}
	received := make(chan error, 1)
	go func() { received <- s.ServerStream.RecvMsg(message) }() // gRPC ends it when the handler has returned, at the latest.
	var err error
	select {
	case err = <-received:
	case <-s.ctx.Done():
		if revoked := s.revoked(); revoked != nil {
			return revoked
		}
		err = <-received
	}
	if err != nil {
		return err
	}
	if err := s.accept(message); err != nil {
		s.revoke(err)
		return err
	}
	return s.revoked()
}

// accept checks the user that a message names.
func (s *guardedStream) accept(message any) error {
	user := s.ctx.user.Load()
	if user == nil {
		uid, err := s.guard.identify(s.ctx, s.operation, message)
		if err == nil && uid == "" {
			_, err = s.guard.check(s.ctx, "")
		}
		if err != nil || uid == "" {
			return err
		}
		s.matched = true
		return s.admit(uid)
	}
	uid, err := s.guard.find(s.ctx, s.guard.uid, s.operation, message)
	if err != nil {
		return err
	}
	if uid != "" && uid != user.uid {
		return uidMismatch(s.operation, uid)
	}
	if s.guard.match == nil {
		return nil
	}
	other, err := s.guard.find(s.ctx, s.guard.match, s.operation, message)
	if err != nil {
		return err
	}
	if other != user.uid && (other != "" || !s.matched) {
		return uidMismatch(s.operation, other)
	}
	s.matched = true
	return nil
}

// userStreams are the streams of each user.
type userStreams struct {
	mu  sync.Mutex
	all map[string]map[*guardedStream]struct{}
}

func (u *userStreams) add(uid string, s *guardedStream) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.all == nil {
		u.all = map[string]map[*guardedStream]struct{}{}
	}
	if u.all[uid] == nil {
		u.all[uid] = map[*guardedStream]struct{}{}
	}
	u.all[uid][s] = struct{}{}
}

func (u *userStreams) remove(uid string, s *guardedStream) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.all[uid], s)
	if len(u.all[uid]) == 0 {
		delete(u.all, uid)
	}
}

// of returns the streams of a user.
func (u *userStreams) of(uid string) []*guardedStream {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Collect(maps.Keys(u.all[uid]))
}
