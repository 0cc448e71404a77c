package data

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// checkLimit bounds a check that nobody has asked for.
	checkLimit = time.Second
	// watchInterval is the pause between two of them.
	watchInterval = 5 * time.Second
)

// watch is what the last check of the store has found.
type watch struct {
	once    sync.Once
	stopped chan struct{} // closed by Stop

	mu      sync.Mutex
	checked bool
	ready   bool

	mayEvict atomic.Bool // some server may drop links, whether that is accepted or not
}

func newWatch() *watch { return &watch{stopped: make(chan struct{})} }

// Start checks the store until Stop. So the scripts are loaded before the first request, and the log and the metrics tell
// what is wrong with the store whether or not anybody probes podlink. It never fails: podlink starts without its store
// too, and is not ready. With Stop it makes the store a Kratos transport.Server, for the listeners to open meanwhile.
func (s *Store) Start(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.watch.stopped:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		s.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchInterval):
		}
	}
}

// Stop implements transport.Server. The connections are closed later, after the listeners.
func (s *Store) Stop(context.Context) error {
	s.watch.once.Do(func() { close(s.watch.stopped) })
	return nil
}

// look checks the store; note says what it has found.
func (s *Store) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	_ = s.Check(ctx)
}

// Check returns nil when the store can be used: it answers, every script passes its self-test there, it takes writes, and
// it does not evict keys. The error's text is for operators. What is found goes to the log and the metrics as well.
func (s *Store) Check(ctx context.Context) error {
	err := s.check(ctx)
	if !errors.Is(ctx.Err(), context.Canceled) { // Who has asked is gone, and that says nothing about the store.
		s.note(err)
	}
	return err
}

func (s *Store) check(ctx context.Context) error {
	if err := s.selfTest.passed(ctx, s); err != nil {
		return err
	}
	var evicts atomic.Bool
	err := s.onPrimaries(ctx, func(ctx context.Context, client *redis.Client) error {
		return s.checkServer(ctx, client, &evicts)
	})
	if err == nil || evicts.Load() {
		s.watch.mayEvict.Store(evicts.Load())
	}
	return err
}

// note writes a line when the store has become ready, or is so no longer.
func (s *Store) note(err error) {
	w := s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	first := !w.checked
	if !first && w.ready == (err == nil) {
		return
	}
	w.checked, w.ready = true, err == nil
	switch {
	case first && err == nil:
		s.log.Info("the store is ready: every script passed its self-test")
	case first:
		s.log.Errorf("the store is not ready, podlink starts without it: %v", err)
	case err == nil:
		s.log.Warn("the store is ready again")
	default:
		s.log.Errorf("the store is not ready: %v", err)
	}
}

// isReady tells whether the last check was in order.
func (w *watch) isReady() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ready
}
