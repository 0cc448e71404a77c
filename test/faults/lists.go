//go:build faults

package faults

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

const (
	// settled is how long a link stands until a complete list must have it.
	settled = 10 * time.Second
	// completeTimeout bounds how long lists may be incomplete after a fault, and gapTimeout how long until a fault is noticed: a dead podlink
	// is found after 5 s; and as much again, and more, for a busy machine.
	completeTimeout, gapTimeout = 45 * time.Second, 15 * time.Second
	// beforeFault and afterFault are how long the load lasts before and after a fault.
	beforeFault, afterFault = time.Second, 500 * time.Millisecond
)

// listStore is the Redis of a scenario.
type listStore struct {
	env []string // makes podlink use it
	// primaries returns a client of each primary.
	primaries func() []*redis.Client
}

// lists is a service whose lists and watches are compared with the store after each fault.
type lists struct {
	listStore
	binary   string
	roster   *roster
	watchers []*watcher
	load     *changing // nil: none runs
	report   *Report
	unaided  int // views that were right without a resync
	// sought ends a run early: texts that its violations must have. None: it does not end early.
	sought []string
}

// listFault is a fault, and what must follow it.
type listFault struct {
	name   string
	inject func(t *testing.T, l *lists)
	gap    bool // Changes may be lost, so every watcher must be told GAP.
	slow   bool // The first watcher must be told SLOW.
}

// startLists starts podlinks with a service whose pods have reported, and watchers of it.
func startLists(t *testing.T, binary string, store listStore, podlinks int) *lists {
	t.Helper()
	l := &lists{listStore: store, binary: binary, report: &Report{Name: strings.TrimPrefix(t.Name(), "Test")}}
	l.roster = newRoster(t, start(t, binary, podlinks, store.env...))
	reportPods(t, l.roster.any())
	l.watchers = watch(t, l.roster)
	for _, w := range l.watchers {
		require.True(t, w.caughtUp(time.Time{}, time.Now().Add(readTimeout)), "the watcher %s hears nothing", w.name)
	}
	l.complete(t, time.Now())
	l.compare(t, listFault{name: "the start"}, time.Now()) // So that the views are not old.
	return l
}

// run injects the faults, each under a load, and compares everything after each.
func (l *lists) run(t *testing.T, faults ...listFault) *Report {
	t.Helper()
	for _, fault := range faults {
		reportPods(t, l.roster.any())
		gaps := l.gaps(t)
		l.load = mutate(t, l.roster)
		time.Sleep(beforeFault)
		began := time.Now()
		fault.inject(t, l)
		l.report.Faults++
		time.Sleep(afterFault)
		l.load.end(t, l.report)
		ended := time.Now()
		if fault.gap {
			l.noticed(t, fault.name, gaps)
		}
		l.complete(t, began)
		l.compare(t, fault, ended.Add(settled))
		if len(l.sought) > 0 && l.missed() == "" {
			break
		}
	}
	l.report.publish(t)
	return l.report
}

// missed returns a text that is sought and was not found; "": all were found.
func (l *lists) missed() string {
	found := strings.Join(l.report.Violations, "\n")
	for _, text := range l.sought {
		if !strings.Contains(found, text) {
			return text
		}
	}
	return ""
}

// gaps returns how many gaps there were, by the layout of docs/data-model.md.
func (l *lists) gaps(t testing.TB) int64 {
	t.Helper()
	total := int64(0)
	for _, primary := range l.primaries() {
		gaps, err := primary.HGet(context.Background(), "podlink:fleet", "gaps").Int64()
		if err == nil { // Others than one primary have no such key.
			total += gaps
		}
	}
	return total
}

// noticed waits until there is another gap. It is a violation if none comes.
func (l *lists) noticed(t testing.TB, after string, gaps int64) {
	t.Helper()
	for deadline := time.Now().Add(gapTimeout); l.gaps(t) == gaps; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.report.violated("%s: there is no gap", after)
			return
		}
	}
}

// complete waits until every podlink says that the lists are complete.
func (l *lists) complete(t testing.TB, since time.Time) {
	t.Helper()
	deadline := time.Now().Add(completeTimeout)
	for _, p := range l.roster.all() {
		for {
			ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
			counts, err := v1.NewFleetServiceClient(p.conn).CountPodLinks(ctx, &v1.CountPodLinksRequest{
				Namespace: namespace, Service: listedService,
			})
			cancel()
			if err == nil && counts.GetComplete() {
				break
			}
			require.True(t, time.Now().Before(deadline), "lists stay incomplete: %v", err)
			time.Sleep(50 * time.Millisecond)
		}
	}
	t.Logf("complete %s after the fault has begun", time.Since(since).Round(time.Millisecond))
}

// compare compares the lists of every podlink, and the views of the watchers, with the store, at a time at which all links have stood for
// long enough. The load must have ended.
func (l *lists) compare(t *testing.T, after listFault, at time.Time) {
	t.Helper()
	time.Sleep(time.Until(at))
	since := make([]int, len(l.watchers))
	for i, w := range l.watchers {
		require.True(t, w.caughtUp(at, time.Now().Add(readTimeout)), "%s: the watcher %s is not healthy", after.name, w.name)
		since[i] = w.view.position()
	}
	var listed listing
	for _, p := range l.roster.all() {
		listed = l.list(t, p)
		truth := truthOf(t, l.primaries())
		if found := difference(listed.links, truth); found != "" {
			l.report.violated("%s: the lists: %s", after.name, found)
		}
		for _, broken := range listed.broken {
			l.report.violated("%s: %s", after.name, broken)
		}
		l.report.Lost += missing(listed.links, truth)
	}
	for i, w := range l.watchers {
		l.told(after, i)
		l.compareView(t, after.name, w, listed, since[i])
	}
}

// told checks that a watcher was told what a fault has made old.
func (l *lists) told(after listFault, watcher int) {
	w := l.watchers[watcher]
	w.view.mu.Lock()
	defer w.view.mu.Unlock()
	if after.gap && w.view.resyncs[v1.WatchLinksReply_GAP] == 0 {
		l.report.violated("%s: the watcher %s is not told of the gap", after.name, w.name)
	}
	if after.slow && watcher == 0 && w.view.resyncs[v1.WatchLinksReply_SLOW] == 0 {
		l.report.violated("%s: the watcher %s is not told that it is slow", after.name, w.name)
	}
	if !w.view.old {
		l.unaided++
	}
}

// list reads the lists at a podlink until they are complete.
func (l *lists) list(t testing.TB, p *member) listing {
	t.Helper()
	for deadline := time.Now().Add(completeTimeout); ; time.Sleep(50 * time.Millisecond) {
		listed, err := listAll(p.conn)
		if err == nil && listed.complete {
			return listed
		}
		require.True(t, time.Now().Before(deadline), "lists stay incomplete: %v", err)
	}
}

// missing returns how many links a list lacks.
func missing(listed, truth map[string]stored) (n int) {
	for uid := range truth {
		if _, found := listed[uid]; !found {
			n++
		}
	}
	return n
}

// compareView lets a watcher read what it was told to read, and compares its view with the store.
func (l *lists) compareView(t *testing.T, after string, w *watcher, listed listing, since int) {
	t.Helper()
	unread := w.view.unread()
	links, err := readLinks(l.roster.any(), unread)
	require.NoError(t, err)
	w.view.mu.Lock()
	old, resyncs := w.view.old, w.view.resyncs
	w.view.resyncs = make(map[v1.WatchLinksReply_Resync]int)
	w.view.mu.Unlock()
	w.view.refresh(listed.links, since)
	for _, link := range links {
		w.view.read(link)
	}
	truth := truthOf(t, l.primaries())
	if found := w.view.differs(truth); found != "" {
		l.report.violated("%s: the watcher %s (resync: %t): %s", after, w.name, old, found)
	}
	t.Logf("%s: %d links; the watcher %s has applied %d changes in %d watches, read %d links, and was told %v",
		after, len(truth), w.name, since, w.watches.Load(), len(unread), resyncs)
}

// standalone starts a Redis.
func standalone(t *testing.T, args ...string) (*redistest.Server, listStore) {
	t.Helper()
	server := redistest.Start(t, args...)
	client := server.Client(t)
	return server, listStore{
		env: podlinktest.OnRedis("standalone", server.Addr()), primaries: func() []*redis.Client { return []*redis.Client{client} },
	}
}

// clientsOf returns a client of each server, the same at each call.
func clientsOf(t *testing.T, all []*redistest.Server, primaries func() []*redistest.Server) func() []*redis.Client {
	t.Helper()
	clients := make(map[*redistest.Server]*redis.Client, len(all))
	for _, server := range all {
		clients[server] = server.Client(t)
	}
	return func() []*redis.Client {
		var of []*redis.Client
		for _, server := range primaries() {
			of = append(of, clients[server])
		}
		return slices.Clip(of)
	}
}
