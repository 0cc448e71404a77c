//go:build faults

package faults

import (
	"fmt"
	"slices"
	"sync"
	"time"

	v1 "podlink/api/podlink/v1"
)

// view is what a watcher knows about the links of a service, by the rules of WatchLinks.
type view struct {
	mu      sync.Mutex
	links   map[string]known // by uid
	unsure  map[string]bool  // uids whose link must be read
	old     bool             // told to resync
	changes int              // applied
	resyncs map[v1.WatchLinksReply_Resync]int
	heard   time.Time // when the last message without changes came: then there were none
}

// known is what the latest change of a link says.
type known struct {
	kind    v1.LinkChange_Kind
	pod     int32
	epoch   int64
	expires time.Time // zero: never
	change  int       // its number in the view
}

func newView() *view {
	return &view{links: make(map[string]known), unsure: make(map[string]bool), resyncs: make(map[v1.WatchLinksReply_Resync]int)}
}

// apply applies a message.
func (v *view) apply(m *v1.WatchLinksReply) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(m.GetChanges()) == 0 && m.GetResync() == v1.WatchLinksReply_RESYNC_UNSPECIFIED {
		v.heard = time.Now()
	}
	if m.GetResync() != v1.WatchLinksReply_RESYNC_UNSPECIFIED {
		v.old = true
		v.resyncs[m.GetResync()]++
	}
	for _, c := range m.GetChanges() {
		v.changes++
		v.change(c)
	}
}

// change applies a change. The caller must hold mu.
func (v *view) change(c *v1.LinkChange) {
	uid := c.GetLink().GetUid()
	if c.GetKind() == v1.LinkChange_UNCERTAIN {
		v.unsure[uid] = true
		return
	}
	now := known{kind: c.GetKind(), pod: c.GetLink().GetPodId(), epoch: c.GetLink().GetEpoch(), change: v.changes}
	if seconds := c.GetLink().GetTtlSeconds(); seconds >= 0 {
		now.expires = c.GetTime().AsTime().Add(time.Duration(seconds) * time.Second)
	}
	before, found := v.links[uid]
	switch {
	case !found || now.epoch > before.epoch:
		v.links[uid] = now
	case now.epoch < before.epoch, before.kind == v1.LinkChange_REMOVED:
		// It came late.
	case now.kind == v1.LinkChange_REMOVED, before.first():
		v.links[uid] = now
	case now.first(), now.kind == before.kind && now.expires.Equal(before.expires):
		// It came late, or twice.
	default:
		v.links[uid], v.unsure[uid] = now, true
	}
}

// first reports whether no other change can precede it with the same epoch.
func (k known) first() bool { return k.kind == v1.LinkChange_LINKED || k.kind == v1.LinkChange_MOVED }

// stands reports whether there is a link.
func (k known) stands(now time.Time) bool {
	return k.kind != v1.LinkChange_REMOVED && (k.expires.IsZero() || now.Before(k.expires))
}

// position returns how many changes were applied.
func (v *view) position() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changes
}

// refresh replaces what a resync has made old by the lists, which were read after so many changes. It does nothing without a resync.
func (v *view) refresh(listed map[string]stored, after int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.old {
		return
	}
	fresh := make(map[string]known, len(listed))
	for uid, l := range listed {
		fresh[uid] = known{kind: v1.LinkChange_LINKED, pod: l.pod, epoch: l.epoch}
	}
	for uid, k := range v.links {
		if k.change > after && k.epoch >= fresh[uid].epoch {
			fresh[uid] = k
		}
	}
	v.links, v.old = fresh, false
}

// unread returns the uids whose link must be read.
func (v *view) unread() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var uids []string
	for uid := range v.unsure {
		uids = append(uids, uid)
	}
	return uids
}

// read replaces what is known about a uid by its link, as it was read.
func (v *view) read(l *v1.Link) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.unsure, l.GetUid())
	if l.GetPodId() == noPod {
		delete(v.links, l.GetUid())
		return
	}
	v.links[l.GetUid()] = known{kind: v1.LinkChange_LINKED, pod: l.GetPodId(), epoch: l.GetEpoch(), change: v.changes}
}

// differs describes how the view differs from the truth; "": it does not.
func (v *view) differs(truth map[string]stored) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	now, seen := time.Now(), make(map[string]stored, len(v.links))
	for uid, k := range v.links {
		if k.stands(now) {
			seen[uid] = stored{k.pod, k.epoch}
		}
	}
	return difference(seen, truth)
}

// difference describes how links differ from the truth; "": they do not.
func difference(seen, truth map[string]stored) string {
	var missing, wrong, foreign []string
	for uid, is := range truth {
		switch was, found := seen[uid]; {
		case !found:
			missing = append(missing, fmt.Sprintf("%s of pod %d", uid, is.pod))
		case was != is:
			wrong = append(wrong, fmt.Sprintf("%s on pod %d with epoch %d, not %d with %d", uid, was.pod, was.epoch, is.pod, is.epoch))
		}
	}
	for uid, was := range seen {
		if _, found := truth[uid]; !found {
			foreign = append(foreign, fmt.Sprintf("%s on pod %d", uid, was.pod))
		}
	}
	if len(missing)+len(wrong)+len(foreign) == 0 {
		return ""
	}
	return fmt.Sprintf("of %d links %s missing, %s wrong, and %s which do not exist", len(truth), some(missing), some(wrong), some(foreign))
}

// some returns how many there are, with an example.
func some(of []string) string {
	if len(of) == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s)", len(of), slices.Min(of))
}
