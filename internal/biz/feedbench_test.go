package biz

import (
	"context"
	"testing"
	"time"
)

// BenchmarkNote is what a mutation pays for the feed: the age of the last beat, and the note.
func BenchmarkNote(b *testing.B) {
	feed := NewFeed(newFeedStore(), newFeedLinks(), FeedOptions{Index: true})
	feed.writers.beat(context.Background(), beatEvery)
	links := NoteChanges(instantLinks{}, feed).(notedLinks)
	key := room.link("a user's id")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := links.Set(context.Background(), key, 2, Forever, SetTerms{}); err != nil {
			b.Fatal(err)
		}
		if i%maxPart == maxPart-1 {
			feed.queue.recycle(feed.queue.take().changes)
			feed.queue.keep(0, time.Time{})
		}
	}
}

// instantLinks is a LinkRepo whose links are always set.
type instantLinks struct{ LinkRepo }

func (instantLinks) Set(_ context.Context, key LinkKey, pod PodID, ttl TTL, _ SetTerms) (LinkChange, error) {
	return LinkChange{Applied: true, Previous: NoPod, Link: Link{Key: key, Pod: pod, TTL: ttl, Epoch: 1}}, nil
}

// BenchmarkFlush is what a change costs the background, without the store: a flush of 512 changes to 100 pods.
func BenchmarkFlush(b *testing.B) {
	feed := NewFeed(lostStore{}, newFeedLinks(), FeedOptions{Index: true})
	flusher := newFlusher(feed)
	uids := make([]string, maxPart)
	for i := range uids {
		uids[i] = "user" + string(rune('a'+i%26))
	}
	b.ReportAllocs()
	for b.Loop() {
		for i := range maxPart {
			link := Link{Key: room.link(uids[i]), Pod: PodID(i % 100), TTL: Forever, Epoch: 1}
			feed.Note(room, Change{Kind: Linked, Link: link, Previous: NoPod})
		}
		flusher.take()
		flusher.launch(context.Background())
		for flusher.flights > 0 {
			flusher.land(<-flusher.landed)
		}
		flusher.keep()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/maxPart, "ns/change")
}

// lostStore is a FeedRepo that carries out everything at once.
type lostStore struct{ FeedRepo }

func (lostStore) Flush(_ context.Context, parts []FlushPart) []error {
	return make([]error, len(parts))
}
