package client

import (
	"context"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

// fakeFeed is a podlink in this process whose watches say what a test makes them say.
type fakeFeed struct {
	*fakePodlink

	feedMu  sync.Mutex
	streams []*fakeStream           // that are open
	opened  []*v1.WatchLinksRequest // all that were
	refuse  error                   // of a stream that is opened
	log     []*v1.WatchLinksReply   // what was said; a token is its length then
}

func newFakeFeed() *fakeFeed { return &fakeFeed{fakePodlink: newFakePodlink()} }

// watching returns a client that watches.
func (f *fakeFeed) watching(t testing.TB) *Client {
	t.Helper()
	c := NewOver(f, DefaultTimeout)
	c.watches = newLinkWatches(c.fleet)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// watchingRouter returns a router of such a client, and the call of a user that it makes. The call returns the pod.
func (f *fakeFeed) watchingRouter(t testing.TB) (*Router, func(uid string) int32) {
	t.Helper()
	r, err := f.watching(t).NewRouter(testNamespace, testService, RouterOptions{})
	require.NoError(t, err)
	return r, podOf(t, r)
}

// podOf returns what finds a user's pod as a call does.
func podOf(t testing.TB, r *Router) func(uid string) int32 {
	return func(uid string) int32 {
		t.Helper()
		link, err := r.links.get(context.Background(), uid)
		require.NoError(t, err)
		return link.pod
	}
}

// say sends a message to each open stream, with the next token.
func (f *fakeFeed) say(m *v1.WatchLinksReply) {
	f.feedMu.Lock()
	defer f.feedMu.Unlock()
	f.log = append(f.log, m)
	m.Token = f.token()
	for _, s := range f.streams {
		s.queue <- proto.CloneOf(m)
	}
}

// token resumes after what was said. The caller holds feedMu.
func (f *fakeFeed) token() string { return strconv.Itoa(len(f.log)) }

// changes says that the links are these now.
func (f *fakeFeed) changes(kind v1.LinkChange_Kind, uid string, link *v1.Link) {
	link = proto.CloneOf(link)
	link.Uid = uid
	f.say(&v1.WatchLinksReply{Changes: []*v1.LinkChange{{Kind: kind, Link: link}}})
}

// cut ends the streams as a connection that breaks does. Refuse is what further ones get; nil: they are opened.
func (f *fakeFeed) cut(refuse error) {
	f.feedMu.Lock()
	defer f.feedMu.Unlock()
	f.refuse = refuse
	for _, s := range f.streams {
		close(s.queue)
	}
	f.streams = nil
}

// requests returns what the streams were opened with.
func (f *fakeFeed) requests() []*v1.WatchLinksRequest {
	f.feedMu.Lock()
	defer f.feedMu.Unlock()
	return append([]*v1.WatchLinksRequest(nil), f.opened...)
}

var errCut = status.Error(codes.Unavailable, "error reading from server: EOF")

// NewStream implements grpc.ClientConnInterface.
func (f *fakeFeed) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return &fakeStream{ctx: ctx, feed: f, queue: make(chan *v1.WatchLinksReply, 4096)}, nil
}

// fakeStream is a stream of a fakeFeed.
type fakeStream struct {
	ctx   context.Context
	feed  *fakeFeed
	queue chan *v1.WatchLinksReply
}

// SendMsg implements grpc.ClientStream: the request opens the stream.
func (s *fakeStream) SendMsg(m any) error {
	f := s.feed
	f.feedMu.Lock()
	defer f.feedMu.Unlock()
	request := m.(*v1.WatchLinksRequest)
	f.opened = append(f.opened, proto.CloneOf(request))
	if f.refuse != nil {
		close(s.queue)
		return nil
	}
	if missed, err := strconv.Atoi(request.GetResumeToken()); err == nil {
		for _, m := range f.log[missed:] {
			s.queue <- proto.CloneOf(m)
		}
	} else {
		s.queue <- &v1.WatchLinksReply{Token: f.token(), Resync: v1.WatchLinksReply_START}
	}
	f.streams = append(f.streams, s)
	return nil
}

// RecvMsg implements grpc.ClientStream.
func (s *fakeStream) RecvMsg(m any) error {
	select {
	case message, ok := <-s.queue:
		if !ok {
			s.feed.feedMu.Lock()
			defer s.feed.feedMu.Unlock()
			if s.feed.refuse != nil {
				return s.feed.refuse
			}
			return errCut
		}
		proto.Merge(m.(proto.Message), message)
		return nil
	case <-s.ctx.Done():
		return status.FromContextError(s.ctx.Err()).Err()
	}
}

// The rest of grpc.ClientStream.
func (s *fakeStream) Header() (metadata.MD, error) { return nil, nil } //nolint:nilnil // It has none.
func (s *fakeStream) Trailer() metadata.MD         { return nil }
func (s *fakeStream) CloseSend() error             { return nil }
func (s *fakeStream) Context() context.Context     { return s.ctx }
