package biz

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// feedStore is a FeedRepo in memory.
type feedStore struct {
	FeedRepo

	mu       sync.Mutex
	feeds    map[ServiceKey][]Change
	indexes  map[flushPlace]map[string]IndexEntry // by uid; uncertain ones by "?" + uid
	services map[ServiceKey]bool
	writers  map[string]int64
	gaps     []GapReason
	flushes  [][]FlushPart
	beats    int
	identity string
	leaves   int
	blindly  bool // a known-bad index: it ignores epochs
	last     bool // a known-bad store: a flush carries out only the last update of each part

	// The hooks are called outside of the lock, and may wait. nil: nothing fails.
	onFlush func(ctx context.Context, part FlushPart) flushFate
	onBeat  func(ctx context.Context, writer string) error
	onGap   func(ctx context.Context) error
	onLeave func() error
}

// flushFate is what happens to a part.
type flushFate struct {
	err  error
	done bool          // carried out, even if there is an error
	late time.Duration // carried out so much later, too
}

var carriedOut = flushFate{done: true}

func newFeedStore() *feedStore {
	return &feedStore{
		feeds: make(map[ServiceKey][]Change), indexes: make(map[flushPlace]map[string]IndexEntry),
		services: make(map[ServiceKey]bool), writers: make(map[string]int64), identity: "store 1",
	}
}

func (s *feedStore) Flush(ctx context.Context, parts []FlushPart) []error {
	s.mu.Lock()
	s.flushes = append(s.flushes, parts)
	s.mu.Unlock()
	hook := hookOf(s, &s.onFlush)
	errs := make([]error, len(parts))
	for i, part := range parts {
		fate := carriedOut
		if hook != nil {
			fate = hook(ctx, part)
		}
		if fate.done {
			s.carryOut(part)
		}
		if fate.late > 0 {
			time.AfterFunc(fate.late, func() { s.carryOut(part) })
		}
		errs[i] = fate.err
	}
	return errs
}

// hookOf returns a hook, which a test may change at any time.
func hookOf[Hook any](s *feedStore, hook *Hook) Hook {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *hook
}

func (s *feedStore) carryOut(part FlushPart) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.services[part.Service] = true
	s.feeds[part.Service] = append(s.feeds[part.Service], part.Changes...)
	if len(part.Updates) == 0 {
		return
	}
	at := flushPlace{part.Service, part.Pod}
	if s.indexes[at] == nil {
		s.indexes[at] = make(map[string]IndexEntry)
	}
	updates := part.Updates
	if s.last {
		updates = updates[len(updates)-1:]
	}
	for _, update := range updates {
		s.apply(s.indexes[at], update)
	}
}

func (s *feedStore) apply(index map[string]IndexEntry, update IndexUpdate) {
	uid := update.Entry.UID
	stored, found := index[uid]
	doubt := index["?"+uid]
	switch update.Op {
	case AddEntry:
		if s.blindly || !found || stored.Epoch <= update.Entry.Epoch {
			index[uid] = update.Entry
		}
	case RemoveEntry:
		if s.blindly || found && stored.Epoch <= update.Entry.Epoch {
			delete(index, uid)
		}
	case AddUncertain:
		if !doubt.Noted.After(update.Entry.Noted) {
			index["?"+uid] = update.Entry
		}
	case DropUncertain:
		if !doubt.Noted.After(update.Entry.Noted) {
			delete(index, "?"+uid)
		}
	}
}

func (s *feedStore) Beat(ctx context.Context, writer string) (map[string]int64, error) {
	if hook := hookOf(s, &s.onBeat); hook != nil {
		if err := hook(ctx, writer); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beats++
	s.writers[writer]++
	return maps.Clone(s.writers), nil
}

func (s *feedStore) Leave(_ context.Context, writer string, counter int64) error {
	if hook := hookOf(s, &s.onLeave); hook != nil {
		if err := hook(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if counter == 0 || s.writers[writer] == counter {
		delete(s.writers, writer)
		s.leaves++
	}
	return nil
}

func (s *feedStore) Gap(ctx context.Context, reason GapReason) error {
	if hook := hookOf(s, &s.onGap); hook != nil {
		if err := hook(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gaps = append(s.gaps, reason)
	return nil
}

func (s *feedStore) Store() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.identity
}

// locked runs the function under the lock.
func (s *feedStore) locked(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
}

// declared returns the gaps.
func (s *feedStore) declared() []GapReason {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.gaps)
}

// noted returns the changes of the service in its feed.
func (s *feedStore) noted(key ServiceKey) []Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.feeds[key])
}

// entry returns an entry of the pod's index.
func (s *feedStore) entry(pod PodID, uid string) (IndexEntry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	entry, found := s.indexes[flushPlace{room, pod}][uid]
	return entry, found
}

// feedCase is a running feed on a store, in a synctest bubble.
type feedCase struct {
	*testing.T
	store *feedStore
	links *feedLinks
	feed  *Feed
	stop  func() // ends Run and waits; may be called twice
}

// withFeed runs the test with a feed. If it does not stop the feed, that ends with the test.
func withFeed(t *testing.T, o FeedOptions, test func(t feedCase)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store, links := newFeedStore(), newFeedLinks()
		feed := NewFeed(store, links, o)
		stop := runFeed(t, feed)
		defer stop()
		synctest.Wait()
		test(feedCase{t, store, links, feed, stop})
	})
}

// runFeed runs the feed, and returns what ends that and waits.
func runFeed(t *testing.T, feed *Feed) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		feed.Run(ctx)
	}()
	return func() {
		cancel()
		<-ended
	}
}

// note notes a change of the uid's link.
func (t feedCase) note(kind ChangeKind, uid string, pod PodID, epoch Epoch, previous PodID) {
	ttl := Forever
	if pod == NoPod {
		ttl = Gone
	}
	t.feed.Note(room, Change{Kind: kind, Link: Link{Key: room.link(uid), Pod: pod, TTL: ttl, Epoch: epoch}, Previous: previous})
}

var errStoreAway = errors.Join(ErrStoreUnavailable, errors.New("refused"))
