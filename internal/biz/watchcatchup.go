package biz

import (
	"context"
	"errors"
	"time"
)

// catchUp sends what has happened since the token, and joins the reader.
func (w *watcher) catchUp(ctx context.Context, feed feedID, from watchToken) error {
	var sent time.Time
	var refused FeedPosition
	for ctx.Err() == nil {
		page, resync, ok := w.missed(ctx, feed, from)
		switch {
		case resync != "":
			w.reader.attach(w, resync)
			return nil
		case !ok:
			continue
		}
		parts := splitFeed(feed, &page, from, "")
		for i := range parts {
			if m := parts[i].message(w.filter); m != nil {
				sent = time.Now()
				if err := w.pass(m); err != nil {
					return err
				}
			}
		}
		if len(page.Entries) > 0 {
			from = watchToken{after: page.Next}
		}
		if time.Since(sent) >= progressEvery { // At the latest after the first page: it says where the watch begins.
			sent = time.Now()
			if err := w.pass(&WatchMessage{Token: from.text(feed)}); err != nil {
				return err
			}
		}
		if len(page.Entries) >= feedPage {
			continue
		}
		if w.joins(ctx, feed, from.after, sent) {
			return nil
		}
		if from.after == refused { // Twice, without anything to read: the feed has not come that far, so a caller has made it up.
			w.reader.attach(w, ResyncGap)
			return nil
		}
		refused = from.after
	}
	return nil
}

// missed reads a page after the token. It returns false if the store has not answered, and why to resync if what comes after the token
// can't be known.
func (w *watcher) missed(ctx context.Context, feed feedID, from watchToken) (page FeedPage, resync ResyncReason, ok bool) {
	owner := w.reader.owner
	select {
	case owner.catchUps <- struct{}{}:
	case <-ctx.Done():
		return page, "", false
	}
	page, err := owner.read(ctx, feed.key, from.after)
	<-owner.catchUps
	store := owner.repo.Store()
	var refused *InvalidArgumentError
	switch {
	case errors.Is(err, ErrStoreDataCorrupt), errors.As(err, &refused): // To read it again would change nothing.
		return page, ResyncGap, false
	case err != nil:
		again := time.NewTimer(feedPause)
		defer again.Stop()
		select {
		case <-again.C:
		case <-ctx.Done():
		}
		return page, "", false
	case store != "" && store != feed.store:
		return page, ResyncGap, false
	case page.Trimmed, from.skip > 0 && len(page.Entries) == 0: // The entry of which the caller has a part is gone.
		return page, ResyncTrimmed, false
	default:
		return page, "", true
	}
}

// joins reports whether the watcher gets what the reader reads from now on. It does not if the reader is ahead of it.
func (w *watcher) joins(ctx context.Context, feed feedID, at FeedPosition, sent time.Time) bool {
	w.mu.Lock()
	w.last = sent
	w.mu.Unlock()
	w.reader.join(w, at, feed.store)
	select {
	case joined := <-w.joined:
		return joined
	case <-ctx.Done():
		return false
	}
}
