package biz

import (
	"context"
	"encoding/base64"
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

// inBubble runs a test on watches of a feed in memory.
func inBubble(t *testing.T, test func(t *testing.T, feeds *memFeeds, w *Watches)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		feeds := newMemFeeds()
		w := NewWatches(feeds, NopWatchObserver{})
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

// TestWatchResume: a token goes on after its message, at any podlink, or says what is missing.
func TestWatchResume(t *testing.T) {
	for _, row := range []struct {
		name string
		do   func(feeds *memFeeds)
		want []string
	}{
		{"nothing has happened", func(*memFeeds) {}, []string{"eve@1"}},
		{"changes", func(feeds *memFeeds) {
			feeds.change(watchedRoom, linkedChange("bob", 1, 2))
			feeds.change(watchedRoom, linkedChange("cat", 1, 3))
		}, []string{"bob@1 cat@1", "eve@1"}},
		{"a gap", func(feeds *memFeeds) {
			feeds.append(watchedRoom, FeedEntry{Gap: GapWriterDied})
			feeds.change(watchedRoom, linkedChange("cat", 1, 3))
		}, []string{"GAP cat@1", "eve@1"}},
		{"more than a page", func(feeds *memFeeds) {
			for range 2 * feedPage {
				feeds.change(watchedRoom, linkedChange("bob", 1, 2))
			}
			feeds.change(watchedRoom, linkedChange("cat", 1, 3))
		}, []string{strings.TrimSpace(strings.Repeat(" bob@1", feedPage)), strings.TrimSpace(strings.Repeat(" bob@1", feedPage)), "cat@1", "eve@1"}},
		{"trimmed", func(feeds *memFeeds) {
			feeds.change(watchedRoom, linkedChange("bob", 1, 2))
			feeds.change(watchedRoom, linkedChange("cat", 1, 3))
			feeds.trim(watchedRoom, 1)
		}, []string{"TRIMMED", "eve@1"}},
		{"another store", func(feeds *memFeeds) { feeds.failover(watchedRoom, 0) }, []string{"START", "eve@1"}},
		{"foreign data", func(feeds *memFeeds) {
			position := feeds.change(watchedRoom, linkedChange("bob", 1, 2))
			feeds.set(func() { feeds.corrupt = position })
		}, []string{"GAP", "eve@1"}},
		{"the store is away for a while", func(feeds *memFeeds) {
			feeds.change(watchedRoom, linkedChange("bob", 1, 2))
			feeds.set(func() { feeds.failing = ErrStoreUnavailable })
			time.AfterFunc(time.Second, func() { feeds.set(func() { feeds.failing = nil }) })
		}, []string{"bob@1", "eve@1"}},
	} {
		for _, elsewhere := range []string{"at a podlink without a watch", "at one with a watch"} {
			t.Run(row.name+" "+elsewhere, func(t *testing.T) {
				inBubble(t, func(t *testing.T, feeds *memFeeds, w *Watches) {
					got := watch(t, w, WatchRequest{Service: watchedRoom})
					settle()
					feeds.change(watchedRoom, linkedChange("ann", 1, 1))
					settle()
					token := got.end(t)
					other := NewWatches(feeds, NopWatchObserver{})
					defer other.Close()
					if elsewhere == "at one with a watch" {
						neighbour := watch(t, other, WatchRequest{Service: watchedRoom})
						defer neighbour.stop(nil)
						settle()
					}
					row.do(feeds)
					again := watch(t, other, WatchRequest{Service: watchedRoom, Resume: token})
					time.Sleep(2 * time.Second)
					feeds.change(watchedRoom, linkedChange("eve", 1, 9))
					settle()
					require.Equal(t, row.want, again.take())
					again.stop(nil)
					require.ErrorIs(t, <-again.ended, ErrCanceled)
				})
			})
		}
	}
}

// TestWatchResumesAfterAnyMessage: large entries are cut, and a token within one neither repeats nor misses a change.
func TestWatchResumesAfterAnyMessage(t *testing.T) {
	inBubble(t, func(t *testing.T, feeds *memFeeds, w *Watches) {
		got := watch(t, w, WatchRequest{Service: watchedRoom})
		settle()
		var all []string
		for _, size := range []int{1, 3 * maxMessageChanges, 7, maxMessageChanges, 1} {
			var changes []Change
			for range size {
				uid := fmt.Sprintf("u%d", len(all))
				all = append(all, uid)
				changes = append(changes, linkedChange(uid, 1, 1))
			}
			feeds.change(watchedRoom, changes...)
			settle()
		}
		require.Greater(t, got.count(), 5)
		seen := 0
		for _, m := range got.messages {
			require.LessOrEqual(t, len(m.Changes), maxMessageChanges)
			seen += len(m.Changes)
			again := watch(t, w, WatchRequest{Service: watchedRoom, Resume: m.Token})
			settle()
			var rest []string
			again.mu.Lock()
			for _, m := range again.messages {
				require.Empty(t, m.Resync)
				for _, c := range m.Changes {
					rest = append(rest, c.Link.Key.UID)
				}
			}
			again.mu.Unlock()
			require.Equal(t, strings.Join(all[seen:], " "), strings.Join(rest, " "))
			again.stop(nil)
			require.ErrorIs(t, <-again.ended, ErrCanceled)
		}
		require.Len(t, all, seen)
		got.stop(nil)
		require.ErrorIs(t, <-got.ended, ErrCanceled)
	})
}

// TestWatchTokens: hostile tokens are refused, and those of other places only begin a watch.
func TestWatchTokens(t *testing.T) {
	feed := feedID{watchedRoom, "store-1"}
	token := watchToken{after: "17-0", skip: 5}
	text := token.text(feed)
	raw, err := base64.RawURLEncoding.DecodeString(text)
	require.NoError(t, err)
	raw[len(raw)-1]++
	for _, row := range []struct {
		name, text string
		ok, of     bool
	}{
		{"none", "", true, false},
		{"its own", text, true, true},
		{"another store's", token.text(feedID{watchedRoom, "store-2"}), true, false},
		{"another service's", token.text(feedID{ServiceKey{"game", "chat"}, "store-1"}), true, false},
		{"a service's whose names only look the same", token.text(feedID{ServiceKey{"gameroom", ""}, "store-1"}), true, false},
		{"a later version", "Ag" + text[2:], true, false},
		{"a changed position", base64.RawURLEncoding.EncodeToString(raw), true, false},
		{"cut off", text[:20], false, false},
		{"no base64", "%%%", false, false},
		{"a byte", "AQ", false, false},
		{"padded", text + "=", false, false},
		{"one character", "A", false, false},
		{"long", strings.Repeat("A", maxWatchToken+1), false, false},
		{"with a line break", text[:8] + "\n" + text[8:], false, false},
	} {
		parsed, err := parseWatchToken(row.text)
		if !row.ok {
			var invalid *InvalidArgumentError
			require.ErrorAs(t, err, &invalid, row.name)
			require.Equal(t, "resume_token", invalid.Field, row.name)
			continue
		}
		require.NoError(t, err, row.name)
		require.Equal(t, row.of, parsed.of(feed), row.name)
	}
	parsed, err := parseWatchToken(text)
	require.NoError(t, err)
	require.Equal(t, token.after, parsed.after)
	require.Equal(t, token.skip, parsed.skip)
}

// TestWatchRefuses: malformed requests are refused, and so are more watches than a podlink takes.
func TestWatchRefuses(t *testing.T) {
	negative := PodID(-1)
	for field, r := range map[string]WatchRequest{
		"namespace":    {Service: ServiceKey{"", "room"}},
		"service":      {Service: ServiceKey{"game", "a:b"}},
		"pod_id":       {Service: watchedRoom, Pod: &negative},
		"uid":          {Service: watchedRoom, UID: "a\x00"},
		"resume_token": {Service: watchedRoom, Resume: "?"},
	} {
		w := NewWatches(newMemFeeds(), NopWatchObserver{})
		var invalid *InvalidArgumentError
		require.ErrorAs(t, w.Watch(t.Context(), r, nil), &invalid)
		require.Equal(t, field, invalid.Field)
		w.Close()
	}
}

// TestWatchLimits: a podlink has a bounded number of watches and of watched services, and they count until they end.
func TestWatchLimits(t *testing.T) {
	for _, row := range []struct {
		name  string
		limit int
		key   func(i int) ServiceKey
	}{
		{"watches", maxWatches, func(int) ServiceKey { return watchedRoom }},
		{"watched services", maxWatched, func(i int) ServiceKey { return ServiceKey{"game", fmt.Sprintf("s%d", i)} }},
	} {
		t.Run(row.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, _ *memFeeds, w *Watches) {
				var all []*received
				for i := range row.limit {
					all = append(all, watch(t, w, WatchRequest{Service: row.key(i)}))
				}
				synctest.Wait()
				var limit *LimitError
				require.ErrorAs(t, w.Watch(t.Context(), WatchRequest{Service: row.key(row.limit)}, nil), &limit)
				require.Contains(t, limit.Limit, row.name)
				all[0].stop(nil)
				require.ErrorIs(t, <-all[0].ended, ErrCanceled)
				all[0] = watch(t, w, WatchRequest{Service: row.key(row.limit)})
				settle()
				require.Equal(t, []string{"START"}, all[0].take())
				for _, got := range all {
					got.stop(nil)
					require.ErrorIs(t, <-got.ended, ErrCanceled)
				}
			})
		})
	}
}

// TestSlowWatcher: a watcher that can't keep up is told so, slows nobody, and goes on from now.
func TestSlowWatcher(t *testing.T) {
	inBubble(t, func(t *testing.T, feeds *memFeeds, w *Watches) {
		slow, fast := watch(t, w, WatchRequest{Service: watchedRoom}), watch(t, w, WatchRequest{Service: watchedRoom})
		settle()
		block := make(chan struct{})
		slow.mu.Lock()
		slow.block = block
		slow.mu.Unlock()
		for range usualBound.entries + 10 {
			feeds.change(watchedRoom, linkedChange("ann", 1, 1))
			time.Sleep(25 * time.Millisecond)
		}
		settle()
		require.Len(t, fast.take(), 1+usualBound.entries+10)
		require.Equal(t, []string{"START", "ann@1"}, slow.take())
		slow.mu.Lock()
		slow.block = nil
		slow.mu.Unlock()
		close(block)
		synctest.Wait()
		got := slow.take()
		require.Equal(t, "SLOW", got[0])
		require.Less(t, len(got), 20)
		feeds.change(watchedRoom, linkedChange("bob", 1, 2))
		settle()
		require.Equal(t, []string{"bob@1"}, slow.take())
		for _, got := range []*received{slow, fast} {
			got.stop(nil)
			require.ErrorIs(t, <-got.ended, ErrCanceled)
		}
	})
}

// TestQueueIsBoundedInBytes: few large messages count as many small ones.
func TestQueueIsBoundedInBytes(t *testing.T) {
	w := &watcher{bound: usualBound, wake: make(chan struct{}, 1)}
	for range 100 {
		w.push(&WatchMessage{Token: "t", entries: 1, bytes: maxMessageBytes}, time.Now())
		require.LessOrEqual(t, w.bytes, usualBound.bytes)
		require.LessOrEqual(t, len(w.queue), usualBound.bytes/maxMessageBytes+1)
	}
	m, err := w.next()
	require.NoError(t, err)
	require.Equal(t, ResyncSlow, m.Resync)
}

// TestOneReaderPerService: the number of reads does not depend on that of watchers, and without watchers nothing is read.
func TestOneReaderPerService(t *testing.T) {
	inBubble(t, func(t *testing.T, feeds *memFeeds, w *Watches) {
		time.Sleep(time.Second)
		require.Zero(t, feeds.count())
		var all []*received
		for range 100 {
			all = append(all, watch(t, w, WatchRequest{Service: watchedRoom}))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.InDelta(t, 10*time.Second/(minPoll+time.Millisecond), feeds.count(), 10)
		require.Equal(t, feedPage, feeds.limit)
		for _, got := range all {
			got.stop(nil)
			require.ErrorIs(t, <-got.ended, ErrCanceled)
		}
		synctest.Wait()
		before := feeds.count()
		time.Sleep(time.Second)
		require.Equal(t, before, feeds.count())
	})
}

// TestPollEvery: many watchers or services make the reads rarer, within what a watch may be late.
func TestPollEvery(t *testing.T) {
	for _, row := range []struct {
		watches, readers int
		want             time.Duration
	}{
		{1, 1, 20 * time.Millisecond}, {200, 200, 20 * time.Millisecond}, {500, 1, 50 * time.Millisecond}, {1, 500, 50 * time.Millisecond},
		{maxWatches, maxWatched, 100 * time.Millisecond},
	} {
		require.Equal(t, row.want, pollEvery(row.watches, row.readers))
	}
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
		w := NewWatches(feeds, o)
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
