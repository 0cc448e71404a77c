package server

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"podlink/internal/auth"
)

// watchPause is how long a caller waits after a watch that was refused because it has too many.
const watchPause = time.Second

// watchLimit counts the streams of the API that each caller has open, and refuses those above a maximum. Without it one caller could take
// all places of a podlink (server.max_watches), or of the services that it reads for watchers. A stream counts once its caller may have it,
// and until its context ends.
type watchLimit struct {
	most  int
	doors *DoorMetrics

	mu   sync.Mutex
	open map[bucketKey]int
}

func newWatchLimit(most int32, doors *DoorMetrics) *watchLimit {
	return &watchLimit{most: int(most), doors: doors, open: make(map[bucketKey]int)}
}

// take counts a stream, or returns why it is refused. Whose streams are counted together: those whose calls are, or with auth.mode off
// those from one host.
func (l *watchLimit) take(ctx context.Context, operation string, c *caller, from netip.AddrPort) error {
	if foreign[operation] {
		return nil // What it costs is bounded by connection and by address.
	}
	key := bucketKey{peer: auth.Host(from.Addr())}
	if c != nil {
		key = keyOf(c)
	}
	if !l.enter(key) {
		l.doors.Refused(RefusedByWatches)
		return rateLimited(watchPause, "this caller has as many watches as it may have (server.max_watches_per_caller); nothing has changed")
	}
	context.AfterFunc(ctx, func() { l.leave(key) })
	return nil
}

func (l *watchLimit) enter(key bucketKey) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[key] >= l.most {
		return false
	}
	l.open[key]++
	return true
}

func (l *watchLimit) leave(key bucketKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[key]--; l.open[key] == 0 {
		delete(l.open, key)
	}
}
