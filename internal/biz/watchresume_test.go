package biz

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestWatchResume: a token goes on after its message, at any podlink, or says what is missing.
func TestWatchResume(t *testing.T) {
	page := strings.TrimSpace(strings.Repeat(" bob@1", feedPage))
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
		}, []string{page, page, "cat@1", "eve@1"}},
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
					other := NewWatches(feeds, testLimits, NopWatchObserver{})
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
		{"of no version", "AAAA", false, false},
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

// TestForgedToken: a caller may make a token of a position that the feed has not reached, because it knows the store's identity from its
// reports. It is told to resync, and nobody else misses anything.
func TestForgedToken(t *testing.T) {
	for _, order := range []string{"first", "second"} {
		t.Run(order, func(t *testing.T) {
			inBubble(t, func(t *testing.T, feeds *memFeeds, w *Watches) {
				feeds.change(watchedRoom, linkedChange("zoe", 1, 1))
				token := watchToken{after: "999999"}.text(feedID{watchedRoom, feeds.Store()})
				requests := []WatchRequest{{Service: watchedRoom, Resume: token}, {Service: watchedRoom}}
				if order == "second" {
					slices.Reverse(requests)
				}
				var all []*received
				for _, r := range requests {
					all = append(all, watch(t, w, r))
					synctest.Wait()
				}
				time.Sleep(time.Second)
				feeds.change(watchedRoom, linkedChange("ann", 1, 2))
				settle()
				for i, got := range all {
					if requests[i].Resume == "" {
						require.Equal(t, []string{"START", "ann@1"}, got.take())
					} else if messages := got.take(); len(messages) > 0 { // It may wait for its position: nobody else does.
						require.Equal(t, []string{"GAP", "ann@1"}, messages)
					}
					got.stop(nil)
					require.ErrorIs(t, <-got.ended, ErrCanceled)
				}
			})
		})
	}
}

// TestPositionsAreOrdered as numbers are, whatever their length.
func TestPositionsAreOrdered(t *testing.T) {
	ordered := []FeedPosition{"0-0", "9-3", "9-20", "10-0", "10-1", "1800000000000-7", "999999999999999-5"}
	for i, later := range ordered {
		for j, earlier := range ordered {
			require.Equal(t, i > j, later.follows(earlier), "%s %s", later, earlier)
		}
	}
}
