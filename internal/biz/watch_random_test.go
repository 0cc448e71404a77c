package biz

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// watchModel is all that was ever changed, whether the feed has kept it or not.
type watchModel struct {
	mu  sync.Mutex
	log []Change
}

func (m *watchModel) add(changes ...Change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, changes...)
}

// follower is a caller that watches, ends, and resumes with its last token. It checks that it gets all in order, or is told to resync.
type follower struct {
	model  *watchModel
	filter watchFilter
	slow   time.Duration

	next   int  // the first change of the log that it has not got
	unsure bool // after a resync it may get older changes first
	token  string
	wrong  string
	stop   context.CancelFunc
	ended  chan error
}

// send checks a message. Epochs are indices of the log.
func (f *follower) send(m *WatchMessage) error {
	f.model.mu.Lock()
	slow := f.slow
	f.model.mu.Unlock()
	time.Sleep(slow)
	f.model.mu.Lock()
	defer f.model.mu.Unlock()
	f.token = m.Token
	if m.Resync != "" {
		f.next, f.unsure = len(f.model.log), true
	}
	for i := range m.Changes {
		index := int(m.Changes[i].Link.Epoch)
		if !f.unsure || index > f.next {
			f.missed(index)
		}
		f.next, f.unsure = index+1, false
	}
	return nil
}

// missed checks that none of the changes up to the index concerns the follower.
func (f *follower) missed(index int) {
	if index < f.next {
		f.wrong = fmt.Sprintf("change %d after %d", index, f.next-1)
	}
	for i := f.next; i < index && f.wrong == ""; i++ {
		if f.filter.wants(&f.model.log[i]) {
			f.wrong = fmt.Sprintf("change %d is missing", i)
		}
	}
}

func (f *follower) begin(w *Watches, send func(*WatchMessage) error) {
	ctx, cancel := context.WithCancel(context.Background())
	f.stop, f.ended = cancel, make(chan error, 1)
	r := WatchRequest{Service: watchedRoom, UID: f.filter.uid, Resume: f.token}
	if f.filter.pod != NoPod {
		r.Pod = &f.filter.pod
	}
	go func() { f.ended <- w.Watch(ctx, r, send) }()
}

func (f *follower) end() {
	if f.stop != nil {
		f.stop()
		if err := <-f.ended; !errors.Is(err, ErrCanceled) {
			f.wrong = fmt.Sprint("the watch has ended with ", err)
		}
		f.stop = nil
	}
}

// watchVariant makes watches that are wrong.
type watchVariant struct {
	repo func(*memFeeds) FeedRepo
	send func(send func(*WatchMessage) error) func(*WatchMessage) error
}

// followAtRandom lets followers watch a feed that changes, is trimmed, fails over and is away at random. It returns what a follower has
// missed without being told.
func followAtRandom(t *testing.T, seed uint64, v watchVariant) string {
	t.Helper()
	wrong := ""
	synctest.Test(t, func(*testing.T) {
		random := rand.New(rand.NewPCG(seed, 1))
		feeds, model := newMemFeeds(), new(watchModel)
		var repo FeedRepo = feeds
		if v.repo != nil {
			repo = v.repo(feeds)
		}
		podlinks := []*Watches{NewWatches(repo, testLimits, NopWatchObserver{}), NewWatches(repo, testLimits, NopWatchObserver{})}
		for _, w := range podlinks {
			w.bound = queueBound{entries: 8, bytes: 4 * maxMessageBytes}
		}
		var followers []*follower
		for i := range 8 {
			f := &follower{model: model, filter: watchFilter{pod: NoPod}, unsure: true}
			switch i % 4 {
			case 1:
				f.filter.pod = 1
			case 2:
				f.filter.uid = "u2"
			case 3:
				f.slow = time.Duration(random.IntN(i*400)) * time.Millisecond
			}
			followers = append(followers, f)
		}
		begin := func(f *follower) {
			send := f.send
			if v.send != nil {
				send = v.send(send)
			}
			f.begin(podlinks[random.IntN(len(podlinks))], send)
		}
		for range 250 {
			disturb(random, feeds, model)
			if f := followers[random.IntN(len(followers))]; random.IntN(4) == 0 {
				if f.stop == nil {
					begin(f)
				} else {
					f.end()
				}
			}
			time.Sleep(time.Duration(random.IntN(60)) * time.Millisecond)
		}
		feeds.set(func() { feeds.failing = nil })
		for _, f := range followers {
			model.mu.Lock()
			f.slow = 0
			model.mu.Unlock()
			if f.stop == nil {
				begin(f)
			}
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for i, f := range followers {
			f.end()
			f.missed(len(model.log))
			if f.wrong != "" {
				wrong = fmt.Sprintf("follower %d: %s", i, f.wrong)
			}
		}
		for _, w := range podlinks {
			w.Close()
		}
	})
	return wrong
}

// disturb does something to the feed.
func disturb(random *rand.Rand, feeds *memFeeds, model *watchModel) {
	var changes []Change
	size := random.IntN(4) + 1
	if random.IntN(20) == 0 {
		size = 2 * maxMessageChanges
	}
	for range size {
		changes = append(changes, linkedChange(fmt.Sprintf("u%d", random.IntN(4)), PodID(random.IntN(3)), Epoch(len(model.log)+len(changes))))
	}
	switch what := random.IntN(100); {
	case what < 80:
		model.add(changes...)
		feeds.change(watchedRoom, changes...)
	case what < 84: // A podlink loses changes, and says so.
		model.add(changes...)
		feeds.append(watchedRoom, FeedEntry{Gap: GapDropped})
	case what < 86:
		feeds.trim(watchedRoom, random.IntN(20))
	case what < 88:
		feeds.failover(watchedRoom, random.IntN(3))
	case what < 92:
		feeds.set(func() { feeds.failing = ErrStoreUnavailable })
	default:
		feeds.set(func() { feeds.failing = nil })
	}
}

// TestWatchAtRandom: whatever happens, a watcher gets each change that concerns it in its order, or is told to resync after it.
func TestWatchAtRandom(t *testing.T) {
	for seed := range uint64(25) {
		require.Empty(t, followAtRandom(t, seed, watchVariant{}), "seed %d", seed)
	}
}

// hidingFeeds hides something of the feed that a watch has to know.
type hidingFeeds struct {
	*memFeeds

	trimmed, gaps, store bool
}

func (h hidingFeeds) ReadFeed(ctx context.Context, key ServiceKey, after FeedPosition, n int) (FeedPage, error) {
	page, err := h.memFeeds.ReadFeed(ctx, key, after, n)
	page.Trimmed = page.Trimmed && !h.trimmed
	for i := range page.Entries {
		if h.gaps {
			page.Entries[i].Gap = ""
		}
	}
	return page, err
}

func (h hidingFeeds) Store() string {
	if h.store {
		return "store-1"
	}
	return h.memFeeds.Store()
}

// TestKnownBadWatchesFail: the random test finds watches that lose changes silently.
func TestKnownBadWatchesFail(t *testing.T) {
	hiding := func(h hidingFeeds) func(*memFeeds) FeedRepo {
		return func(feeds *memFeeds) FeedRepo {
			h.memFeeds = feeds
			return h
		}
	}
	for name, v := range map[string]watchVariant{
		"does not say what was trimmed": {repo: hiding(hidingFeeds{trimmed: true})},
		"does not pass gaps on":         {repo: hiding(hidingFeeds{gaps: true})},
		"does not see a failover":       {repo: hiding(hidingFeeds{store: true})},
		"does not say who was slow":     {send: hideSlow},
		"drops a message now and then":  {send: dropSome},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(50) {
				if followAtRandom(t, seed, v) != "" {
					return
				}
			}
			t.Error("no seed has found it")
		})
	}
}

func hideSlow(send func(*WatchMessage) error) func(*WatchMessage) error {
	return func(m *WatchMessage) error {
		if m.Resync == ResyncSlow {
			return nil
		}
		return send(m)
	}
}

func dropSome(send func(*WatchMessage) error) func(*WatchMessage) error {
	n := 0
	return func(m *WatchMessage) error {
		if n++; n%20 == 0 && m.Resync == "" {
			return nil
		}
		return send(m)
	}
}
