package biz

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// feedPage is how many entries are read at once: small enough that watchers take what one page has before the next one comes.
	feedPage = 64
	// A service's feed is read every minPoll. With many watchers or many services it is read less often, so that a podlink sends and reads
	// about 10,000 times a second at most: pollShare for each of them, up to maxPoll.
	minPoll, maxPoll = 20 * time.Millisecond, 100 * time.Millisecond
	pollShare        = 100 * time.Microsecond
)

// feedReader reads the feed of a service for its watchers.
type feedReader struct {
	owner   *Watches
	key     ServiceKey
	watches int // guarded by Watches.mu

	ctx  context.Context //nolint:containedctx // It ends with the last watch.
	stop context.CancelFunc

	mu     sync.Mutex
	at     FeedPosition // up to which all was passed on; "": the next read finds the feed's end
	store  string       // to which at belongs
	lost   ResyncReason // what the watchers are told after the next read; "": nothing
	groups map[watchFilter]map[*watcher]struct{}
	fresh  map[*watcher]ResyncReason // those that begin with the next read
	behind map[*watcher]FeedPosition // those that have caught up to a position, from which the next read takes them along
}

func newFeedReader(owner *Watches, key ServiceKey) *feedReader {
	r := &feedReader{
		owner: owner, key: key, groups: make(map[watchFilter]map[*watcher]struct{}),
		fresh: make(map[*watcher]ResyncReason), behind: make(map[*watcher]FeedPosition),
	}
	r.ctx, r.stop = context.WithCancel(owner.ctx)
	return r
}

// run reads until the last watch ends.
func (r *feedReader) run() {
	defer r.stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-pause.C:
		}
		wait := time.Duration(0)
		if more := r.poll(); !more {
			wait = pollEvery(r.owner.load(r))
		}
		pause.Reset(wait)
	}
}

func pollEvery(watches, readers int) time.Duration {
	return min(max(minPoll, time.Duration(max(watches, readers))*pollShare), maxPoll)
}

// poll reads a page and passes it on. It returns whether there is more to read.
func (r *feedReader) poll() bool {
	at, store := r.position()
	page, err := r.owner.read(r.ctx, r.key, at)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.at != at: // A watcher has come with a position, while the end was looked for.
		return true
	case err == nil:
		r.pass(page, store)
		return len(page.Entries) >= feedPage
	case !errors.Is(err, ErrStoreDataCorrupt):
		return false // Nobody gets a message, so watchers see it.
	case at != "":
		r.lose() // Nothing after the position may ever be readable.
		return true
	default:
		r.fail(err)
		return false
	}
}

// position returns where to read, and the identity of the store before the read. If the store is another one than that of the position,
// or it may have lost data since, the position means nothing: an entry that is written now may stand before it.
func (r *feedReader) position() (FeedPosition, string) {
	store := r.owner.repo.Store()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at != "" && store != "" && store != r.store {
		r.lose()
	}
	return r.at, store
}

// lose goes on at the feed's end, and makes all watchers resync then. The caller must hold mu.
func (r *feedReader) lose() {
	r.at, r.lost = "", ResyncGap
	for w := range r.behind {
		r.fresh[w] = ResyncGap
		w.joined <- true
	}
	clear(r.behind)
}

// pass gives the watchers what a read has found. The caller must hold mu.
func (r *feedReader) pass(page FeedPage, store string) {
	before := r.at
	if before == "" {
		r.store = store
	}
	first := r.lost
	if page.Trimmed {
		first = ResyncTrimmed
	}
	r.at, r.lost = page.Next, ""
	parts := splitFeed(r.feed(), &page, watchToken{after: before}, first)
	now := time.Now()
	for filter, group := range r.groups {
		for i := range parts {
			if m := parts[i].message(filter); m != nil {
				for w := range group {
					w.push(m, now)
				}
			}
		}
	}
	r.admit(page, now)
	r.progress(now)
}

// admit lets those begin that have waited for the read. The caller must hold mu.
func (r *feedReader) admit(page FeedPage, now time.Time) {
	messages := make(map[ResyncReason]*WatchMessage, 1)
	for w, reason := range r.fresh {
		if messages[reason] == nil {
			messages[reason] = &WatchMessage{Resync: reason, Token: r.token(), entries: 1}
		}
		r.add(w)
		w.push(messages[reason], now)
	}
	clear(r.fresh)
	for w, position := range r.behind {
		rest, found := entriesAfter(page.Entries, position)
		switch {
		case page.Trimmed: // It has missed what the others have missed, or less.
			r.add(w)
			w.push(&WatchMessage{Resync: ResyncTrimmed, Token: r.token(), entries: 1}, now)
			w.joined <- true
		case found:
			r.add(w)
			if len(rest) > 0 {
				parts := splitFeed(r.feed(), &FeedPage{Entries: rest}, watchToken{after: position}, "")
				for i := range parts {
					if m := parts[i].message(w.filter); m != nil {
						w.push(m, now)
					}
				}
			}
			w.joined <- true
		case len(page.Entries) >= feedPage:
			continue // The next page may have it.
		default:
			w.joined <- false // The reader was ahead of it.
		}
		delete(r.behind, w)
	}
}

// entriesAfter returns the entries after the one at the position, and whether that is among them.
func entriesAfter(entries []FeedEntry, position FeedPosition) ([]FeedEntry, bool) {
	for i := range entries {
		if entries[i].At == position {
			return entries[i+1:], true
		}
	}
	return nil, false
}

// progress says where the stream stands to those that have got nothing for a while. The caller must hold mu.
func (r *feedReader) progress(now time.Time) {
	var m *WatchMessage
	for _, group := range r.groups {
		for w := range group {
			if !w.idle(now) {
				continue
			}
			if m == nil {
				m = &WatchMessage{Token: r.token(), entries: 1}
			}
			w.push(m, now)
		}
	}
}

// feed returns the feed of the position. The caller must hold mu.
func (r *feedReader) feed() feedID { return feedID{r.key, r.store} }

// token returns the token of what was passed on. The caller must hold mu.
func (r *feedReader) token() string { return watchToken{after: r.at}.text(r.feed()) }

// add makes the watcher one of those that get what is read. The caller must hold mu.
func (r *feedReader) add(w *watcher) {
	group := r.groups[w.filter]
	if group == nil {
		group = make(map[*watcher]struct{})
		r.groups[w.filter] = group
	}
	group[w] = struct{}{}
}

// attach lets the watcher begin with the next read: it is told to resync then.
func (r *feedReader) attach(w *watcher, reason ResyncReason) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fresh[w] = reason
}

// join lets a watcher that has got all up to the position of that store go on with what the reader reads. The watcher's channel joined
// has the answer: false if the reader is ahead of it.
func (r *feedReader) join(w *watcher, at FeedPosition, store string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.at == "" && r.lost == "": // The reader has just begun.
		r.at, r.store = at, store
		fallthrough
	case r.at == at && r.store == store:
		r.add(w)
		w.joined <- true
	case r.at == "" || r.store != store:
		r.fresh[w] = ResyncGap
		w.joined <- true
	default:
		r.behind[w] = at
	}
}

// remove forgets a watcher.
func (r *feedReader) remove(w *watcher) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.fresh, w)
	delete(r.behind, w)
	delete(r.groups[w.filter], w)
	if len(r.groups[w.filter]) == 0 {
		delete(r.groups, w.filter)
	}
}

// fail ends all watches with the error. The caller must hold mu.
func (r *feedReader) fail(err error) {
	for w := range r.fresh {
		w.fail(err)
	}
	for _, group := range r.groups {
		for w := range group {
			w.fail(err)
		}
	}
}
