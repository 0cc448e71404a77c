package biz

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// maxCatchUps is how many watches of a process read at once what they have missed.
	maxCatchUps = 16
	// progressEvery is how often a watch without changes gets an empty message.
	progressEvery = time.Second
	// feedTimeout is how long a read of a feed may take, and feedPause how long a watch that catches up waits after one that failed.
	feedTimeout, feedPause = 3 * time.Second, 100 * time.Millisecond
)

// ResyncReason is why changes are missing before a message of a watch.
type ResyncReason string

// The reasons to resync.
const (
	ResyncStart   ResyncReason = "START"   // the watch begins now
	ResyncGap     ResyncReason = "GAP"     // changes may have been lost
	ResyncTrimmed ResyncReason = "TRIMMED" // the changes since the token are no longer kept
	ResyncSlow    ResyncReason = "SLOW"    // the watcher did not take messages fast enough
)

// WatchRequest says which changes a watch is about, and where it goes on.
type WatchRequest struct {
	Service ServiceKey
	Pod     *PodID // only changes of links to this pod, or from it; nil: all
	UID     string // only changes of this uid's link; "": all
	Resume  string // the token of a message of another watch of the service; "": from now on
}

func (r *WatchRequest) validate() error {
	err := r.Service.validate()
	if err == nil && r.Pod != nil {
		err = validatePod(r.Pod)
	}
	if err == nil && r.UID != "" {
		err = validateUID("uid", r.UID)
	}
	return err
}

// WatchMessage is a message of a watch. Watchers share it, so nobody may change it.
type WatchMessage struct {
	Changes []Change     // in the order of the feed
	Resync  ResyncReason // "": nothing is missing before the message
	Token   string       // resumes the watch after the message

	entries, bytes int // what it counts for in a queue

	once sync.Once
	form any
}

// Form returns what encode has returned for the first of the watchers that get the message, so that it is encoded once.
func (m *WatchMessage) Form(encode func() any) any {
	m.once.Do(func() { m.form = encode() })
	return m.form
}

// WatchObserver receives the events of watches, for metrics. Its methods must not block.
type WatchObserver interface {
	// Watching is called with +1 when a watch begins, and with -1 when it ends.
	Watching(delta int)
	// Resynced is called for each watcher that is told to resync.
	Resynced(reason ResyncReason)
}

// NopWatchObserver is a WatchObserver that ignores all events.
type NopWatchObserver struct{}

// Watching implements WatchObserver.
func (NopWatchObserver) Watching(int) {}

// Resynced implements WatchObserver.
func (NopWatchObserver) Resynced(ResyncReason) {}

// WatchLimits bound the watches of a process.
type WatchLimits struct {
	Watches  int // server.max_watches
	Services int // server.max_watched_services: what the watches are about
}

// Watches passes the changes of services on to their watchers. Each service that has a watcher has one reader of its feed, however many
// watchers there are.
type Watches struct {
	repo     FeedRepo
	limits   WatchLimits
	observer WatchObserver
	catchUps chan struct{} // a place for each read of a watch that catches up
	bound    queueBound    // of each watcher

	ctx     context.Context //nolint:containedctx // Of the readers, which outlive the watch that has begun them.
	close   context.CancelFunc
	running sync.WaitGroup // readers

	mu      sync.Mutex
	readers map[ServiceKey]*feedReader
	open    int // watches
}

// NewWatches returns the watches of the feeds. Close them.
func NewWatches(repo FeedRepo, limits WatchLimits, observer WatchObserver) *Watches {
	w := &Watches{
		repo: repo, limits: limits, observer: observer, catchUps: make(chan struct{}, maxCatchUps), bound: usualBound,
		readers: make(map[ServiceKey]*feedReader),
	}
	w.ctx, w.close = context.WithCancel(context.Background())
	return w
}

// Close ends every watch with its last token, and waits for the readers. Further watches end at once.
func (w *Watches) Close() {
	w.mu.Lock()
	w.close() // Under the lock, so that no reader begins after it.
	w.mu.Unlock()
	w.running.Wait()
}

// Watch sends the changes of a service until ctx ends, send fails, or Close is called; the error is then ErrCanceled, or that of send. The
// first message says where the watch begins. Without changes there is an empty message each second, unless the store can't be read.
func (w *Watches) Watch(ctx context.Context, r WatchRequest, send func(*WatchMessage) error) error {
	if err := r.validate(); err != nil {
		return err
	}
	token, err := parseWatchToken(r.Resume)
	if err != nil {
		return err
	}
	reader, err := w.enter(r.Service)
	if err != nil {
		return err
	}
	defer w.leave(reader)
	watch := &watcher{
		filter: newWatchFilter(&r), bound: w.bound, reader: reader, observer: w.observer, send: send,
		wake: make(chan struct{}, 1), joined: make(chan bool, 1),
	}
	defer reader.remove(watch)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(w.ctx, func() { cancel(errWatchesClosed) })() //nolint:contextcheck // It is the context of all watches.
	if feed := (feedID{r.Service, w.repo.Store()}); token.of(feed) {
		err = watch.catchUp(ctx, feed, token)
	} else {
		reader.attach(watch, ResyncStart)
	}
	if err == nil {
		err = watch.relay(ctx)
	}
	if err == nil { // The context has ended.
		watch.farewell()
		return fmt.Errorf("%w: %w", ErrCanceled, context.Cause(ctx))
	}
	return err
}

var errWatchesClosed = errors.New("the watches are closed")

// enter returns the service's reader, with one more watch.
func (w *Watches) enter(key ServiceKey) (*feedReader, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	reader := w.readers[key]
	switch {
	case w.ctx.Err() != nil:
		return nil, fmt.Errorf("%w: %w", ErrCanceled, errWatchesClosed)
	case w.open >= w.limits.Watches:
		return nil, &LimitError{Limit: "server.max_watches"}
	case reader == nil && len(w.readers) >= w.limits.Services:
		return nil, &LimitError{Limit: "server.max_watched_services"}
	case reader == nil:
		reader = newFeedReader(w, key)
		w.readers[key] = reader
		w.running.Go(reader.run)
	}
	w.open++
	reader.watches++
	w.observer.Watching(1)
	return reader, nil
}

// leave ends a watch, and with the last one of a service its reader.
func (w *Watches) leave(reader *feedReader) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.observer.Watching(-1)
	w.open--
	if reader.watches--; reader.watches == 0 {
		delete(w.readers, reader.key)
		reader.stop()
	}
}

// load returns how many watches the reader has, and how many readers there are.
func (w *Watches) load(reader *feedReader) (watches, readers int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return reader.watches, len(w.readers)
}

// read reads a page of a feed.
func (w *Watches) read(ctx context.Context, key ServiceKey, after FeedPosition) (FeedPage, error) {
	ctx, cancel := context.WithTimeout(ctx, feedTimeout)
	defer cancel()
	return w.repo.ReadFeed(ctx, key, after, feedPage)
}
