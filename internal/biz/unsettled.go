package biz

import (
	"context"
	"errors"
	"time"
)

// settleEvery is the time before each of the reads that settle an unknown outcome: a mutation that was on its way when its server was
// away has arrived a second after the server has answered a read, or never will.
const settleEvery = time.Second

// unsettled holds the links with mutations whose outcome is unknown, until two reads have settled them.
type unsettled struct {
	links   map[LinkKey]*unsettledLink
	order   []*unsettledLink // by due
	pods    int              // of all links
	reading bool             // a read is in flight
}

// unsettledLink is a link with an uncertain entry in the index of each of the pods.
type unsettledLink struct {
	key      LinkKey
	pods     map[PodID]time.Time // when the last uncertain change to it was noted
	due      time.Time           // of the next read
	answered bool                // a read was answered since the last note
	notes    int
}

// answer is the result of a read.
type answer struct {
	links   []*unsettledLink
	notes   []int // of each link, before the read
	results []LinkResult
	err     error
}

func newUnsettled() unsettled { return unsettled{links: make(map[LinkKey]*unsettledLink)} }

// note adds the pod of an uncertain change. It returns false if there are too many.
func (u *unsettled) note(c Change) bool {
	link := u.links[c.Link.Key]
	known := link != nil && !link.pods[c.Link.Pod].IsZero()
	if !known && u.pods >= maxNoted {
		return false
	}
	if link == nil {
		link = &unsettledLink{key: c.Link.Key, pods: make(map[PodID]time.Time, 1), due: c.Time.Add(settleEvery)}
		u.links[link.key] = link
		u.order = append(u.order, link)
	}
	if !known {
		u.pods++
	}
	link.pods[c.Link.Pod] = c.Time
	link.answered = false
	link.notes++
	return true
}

// next removes links that are due from the order: those of the service of the first one.
func (u *unsettled) next(now time.Time) []*unsettledLink {
	var batch []*unsettledLink
	rest := u.order[:0]
	for i, link := range u.order {
		switch {
		case link.due.After(now) || len(batch) == maxPart:
			rest = append(rest, u.order[i:]...)
			u.order = rest
			return batch
		case len(batch) == 0 || link.key.service() == batch[0].key.service():
			batch = append(batch, link)
		default:
			rest = append(rest, link)
		}
	}
	u.order = rest
	return batch
}

// again schedules the next read of a link.
func (u *unsettled) again(link *unsettledLink, now time.Time) {
	link.due = now.Add(settleEvery)
	u.order = append(u.order, link)
}

// settled removes a link.
func (u *unsettled) settled(link *unsettledLink) {
	delete(u.links, link.key)
	u.pods -= len(link.pods)
}

// settle starts a read of links that are due, unless one is in flight.
func (f *flusher) settle(work context.Context) {
	if f.unsettled.reading {
		return
	}
	read := answer{links: f.unsettled.next(time.Now())}
	if len(read.links) == 0 {
		return
	}
	f.unsettled.reading = true
	uids := make([]string, len(read.links))
	for i, link := range read.links {
		uids[i] = link.key.UID
		read.notes = append(read.notes, link.notes)
	}
	service := read.links[0].key.service()
	go func() {
		ctx, cancel := context.WithTimeout(work, maxCall)
		defer cancel()
		read.results, read.err = f.links.BatchGet(ctx, service.Namespace, service.Service, uids)
		f.answers <- read
	}()
}

// answered applies the result of a read. The links whose outcome was noted during the read need another one.
func (f *flusher) answered(read answer) {
	f.unsettled.reading = false
	now := time.Now()
	for i, link := range read.links {
		switch {
		case link.notes != read.notes[i] || read.err != nil || !isAnswered(read.results[i].Err):
			f.unsettled.again(link, now)
		case !link.answered:
			link.answered = true
			f.unsettled.again(link, now)
		default:
			f.settleAs(link, read.results[i], now)
		}
	}
}

// isAnswered reports whether the store has answered a read. What podlink has not written is not a link.
func isAnswered(err error) bool { return err == nil || errors.Is(err, ErrStoreDataCorrupt) }

// settleAs puts the link that there is into the index, and then drops the uncertain entries.
func (f *flusher) settleAs(link *unsettledLink, found LinkResult, now time.Time) {
	service := link.key.service()
	if found.Err == nil && found.Link.Exists() {
		f.update(service, indexStep{found.Link.Pod, addOf(found.Link, now)}, now)
	}
	for pod, noted := range link.pods {
		drop := IndexUpdate{DropUncertain, IndexEntry{UID: link.key.UID, Uncertain: true, Noted: noted}}
		f.update(service, indexStep{pod, drop}, now)
	}
	f.unsettled.settled(link)
}
