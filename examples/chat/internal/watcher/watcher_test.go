package watcher

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// podlink is a podlink for one watcher, which does what the test says.
type podlink struct {
	watches chan *watch // that were opened

	mu       sync.Mutex
	links    map[string]*v1.Link
	complete bool
	down     bool
	lists    int // how often the links were counted, with which a list begins
}

// watch is an open watch. A message nil ends it.
type watch struct {
	grpc.ClientStream

	ctx      context.Context //nolint:containedctx // It is the stream's.
	opened   chan *watch
	token    string // with which it was opened
	messages chan *v1.WatchLinksReply
}

func (w *watch) SendMsg(m any) error {
	w.token = m.(*v1.WatchLinksRequest).GetResumeToken() //nolint:forcetypeassert // A test.
	select {
	case w.opened <- w:
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

func (w *watch) CloseSend() error { return nil }

func (w *watch) RecvMsg(m any) error {
	select {
	case message := <-w.messages:
		if message == nil {
			return errors.New("the stream has ended")
		}
		proto.Merge(m.(proto.Message), message) //nolint:forcetypeassert // A test.
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

func (p *podlink) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return &watch{ctx: ctx, opened: p.watches, messages: make(chan *v1.WatchLinksReply)}, nil
}

func (p *podlink) Invoke(_ context.Context, _ string, request, reply any, _ ...grpc.CallOption) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		return errors.New("podlink does not answer")
	}
	switch request := request.(type) {
	case *v1.CountPodLinksRequest:
		p.lists++
		counts := reply.(*v1.CountPodLinksReply) //nolint:forcetypeassert // A test.
		counts.Counts, counts.Complete = []*v1.CountPodLinksReply_PodCount{{PodId: 0}, {PodId: 1}}, p.complete
	case *v1.ListPodLinksRequest:
		p.list(request, reply.(*v1.ListPodLinksReply)) //nolint:forcetypeassert // A test.
	case *v1.BatchVerifyLinkedPodRequest:
		links := reply.(*v1.BatchVerifyLinkedPodReply) //nolint:forcetypeassert // A test.
		for _, item := range request.GetItems() {
			link := p.links[item.GetUid()]
			if link == nil {
				link = &v1.Link{Uid: item.GetUid(), PodId: -1}
			}
			links.Links = append(links.Links, link)
		}
	}
	return nil
}

// list answers each link of the pod on a page for itself.
func (p *podlink) list(request *v1.ListPodLinksRequest, reply *v1.ListPodLinksReply) {
	reply.Complete = p.complete
	for uid, link := range p.links {
		switch {
		case link.GetPodId() != request.GetPodId() || uid <= request.GetPageToken():
		case len(reply.GetLinks()) == 0 || uid < reply.GetNextPageToken():
			reply.Links, reply.NextPageToken = []*v1.Link{link}, uid
		}
	}
}

// set changes what podlink knows.
func (p *podlink) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *podlink) listed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lists
}

func link(uid string, pod int32, epoch int64) *v1.Link {
	return &v1.Link{Uid: uid, PodId: pod, Epoch: epoch, Persistent: true, TtlSeconds: -1}
}

// watching runs the test with a watcher, in virtual time.
func watching(t *testing.T, test func(t *testing.T, p *podlink, w *Watcher)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &podlink{watches: make(chan *watch, 1), links: map[string]*v1.Link{}, complete: true}
		w := New(p)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			w.Run(ctx)
		}()
		defer func() {
			stop()
			<-ended
		}()
		test(t, p, w)
	})
}

// TestWatchGoesOn: a watch that ends, and one from which nothing comes, goes on after its last message.
func TestWatchGoesOn(t *testing.T) {
	watching(t, func(t *testing.T, p *podlink, _ *Watcher) {
		first := <-p.watches
		require.Empty(t, first.token)
		first.messages <- &v1.WatchLinksReply{Token: "one", Resync: v1.WatchLinksReply_START}
		first.messages <- &v1.WatchLinksReply{Token: "two"}
		first.messages <- nil

		second := <-p.watches
		require.Equal(t, "two", second.token)
		time.Sleep(silence - time.Millisecond)
		second.messages <- &v1.WatchLinksReply{Token: "three"}
		began := time.Now()
		third := <-p.watches
		require.Equal(t, "three", third.token)
		require.Equal(t, silence+again, time.Since(began))
		require.Error(t, second.ctx.Err(), "it is closed")
	})
}

// TestResync: after a resync the watcher learns the links that it does not know, and that others are gone. It lists them until one list
// covers all of them.
func TestResync(t *testing.T) {
	watching(t, func(t *testing.T, p *podlink, w *Watcher) {
		stream := <-p.watches
		go func() {
			for { // An empty message each second.
				select {
				case <-time.After(time.Second):
					stream.messages <- &v1.WatchLinksReply{Token: "later"}
				case <-stream.ctx.Done():
					return
				}
			}
		}()
		stream.messages <- &v1.WatchLinksReply{Token: "one", Changes: []*v1.LinkChange{change(v1.LinkChange_LINKED, 0, 5)}}
		p.set(func() { // The feed has lost that the room's link was removed, and all others.
			p.links["a"], p.links["b"], p.links["c"] = link("a", 0, 1), link("b", 0, 2), link("c", 1, 3)
			p.complete = false
		})
		stream.messages <- &v1.WatchLinksReply{Token: "two", Resync: v1.WatchLinksReply_GAP}
		time.Sleep(spread + 2*readEvery)
		want := map[string]Link{}
		for uid, l := range p.links {
			want[uid] = linkOf(l, time.Now())
		}
		require.Empty(t, w.Differences(want))

		time.Sleep(covers)
		before := p.listed()
		require.Greater(t, before, 1, "the lists are not complete")
		p.set(func() {
			p.complete = true
			p.links["d"] = link("d", 1, 9)
		})
		time.Sleep(2 * listEvery)
		require.Equal(t, before+1, p.listed(), "one complete list is enough")
		require.Contains(t, w.view.current(), "d")
		_, resyncs := w.Counts()
		require.Equal(t, 1, resyncs)
	})
}

// TestCompleteTooSoon: a list just after a resync may lack links that have stood for less than ten seconds.
func TestCompleteTooSoon(t *testing.T) {
	watching(t, func(t *testing.T, p *podlink, w *Watcher) {
		(<-p.watches).messages <- &v1.WatchLinksReply{Token: "one", Resync: v1.WatchLinksReply_START}
		time.Sleep(covers)
		p.set(func() { p.links["late"] = link("late", 0, 1) })
		time.Sleep(2 * listEvery)
		require.Contains(t, w.view.current(), "late")
		lists := p.listed()
		time.Sleep(time.Minute)
		require.Equal(t, lists, p.listed())
	})
}

// TestReadsWhenItCan: a link of which a change does not say enough is read when podlink answers.
func TestReadsWhenItCan(t *testing.T) {
	watching(t, func(t *testing.T, p *podlink, w *Watcher) {
		p.set(func() { p.down, p.links[testRoom] = true, link(testRoom, 1, 7) })
		(<-p.watches).messages <- &v1.WatchLinksReply{Token: "one", Changes: []*v1.LinkChange{change(v1.LinkChange_UNCERTAIN, 1, 0)}}
		time.Sleep(time.Second)
		require.Empty(t, w.view.current())
		require.False(t, w.list(t.Context()))
		p.set(func() { p.down = false })
		time.Sleep(2 * readEvery)
		require.Empty(t, w.Differences(map[string]Link{testRoom: {Pod: 1, Epoch: 7, Persistent: true}}))
	})
}
