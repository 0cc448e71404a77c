//go:build faults

package faults

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
)

const (
	// watchHealthy is how long a watch may be silent: then the watcher goes to another podlink.
	watchHealthy = 3 * time.Second
	// watchPause is the time between two watches of a watcher.
	watchPause = 50 * time.Millisecond
)

// roster is the podlinks that run.
type roster struct {
	mu      sync.Mutex
	members []*member
	next    int
}

// member is a podlink with a connection to it.
type member struct {
	*podlinktest.Process
	conn *grpc.ClientConn
}

func newRoster(t testing.TB, podlinks []*podlinktest.Process) *roster {
	t.Helper()
	r := new(roster)
	for _, p := range podlinks {
		r.add(t, p)
	}
	return r
}

func (r *roster) add(t testing.TB, p *podlinktest.Process) {
	t.Helper()
	conn := fleetConn(t, p.GRPC)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members = append(r.members, &member{p, conn})
}

// remove removes a podlink, unless it is the last one.
func (r *roster) remove(m *member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, other := range r.members {
		if other == m {
			r.members = append(r.members[:i:i], r.members[i+1:]...)
		}
	}
}

// turn returns the podlinks in turn.
func (r *roster) turn() *member {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next++
	return r.members[r.next%len(r.members)]
}

// all returns the podlinks.
func (r *roster) all() []*member {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*member(nil), r.members...)
}

// any returns the connection to one of the podlinks.
func (r *roster) any() *grpc.ClientConn { return r.turn().conn }

// watcher watches the service, and goes on at another podlink when its own is gone.
type watcher struct {
	name string
	view *view
	// open watches at a podlink until that ends.
	open func(ctx context.Context, p *member, token string, each func(*v1.WatchLinksReply)) error

	at      atomic.Pointer[member] // where it watches
	watches atomic.Int64           // that it has begun
	taking  sync.Mutex             // held by a test that keeps it from taking messages
}

// watch starts the watchers: one over gRPC, and one over server-sent events.
func watch(t testing.TB, r *roster) []*watcher {
	t.Helper()
	watchers := []*watcher{
		{name: "over gRPC", view: newView(), open: watchGRPC}, {name: "of server-sent events", view: newView(), open: watchEvents},
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, w := range watchers {
		running.Go(func() { w.run(ctx, r) })
	}
	t.Cleanup(running.Wait)
	t.Cleanup(cancel)
	return watchers
}

func (w *watcher) run(ctx context.Context, r *roster) {
	for token := ""; ctx.Err() == nil; {
		p := r.turn()
		w.at.Store(p)
		w.watches.Add(1)
		token = w.follow(ctx, p, token)
		select {
		case <-time.After(watchPause):
		case <-ctx.Done():
		}
	}
}

// follow watches at a podlink while the watch is healthy, and returns the last token.
func (w *watcher) follow(ctx context.Context, p *member, token string) string {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(watchHealthy, cancel)
	defer silence.Stop()
	_ = w.open(ctx, p, token, func(m *v1.WatchLinksReply) {
		silence.Stop()
		w.taking.Lock()
		w.view.apply(m)
		w.taking.Unlock()
		token = m.GetToken()
		silence.Reset(watchHealthy)
	})
	return token
}

func watchGRPC(ctx context.Context, p *member, token string, each func(*v1.WatchLinksReply)) error {
	stream, err := v1.NewFleetServiceClient(p.conn).WatchLinks(ctx, &v1.WatchLinksRequest{
		Namespace: namespace, Service: listedService, ResumeToken: token,
	})
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		each(m)
	}
}

func watchEvents(ctx context.Context, p *member, token string, each func(*v1.WatchLinksReply)) error {
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	url := fmt.Sprintf("http://%s/v1/namespaces/%s/services/%s/links:watch", p.HTTP, namespace, listedService)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if token != "" {
		request.Header.Set("Last-Event-ID", token)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 16<<20)
	event := ""
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "event":
			event = value
		case "data":
			m := new(v1.WatchLinksReply)
			if event != "message" {
				return errors.New(value)
			}
			if err := protojson.Unmarshal([]byte(value), m); err != nil {
				return err
			}
			each(m)
		}
	}
	return lines.Err()
}

// caughtUp waits until the watcher has heard after the time that there is nothing more. It returns false if it has not by the deadline.
func (w *watcher) caughtUp(after, deadline time.Time) bool {
	for time.Now().Before(deadline) {
		w.view.mu.Lock()
		heard := w.view.heard
		w.view.mu.Unlock()
		if heard.After(after) {
			return true
		}
		time.Sleep(50 * time.Millisecond)
	}
	return false
}
