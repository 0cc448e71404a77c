package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
)

// The actions of a user.
const (
	Play  = "play"  // changes the user's state; starts a session if none runs
	Join  = "join"  // another connection of the user: one more session
	Leave = "leave" // ends all sessions
	Look  = "look"  // needs no session
)

// Session is a session of a user, as client.Session.
type Session interface {
	Epoch() int64
	End(ctx context.Context, keep time.Duration)
	Lost() <-chan struct{}
}

// Fenced is a storage that refuses what carries an older epoch than the stored one: see Storage.
type Fenced interface {
	Load(uid, process string, epoch int64) (value int64, ok bool)
	Write(uid, process string, epoch, value int64) bool
}

// Service is the service of one process of a pod. It holds the state of its users in memory, by the rules of the client's
// documentation.
type Service struct {
	Name    string // of the process, unique
	Storage Fenced
	// Start starts a session.
	Start func(ctx context.Context, uid string) (Session, error)
	// Running waits while the process is frozen. It returns false when the process has ended.
	Running func() bool
	// Keep is how long a link lives on after the sessions of its user.
	Keep time.Duration
	// Wrote is called after each accepted write.
	Wrote func(uid string, session Session)

	mu    sync.Mutex
	users map[string]*heldUser
}

// heldUser is what a process holds of a user.
type heldUser struct {
	turn     chan struct{} // held by the handler that uses what follows
	sessions []Session     // one per connection of the user
	epoch    int64         // under which value was loaded; 0: it was not
	value    int64
}

// ErrFenced is the service's answer when its storage has refused it.
var ErrFenced error = kerrors.New(409, "FENCED", "the storage has seen a later owner of the user")

// errEnded has no effect: no caller gets an answer of a process that has ended.
var errEnded = fmt.Errorf("the process has ended")

// Handle carries out a user's action.
func (s *Service) Handle(ctx context.Context, action, uid string) error {
	s.mu.Lock()
	if s.users == nil {
		s.users = make(map[string]*heldUser)
	}
	u := s.users[uid]
	if u == nil {
		u = &heldUser{turn: make(chan struct{}, 1)}
		s.users[uid] = u
	}
	s.mu.Unlock()
	select {
	case u.turn <- struct{}{}:
		defer func() { <-u.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	switch action {
	case Look:
		return nil
	case Leave:
		s.leave(ctx, u, s.Keep)
		return nil
	case Join:
		if err := s.join(ctx, u, uid); err != nil {
			return err
		}
		if n := len(u.sessions); n > 2 {
			u.sessions[n-2].End(ctx, s.Keep) // A connection before has closed.
			u.sessions = append(u.sessions[:n-2], u.sessions[n-1])
		}
	}
	return s.play(ctx, u, uid)
}

// Held calls do for each session that runs, unless a handler uses it at the moment.
func (s *Service) Held(do func(uid string, session Session)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for uid, u := range s.users {
		select {
		case u.turn <- struct{}{}:
			for _, session := range u.sessions {
				if !isLost(session) {
					do(uid, session)
				}
			}
			<-u.turn
		default:
		}
	}
}

// join starts another session of the user, as another connection does.
func (s *Service) join(ctx context.Context, u *heldUser, uid string) error {
	session, err := s.Start(ctx, uid)
	if err != nil {
		return err
	}
	u.sessions = append(u.sessions, session)
	return nil
}

// play changes the user's state.
func (s *Service) play(ctx context.Context, u *heldUser, uid string) error {
	for len(u.sessions) > 0 && isLost(u.sessions[0]) {
		u.sessions = u.sessions[1:]
	}
	if len(u.sessions) == 0 {
		if err := s.join(ctx, u, uid); err != nil {
			return err
		}
	}
	session := u.sessions[0]
	if err := s.load(u, uid, session); err != nil {
		return err
	}
	if think := thinkingTime(uid); think > 0 {
		time.Sleep(think)
		if err := s.load(u, uid, session); err != nil {
			return err
		}
	}
	if !s.Storage.Write(uid, s.Name, session.Epoch(), u.value+1) {
		return s.fenced(u)
	}
	u.value++
	s.Wrote(uid, session)
	return nil
}

// load loads the state unless the held one is the session's.
func (s *Service) load(u *heldUser, uid string, session Session) error {
	if !s.Running() {
		return errEnded
	}
	epoch := session.Epoch()
	if u.epoch == epoch {
		return nil
	}
	value, ok := s.Storage.Load(uid, s.Name, epoch)
	if !ok {
		return s.fenced(u)
	}
	u.value, u.epoch = value, epoch
	return nil
}

// fenced gives up the user: the storage knows a later owner.
func (s *Service) fenced(u *heldUser) error {
	s.leave(context.Background(), u, 0)
	return ErrFenced
}

func (s *Service) leave(ctx context.Context, u *heldUser, keep time.Duration) {
	for _, session := range u.sessions {
		session.End(ctx, keep)
	}
	u.sessions, u.epoch, u.value = nil, 0, 0
}

func isLost(session Session) bool {
	select {
	case <-session.Lost():
		return true
	default:
		return false
	}
}

// thinkingTime is how long the service works on a call.
func thinkingTime(uid string) time.Duration { return time.Duration(len(uid)%3) * 10 * time.Millisecond }

// UID is the n-th user.
func UID(n int) string { return fmt.Sprintf("user-%d", n) }

// Action draws the next action of the n-th user.
func Action(random *rand.Rand, n int) string {
	switch draw := random.IntN(100); {
	case n%10 == 9:
		return Look // A visitor, who never has a session.
	case draw < 3:
		return Leave
	case draw < 10:
		return Join
	default:
		return Play
	}
}
