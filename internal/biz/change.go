package biz

import (
	"context"
	"time"
)

// ChangeKind is what a change has done to a link.
type ChangeKind uint8

// The kinds of changes.
const (
	Linked    ChangeKind = iota + 1 // there was no link
	Moved                           // to another pod
	Persisted                       // the link no longer expires, or has another owner's epoch at the same pod
	Expiring                        // the link expires, at another time than before
	Removed
	// Uncertain is a mutation whose outcome is unknown: the link may be as before, or as asked.
	Uncertain
)

// Change is a change of a link.
type Change struct {
	Kind ChangeKind
	// Link is the link after the change. Of Removed it has the epoch of the link that there was, and no pod. Of Uncertain it has the pod
	// to which the link may be bound now, NoPod if the mutation was a removal, and no epoch.
	Link     Link
	Previous PodID     // the pod before the change; NoPod: none, or not known
	By       string    // who has asked for it; "": not known
	Time     time.Time // when this process has noted it
}

// changeOf returns the change that a mutation has made.
func changeOf(change LinkChange) Change {
	c := Change{Link: change.Link, Previous: change.Previous}
	switch {
	case !change.Link.Exists():
		c.Kind, c.Link.Epoch = Removed, change.Removed
	case change.Previous == NoPod:
		c.Kind = Linked
	case change.Previous != change.Link.Pod:
		c.Kind = Moved
	case change.Link.Persistent():
		c.Kind = Persisted
	default:
		c.Kind = Expiring
	}
	return c
}

// GapReason is why changes may be missing in the feeds.
type GapReason string

// The reasons for gaps.
const (
	GapWriterDied GapReason = "WRITER_DIED" // a podlink process has ended without flushing, or was not heard of for too long
	GapStore      GapReason = "STORE"       // the store has failed over or lost data
	GapDropped    GapReason = "DROPPED"     // a process had more changes than it could keep while the store was slow or away
)

// IndexEntry is what the index of a pod says about a link to it. Authority stays with the link.
type IndexEntry struct {
	UID     string
	Epoch   Epoch     // 0: of an uncertain entry
	Expires time.Time // zero: never
	// Uncertain is set for the entry of a mutation whose outcome is unknown. A pod may have such an entry beside another one of the
	// same uid.
	Uncertain bool
	Noted     time.Time // when an uncertain entry was noted; zero: of any other entry
}

// IndexUpdate is a step on the index of a pod. Steps converge: repeated, late or in another order they give the same entries.
type IndexUpdate struct {
	Op    IndexOp
	Entry IndexEntry
}

// IndexOp is a kind of IndexUpdate.
type IndexOp uint8

// The kinds of steps.
const (
	// AddEntry puts the entry, unless one with a greater epoch is there.
	AddEntry IndexOp = iota + 1
	// RemoveEntry removes the entry of the uid unless its epoch is greater than that of the given entry.
	RemoveEntry
	// AddUncertain puts an uncertain entry, which adds and removes leave. Without Noted it is noted now.
	AddUncertain
	// DropUncertain removes the uncertain entry of the uid; with Noted, unless it was noted later.
	DropUncertain
)

// FlushPart is a part of a flush: either changes for the feed of a service, or updates for the index of one of its pods. Each part is
// carried out in one step, or not.
type FlushPart struct {
	Service ServiceKey
	Changes []Change // for the feed; nil: the part is for the index
	Pod     PodID
	Updates []IndexUpdate
}

// FeedRepo stores the change feeds, the index of links by pod, and the writers.
type FeedRepo interface {
	// Flush carries out the parts in as few round trips as there are servers, and returns an error for each, nil if it was carried out.
	// A part that has failed with ErrOutcomeUnknown may have been. No service and pod, and no service's feed, may have two parts.
	// A service with a part must be in Services from then on, and a pod with updates in IndexedPods.
	Flush(ctx context.Context, parts []FlushPart) []error
	// Beat raises the writer's counter, and returns the counters of all writers. It must register a writer that is not known.
	Beat(ctx context.Context, writer string) (map[string]int64, error)
	// Leave removes a writer. If counter is not 0 and not the writer's counter, Leave must change nothing.
	Leave(ctx context.Context, writer string, counter int64) error
	// Gap first makes the index incomplete, and then appends a gap to the feed of every known service. A call that fails may have done a
	// part of it; it is safe to repeat.
	Gap(ctx context.Context, reason GapReason) error
	// ReadFeed returns at most n entries of the service's feed after the position, the oldest first, and the position after the last of
	// them. An empty position is the feed's end: nothing is returned but the position. Trimmed is true if entries after the position were
	// trimmed: the reply then begins with the oldest that there is.
	ReadFeed(ctx context.Context, key ServiceKey, after FeedPosition, n int) (FeedPage, error)
	// Store returns the identity of the store that positions belong to: it changes when the store may have lost data; "": not known.
	Store() string
}

// FeedPosition is a place in a service's feed, as the store names it; "": its end.
type FeedPosition string

// FeedPage is a part of a feed.
type FeedPage struct {
	Entries []FeedEntry
	Next    FeedPosition // after the last entry
	Trimmed bool
}

// FeedEntry is what one flush of a process has appended to a feed: changes, or a gap.
type FeedEntry struct {
	At      FeedPosition
	Changes []Change
	Gap     GapReason // "": none
}

// IndexRepo reads and maintains the index.
type IndexRepo interface {
	// Services returns the known services of the namespace, or of all namespaces if it is empty, sorted. A known one may have neither
	// links nor pods any more.
	Services(ctx context.Context, namespace string) ([]ServiceKey, error)
	// IndexedPods returns the pods of the service with an index, sorted, and how many entries each has.
	IndexedPods(ctx context.Context, key ServiceKey) ([]IndexedPod, error)
	// Entries returns a page of at least one and about n entries of a pod, never more than n, and the token of the next page, "" after
	// the last one. An entry that stands during the whole walk must be in at least one page; an entry may be in several. A token that the
	// repo did not make gives *InvalidArgumentError for "page_token".
	Entries(ctx context.Context, key ServiceKey, pod PodID, token string, n int) ([]IndexEntry, string, error)
	// ScanLinks returns the links of the namespace, or of all namespaces if it is empty, in a part of all keys, about n keys long, and the
	// token of the next part, "" after the last one. Every link that stands during the whole walk must be in at least one part, unless the
	// walk fails with ErrScanMoved. A token that the repo did not make gives *InvalidArgumentError for "page_token"; one of the walk over
	// another namespace need not.
	ScanLinks(ctx context.Context, namespace, token string, n int) (links []Link, next string, err error)
	// Completeness returns how many gaps there were, and how many of them a census has covered.
	Completeness(ctx context.Context) (gaps, covered int64, err error)
	// Cover notes that a census has covered that many gaps.
	Cover(ctx context.Context, gaps int64) error
	// Lease takes the lease of that name for the holder, or renews it, for that time. It returns false if another holds it.
	Lease(ctx context.Context, name, holder string, ttl time.Duration) (bool, error)
	// Release ends a lease if the holder has it.
	Release(ctx context.Context, name, holder string) error
}

// IndexedPod is a pod with an index.
type IndexedPod struct {
	Pod     PodID
	Entries int64
}
