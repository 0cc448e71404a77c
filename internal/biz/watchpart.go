package biz

const (
	// A message has at most so many changes and about so many bytes: a gRPC client takes 4 MiB.
	maxMessageChanges = 1024
	maxMessageBytes   = 256 << 10
	// changeBytes is about what a change takes beside its texts.
	changeBytes = 64
)

// watchFilter says which changes a watcher gets. Watchers with the same one share messages.
type watchFilter struct {
	pod PodID // NoPod: any
	uid string
}

func newWatchFilter(r *WatchRequest) watchFilter {
	f := watchFilter{pod: NoPod, uid: r.UID}
	if r.Pod != nil {
		f.pod = *r.Pod
	}
	return f
}

// wants reports whether a watcher gets the change.
func (f watchFilter) wants(c *Change) bool {
	if f.uid != "" && f.uid != c.Link.Key.UID {
		return false
	}
	if f.pod == NoPod || f.pod == c.Link.Pod || f.pod == c.Previous {
		return true
	}
	return c.Kind == Uncertain && c.Previous == NoPod // The link may have been to any pod.
}

// watchPart is a part of a feed, which has one message for those with the same filter.
type watchPart struct {
	resync  ResyncReason
	changes []Change
	entries int
	bytes   int
	token   string
}

// message returns the message for those with the filter; nil: there is nothing for them.
func (p *watchPart) message(f watchFilter) *WatchMessage {
	m := &WatchMessage{Resync: p.resync, Token: p.token, entries: p.entries}
	if f == (watchFilter{pod: NoPod}) {
		m.Changes, m.bytes = p.changes, p.bytes
	} else {
		for i := range p.changes {
			if c := &p.changes[i]; f.wants(c) {
				m.Changes = append(m.Changes, *c)
				m.bytes += sizeOf(c)
			}
		}
	}
	if m.Changes == nil && m.Resync == "" {
		return nil
	}
	return m
}

func sizeOf(c *Change) int { return changeBytes + len(c.Link.Key.UID) + len(c.By) }

// splitFeed returns the parts of a page that was read after a token. The first part has the resync. A gap begins another part, because
// what is missing is missing before its message.
func splitFeed(feed feedID, page *FeedPage, from watchToken, resync ResyncReason) []watchPart {
	s := watchSplit{feed: feed, part: watchPart{resync: resync}, done: from}
	for i := range page.Entries {
		entry := &page.Entries[i]
		if entry.Gap != "" {
			s.gap()
		}
		s.part.entries++
		changes := entry.Changes
		if i == 0 {
			changes = changes[min(from.skip, len(changes)):]
		}
		for j := range changes {
			if s.full() {
				s.done.skip = len(entry.Changes) - len(changes) + j
				s.end()
				s.part.entries++
			}
			s.part.changes = append(s.part.changes, changes[j])
			s.part.bytes += sizeOf(&changes[j])
		}
		s.done = watchToken{after: entry.At}
	}
	if len(page.Entries) == 0 {
		s.part.entries, s.done = 1, watchToken{after: page.Next}
	}
	s.end()
	return s.parts
}

type watchSplit struct {
	feed  feedID
	parts []watchPart
	part  watchPart
	done  watchToken // what the part has so far
}

func (s *watchSplit) full() bool {
	return len(s.part.changes) >= maxMessageChanges || s.part.bytes >= maxMessageBytes
}

func (s *watchSplit) gap() {
	if s.part.changes != nil {
		s.end()
	}
	if s.part.resync == "" {
		s.part.resync = ResyncGap
	}
}

// end ends the part, unless it is empty.
func (s *watchSplit) end() {
	if s.part.changes == nil && s.part.resync == "" {
		return
	}
	s.part.token = s.done.text(s.feed)
	s.parts = append(s.parts, s.part)
	s.part = watchPart{}
}
