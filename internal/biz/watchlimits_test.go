package biz

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

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
		w := NewWatches(newMemFeeds(), testLimits, NopWatchObserver{})
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
		{"server.max_watches", testLimits.Watches, func(int) ServiceKey { return watchedRoom }},
		{"server.max_watched_services", testLimits.Services, func(i int) ServiceKey { return ServiceKey{"game", fmt.Sprintf("s%d", i)} }},
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
				require.Equal(t, row.name, limit.Limit, "the setting to raise")
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
		{4096, 1024, 100 * time.Millisecond},
	} {
		require.Equal(t, row.want, pollEvery(row.watches, row.readers))
	}
}
