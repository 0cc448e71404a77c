// Package watcher follows the links of the chat's rooms: it knows which pod holds each room without asking for each.
package watcher

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc"

	v1 "podlink/api/podlink/v1"
	"podlink/examples/chat/names"
)

const (
	// silence is how long a watch is healthy without a message.
	silence = 3 * time.Second
	// again is the pause before a watch goes on elsewhere that has ended.
	again = 200 * time.Millisecond
	// readEvery is the interval at which links are read of which a change does not say enough.
	readEvery = 100 * time.Millisecond
	// spread is the time over which the watchers of a service, if there are many, list its links after a resync.
	spread = time.Second
	// listEvery is the interval between two lists until one covers all links.
	listEvery = 2 * time.Second
	// covers is how long a link must have stood to be on a complete list.
	covers = 10 * time.Second
	// callTimeout bounds a call.
	callTimeout = 3 * time.Second
	// most is the greatest size of a batch and of a page.
	most = 1000
)

// Watcher follows the links. It is safe for concurrent use.
type Watcher struct {
	fleet   v1.FleetServiceClient
	links   v1.LinkServiceClient
	view    *view
	resyncs chan time.Time // when the latest one came
}

// New returns a watcher that asks podlink over the connection.
func New(podlink grpc.ClientConnInterface) *Watcher {
	return &Watcher{
		v1.NewFleetServiceClient(podlink), v1.NewLinkServiceClient(podlink), newView(), make(chan time.Time, 1),
	}
}

// Run follows the links until ctx ends. A watch that breaks goes on where it was, at any podlink.
func (w *Watcher) Run(ctx context.Context) {
	refreshed := make(chan struct{})
	go func() {
		defer close(refreshed)
		w.refresh(ctx)
	}()
	for token := ""; ctx.Err() == nil; {
		token = w.watch(ctx, token)
		select {
		case <-time.After(again):
		case <-ctx.Done():
		}
	}
	<-refreshed
}

// watch takes in changes until the watch ends, or is not healthy any more, and returns the token with which it goes on.
func (w *Watcher) watch(ctx context.Context, token string) string {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silent := time.AfterFunc(silence, cancel)
	defer silent.Stop()
	stream, err := w.fleet.WatchLinks(ctx, &v1.WatchLinksRequest{
		Namespace: names.Namespace, Service: names.Service, ResumeToken: token,
	})
	if err != nil {
		return token
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return token
		}
		silent.Reset(silence)
		token = message.GetToken()
		w.view.take(message)
		if message.GetResync() != v1.WatchLinksReply_RESYNC_UNSPECIFIED {
			select { // Only this goroutine adds one.
			case <-w.resyncs:
			default:
			}
			w.resyncs <- time.Now()
		}
	}
}

// refresh reads links of which changes do not say enough, and all links after a resync, until ctx ends.
func (w *Watcher) refresh(ctx context.Context) {
	tick := time.NewTicker(readEvery)
	defer tick.Stop()
	var resync, reading, listing time.Time // of the last resync; when to read and when to list all links, zero: not at all
	for {
		select {
		case resync = <-w.resyncs:
			reading = resync.Add(rand.N(spread)) //nolint:gosec // It is no secret.
			listing = reading
		case now := <-tick.C:
			if !reading.IsZero() && now.After(reading) {
				w.view.readAll()
				reading = time.Time{}
			}
			w.read(ctx)
			if !listing.IsZero() && now.After(listing) {
				listing = now.Add(listEvery)
				if w.list(ctx) && now.After(resync.Add(covers)) {
					listing = time.Time{}
				}
			}
		case <-ctx.Done():
			return
		}
	}
}

// read reads the links that are to be read, or some of them. What can't be read now is read later.
func (w *Watcher) read(ctx context.Context) {
	rooms := w.view.toRead(most)
	if len(rooms) == 0 {
		return
	}
	request := &v1.BatchVerifyLinkedPodRequest{Namespace: names.Namespace, Service: names.Service, PodId: new(int32(0))}
	for room := range rooms {
		request.Items = append(request.Items, &v1.BatchVerifyLinkedPodRequest_Item{Uid: room}) // Without an epoch it is always in the reply.
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	at := time.Now()
	reply, err := w.links.BatchVerifyLinkedPod(ctx, request)
	if err == nil {
		for _, link := range reply.GetLinks() {
			w.view.read(link.GetUid(), linkOf(link, at), rooms[link.GetUid()])
			delete(rooms, link.GetUid())
		}
	}
	w.view.readLater(rooms)
}

// list learns the links that podlink lists, and reports whether these are all.
func (w *Watcher) list(ctx context.Context) bool {
	before := w.view.all()
	links, complete, err := List(ctx, w.fleet)
	if err != nil {
		return false
	}
	for room, link := range links {
		w.view.read(room, link, before[room])
	}
	return complete
}

// List returns the links that podlink lists, and whether these are all.
func List(ctx context.Context, fleet v1.FleetServiceClient) (links map[string]Link, complete bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	counts, err := fleet.CountPodLinks(ctx, &v1.CountPodLinksRequest{Namespace: names.Namespace, Service: names.Service})
	if err != nil {
		return nil, false, err
	}
	links, complete = map[string]Link{}, counts.GetComplete()
	for _, count := range counts.GetCounts() {
		of, all, err := ListPod(ctx, fleet, count.GetPodId())
		if err != nil {
			return nil, false, err
		}
		complete = complete && all
		maps.Copy(links, of)
	}
	return links, complete, nil
}

// ListPod returns the links of a pod that podlink lists, and whether these are all.
func ListPod(ctx context.Context, fleet v1.FleetServiceClient, pod int32) (links map[string]Link, complete bool, err error) {
	links = map[string]Link{}
	for token := ""; ; {
		at := time.Now()
		page, err := fleet.ListPodLinks(ctx, &v1.ListPodLinksRequest{
			Namespace: names.Namespace, Service: names.Service, PodId: &pod, PageSize: most, PageToken: token,
		})
		if err != nil {
			return nil, false, err
		}
		for _, link := range page.GetLinks() {
			links[link.GetUid()] = linkOf(link, at)
		}
		if token = page.GetNextPageToken(); token == "" {
			return links, page.GetComplete(), nil
		}
	}
}

// Told reports whether a change has said that the room is on that pod with that epoch.
func (w *Watcher) Told(room string, epoch int64, pod int32) bool {
	w.view.mu.Lock()
	defer w.view.mu.Unlock()
	said, ok := w.view.told[tenure{room, epoch}]
	return ok && said == pod
}

// Counts returns how many changes have come, and how often some were missing.
func (w *Watcher) Counts() (changes, resyncs int) {
	w.view.mu.Lock()
	defer w.view.mu.Unlock()
	return w.view.changes, w.view.resyncs
}

// Differences returns the rooms whose links the watcher does not know as they are listed, sorted.
func (w *Watcher) Differences(listed map[string]Link) []string {
	known := w.view.current()
	var differ []string
	for room, link := range listed {
		if one, ok := known[room]; !ok || !one.same(link) {
			differ = append(differ, room)
		}
	}
	for room := range known {
		if _, ok := listed[room]; !ok {
			differ = append(differ, room)
		}
	}
	slices.Sort(differ)
	return differ
}
