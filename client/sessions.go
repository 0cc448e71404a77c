package client

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"go.opentelemetry.io/otel"

	v1 "podlink/api/podlink/v1"
)

// sessionOptions configures sessions.
type sessionOptions struct {
	links              v1.LinkServiceClient
	lease              *lease
	namespace, service string
	pod                int32
	timeout            time.Duration // of a call of podlink, and of a start
	cacheTTL           time.Duration // how long a link that was seen right is not asked about before a start
	onLost             func(uid string, epoch int64)
	log                *log.Helper
	draining           func() bool                   // reports whether the pod takes no new sessions
	forget             func(uid string)              // the link has changed: what is cached of it is out of date
	revoke             func(uid string, epoch int64) // ends the streams of a user whose session is lost; nil: there are none
	report             func()                        // asks for a report to podlink now; nil: the next one comes by itself

	// watchedSince is coverage.sinceWhen of the watch; nil: there is none.
	watchedSince func(now time.Time, within time.Duration) time.Time
}

// sessions are the sessions of a pod's users. Each has a link to the pod that this process has claimed. It is safe for
// concurrent use.
type sessions struct {
	sessionOptions
	batches *linkBatches
	turns   turns
	latest  atomic.Int64  // what now has returned last
	runs    chan struct{} // has an element while run works

	sweepNow, endNow, restoreNow, lostNow, tellNow signal

	mu                        sync.Mutex
	byUID                     map[string]*userSession
	running, ending, starting int
	emptied                   chan struct{}  // closed when there are none of these; nil: nobody waits
	order                     sessionOrder   // the running ones, those first whose check was begun first
	urgent                    []*userSession // those to be checked before, and some that were
	doubted                   []*userSession // those whose link was seen wrong, and some that were
	ends                      []*userSession // that podlink is to be told of now
	delayed                   []delayedEnd   // and later, in the order of time
	lost                      []lostSession  // whose streams are to end
	untold                    []lostSession  // that OnLost is to be told of

	// From the lease, as of the last look.
	generation int64
	superseded bool
	lapses     int
	store      string
	storeSince time.Time // when store_id changed to this one; zero: it is the first
	asked      time.Time // when a report was asked for last, because it decides about a doubt
	suspect    time.Time // checks that were begun before count for nothing: podlink may have moved or lost links
}

type sessionState uint8

const (
	sessionRunning sessionState = iota
	sessionEnding               // podlink does not know yet that it has ended
	sessionOver
)

// userSession is the session of a user, from the claim of the link until podlink knows its end.
type userSession struct {
	uid   string
	epoch atomic.Int64

	// sessions.mu guards what follows.
	state      sessionState
	queued     bool                              // it is in sessions.ends or sessions.delayed
	listed     bool                              // it is in sessions.doubted
	hurried    bool                              // it is in sessions.urgent
	again      bool                              // podlink is to be told of the end once more, with the epoch that it has shown
	handles    int32                             // that have not ended
	keep       time.Duration                     // how long the link lives on after the end
	checked    time.Time                         // when the last check of the link that was answered was begun
	urgent     time.Time                         // checks that were begun before count for nothing, as a watch says; zero: there is no such
	unsure     time.Time                         // the next urgent; zero: there is none
	unread     time.Time                         // when the link could not be read, though podlink has answered
	known      time.Time                         // when the last answer arrived that showed the link right
	store      string                            // the store_id when the link was last seen right
	doubt      *linkDoubt                        // nil: it was right when it was seen last
	open       *v1.BatchSetLinkedPodRequest_Item // the last change of the link if its outcome is unknown
	lost       chan struct{}                     // closed when the session is lost; nil: nobody waits
	next, prev *userSession                      // in sessions.order
}

// holding is what the pod holds of a user.
type holding struct {
	epoch     int64     // of the session; 0: none runs
	uncertain bool      // its link was seen wrong, and it is not decided yet whether it is lost
	verified  time.Time // when the last call was begun that has shown the link right
}

func newSessions(o sessionOptions) *sessions {
	if o.report == nil {
		o.report = func() {}
	}
	if o.watchedSince == nil {
		o.watchedSince = func(time.Time, time.Duration) time.Time { return time.Time{} }
	}
	if o.revoke == nil {
		o.revoke = func(string, int64) {}
	}
	return &sessions{
		sessionOptions: o,
		batches:        &linkBatches{links: o.links, namespace: o.namespace, service: o.service, pod: o.pod, timeout: o.timeout},
		runs:           make(chan struct{}, 1),
		sweepNow:       newSignal(), endNow: newSignal(), restoreNow: newSignal(),
		lostNow: newSignal(), tellNow: newSignal(),
		byUID: map[string]*userSession{},
	}
}

// run verifies the sessions, tells podlink of those that have ended and the pod of those that are lost, until ctx ends. Of two
// runs the second one begins when the first has ended.
func (s *sessions) run(ctx context.Context) {
	select {
	case s.runs <- struct{}{}:
		defer func() { <-s.runs }()
	case <-ctx.Done():
		return
	}
	defer s.observe(otel.Meter("podlink/client"))()
	told := make(chan struct{})
	go func() {
		defer close(told)
		s.tellLost(ctx)
	}()
	var parts sync.WaitGroup
	for _, part := range []func(context.Context){s.watchLease, s.sweep, s.tellEnds, s.restoreDoubted, s.revokeLost} {
		parts.Go(func() { part(ctx) })
	}
	parts.Wait()
	select {
	case <-told:
	case <-time.After(s.timeout):
		s.log.Warnf("pod %d of %s: OnLost does not return, stopping without it", s.pod, s.service)
	}
}

// now returns the time, later than each time that it has returned: so it orders calls and answers of one moment.
func (s *sessions) now() time.Time {
	for {
		now, latest := time.Now(), s.latest.Load()
		if ahead := latest + 1 - now.UnixNano(); ahead > 0 {
			now = now.Add(time.Duration(ahead))
		}
		if s.latest.CompareAndSwap(latest, now.UnixNano()) {
			return now
		}
	}
}

// watchLease takes in each change of the lease until ctx ends.
func (s *sessions) watchLease(ctx context.Context) {
	store := ""
	for {
		_, changed := s.lease.state()
		state := s.look()
		s.restoreNow.set() // A report may decide about sessions in doubt.
		if state.storeID != store {
			if running, _ := s.count(); store != "" && running > 0 {
				s.log.Warnf("pod %d of %s: podlink's store may have lost links: checking %d sessions, and putting back what is gone",
					s.pod, s.service, running)
			}
			store = state.storeID
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// look takes in the lease as it is now.
func (s *sessions) look() leaseState {
	s.mu.Lock()
	defer s.mu.Unlock()
	state, _ := s.lease.state()
	s.generation = state.generation
	if state.storeID != s.store || state.lapses != s.lapses {
		if state.lapses != s.lapses || s.store != "" {
			s.suspect = time.Now()
			s.sweepNow.set()
		}
		if state.storeID != s.store {
			if s.store != "" || s.running > 0 { // The first one is no change.
				s.storeSince = s.now()
			}
			s.store = state.storeID
		}
		s.lapses = state.lapses
	}
	if state.superseded && !s.superseded {
		s.superseded = true
		for s.order.first != nil {
			s.lose(s.order.first)
		}
	}
	return state
}

// count returns how many sessions run, and how many have ended without podlink knowing.
func (s *sessions) count() (running, ending int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running, s.ending
}

// holding returns what the pod holds of the user.
func (s *sessions) holding(uid string) holding {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.byUID[uid]
	if x == nil || x.state != sessionRunning {
		return holding{}
	}
	if x.doubt != nil {
		return holding{epoch: x.epoch.Load(), uncertain: true}
	}
	return holding{epoch: x.epoch.Load(), verified: x.checked}
}

// handOver waits until no session runs, none is being started, and podlink knows the end of each; or until ctx ends. It
// returns what is left.
func (s *sessions) handOver(ctx context.Context) (running, ending int) {
	for {
		s.mu.Lock()
		running, ending = s.running, s.ending
		if running+ending+s.starting == 0 {
			s.mu.Unlock()
			return 0, 0
		}
		if s.emptied == nil {
			s.emptied = make(chan struct{})
		}
		emptied := s.emptied
		s.mu.Unlock()
		select {
		case <-emptied:
		case <-ctx.Done():
			return s.count()
		}
	}
}

// left wakes those who wait until there are no sessions. The caller holds s.mu, and has counted one less.
func (s *sessions) left() {
	if s.emptied != nil && s.running+s.ending+s.starting == 0 {
		close(s.emptied)
		s.emptied = nil
	}
}

// signal wakes a goroutine. Signals that arrive before it has taken one are one.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

func (s signal) set() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// wait waits for the signal, for at most d, or until ctx ends. 0 is for as long as it takes.
func (s signal) wait(ctx context.Context, d time.Duration) {
	var late <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-s:
	case <-late:
	case <-ctx.Done():
	}
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) { pauseUntil(ctx, time.Now().Add(d)) }
