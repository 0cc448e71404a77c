package biz

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// feedWorld is what the random test does to processes that change links.
type feedWorld struct {
	processes int
	failed    float64 // share of the parts of flushes that are refused
	lost      float64 // carried out, without a reply
	late      float64 // without a reply, and carried out later, also after its repetition
	unknown   float64 // share of the mutations whose reply is lost: a third executed, a third not, a third later
	slow      time.Duration

	variant func(*feedStore) // a known-bad store; nil: none
}

// exact is true if the index must have no entry without a link: nothing arrives after something later.
func (w feedWorld) exact() bool { return w.processes == 1 && w.late == 0 && w.unknown == 0 }

var feedWorlds = map[string]feedWorld{
	"one process":                    {processes: 1},
	"flushes fail":                   {processes: 1, failed: 0.3},
	"replies of flushes are lost":    {processes: 1, failed: 0.1, lost: 0.3},
	"flushes are slow":               {processes: 1, lost: 0.1, slow: 200 * time.Millisecond},
	"flushes arrive late":            {processes: 1, lost: 0.1, late: 0.2},
	"three processes":                {processes: 3, failed: 0.1, lost: 0.1, late: 0.1, slow: 50 * time.Millisecond},
	"replies of mutations are lost":  {processes: 1, unknown: 0.2},
	"three processes, anything lost": {processes: 3, failed: 0.1, lost: 0.1, late: 0.1, unknown: 0.2, slow: 50 * time.Millisecond},
}

// TestFeedModel: after everything is flushed, each link is in the index of its pod, with its epoch, and nothing is uncertain; where nothing
// arrives late or is unknown, the index has nothing else, and of one link, the feed has the changes in the order of the epochs then.
func TestFeedModel(t *testing.T) {
	for name, world := range feedWorlds {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(10) {
				require.Empty(t, world.run(t, seed), "seed %d", seed)
			}
		})
	}
}

// TestFeedModelFindsVariants: the model notices stores that break the rules on which the feed relies.
func TestFeedModelFindsVariants(t *testing.T) {
	for name, variant := range map[string]func(*feedStore){
		"an index without epochs":        func(s *feedStore) { s.blindly = true },
		"a part of which a step is lost": func(s *feedStore) { s.last = true },
	} {
		t.Run("known-bad/"+name, func(t *testing.T) {
			world := feedWorlds["three processes, anything lost"]
			world.variant = variant
			for seed := range uint64(50) {
				if problem := world.run(t, seed); problem != "" {
					t.Logf("seed %d: %s", seed, problem)
					return
				}
			}
			t.Fatal("not noticed")
		})
	}
}

// run lets the processes change links for a while, and returns what is wrong when everything is flushed.
func (w feedWorld) run(t *testing.T, seed uint64) (problem string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		run := feedRun{feedWorld: w, store: newFeedStore(), links: newFeedLinks(), random: rand.New(rand.NewPCG(seed, 0))}
		if w.variant != nil {
			w.variant(run.store)
		}
		run.store.onFlush = run.flushFate
		run.links.fate = run.linkFate
		var clients sync.WaitGroup
		for process := range w.processes {
			feed := NewFeed(run.store, run.links, FeedOptions{Index: true})
			defer runFeed(t, feed)()
			clients.Go(func() { run.change(t.Context(), NoteChanges(run.links, feed), process) })
		}
		doubts := run.watchDoubts(t)
		clients.Wait()
		run.mu.Lock()
		run.quiet = true
		run.mu.Unlock()
		time.Sleep(10 * time.Second)
		if problem = doubts(); problem == "" {
			problem = run.problem()
		}
	})
	return problem
}

// feedRun is a run of a feedWorld.
type feedRun struct {
	feedWorld
	store *feedStore
	links *feedLinks

	mu     sync.Mutex
	random *rand.Rand
	quiet  bool // nothing fails any more
}

// chance returns a number below 1.
func (r *feedRun) chance() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.quiet {
		return 0.999999
	}
	return r.random.Float64()
}

func (r *feedRun) number(n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.random.IntN(n)
}

// change changes the links of the process' users, one after the other.
func (r *feedRun) change(ctx context.Context, links LinkRepo, process int) {
	for range 300 {
		time.Sleep(time.Duration(r.number(20)) * time.Millisecond)
		// Users of more than one process exist, so that the flushes of processes meet.
		key, pod := room.link(fmt.Sprintf("user%d", (process+r.number(3))%5)), PodID(r.number(3))
		ttl := Forever
		if r.number(3) == 0 {
			ttl = 600
		}
		switch r.number(6) {
		case 0:
			_, _ = links.Remove(ctx, key, 0, RemoveTerms{})
		case 1:
			_, _ = links.RemoveWithID(ctx, key, pod, int32(60*r.number(2)))
		case 2:
			_, _ = links.SetIfAbsent(ctx, key, pod, ttl, SetTerms{})
		case 3:
			links.BatchSet(ctx, room, []SetItem{{UID: key.UID, Pod: pod, TTL: ttl}})
		default:
			_, _ = links.Set(ctx, key, pod, ttl, SetTerms{})
		}
	}
}

func (r *feedRun) flushFate(_ context.Context, _ FlushPart) flushFate {
	if r.slow > 0 && r.chance() < 0.5 {
		time.Sleep(time.Duration(r.number(int(r.slow))))
	}
	switch chance := r.chance(); {
	case chance < r.failed:
		return flushFate{err: ErrStoreUnavailable}
	case chance < r.failed+r.lost:
		return flushFate{err: ErrOutcomeUnknown, done: true}
	case chance < r.failed+r.lost+r.late:
		return flushFate{err: ErrOutcomeUnknown, late: time.Duration(r.number(3000)) * time.Millisecond}
	}
	return carriedOut
}

func (r *feedRun) linkFate() linkFate {
	if r.chance() >= r.unknown {
		return linkFate{executed: true}
	}
	switch r.number(3) {
	case 0:
		return linkFate{err: ErrOutcomeUnknown, executed: true}
	case 1:
		return linkFate{err: ErrOutcomeUnknown, late: time.Duration(1+r.number(900)) * time.Millisecond}
	}
	return linkFate{err: ErrOutcomeUnknown}
}

// watchDoubts notices when a link is for 10 s in no index of its pod, neither as an entry nor as an uncertain one. It returns what ends
// that.
func (r *feedRun) watchDoubts(t *testing.T) (end func() string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	found := make(chan string, 1)
	go func() {
		defer close(found)
		missing := make(map[Link]time.Time)
		for ctx.Err() == nil {
			time.Sleep(50 * time.Millisecond)
			for link, covered := range r.covered() {
				since, known := missing[link]
				switch {
				case covered:
					delete(missing, link)
				case !known:
					missing[link] = time.Now()
				case time.Since(since) > 5*time.Second && len(found) == 0:
					found <- fmt.Sprintf("%v is not in the index for long", link)
				}
			}
		}
	}()
	return func() string {
		cancel()
		problem := ""
		for problem = range found { //nolint:revive // Until it is closed.
		}
		return problem
	}
}

// covered returns for each link whether a list of its pod finds it.
func (r *feedRun) covered() map[Link]bool {
	covered := make(map[Link]bool)
	r.links.locked(func() {
		for _, link := range r.links.links {
			covered[link] = false
		}
	})
	for link := range covered {
		_, certain := r.store.entry(link.Pod, link.Key.UID)
		_, uncertain := r.store.entry(link.Pod, "?"+link.Key.UID)
		covered[link] = certain || uncertain
	}
	return covered
}

// problem compares the index and the feed with the links.
func (r *feedRun) problem() string {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	r.links.mu.Lock()
	defer r.links.mu.Unlock()
	for key, link := range r.links.links {
		entry, found := r.store.indexes[flushPlace{room, link.Pod}][key.UID]
		if !found || entry.Epoch != link.Epoch {
			return fmt.Sprintf("the index has %v (%v) for %v", entry, found, link)
		}
	}
	for at, index := range r.store.indexes {
		for uid, entry := range index {
			if strings.HasPrefix(uid, "?") {
				if r.late > 0 {
					continue // A late flush may bring an uncertain entry back, which the sweep settles.
				}
				return fmt.Sprintf("%v is still uncertain at pod %d", entry, at.pod)
			}
			if link := r.links.get(room.link(uid)); r.exact() && (link.Pod != at.pod || link.Persistent() != entry.Expires.IsZero()) {
				return fmt.Sprintf("pod %d has the entry %v, but the link is %v", at.pod, entry, link)
			}
		}
	}
	return r.feedProblem()
}

// feedProblem checks the order of the changes of each link, where nothing is repeated.
func (r *feedRun) feedProblem() string {
	if !r.exact() || r.lost > 0 {
		return ""
	}
	last := make(map[string]Change)
	for _, c := range r.store.feeds[room] {
		uid := c.Link.Key.UID
		if before := last[uid]; c.Link.Epoch < before.Link.Epoch || before.Kind == Removed && c.Link.Epoch == before.Link.Epoch {
			return fmt.Sprintf("%v comes after %v", c, before)
		}
		last[uid] = c
	}
	for uid, c := range last {
		if link := r.links.get(room.link(uid)); link.Exists() != c.Link.Exists() || link.Exists() && link.Epoch != c.Link.Epoch {
			return fmt.Sprintf("the last change is %v, but the link is %v", c, link)
		}
	}
	return ""
}
