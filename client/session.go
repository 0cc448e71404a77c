package client

import (
	"context"
	"errors"
	"math"
	"strconv"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

// session is a user whose state the pod holds.
type session struct {
	turn    chan struct{} // held by the one who may change what follows
	waiting int           // who holds it or waits for it; Agent.mu guards it, and ending and epoch for those who only look

	epoch  int64 // of the link when it began; 0: none runs
	ending bool  // it has ended, and podlink does not know yet
	keep   time.Duration
}

// enter makes the caller the only one who changes the user's session, until it calls the function.
func (a *Agent) enter(ctx context.Context, uid string) (*session, func(), error) {
	a.mu.Lock()
	s := a.sessions[uid]
	if s == nil {
		s = &session{turn: make(chan struct{}, 1)}
		a.sessions[uid] = s
	}
	s.waiting++
	a.mu.Unlock()
	leave := func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if s.waiting--; s.waiting == 0 && s.epoch == 0 {
			delete(a.sessions, uid)
		}
	}
	select {
	case s.turn <- struct{}{}:
		return s, func() { <-s.turn; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, nil, ctx.Err()
	}
}

// set changes a session whose turn the caller has.
func (a *Agent) set(s *session, epoch int64, ending bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s.epoch, s.ending = epoch, ending
}

// users returns whose sessions are such.
func (a *Agent) users(which func(s *session) bool) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var uids []string
	for uid, s := range a.sessions {
		if which(s) {
			uids = append(uids, uid)
		}
	}
	return uids
}

// count returns how many sessions run, and how many have ended without podlink knowing.
func (a *Agent) count() (running, ending int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.sessions {
		switch {
		case s.ending:
			ending++
		case s.epoch != 0:
			running++
		}
	}
	return running, ending
}

// Sessions returns how many sessions run.
func (a *Agent) Sessions() int {
	running, _ := a.count()
	return running
}

// StartSession makes the user's link persistent, because the pod holds the user's state from now on, and returns the link's
// epoch, which every write of that state shall carry. Started again it changes nothing. The error is ErrWrongPod when the
// user is not this pod's, or the pod drains: then whoever asks for the user next is sent to another pod.
func (a *Agent) StartSession(ctx context.Context, uid string) (epoch int64, err error) {
	s, leave, err := a.enter(ctx, uid)
	if err != nil {
		return 0, explain(ErrCanceled, err)
	}
	defer leave()
	epoch, err = a.epoch(ctx, uid)
	if err != nil {
		return 0, err
	}
	epoch = max(epoch, s.epoch) // The request may have passed the Guard before the user was away and came back.
	if s.epoch == epoch && !s.ending {
		return epoch, nil
	}
	if s.epoch != 0 && s.epoch != epoch {
		lost := s.epoch
		a.set(s, 0, false) // The user was another pod's meanwhile.
		a.tellLost(uid, lost)
	}
	if a.draining() {
		a.set(s, epoch, true)
		s.keep = 0
		a.finish(ctx, uid, s)
		return 0, a.guard.refusal(ErrWrongPod, "the pod is draining", nil, uid, -1, 0)
	}
	link, begin, err := a.persist(ctx, uid, epoch)
	if errors.Is(err, ErrEpochMismatch) {
		a.links.invalidate(uid)
		stands := kerrors.FromError(err).Metadata
		pod, _ := strconv.ParseInt(stands["pod_id"], 10, 32)
		epoch, _ := strconv.ParseInt(stands["epoch"], 10, 64)
		return 0, a.guard.refusal(ErrWrongPod, "", nil, uid, int32(pod), epoch)
	}
	if err != nil && uncertain(err) && s.epoch == 0 {
		// The link may be persistent now, without a session: it shall not stay so.
		s.keep = DefaultLinkTTL
		a.set(s, epoch, true)
	}
	if err != nil {
		return 0, err
	}
	a.set(s, epoch, false)
	a.links.store(uid, link, begin)
	return epoch, nil
}

// epoch is the one that the Guard has found for the request, or else the link's.
func (a *Agent) epoch(ctx context.Context, uid string) (int64, error) {
	if seen := a.guard.seen(ctx, uid); seen != 0 {
		return seen, nil
	}
	link, err := a.links.get(ctx, uid)
	if err != nil {
		return 0, err
	}
	return link.epoch, nil
}

// persist makes the link persistent if it still is the one of that epoch. So it may be repeated when its answer was lost.
func (a *Agent) persist(ctx context.Context, uid string, epoch int64) (link *v1.Link, begin time.Time, err error) {
	err = untilCertain(ctx, func() error {
		begin = time.Now()
		reply, err := a.client.SetLinkedPod(ctx, &v1.SetLinkedPodRequest{
			Namespace: a.namespace, Uid: uid, Service: a.service, PodId: &a.pod, ExpectedEpoch: &epoch,
		})
		link = reply.GetLink()
		return err
	})
	return link, begin, err
}

// EndSession ends the user's session. The link lives on for keep, so that a user who comes back soon finds the pod again; it
// is removed at once with 0, and when the pod drains. Keep is rounded up to whole seconds. When podlink can't be told now,
// the agent goes on telling it: there is nothing that the caller could do.
func (a *Agent) EndSession(ctx context.Context, uid string, keep time.Duration) {
	ctx = context.WithoutCancel(ctx) // The session has ended, whether the caller stays or not.
	s, leave, err := a.enter(ctx, uid)
	if err != nil {
		return // It can't be: such a context does not end.
	}
	defer leave()
	if s.epoch == 0 {
		return
	}
	s.keep = keep
	a.set(s, s.epoch, true)
	a.finish(ctx, uid, s)
}

// finish tells podlink that a session has ended; the caller has its turn. If it fails, settle tries again.
func (a *Agent) finish(ctx context.Context, uid string, s *session) {
	var keep int32
	if s.keep > 0 && !a.draining() {
		keep = int32(min((s.keep-1)/time.Second+1, math.MaxInt32))
	}
	a.links.invalidate(uid)
	_, err := a.client.RemoveLinkedPod(ctx, &v1.RemoveLinkedPodRequest{
		Namespace: a.namespace, Uid: uid, Service: a.service, KeepSeconds: proto.Int32(keep), ExpectedEpoch: &s.epoch,
	})
	a.links.invalidate(uid) // A request may have asked meanwhile.
	if err != nil && !errors.Is(err, ErrEpochMismatch) {
		a.log.Debugf("reporting the end of a session failed, retrying later: %v", err)
		return
	}
	a.set(s, 0, false) // With another epoch the user is another pod's already.
}

// settle tells podlink about sessions that have ended while it did not answer.
func (a *Agent) settle(ctx context.Context) {
	for _, uid := range a.users(func(s *session) bool { return s.ending && s.waiting == 0 }) {
		s, leave, err := a.enter(ctx, uid)
		if err != nil {
			return
		}
		if s.ending {
			a.finish(ctx, uid, s)
		}
		still := s.ending
		leave()
		if still {
			return // The next report comes soon.
		}
	}
}

// review asks podlink which sessions are still this pod's, and gives up the others. Each link is asked for by itself: its
// epoch tells whether the user was another pod's in between.
func (a *Agent) review(ctx context.Context) error {
	asks, ctx := errgroup.WithContext(ctx)
	asks.SetLimit(asksAtOnce)
	for _, uid := range a.users(func(s *session) bool { return s.epoch != 0 }) {
		asks.Go(func() error { return a.verify(ctx, uid) })
	}
	return asks.Wait()
}

// verify gives up the user's session if the link is not what it was when the session began. The error says that podlink did
// not tell.
func (a *Agent) verify(ctx context.Context, uid string) error {
	if a.sessionEpoch(uid) == 0 {
		return nil
	}
	s, leave, err := a.enter(ctx, uid)
	if err != nil {
		return err
	}
	defer leave()
	if s.epoch == 0 {
		return nil
	}
	a.links.invalidate(uid)
	link, err := a.links.fetch(ctx, uid)
	switch {
	case err == nil && link.epoch == s.epoch:
		return nil
	case err != nil && !errors.Is(err, ErrWrongPod):
		return err
	}
	lost, ended := s.epoch, s.ending
	a.set(s, 0, false)
	if !ended {
		a.tellLost(uid, lost)
	}
	return nil
}

// sessionEpoch is the epoch of the user's session; 0: none runs.
func (a *Agent) sessionEpoch(uid string) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.sessions[uid]; s != nil && !s.ending {
		return s.epoch
	}
	return 0
}

func (a *Agent) tellLost(uid string, epoch int64) {
	a.log.Warnf("pod %d of %s: lost a session: its user is linked to another pod", a.pod, a.service)
	if a.options.OnLost != nil {
		a.options.OnLost(uid, epoch)
	}
}

// agentSessions are the agent's sessions, for its guard.
type agentSessions struct{ of *Agent }

func (s agentSessions) holding(uid string) holding { return holding{epoch: s.of.sessionEpoch(uid)} }

func (s agentSessions) saw(uid string, link *v1.Link, _ time.Time) {
	if epoch := s.of.sessionEpoch(uid); epoch != 0 && (link.GetPodId() != s.of.pod || link.GetEpoch() != epoch) {
		go func() { _ = s.of.verify(context.Background(), uid) }()
	}
}

func (s agentSessions) restore(_ context.Context, uid string) (holding, error) {
	return s.holding(uid), nil
}
