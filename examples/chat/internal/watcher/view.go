package watcher

import (
	"maps"
	"sync"
	"time"

	v1 "podlink/api/podlink/v1"
)

// Link is what is known of a room's link.
type Link struct {
	Pod        int32 // -1: there is none
	Epoch      int64 // without a link that of the last one, as far as that is known
	Persistent bool
	ends       time.Time // of a temporary link
}

// linkOf returns the link as it was at that time.
func linkOf(l *v1.Link, at time.Time) Link {
	return Link{l.GetPodId(), l.GetEpoch(), l.GetPersistent(), at.Add(time.Duration(l.GetTtlSeconds()) * time.Second)}
}

// same reports whether both are the same link; when it expires may differ.
func (l Link) same(other Link) bool {
	return l.Pod == other.Pod && l.Epoch == other.Epoch && l.Persistent == other.Persistent
}

// tenure is the time that a room spends with an epoch.
type tenure struct {
	room  string
	epoch int64
}

// view is what a watcher knows of the links of a service.
type view struct {
	mu      sync.Mutex
	links   map[string]Link
	unread  map[string]bool  // rooms whose link is to be read
	told    map[tenure]int32 // the pods that changes have named
	changes int
	resyncs int
}

func newView() *view {
	return &view{links: map[string]Link{}, unread: map[string]bool{}, told: map[tenure]int32{}}
}

// take takes in a message of the watch.
func (v *view) take(message *v1.WatchLinksReply) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, c := range message.GetChanges() {
		v.changes++
		v.apply(c)
	}
	if message.GetResync() != v1.WatchLinksReply_RESYNC_UNSPECIFIED {
		v.resyncs++
	}
}

// apply takes in a change. The greater epoch is the later one, and of one epoch REMOVED is the last. Of one epoch a change does not
// say whether the link expires, nor does UNCERTAIN say anything for certain: then the link is read. The caller must hold the lock.
func (v *view) apply(c *v1.LinkChange) {
	room := c.GetLink().GetUid()
	known, isKnown := v.links[room]
	now := linkOf(c.GetLink(), c.GetTime().AsTime())
	if c.GetKind() != v1.LinkChange_UNCERTAIN && c.GetKind() != v1.LinkChange_REMOVED {
		v.told[tenure{room, now.Epoch}] = now.Pod
	}
	switch {
	case c.GetKind() == v1.LinkChange_UNCERTAIN:
		v.unread[room] = true
	case isKnown && now.Epoch < known.Epoch:
	case c.GetKind() == v1.LinkChange_REMOVED:
		v.links[room] = Link{Pod: -1, Epoch: now.Epoch}
	case !isKnown || now.Epoch > known.Epoch:
		v.links[room] = now
	case known.Pod >= 0 && (!known.Persistent || !now.Persistent):
		v.unread[room] = true
	}
}

// readAll makes all links be read: changes of them are missing.
func (v *view) readAll() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for room := range v.links {
		v.unread[room] = true
	}
}

// toRead returns at most n rooms whose link is to be read, with what is known of it.
func (v *view) toRead(n int) map[string]Link {
	v.mu.Lock()
	defer v.mu.Unlock()
	rooms := map[string]Link{}
	for room := range v.unread {
		if len(rooms) == n {
			break
		}
		rooms[room] = v.links[room]
		delete(v.unread, room) // A change from now on may be later than what will be read.
	}
	return rooms
}

// readLater makes links be read after all: they could not be.
func (v *view) readLater(rooms map[string]Link) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for room := range rooms {
		v.unread[room] = true
	}
}

// read takes in a link that was read. before is what was known when podlink was asked: if a change has come since, that or what was read
// may be the later one, and the link is read again.
func (v *view) read(room string, link, before Link) {
	v.mu.Lock()
	defer v.mu.Unlock()
	known := v.links[room]
	switch {
	case known != before:
		if !known.same(link) {
			v.unread[room] = true
		}
	case link.Pod < 0:
		v.links[room] = Link{Pod: -1, Epoch: known.Epoch}
	default:
		v.links[room] = link
	}
}

// all returns what is known of all rooms.
func (v *view) all() map[string]Link {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.links)
}

// current returns the links that there are. An expiry is no change: the last one says when it comes.
func (v *view) current() map[string]Link {
	links := v.all()
	maps.DeleteFunc(links, func(_ string, l Link) bool { return l.Pod < 0 || !l.Persistent && time.Now().After(l.ends) })
	return links
}
