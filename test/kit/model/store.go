// Package model is a store of podlink in the memory of a test: biz' repos in plain Go, without a socket.
//
// Its clock is time.Now, so in a bubble of testing/synctest it is virtual. It passes the conformance suite of
// internal/biz/biztest, and it can fail as a Redis does: killed, restarted, frozen, flushed, failed over.
package model

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"podlink/internal/biz"
)

// Store is the server: what several podlinks share. It is safe for concurrent use.
type Store struct {
	mu   sync.Mutex
	last int64 // the latest time that the clock has shown, in µs

	links     map[user]map[string]storedLink // by service; expired ones remain until a write sweeps them
	services  map[biz.ServiceKey]*service
	workloads map[biz.ServiceKey]biz.Workload
	corrupt   map[user]bool
	jobs      map[biz.JobKey]*storedJob

	gaps, covered int64 // as in biz.IndexRepo.Completeness
	hidden        func(uid string) bool
	leases        map[string]nameLease

	primary int           // the number of the server that is the primary: another one after a restart or a failover
	down    bool          // it refuses connections
	died    chan struct{} // closed when the connections break
	frozen  bool          // it accepts requests, and carries them out when it thaws
	waiting []func()      // the requests that have arrived meanwhile
	latency func() time.Duration

	undo    []undo
	keep    time.Duration // how long a write can be undone
	watch   func(Change)
	judging func(h biz.Hearing, report biz.Pod, nowMs int64) biz.Liveness
}

// user is the key of all links of a uid.
type user struct{ namespace, uid string }

// undo restores what was before a write.
type undo struct {
	at      int64 // of the write, in µs
	restore func()
}

// Change is a write of a link, for Watch.
type Change struct {
	At            time.Time
	Key           biz.LinkKey
	Before, After biz.Link
}

// NewStore returns an empty store that runs.
func NewStore() *Store {
	s := &Store{died: make(chan struct{}), primary: 1, latency: func() time.Duration { return 0 }}
	s.clear()
	return s
}

func (s *Store) clear() {
	s.links, s.services = make(map[user]map[string]storedLink), make(map[biz.ServiceKey]*service)
	s.workloads, s.corrupt = make(map[biz.ServiceKey]biz.Workload), make(map[user]bool)
	s.jobs, s.leases = make(map[biz.JobKey]*storedJob), make(map[string]nameLease)
	s.gaps, s.covered = 1, 1
	s.undo = nil
}

// micros returns the time in µs. It never shows the same time twice, as no two commands of Redis run at once. The caller must
// hold mu.
func (s *Store) micros() int64 {
	s.last = max(s.last+1, time.Now().UnixMicro())
	return s.last
}

// The errors of a request that has no reply.
var (
	errDied    = errors.New("the connection broke")
	errSilence = errors.New("the store did not reply in time")
)

// call carries out a request: do runs under mu at the moment when the request arrives, even if the caller has left by then.
func (p *Podlink) call(ctx context.Context, write bool, do func()) error {
	s := p.store
	if err := ctx.Err(); err != nil {
		if errors.Is(err, context.Canceled) {
			return biz.ErrCanceled
		}
		return fmt.Errorf("%w: %w", biz.ErrStoreUnavailable, err)
	}
	s.mu.Lock()
	if s.down {
		s.mu.Unlock()
		return fmt.Errorf("%w: connection refused", biz.ErrStoreUnavailable)
	}
	way := s.latency()
	if way == 0 && !s.frozen {
		do()
		s.mu.Unlock()
		return nil
	}
	died, done := s.died, make(chan struct{})
	s.mu.Unlock()

	arrive := func() { s.arrive(died, func() { do(); close(done) }) }
	if way == 0 {
		arrive()
	} else {
		time.AfterFunc(way/2, arrive)
	}
	limit := time.NewTimer(p.ReadTimeout)
	defer limit.Stop()
	var back <-chan time.Time
	for reply := done; ; {
		select {
		case <-reply:
			if way == 0 {
				return nil
			}
			back, reply = time.After(way/2), nil
		case <-back:
			return nil
		case <-died:
			return lost(write, errDied)
		case <-limit.C:
			return lost(write, errSilence)
		case <-ctx.Done():
			return lost(write, ctx.Err())
		}
	}
}

// arrive carries out a request when the store can, unless its connection has broken.
func (s *Store) arrive(connection chan struct{}, do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.died != connection:
	case s.frozen:
		s.waiting = append(s.waiting, do)
	default:
		do()
	}
}

// lost returns the error of a request whose reply was lost. podlink reads again, so a broken connection fails only a write.
func lost(write bool, cause error) error {
	class := biz.ErrStoreUnavailable
	switch {
	case write:
		class = biz.ErrOutcomeUnknown
	case errors.Is(cause, context.Canceled):
		class = biz.ErrCanceled
	case !errors.Is(cause, errDied):
		class = biz.ErrDeadlineExceeded
	}
	return fmt.Errorf("%w: %w", class, cause)
}

// remember makes a write undoable. The caller must hold mu.
func (s *Store) remember(restore func()) {
	if s.keep == 0 {
		return
	}
	first, _ := slices.BinarySearchFunc(s.undo, s.last-s.keep.Microseconds(), func(u undo, at int64) int { return int(u.at - at) })
	s.undo = append(s.undo[first:], undo{s.last, restore})
}

// Podlink is what one podlink process knows about the store: its settings, and which primary it has seen.
type Podlink struct {
	// MaxServices and MaxPods are the limits that podlink enforces, and ForgetAfter when it forgets a dead pod.
	MaxServices, MaxPods, MaxJobs int
	ForgetAfter                   time.Duration
	// ReadTimeout is how long podlink waits for a reply of the store.
	ReadTimeout time.Duration
	// LeaseForAll gives everybody the lease of a job: it is for tests that must notice it.
	LeaseForAll bool
	// Primaries are the ids of the store's primaries. Empty: the store's own id, looked at every five seconds.
	Primaries *string

	store *Store
	mu    sync.Mutex
	seen  string
	asOf  time.Time
}

// Podlink returns the store as a podlink with the default settings sees it.
func (s *Store) Podlink() *Podlink {
	return &Podlink{
		store: s, MaxServices: 256, MaxPods: 4096, MaxJobs: 1000, ForgetAfter: 24 * time.Hour, ReadTimeout: 500 * time.Millisecond,
	}
}

// lookInterval is how often podlink looks which primary the store has.
const lookInterval = 5 * time.Second

func (p *Podlink) primaries() string {
	if p.Primaries != nil {
		return *p.Primaries
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen == "" || time.Since(p.asOf) >= lookInterval {
		p.asOf = time.Now()
		p.store.mu.Lock()
		defer p.store.mu.Unlock()
		if !p.store.down && !p.store.frozen {
			p.seen = fmt.Sprintf("primary-%d", p.store.primary)
		}
	}
	return p.seen
}

// Links returns the repo of the links.
func (p *Podlink) Links() biz.LinkRepo { return linkRepo{p} }

// Pods returns the repo of the pods.
func (p *Podlink) Pods() biz.PodRepo { return podRepo{p} }

// Workloads returns the repo of the workload states.
func (p *Podlink) Workloads() biz.WorkloadRepo { return workloadRepo{p} }
