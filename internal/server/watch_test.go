package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
	"podlink/internal/service"
)

// memoryFeed is a FeedRepo with one feed in memory.
type memoryFeed struct {
	biz.FeedRepo // Watches only reads.

	mu      sync.Mutex
	entries []biz.FeedEntry
}

// Store implements biz.FeedRepo.
func (*memoryFeed) Store() string { return "memory" }

// ReadFeed implements biz.FeedRepo.
func (f *memoryFeed) ReadFeed(_ context.Context, _ biz.ServiceKey, after biz.FeedPosition, n int) (biz.FeedPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from := len(f.entries)
	if after != "" {
		from, _ = strconv.Atoi(string(after))
	}
	to := min(from+n, len(f.entries))
	return biz.FeedPage{Entries: f.entries[from:to], Next: biz.FeedPosition(strconv.Itoa(to))}, nil
}

// link appends a link that was made.
func (f *memoryFeed) link(uid string, pod biz.PodID) {
	f.append(biz.Change{
		Kind: biz.Linked, Link: biz.Link{Key: biz.LinkKey{Namespace: "ns", UID: uid, Service: "svc"}, Pod: pod, TTL: biz.Forever, Epoch: 5},
		Previous: biz.NoPod, By: "token:chat", Time: time.UnixMilli(1_800_000_000_123),
	})
}

func (f *memoryFeed) append(changes ...biz.Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entries = append(f.entries, biz.FeedEntry{At: biz.FeedPosition(strconv.Itoa(len(f.entries) + 1)), Changes: changes})
}

// watchedServer serves watches on both transports.
type watchedServer struct {
	*observedServer

	feed   *memoryFeed
	url    string           // of HTTP
	secure *httptest.Server // of HTTP/2
}

func serveWatches(t *testing.T, access *Access) *watchedServer {
	t.Helper()
	feed := new(memoryFeed)
	watches := biz.NewWatches(feed, biz.WatchLimits{Watches: 2000, Services: 10}, biz.NopWatchObserver{})
	t.Cleanup(watches.Close)
	p := newParts(t)
	p.config.Stop.Drain.Reset()
	p.drain = NewDrain(p.config)
	p.fleet = service.NewFleetService(nil, watches, nil, nil)
	w := &watchedServer{observedServer: serveGuarded(t, access, p), feed: feed}
	plain, secure := httptest.NewUnstartedServer(w.http), httptest.NewUnstartedServer(w.http)
	for _, server := range []*httptest.Server{plain, secure} {
		server.Config.ReadTimeout, server.Config.WriteTimeout = 300*time.Millisecond, 300*time.Millisecond // Of requests.
		t.Cleanup(server.Close)
	}
	secure.EnableHTTP2 = true
	plain.Start()
	secure.StartTLS()
	w.url, w.secure = plain.URL, secure
	return w
}

// watching is a watch on a transport.
type watching interface {
	// message returns the next message, or how the watch has ended. next is message without those that have neither changes nor a resync.
	message() (*v1.WatchLinksReply, error)
	next() (*v1.WatchLinksReply, error)
	stop()
}

func nextOf(w watching) (*v1.WatchLinksReply, error) {
	for {
		m, err := w.message()
		if err != nil || len(m.GetChanges()) > 0 || m.GetResync() != 0 {
			return m, err
		}
	}
}

type grpcWatch struct {
	v1.FleetService_WatchLinksClient

	cancel context.CancelFunc
}

func (g grpcWatch) message() (*v1.WatchLinksReply, error) { return g.Recv() }

func (g grpcWatch) next() (*v1.WatchLinksReply, error) { return nextOf(g) }

func (g grpcWatch) stop() { g.cancel() }

type eventWatch struct {
	reply *http.Response
	lines *bufio.Scanner
}

func (e eventWatch) message() (*v1.WatchLinksReply, error) {
	event, err := e.event()
	if err != nil {
		return nil, err
	}
	m := new(v1.WatchLinksReply)
	if err := protojson.Unmarshal([]byte(event["data"]), m); err != nil {
		return nil, err
	}
	if event["id"] != m.GetToken() {
		return nil, errors.New("the id is not the token")
	}
	return m, nil
}

func (e eventWatch) next() (*v1.WatchLinksReply, error) { return nextOf(e) }

// event returns the fields of the next event.
func (e eventWatch) event() (map[string]string, error) {
	fields := make(map[string]string)
	for e.lines.Scan() {
		name, value, _ := strings.Cut(e.lines.Text(), ": ")
		switch {
		case name != "":
			fields[name] = value
		case fields["event"] == "message":
			return fields, nil
		case fields["event"] == "failure":
			var failure errorBody
			if err := json.Unmarshal([]byte(fields["data"]), &failure); err != nil {
				return nil, err
			}
			return nil, errors.New(failure.Reason)
		default:
			clear(fields) // retry
		}
	}
	return nil, errors.Join(io.EOF, e.lines.Err())
}

func (e eventWatch) stop() { _ = e.reply.Body.Close() }

// watchOver opens a watch by each transport.
var watchOver = map[string]func(t *testing.T, w *watchedServer, caller string, r *v1.WatchLinksRequest) watching{
	"grpc": func(t *testing.T, w *watchedServer, caller string, r *v1.WatchLinksRequest) watching {
		t.Helper()
		ctx, cancel := context.WithCancel(as(t, caller))
		t.Cleanup(cancel)
		stream, err := v1.NewFleetServiceClient(w.conn).WatchLinks(ctx, r)
		require.NoError(t, err)
		return grpcWatch{stream, cancel}
	},
	"http": func(t *testing.T, w *watchedServer, caller string, r *v1.WatchLinksRequest) watching {
		t.Helper()
		return watchEvents(t, http.DefaultClient, w.url, caller, r)
	},
	"http2": func(t *testing.T, w *watchedServer, caller string, r *v1.WatchLinksRequest) watching {
		t.Helper()
		events := watchEvents(t, w.secure.Client(), w.secure.URL, caller, r)
		require.Equal(t, 2, events.reply.ProtoMajor)
		return events
	},
}

func watchEvents(t *testing.T, client *http.Client, base, caller string, r *v1.WatchLinksRequest) eventWatch {
	t.Helper()
	path := fmt.Sprintf("%s/v1/namespaces/%s/services/%s/links:watch?uid=%s", base, r.GetNamespace(), r.GetService(), r.GetUid())
	if r.PodId != nil {
		path += fmt.Sprintf("&podId=%d", r.GetPodId())
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer "+caller)
	request.Header.Set(lastEventID, r.GetResumeToken())
	reply, err := client.Do(request)
	require.NoError(t, err)
	t.Cleanup(func() { _ = reply.Body.Close() })
	require.Equal(t, http.StatusOK, reply.StatusCode)
	require.Equal(t, "text/event-stream", reply.Header.Get("Content-Type"))
	require.Equal(t, "no-store", reply.Header.Get("Cache-Control"))
	return eventWatch{reply, bufio.NewScanner(reply.Body)}
}

// TestWatchLinks: every transport sends the changes of a service, for as long as the caller likes, and a token goes on where it was.
func TestWatchLinks(t *testing.T) {
	for over, open := range watchOver {
		t.Run(over, func(t *testing.T) {
			w := serveWatches(t, nil)
			stream := open(t, w, "", &v1.WatchLinksRequest{Namespace: "ns", Service: "svc"})
			first, err := stream.next()
			require.NoError(t, err)
			require.Equal(t, v1.WatchLinksReply_START, first.GetResync())
			require.Empty(t, first.GetChanges())

			w.feed.link("ann", 2)
			got, err := stream.next()
			require.NoError(t, err)
			require.Empty(t, got.GetResync())
			text, err := appendJSON(nil, got)
			require.NoError(t, err)
			require.JSONEq(t, `{"changes":[{"kind":"LINKED","link":{"namespace":"ns","uid":"ann","service":"svc","podId":2,"persistent":true,
				"ttlSeconds":-1,"epoch":"5","claim":"0"},"previousPodId":-1,"by":"token:chat","time":"2027-01-15T08:00:00.123Z"}],
				"resync":"RESYNC_UNSPECIFIED","token":"`+got.GetToken()+`"}`, string(text))

			time.Sleep(400 * time.Millisecond) // Longer than a request may take.
			w.feed.link("bob", 3)
			got, err = stream.next()
			require.NoError(t, err)
			require.Equal(t, "bob", got.GetChanges()[0].GetLink().GetUid())
			stream.stop()

			w.feed.link("bob", 4)
			w.feed.link("cat", 4)
			stream = open(t, w, "", &v1.WatchLinksRequest{
				Namespace: "ns", Service: "svc", Uid: "cat", PodId: new(int32(4)), ResumeToken: got.GetToken(),
			})
			got, err = stream.next()
			require.NoError(t, err)
			require.Empty(t, got.GetResync())
			require.Equal(t, "cat", got.GetChanges()[0].GetLink().GetUid())
			stream.stop()
			require.Eventually(t, func() bool { return len(w.spans.Ended()) == 2 }, 10*time.Second, time.Millisecond)
			require.NotEmpty(t, w.counted(t, v1.FleetService_WatchLinks_FullMethodName))
		})
	}
}

// TestWatchEndsAtADrain: a stream says where it stands, even if nothing concerned it for a while, and why it ends.
func TestWatchEndsAtADrain(t *testing.T) {
	for over, open := range watchOver {
		t.Run(over, func(t *testing.T) {
			w := serveWatches(t, nil)
			all := open(t, w, "", &v1.WatchLinksRequest{Namespace: "ns", Service: "svc"})
			stream := open(t, w, "", &v1.WatchLinksRequest{Namespace: "ns", Service: "svc", Uid: "zoe"})
			for _, one := range []watching{all, stream} {
				_, err := one.next()
				require.NoError(t, err)
			}
			w.feed.link("ann", 2)
			passed, err := all.next()
			require.NoError(t, err)
			require.NoError(t, w.drain.Run(t.Context()))
			var last *v1.WatchLinksReply
			for err == nil {
				var m *v1.WatchLinksReply
				if m, err = stream.message(); err == nil {
					last = m
				}
			}
			require.Equal(t, passed.GetToken(), last.GetToken())
			if over == "grpc" {
				require.Equal(t, codes.Canceled, status.Code(err))
				require.Contains(t, err.Error(), "podlink is stopping")
			} else {
				require.EqualError(t, err, v1.ErrorReason_CANCELED.String())
			}
		})
	}
}

// TestWatchRefusals: before the first message an error is an ordinary reply.
func TestWatchRefusals(t *testing.T) {
	w := serveWatches(t, admitting(guests{}))
	for _, row := range []struct {
		name, path, caller, lastEvent, reason, field string
		code                                         int
	}{
		{"no such caller", "/v1/namespaces/ns/services/svc/links:watch", "stranger", "", "UNAUTHENTICATED", "", 401},
		{"a bad name", "/v1/namespaces/ns/services/a:b/links:watch", "chat", "", "INVALID_ARGUMENT", "service", 400},
		{"a bad pod", "/v1/namespaces/ns/services/svc/links:watch?podId=x", "chat", "", "INVALID_ARGUMENT", "pod_id", 400},
		{"an unknown parameter", "/v1/namespaces/ns/services/svc/links:watch?pod=1", "chat", "", "INVALID_ARGUMENT", "pod", 400},
		{"a bad token", "/v1/namespaces/ns/services/svc/links:watch?resumeToken=%3F", "chat", "", "INVALID_ARGUMENT", "resume_token", 400},
		{"a bad last event", "/v1/namespaces/ns/services/svc/links:watch", "chat", "%\xff", "INVALID_ARGUMENT", "resume_token", 400},
	} {
		t.Run(row.name, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+row.path, http.NoBody)
			require.NoError(t, err)
			request.Header.Set("Authorization", "Bearer "+row.caller)
			if row.lastEvent != "" {
				request.Header[lastEventID] = []string{row.lastEvent}
			}
			reply, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			defer reply.Body.Close()
			var body errorBody
			require.NoError(t, json.NewDecoder(reply.Body).Decode(&body))
			require.Equal(t, row.code, reply.StatusCode)
			require.Equal(t, row.reason, body.Reason)
			require.Equal(t, row.field, body.Metadata["field"])
		})
	}
}

// TestEventsAreWrittenInTime: a caller that does not read its events is cut off, and the stream ends.
func TestEventsAreWrittenInTime(t *testing.T) {
	w := serveWatches(t, nil)
	stream := watchOver["http"](t, w, "", &v1.WatchLinksRequest{Namespace: "ns", Service: "svc"})
	_, err := stream.next()
	require.NoError(t, err)
	change := biz.Change{Kind: biz.Linked, Link: biz.Link{Key: biz.LinkKey{Namespace: "ns", UID: strings.Repeat("u", 200), Service: "svc"}}}
	require.Eventually(t, func() bool { // The buffers of a connection take some megabytes.
		w.feed.append(slices.Repeat([]biz.Change{change}, 500)...)
		return len(w.spans.Ended()) == 1
	}, 6*writeTimeout, 20*time.Millisecond)
}
