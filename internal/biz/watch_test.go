package biz

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var watchedRoom = ServiceKey{"game", "room"}

func linkedChange(uid string, pod PodID, epoch Epoch) Change {
	return Change{Kind: Linked, Link: Link{Key: LinkKey{"game", uid, "room"}, Pod: pod, TTL: Forever, Epoch: epoch}, Previous: NoPod}
}

// received is what a watcher has got.
type received struct {
	mu       sync.Mutex
	messages []*WatchMessage
	block    chan struct{} // if not nil, send waits until it is closed
	stop     context.CancelCauseFunc
	ended    chan error
}

// watch begins a watch, which the test ends by stop.
func watch(t *testing.T, w *Watches, r WatchRequest) *received {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	got := &received{stop: cancel, ended: make(chan error, 1)}
	go func() { got.ended <- w.Watch(ctx, r, got.send) }()
	return got
}

func (r *received) send(m *WatchMessage) error {
	r.mu.Lock()
	block := r.block
	r.messages = append(r.messages, m)
	r.mu.Unlock()
	if block != nil {
		<-block
	}
	return nil
}

// take returns a line for each message since the last call, without those that have neither changes nor a resync.
func (r *received) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := []string{}
	for _, m := range r.messages {
		line := string(m.Resync)
		for _, c := range m.Changes {
			line += fmt.Sprintf(" %s@%d", c.Link.Key.UID, c.Link.Pod)
		}
		if line != "" {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	r.messages = nil
	return lines
}

// token returns the last token.
func (r *received) token() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.messages[len(r.messages)-1].Token
}

func (r *received) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.messages)
}

// end ends the watch and returns its last token, if there was a message since the last take.
func (r *received) end(t *testing.T) string {
	t.Helper()
	r.stop(nil)
	require.ErrorIs(t, <-r.ended, ErrCanceled)
	return r.token()
}

var testLimits = WatchLimits{Watches: 200, Services: 50}

// inBubble runs a test on watches of a feed in memory.
func inBubble(t *testing.T, test func(t *testing.T, feeds *memFeeds, w *Watches)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		feeds := newMemFeeds()
		w := NewWatches(feeds, testLimits, NopWatchObserver{})
		defer w.Close()
		test(t, feeds, w)
	})
}

// settle lets the readers read whatever there is.
func settle() {
	time.Sleep(maxPoll + 10*time.Millisecond)
	synctest.Wait()
}

// TestWatchFilters: a watcher gets the changes that concern its pod and its uid.
func TestWatchFilters(t *testing.T) {
	two, moved := PodID(2), linkedChange("ann", 3, 7)
	moved.Kind, moved.Previous = Moved, 2
	removed := Change{Kind: Removed, Link: NoLink(LinkKey{"game", "ann", "room"}), Previous: 3}
	doubt := Change{Kind: Uncertain, Link: Link{Key: LinkKey{"game", "eve", "room"}, Pod: 5}, Previous: NoPod}
	for _, row := range []struct {
		name string
		pod  *PodID
		uid  string
		want []string
	}{
		{"all", nil, "", []string{"START", "ann@2 bob@3 ann@3 ann@-1 eve@5"}},
		{"a pod: to it, from it, and where it is not known", &two, "", []string{"START", "ann@2 ann@3 eve@5"}},
		{"a uid", nil, "bob", []string{"START", "bob@3"}},
		{"a uid at a pod", &two, "ann", []string{"START", "ann@2 ann@3"}},
		{"none", nil, "zoe", []string{"START"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, feeds *memFeeds, w *Watches) {
				feeds.change(watchedRoom, linkedChange("before", 2, 1))
				got := watch(t, w, WatchRequest{Service: watchedRoom, Pod: row.pod, UID: row.uid})
				settle()
				feeds.change(watchedRoom, linkedChange("ann", 2, 5), linkedChange("bob", 3, 6))
				feeds.change(watchedRoom, moved)
				feeds.change(watchedRoom, removed, doubt)
				feeds.change(ServiceKey{"game", "chat"}, linkedChange("ann", 2, 5))
				settle()
				require.Equal(t, row.want, got.take())
				got.stop(nil)
				require.ErrorIs(t, <-got.ended, ErrCanceled)
			})
		})
	}
}

// TestWatchProgress: without changes there is a message each second, as long as the store can be read.
func TestWatchProgress(t *testing.T) {
	inBubble(t, func(t *testing.T, feeds *memFeeds, w *Watches) {
		got := watch(t, w, WatchRequest{Service: watchedRoom})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.InDelta(t, 10, got.count(), 1)
		got.take()

		feeds.set(func() { feeds.failing = ErrStoreUnavailable })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.LessOrEqual(t, got.count(), 1, "of the last read that succeeded")
		got.take()

		feeds.set(func() { feeds.failing, feeds.hung = nil, true })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Zero(t, got.count())

		feeds.change(watchedRoom, linkedChange("ann", 2, 5))
		feeds.set(func() { feeds.hung = false })
		time.Sleep(feedTimeout + maxPoll)
		synctest.Wait()
		require.Equal(t, []string{"ann@2"}, got.take(), "it goes on without a resync")
		got.stop(nil)
		require.ErrorIs(t, <-got.ended, ErrCanceled)
	})
}

// TestWatchOfAnUnreadableStoreSaysNothing: the first message, too, comes after a read.
func TestWatchOfAnUnreadableStoreSaysNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, feeds *memFeeds, w *Watches) {
		feeds.set(func() { feeds.failing = ErrStoreUnavailable })
		got := watch(t, w, WatchRequest{Service: watchedRoom})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Zero(t, got.count())
		feeds.set(func() { feeds.failing = nil })
		settle()
		require.Equal(t, []string{"START"}, got.take())
		got.stop(nil)
		require.ErrorIs(t, <-got.ended, ErrCanceled)
	})
}

// TestWatchResync: what is lost is said, in its place between the changes.
func TestWatchResync(t *testing.T) {
	for _, row := range []struct {
		name string
		do   func(feeds *memFeeds)
		want []string
	}{
		{"a gap between changes", func(feeds *memFeeds) {
			feeds.change(watchedRoom, linkedChange("ann", 1, 1))
			feeds.append(watchedRoom, FeedEntry{Gap: GapDropped})
			feeds.change(watchedRoom, linkedChange("bob", 1, 2))
		}, []string{"ann@1", "GAP bob@1"}},
		{"gaps in a row", func(feeds *memFeeds) {
			feeds.append(watchedRoom, FeedEntry{Gap: GapDropped})
			feeds.append(watchedRoom, FeedEntry{Gap: GapWriterDied})
		}, []string{"GAP"}},
		{"a store that failed over", func(feeds *memFeeds) {
			feeds.failover(watchedRoom, 0)
			settle()
			feeds.change(watchedRoom, linkedChange("bob", 1, 2))
		}, []string{"GAP", "bob@1"}},
		{"a store that was not known for a moment", func(feeds *memFeeds) {
			feeds.set(func() { feeds.store = "" })
			settle()
			feeds.change(watchedRoom, linkedChange("bob", 1, 2))
			settle()
			feeds.set(func() { feeds.store = "store-1" })
		}, []string{"bob@1"}},
		{"a feed that was trimmed while the store was away", func(feeds *memFeeds) {
			feeds.set(func() { feeds.failing = ErrStoreUnavailable })
			settle()
			feeds.change(watchedRoom, linkedChange("ann", 1, 1))
			feeds.change(watchedRoom, linkedChange("bob", 1, 2))
			feeds.trim(watchedRoom, 1)
			feeds.set(func() { feeds.failing = nil })
		}, []string{"TRIMMED bob@1"}},
		{"a feed that was trimmed to nothing", func(feeds *memFeeds) {
			feeds.set(func() { feeds.failing = ErrStoreUnavailable })
			settle()
			feeds.change(watchedRoom, linkedChange("ann", 1, 1))
			feeds.trim(watchedRoom, 0)
			feeds.set(func() { feeds.failing = nil })
			settle()
			feeds.change(watchedRoom, linkedChange("bob", 1, 2))
		}, []string{"TRIMMED", "bob@1"}},
		{"an entry that podlink did not write", func(feeds *memFeeds) {
			position := feeds.change(watchedRoom, linkedChange("ann", 1, 1))
			feeds.set(func() { feeds.corrupt = position })
			settle()
			feeds.change(watchedRoom, linkedChange("bob", 1, 2))
		}, []string{"GAP", "bob@1"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, feeds *memFeeds, w *Watches) {
				got := watch(t, w, WatchRequest{Service: watchedRoom})
				settle()
				require.Equal(t, []string{"START"}, got.take())
				row.do(feeds)
				settle()
				require.Equal(t, row.want, got.take())
				got.stop(nil)
				require.ErrorIs(t, <-got.ended, ErrCanceled)
			})
		})
	}
}

// TestWatchOfForeignData: a feed that can't be read at all ends its watches, with why.
func TestWatchOfForeignData(t *testing.T) {
	inBubble(t, func(t *testing.T, feeds *memFeeds, w *Watches) {
		got := watch(t, w, WatchRequest{Service: watchedRoom})
		settle()
		feeds.set(func() { feeds.failing = ErrStoreDataCorrupt })
		require.ErrorIs(t, <-got.ended, ErrStoreDataCorrupt)
		require.ErrorIs(t, <-watch(t, w, WatchRequest{Service: watchedRoom}).ended, ErrStoreDataCorrupt)
	})
}

// TestWatchersShareMessages: those with the same filter get the same message, so that it is encoded once.
func TestWatchersShareMessages(t *testing.T) {
	inBubble(t, func(t *testing.T, feeds *memFeeds, w *Watches) {
		pod := PodID(1)
		one, two := watch(t, w, WatchRequest{Service: watchedRoom, Pod: &pod}), watch(t, w, WatchRequest{Service: watchedRoom, Pod: &pod})
		settle()
		feeds.change(watchedRoom, linkedChange("ann", 1, 1))
		settle()
		require.Len(t, one.messages, 2)
		require.Len(t, two.messages, 2)
		for i, m := range one.messages {
			require.Same(t, m, two.messages[i])
			encoded := 0
			for range 2 {
				require.Equal(t, 1, m.Form(func() any { encoded++; return encoded }))
			}
		}
		for _, got := range []*received{one, two} {
			got.stop(nil)
			require.ErrorIs(t, <-got.ended, ErrCanceled)
		}
	})
}

// TestWatchEndsWithItsLastToken: a watch that ends says where it stands, even if nothing concerned it for a while.
func TestWatchEndsWithItsLastToken(t *testing.T) {
	for _, how := range []string{"by its context", "by Close"} {
		t.Run(how, func(t *testing.T) {
			inBubble(t, func(t *testing.T, feeds *memFeeds, w *Watches) {
				got := watch(t, w, WatchRequest{Service: watchedRoom, UID: "zoe"})
				settle()
				started := got.token()
				feeds.change(watchedRoom, linkedChange("ann", 1, 1))
				settle()
				require.Equal(t, started, got.token())
				if how == "by Close" {
					w.Close()
					w.Close()
				} else {
					got.stop(errors.New("a drain"))
				}
				require.ErrorIs(t, <-got.ended, ErrCanceled)
				require.Equal(t, watchToken{after: "1"}.text(feedID{watchedRoom, "store-1"}), got.token())
				if how == "by Close" {
					require.ErrorIs(t, w.Watch(t.Context(), WatchRequest{Service: watchedRoom}, nil), ErrCanceled)
				}
			})
		})
	}
}

// TestWatchEndsWithItsCaller: an error of send ends the watch.
func TestWatchEndsWithItsCaller(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *memFeeds, w *Watches) {
		left := errors.New("left")
		require.ErrorIs(t, w.Watch(t.Context(), WatchRequest{Service: watchedRoom}, func(*WatchMessage) error { return left }), left)
	})
}

// countingObserver counts what the metrics show.
type countingObserver struct {
	mu       sync.Mutex
	watching int
	resyncs  map[ResyncReason]int
}

func (o *countingObserver) Watching(delta int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.watching += delta
}

func (o *countingObserver) Resynced(reason ResyncReason) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.resyncs[reason]++
}

// TestWatchIsObserved: watches and resyncs are counted.
func TestWatchIsObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feeds, o := newMemFeeds(), &countingObserver{resyncs: make(map[ResyncReason]int)}
		w := NewWatches(feeds, testLimits, o)
		defer w.Close()
		one, two := watch(t, w, WatchRequest{Service: watchedRoom}), watch(t, w, WatchRequest{Service: watchedRoom})
		settle()
		feeds.append(watchedRoom, FeedEntry{Gap: GapStore})
		settle()
		require.Equal(t, 2, o.watching)
		require.Equal(t, map[ResyncReason]int{ResyncStart: 2, ResyncGap: 2}, o.resyncs)
		for _, got := range []*received{one, two} {
			got.stop(nil)
			require.ErrorIs(t, <-got.ended, ErrCanceled)
		}
		require.Zero(t, o.watching)
	})
}
