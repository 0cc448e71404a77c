package biz

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
)

// memFeeds is a FeedRepo in memory, which can fail, lose its data and trim.
type memFeeds struct {
	FeedRepo // Watches only reads.

	mu      sync.Mutex
	feeds   map[ServiceKey]*memFeed
	store   string
	failing error
	hung    bool         // reads don't end before their context
	corrupt FeedPosition // of an entry that nobody can read
	reads   int
	limit   int // the largest n of a read
}

type memFeed struct {
	entries []FeedEntry
	last    int // number of the last entry ever
	trimmed int // number of the last entry that was trimmed
}

func newMemFeeds() *memFeeds {
	return &memFeeds{feeds: make(map[ServiceKey]*memFeed), store: "store-1"}
}

func (m *memFeeds) feed(key ServiceKey) *memFeed {
	if m.feeds[key] == nil {
		m.feeds[key] = new(memFeed)
	}
	return m.feeds[key]
}

// append appends an entry, and returns its position.
func (m *memFeeds) append(key ServiceKey, entry FeedEntry) FeedPosition {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.feed(key)
	f.last++
	entry.At = FeedPosition(strconv.Itoa(f.last))
	f.entries = append(f.entries, entry)
	return entry.At
}

func (m *memFeeds) change(key ServiceKey, changes ...Change) FeedPosition {
	return m.append(key, FeedEntry{Changes: changes})
}

// trim removes all entries but the last n.
func (m *memFeeds) trim(key ServiceKey, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.feed(key)
	f.entries = slices.Clone(f.entries[max(0, len(f.entries)-n):])
	f.trimmed = f.last - len(f.entries)
}

// failover makes another store of it, which has not got the last n entries and gives their positions away again.
func (m *memFeeds) failover(key ServiceKey, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.feed(key)
	n = min(n, len(f.entries))
	f.entries = slices.Clone(f.entries[:len(f.entries)-n])
	f.last -= n
	m.store += "+"
}

func (m *memFeeds) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

func (m *memFeeds) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reads
}

func (m *memFeeds) Store() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.store
}

func (m *memFeeds) ReadFeed(ctx context.Context, key ServiceKey, after FeedPosition, n int) (FeedPage, error) {
	time.Sleep(time.Millisecond)
	m.mu.Lock()
	hung, err := m.hung, m.failing
	m.reads++
	m.mu.Unlock()
	switch {
	case hung:
		<-ctx.Done()
		return FeedPage{}, fmt.Errorf("%w: %w", ErrDeadlineExceeded, ctx.Err())
	case err != nil:
		return FeedPage{}, err
	case ctx.Err() != nil:
		return FeedPage{}, fmt.Errorf("%w: %w", ErrCanceled, ctx.Err())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limit = max(m.limit, n)
	f := m.feed(key)
	if after == "" {
		return FeedPage{Next: FeedPosition(strconv.Itoa(f.last))}, nil
	}
	page := FeedPage{Next: after}
	position, _ := strconv.Atoi(string(after))
	page.Trimmed = position < f.trimmed
	for _, entry := range f.entries {
		if number, _ := strconv.Atoi(string(entry.At)); number > position && len(page.Entries) < n {
			if entry.At == m.corrupt {
				return FeedPage{}, ErrStoreDataCorrupt
			}
			page.Entries = append(page.Entries, entry)
			page.Next = entry.At
		}
	}
	if page.Trimmed && len(page.Entries) == 0 {
		page.Next = FeedPosition(strconv.Itoa(f.last))
	}
	return page, nil
}
