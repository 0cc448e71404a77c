package biz

import (
	"context"
	"crypto/rand"
	"sync"
	"time"
)

const (
	// flushEvery is the time between flushes, and maxPart the number of changes that are flushed at once, and at most in one part.
	flushEvery = 20 * time.Millisecond
	maxPart    = 512
	// maxNoted is the maximum number of changes that are not flushed, and of pods with an uncertain entry that is not settled. It is
	// more than a second of any load that one process can carry.
	maxNoted = 65_536
	// maxUnflushed is the age at which a change that is not flushed makes its process one that may lose changes.
	maxUnflushed = 4 * time.Second
	// maxCall bounds a call of the background: it is longer than a failover's first answer, so that a slow store is not asked twice.
	maxCall = 3 * time.Second
	// maxDrain bounds the last flush.
	maxDrain = 2 * time.Second
)

// Feed writes the changes that this process makes to the change feeds and the index, apart from the requests that make them. It says
// when changes may be missing: this process repeats what the store does not answer, and declares a gap for what it can't keep; and it
// declares gaps for the processes that have died, and for a store that has failed over.
type Feed struct {
	repo     FeedRepo
	links    LinkRepo
	index    bool
	by       func(context.Context) string
	observer FeedObserver

	queue   changeQueue
	gaps    gapList
	writers *writers
}

// FeedOptions are the options of a Feed.
type FeedOptions struct {
	Index    bool                         // maintain the index
	By       func(context.Context) string // the name of who has asked for a mutation; nil: not known
	Observer FeedObserver                 // nil: none
}

// FeedObserver receives the events of a Feed, for metrics. Its methods must not block or call the store.
type FeedObserver interface {
	// Flushed is called after each call of the store that has carried out something: how many changes have reached their feed, the age
	// of the oldest change in it, and how long the call took.
	Flushed(changes int, oldest, took time.Duration)
	// Dropped is called with the number of changes that could not be kept. A gap follows.
	Dropped(changes int)
	// GapWritten is called after this process has declared a gap.
	GapWritten(reason GapReason)
	// Queued is called after each flush, carried out or not, and each drop, with the number of changes that are not flushed, and when
	// the oldest of them was noted; zero: there are none.
	Queued(changes int, oldest time.Time)
}

// NopFeedObserver is a FeedObserver that ignores all events. Embed it to implement only some of the methods.
type NopFeedObserver struct{}

// Flushed implements FeedObserver.
func (NopFeedObserver) Flushed(int, time.Duration, time.Duration) {}

// Dropped implements FeedObserver.
func (NopFeedObserver) Dropped(int) {}

// GapWritten implements FeedObserver.
func (NopFeedObserver) GapWritten(GapReason) {}

// Queued implements FeedObserver.
func (NopFeedObserver) Queued(int, time.Time) {}

// NewFeed returns the feed of this process. It reads links, which must not be those of NoteChanges, to settle unknown outcomes.
func NewFeed(repo FeedRepo, links LinkRepo, o FeedOptions) *Feed {
	f := &Feed{repo: repo, links: links, index: o.Index, by: o.By, observer: o.Observer}
	if f.by == nil {
		f.by = func(context.Context) string { return "" }
	}
	if f.observer == nil {
		f.observer = NopFeedObserver{}
	}
	f.queue.init()
	f.gaps.init()
	id := rand.Text()
	if !f.index {
		id += withoutIndex
	}
	f.writers = newWriters(repo, &f.gaps, id, f.queue.late)
	return f
}

// Note notes a change of a link of the service, after the store has answered. It never blocks.
func (f *Feed) Note(key ServiceKey, c Change) {
	c.Time = time.Now()
	c.Link.Key.Namespace, c.Link.Key.Service = key.Namespace, key.Service
	f.queue.put(c)
}

// Complete reports whether the index may be complete, as far as this process knows: it has neither a change that is unflushed for long
// nor a gap to declare, it has lately seen who else writes, and all of them maintain the index.
func (f *Feed) Complete() bool {
	return f.nothingLost() && f.writers.recent() && !f.writers.indexless()
}

// nothingLost reports whether this process has flushed all that is due, and declared all gaps.
func (f *Feed) nothingLost() bool {
	return !f.queue.late() && !f.queue.hasDropped() && !f.gaps.pending()
}

// Run flushes and beats until ctx ends. It then flushes what is left, for a bounded time. If all of it was flushed, it leaves the
// writers; if not, the others find that this process is gone, and declare the gap.
func (f *Feed) Run(ctx context.Context) {
	work, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var group sync.WaitGroup
	group.Go(func() { f.writers.run(ctx, work) })
	group.Go(func() { f.declare(ctx, work) })
	flusher := newFlusher(f)
	flusher.run(ctx, work)

	limit := time.AfterFunc(maxDrain, end)
	defer limit.Stop()
	flushed := flusher.drain(work)
	group.Wait()
	if !f.index {
		f.gaps.want(GapDropped) // The index lacks its changes, and so far its presence among the writers has said so.
	}
	if flushed && f.declareLast(work) {
		f.writers.leave(work)
	}
}
