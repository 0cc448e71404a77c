package biz

import (
	"context"
	"sync"
	"time"
)

// queueBound is how far a watcher may be behind the reader.
type queueBound struct{ entries, bytes int }

var usualBound = queueBound{entries: 1024, bytes: 1 << 20}

// watcher is a watch, with what it has to send.
type watcher struct {
	filter   watchFilter
	bound    queueBound
	reader   *feedReader
	observer WatchObserver
	send     func(*WatchMessage) error
	wake     chan struct{} // has a value when there may be something to send
	joined   chan bool     // the answer to feedReader.join
	sent     string        // the last token

	mu      sync.Mutex
	queue   []*WatchMessage
	entries int // of the queue
	bytes   int // of the queue
	last    time.Time
	err     error // why the watch ends
}

// push appends a message. A watcher that is too far behind loses what it has not sent, and is told so.
func (w *watcher) push(m *WatchMessage, now time.Time) {
	w.mu.Lock()
	w.last = now
	if w.entries+m.entries > w.bound.entries || w.bytes+m.bytes > w.bound.bytes {
		clear(w.queue)
		m = &WatchMessage{Resync: ResyncSlow, Token: m.Token, entries: 1}
		w.queue, w.entries, w.bytes = w.queue[:0], 0, 0
	}
	w.queue = append(w.queue, m)
	w.entries += m.entries
	w.bytes += m.bytes
	w.mu.Unlock()
	w.rouse()
}

func (w *watcher) fail(err error) {
	w.mu.Lock()
	w.err = err
	w.mu.Unlock()
	w.rouse()
}

func (w *watcher) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// idle reports whether it is time for a message without changes.
func (w *watcher) idle(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue) == 0 && now.Sub(w.last) >= progressEvery
}

// next takes the oldest message; nil: there is none.
func (w *watcher) next() (*WatchMessage, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		return nil, w.err
	}
	m := w.queue[0]
	w.queue[0] = nil
	w.queue = w.queue[1:]
	w.entries -= m.entries
	w.bytes -= m.bytes
	return m, nil
}

// relay sends what the reader passes on.
func (w *watcher) relay(ctx context.Context) error {
	for ctx.Err() == nil {
		m, err := w.next()
		switch {
		case m != nil:
			err = w.pass(m)
		case err == nil:
			select {
			case <-ctx.Done():
			case <-w.wake:
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// pass sends a message.
func (w *watcher) pass(m *WatchMessage) error {
	if m.Resync != "" {
		w.observer.Resynced(m.Resync)
	}
	w.sent = m.Token
	return w.send(m)
}

// farewell sends where the stream stands, if the watcher has not got that yet, so that it need not get anything twice elsewhere. The
// caller may have left; its watch ends anyway.
func (w *watcher) farewell() {
	if token := w.reader.tokenOf(w); token != "" && token != w.sent {
		_ = w.send(&WatchMessage{Token: token})
	}
}

// tokenOf returns where a watcher stands that has sent all that was passed on to it; "": it has not.
func (r *feedReader) tokenOf(w *watcher) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, attached := r.groups[w.filter][w]; !attached || len(w.queue) > 0 || r.at == "" || r.lost != "" {
		return ""
	}
	return r.token()
}
