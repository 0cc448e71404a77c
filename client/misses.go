package client

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cenkalti/backoff/v5"

	v1 "podlink/api/podlink/v1"
)

const (
	// missWindow is how long computes are collected for one batch.
	missWindow = 2 * time.Millisecond
	// maxBatch is how many computes one batch has: podlink's default limit.
	maxBatch = 1000
	// maxMissCalls is how many calls of podlink are in flight at a time. While podlink hangs, the other computes wait in the queue.
	maxMissCalls = 16
	// maxMisses is how many computes wait in the queue.
	maxMisses = 1 << 16
	// maxSingles is how many single calls replace a batch at a time.
	maxSingles = 64
	// maxUIDLength is podlink's limit, in bytes.
	maxUIDLength = 256
)

// errTooManyLookups is why a lookup fails while podlink is too slow for the rate of new users.
var errTooManyLookups = errors.New("too many lookups are waiting for podlink")

// computed is podlink's answer to a compute.
type computed struct {
	link *v1.Link
	pod  *v1.Pod // nil: the link's pod has never reported
}

// miss is a compute that waits for its batch.
type miss struct {
	ctx  context.Context //nolint:containedctx // Whoever needs the answer may leave before the batch is sent.
	item *v1.BatchComputeLinkedPodRequest_Item

	lastErr atomic.Pointer[error] // of what is being repeated

	computed // these when it is done
	err      error
	done     chan struct{}
}

// misses computes the links of the users whom a router does not know, or not any more. One compute is a plain call, at once;
// those that follow within missWindow share a batch, as after a restart or when many users log in.
type misses struct {
	links   v1.LinkServiceClient
	request *v1.ComputeLinkedPodRequest // what all computes have in common
	timeout time.Duration               // of a compute
	open    context.Context             //nolint:containedctx // Its end is the router's, not a call's.
	// again waits until a failed request may be repeated. It returns false if ctx ends before that.
	again func(ctx context.Context, between *backoff.ExponentialBackOff) bool

	batchless batchless

	mu    sync.Mutex
	queue []*miss
	timer *time.Timer // of the window; nil: none is open
	calls int         // in flight
	size  int         // of the largest batch that podlink takes
}

func newMisses(open context.Context, links v1.LinkServiceClient, request *v1.ComputeLinkedPodRequest, timeout time.Duration,
	again func(context.Context, *backoff.ExponentialBackOff) bool,
) *misses {
	return &misses{links: links, request: request, timeout: timeout, open: open, again: again, size: maxBatch}
}

// compute returns the item's link. It ends with ctx, or with the timeout.
func (m *misses) compute(ctx context.Context, item *v1.BatchComputeLinkedPodRequest_Item) (computed, error) {
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	if !isUID(item.GetUid()) {
		return m.single(ctx, item) // Podlink refuses it, and a batch as a whole.
	}
	waiting, err := m.enqueue(ctx, item)
	if err != nil {
		return computed{}, err
	}
	if waiting == nil {
		defer m.finished()
		return m.single(ctx, item)
	}
	select {
	case <-waiting.done:
		return waiting.computed, waiting.err
	case <-ctx.Done():
		if last := waiting.lastErr.Load(); last != nil {
			return computed{}, notCarriedOut(*last)
		}
		return computed{}, withCause(ErrUnavailable, ctx.Err())
	}
}

// isUID reports whether podlink takes the uid for one.
func isUID(uid string) bool {
	return uid != "" && len(uid) <= maxUIDLength && utf8.ValidString(uid) && !strings.ContainsFunc(uid, unicode.IsControl)
}

// enqueue puts a compute into the queue. It returns nil if the compute is a call, which has begun.
func (m *misses) enqueue(ctx context.Context, item *v1.BatchComputeLinkedPodRequest_Item) (*miss, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.timer == nil && m.calls < maxMissCalls {
		m.calls++
		m.timer = time.AfterFunc(missWindow, m.windowEnds)
		return nil, nil //nolint:nilnil // As documented.
	}
	if len(m.queue) >= maxMisses {
		return nil, withCause(ErrUnavailable, errTooManyLookups)
	}
	waiting := &miss{ctx: ctx, item: item, done: make(chan struct{})}
	m.queue = append(m.queue, waiting)
	if len(m.queue) >= m.size {
		m.flush() //nolint:contextcheck // Each lookup has its caller's context.
	}
	return waiting, nil
}

// windowEnds sends what was collected. Another window follows, unless nothing was.
func (m *misses) windowEnds() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.timer = nil
	if len(m.queue) == 0 || m.open.Err() != nil {
		return
	}
	m.flush()
	if m.calls < maxMissCalls { // Else the queue is sent when one of the calls ends.
		m.timer = time.AfterFunc(missWindow, m.windowEnds)
	}
}

// finished makes room for another call.
func (m *misses) finished() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls--
	if m.timer == nil { // Else its end sends the queue.
		m.flush()
	}
}

// flush sends the queue in batches, as long as there is room for calls. The caller holds the lock.
func (m *misses) flush() {
	for len(m.queue) > 0 && m.calls < maxMissCalls {
		batch := m.take()
		if len(batch) == 0 {
			return
		}
		m.calls++
		go func() {
			defer m.finished()
			ctx, cancel := context.WithTimeout(m.open, m.timeout)
			defer cancel()
			m.send(ctx, batch)
		}()
	}
}

// take takes a batch out of the queue: each uid once, and none whose caller has left.
func (m *misses) take() []*miss {
	var batch, rest []*miss
	taken := map[string]bool{}
	for i, waiting := range m.queue {
		if len(batch) == m.size {
			rest = append(rest, m.queue[i:]...)
			break
		}
		switch uid := waiting.item.GetUid(); {
		case waiting.ctx.Err() != nil:
		case taken[uid]:
			rest = append(rest, waiting)
		default:
			taken[uid] = true
			batch = append(batch, waiting)
		}
	}
	m.queue = rest
	return batch
}
