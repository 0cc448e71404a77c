package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "podlink/api/podlink/v1"
)

// TestEffectOfAChange: the rules of order, for a link of pod 1 with epoch 10.
func TestEffectOfAChange(t *testing.T) {
	link := func(pod int32, epoch int64, ttl int32) *v1.Link {
		return &v1.Link{PodId: pod, Epoch: epoch, Persistent: ttl == -1, TtlSeconds: ttl}
	}
	for name, row := range map[string]struct {
		temporary bool // the link that is known
		kind      v1.LinkChange_Kind
		link      *v1.Link
		want      effect
	}{
		"moved later":                            {kind: v1.LinkChange_MOVED, link: link(2, 11, -1), want: effectAdopt},
		"moved earlier":                          {kind: v1.LinkChange_MOVED, link: link(2, 9, -1), want: effectNone},
		"moved later, temporarily":               {kind: v1.LinkChange_MOVED, link: link(2, 11, 60), want: effectDrop},
		"moved with the same epoch":              {kind: v1.LinkChange_MOVED, link: link(2, 10, -1), want: effectRead},
		"made later, after it was gone":          {kind: v1.LinkChange_LINKED, link: link(1, 11, -1), want: effectAdopt},
		"made as it is":                          {kind: v1.LinkChange_LINKED, link: link(1, 10, -1), want: effectNone},
		"made as it is, temporarily":             {temporary: true, kind: v1.LinkChange_LINKED, link: link(1, 10, 60), want: effectNone},
		"persisted, which it is":                 {kind: v1.LinkChange_PERSISTED, link: link(1, 10, -1), want: effectNone},
		"persisted with the same epoch":          {temporary: true, kind: v1.LinkChange_PERSISTED, link: link(1, 10, -1), want: effectRead},
		"persisted later":                        {temporary: true, kind: v1.LinkChange_PERSISTED, link: link(1, 11, -1), want: effectAdopt},
		"expiring with the same epoch":           {kind: v1.LinkChange_EXPIRING, link: link(1, 10, 60), want: effectRead},
		"expiring at another time":               {temporary: true, kind: v1.LinkChange_EXPIRING, link: link(1, 10, 5), want: effectRead},
		"expiring later":                         {kind: v1.LinkChange_EXPIRING, link: link(1, 11, 60), want: effectDrop},
		"expiring earlier":                       {kind: v1.LinkChange_EXPIRING, link: link(1, 9, 60), want: effectNone},
		"removed":                                {kind: v1.LinkChange_REMOVED, link: link(-1, 10, -2), want: effectDrop},
		"removed later, after another change":    {kind: v1.LinkChange_REMOVED, link: link(-1, 11, -2), want: effectDrop},
		"removed before it was made":             {kind: v1.LinkChange_REMOVED, link: link(-1, 9, -2), want: effectNone},
		"perhaps moved":                          {kind: v1.LinkChange_UNCERTAIN, link: link(2, 0, -1), want: effectUnset},
		"perhaps removed":                        {kind: v1.LinkChange_UNCERTAIN, link: link(-1, 0, -2), want: effectUnset},
		"a change that only a later one can say": {kind: 99, link: link(2, 9, -1), want: effectUnset},
	} {
		t.Run(name, func(t *testing.T) {
			known := &entry{pod: 1, epoch: 10, persistent: !row.temporary}
			require.Equal(t, row.want, known.effectOf(&v1.LinkChange{Kind: row.kind, Link: row.link}))
		})
	}
}

// TestCoverage: until when a watch vouches, with a ttl of 10 s. Times are in seconds.
func TestCoverage(t *testing.T) {
	start := time.Now()
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	const ttl = 10 * time.Second
	began := (*coverage)(nil).noting(true, at(0), ttl)
	on := began.noting(false, at(100), ttl)
	gap := on.noting(true, at(101), ttl)
	twice := gap.noting(true, at(105), ttl)
	for name, row := range map[string]struct {
		of         *coverage
		asked, now float64
		part       float64
		want       bool
	}{
		"healthy":                                   {of: on, asked: 1, now: 102, want: true},
		"of before the watch":                       {of: on, asked: -1, now: 101, want: false},
		"silent: by time at first":                  {of: on, asked: 1, now: 104, part: .5, want: true},
		"silent: by time no longer":                 {of: on, asked: 1, now: 107, part: .5, want: false},
		"silent: the last":                          {of: on, asked: 1, now: 109.9, part: 1, want: true},
		"silent: none for longer than a ttl":        {of: on, asked: 1, now: 110, part: 1, want: false},
		"broken":                                    {of: on.broken(), asked: 1, now: 103.5, part: 0, want: false},
		"broken: at once it is not healthy":         {of: on.broken(), asked: 1, now: 110, part: 1, want: false},
		"resumed":                                   {of: on.broken().noting(false, at(150), ttl), asked: 1, now: 151, want: true},
		"gap: used at first":                        {of: gap, asked: 1, now: 105, part: .5, want: true},
		"gap: then refreshed":                       {of: gap, asked: 1, now: 107, part: .5, want: false},
		"gap: asked about since":                    {of: gap.noting(false, at(200), ttl), asked: 102, now: 202, want: true},
		"a second gap does not begin the spread":    {of: twice, asked: 1, now: 105, part: .3, want: false},
		"a second gap does not end the spread":      {of: twice, asked: 1, now: 106, part: .8, want: true},
		"started again after a long break: by time": {of: on.broken().noting(true, at(200), ttl), asked: 1, now: 200, part: 1, want: false},
		"started again soon: by time":               {of: on.broken().noting(true, at(101), ttl), asked: 1, now: 105, part: .5, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, row.want, row.of.vouches(at(row.asked), row.part, at(row.now), ttl))
		})
	}
}

// inTime runs a test in virtual time, with a watch that makes progress each second while the test says so.
func inTime(t *testing.T, test func(t *testing.T, f *fakeFeed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newFakeFeed()) })
}

// passes lets time pass, in which podlink's watches make progress.
func (f *fakeFeed) passes(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		f.say(&v1.WatchLinksReply{})
		time.Sleep(min(time.Second, time.Until(end)))
	}
	f.say(&v1.WatchLinksReply{})
	synctest.Wait()
}

// TestWatchedLinkIsNotAskedAbout again by time, but within an hour.
func TestWatchedLinkIsNotAskedAbout(t *testing.T) {
	inTime(t, func(t *testing.T, f *fakeFeed) {
		_, podOf := f.watchingRouter(t)
		f.passes(time.Millisecond)
		f.set("u", 2, -1)
		for range 29 {
			require.EqualValues(t, 2, podOf("u"))
			f.passes(time.Minute)
		}
		require.Equal(t, 1, f.items("u"))
		f.passes(31 * time.Minute)
		require.EqualValues(t, 2, podOf("u"))
		require.Equal(t, 2, f.items("u"))
	})
}

// anyNumber is how often podlink is asked where calls are repeated.
const anyNumber = -1

// TestWatchedChange: what a router does for its next call after a change, and after what podlink then answers.
func TestWatchedChange(t *testing.T) {
	for name, row := range map[string]struct {
		change func(f *fakeFeed)
		away   bool // podlink can't be asked
		want   int32
		asked  int // items, the first one included
	}{
		"moved": {want: 1, asked: 1, away: true, change: func(f *fakeFeed) {
			f.changes(v1.LinkChange_MOVED, "u", f.set("u", 1, -1))
		}},
		"moved for a minute": {want: 1, asked: 2, change: func(f *fakeFeed) {
			f.changes(v1.LinkChange_MOVED, "u", f.set("u", 1, 60))
		}},
		"removed and made again elsewhere": {want: 3, asked: 2, change: func(f *fakeFeed) {
			f.changes(v1.LinkChange_REMOVED, "u", &v1.Link{PodId: -1, Epoch: f.links["u"].GetEpoch()})
			delete(f.links, "u")
			f.choose = func([]int32) int32 { return 3 }
		}},
		"perhaps moved, and it was": {want: 1, asked: 2, change: func(f *fakeFeed) {
			f.set("u", 1, -1)
			f.changes(v1.LinkChange_UNCERTAIN, "u", &v1.Link{PodId: 1})
		}},
		"perhaps moved, and podlink is away: the known link is used": {want: 2, asked: anyNumber, away: true, change: func(f *fakeFeed) {
			f.changes(v1.LinkChange_UNCERTAIN, "u", &v1.Link{PodId: 1})
		}},
		"a move of before": {want: 2, asked: 1, change: func(f *fakeFeed) {
			f.changes(v1.LinkChange_MOVED, "u", &v1.Link{PodId: 1, Epoch: 0, Persistent: true, TtlSeconds: -1})
		}},
		"another user's": {want: 2, asked: 1, change: func(f *fakeFeed) {
			f.changes(v1.LinkChange_MOVED, "v", f.set("v", 1, -1))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(t *testing.T, f *fakeFeed) {
				_, podOf := f.watchingRouter(t)
				f.passes(time.Millisecond)
				f.set("u", 2, -1)
				require.EqualValues(t, 2, podOf("u"))
				f.passes(time.Minute)
				row.change(f)
				synctest.Wait()
				if row.away {
					f.down()
				}
				require.Equal(t, row.want, podOf("u"))
				if row.asked != anyNumber {
					require.Equal(t, row.asked, f.items("u"))
				}
			})
		})
	}
}

// TestUncertainChangeHappensLater: after a change with an unknown outcome the link is asked about by time, as it may still happen.
func TestUncertainChangeHappensLater(t *testing.T) {
	inTime(t, func(t *testing.T, f *fakeFeed) {
		_, podOf := f.watchingRouter(t)
		f.passes(time.Millisecond)
		f.set("u", 2, -1)
		podOf("u")
		f.changes(v1.LinkChange_UNCERTAIN, "u", &v1.Link{PodId: 1})
		f.passes(time.Second)
		require.EqualValues(t, 2, podOf("u"))
		f.set("u", 1, -1) // It happens, and nobody says so.
		f.passes(DefaultCacheTTL)
		require.EqualValues(t, 1, podOf("u"))
		asked := f.items("u")
		f.passes(20 * time.Minute)
		require.EqualValues(t, 1, podOf("u"))
		require.Equal(t, asked, f.items("u"))
	})
}

// TestChangeDuringLookup: an answer that is older than a change that came before it is not kept.
func TestChangeDuringLookup(t *testing.T) {
	inTime(t, func(t *testing.T, f *fakeFeed) {
		r, podOf := f.watchingRouter(t)
		f.passes(time.Millisecond)
		old := f.set("u", 2, -1)
		hung, answers := make(chan struct{}), make(chan struct{})
		r.links.policy.lookup = func(context.Context, string, *entry) (*v1.Link, error) {
			close(hung)
			<-answers
			return old, nil
		}
		go func() { _, _ = r.links.get(context.Background(), "u") }()
		<-hung
		f.changes(v1.LinkChange_MOVED, "u", f.set("u", 1, -1))
		synctest.Wait()
		close(answers)
		synctest.Wait()
		r.links.policy.lookup = r.lookup
		require.EqualValues(t, 1, podOf("u"))
	})
}

// TestResync: what is known is used, and each link is asked about once, at random within CacheTTL.
func TestResync(t *testing.T) {
	const users = 1000
	for name, missed := range map[string]func(f *fakeFeed){
		"a gap": func(f *fakeFeed) { f.say(&v1.WatchLinksReply{Resync: v1.WatchLinksReply_GAP}) },
		"the watch ends": func(f *fakeFeed) {
			f.cut(status.Error(codes.Unavailable, "connection refused"))
		},
		"podlink hangs": func(f *fakeFeed) {
			f.feedMu.Lock()
			defer f.feedMu.Unlock()
			f.streams = nil // They stay open.
			f.refuse = errCut
		},
	} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(t *testing.T, f *fakeFeed) {
				_, podOf := f.watchingRouter(t)
				f.passes(time.Millisecond)
				for i := range users {
					f.set(fmt.Sprint(i), 2, -1)
					podOf(fmt.Sprint(i))
				}
				f.passes(time.Minute)
				f.mu.Lock()
				before := len(f.asked)
				f.mu.Unlock()
				missed(f)
				for i := range users {
					f.set(fmt.Sprint(i), 1, -1) // No watch says so.
				}
				for range 10 {
					f.mu.Lock()
					asked := len(f.asked)
					f.mu.Unlock()
					for i := range users {
						podOf(fmt.Sprint(i))
					}
					f.mu.Lock()
					require.Less(t, len(f.asked)-asked, users/4, "in a second")
					f.mu.Unlock()
					f.passes(DefaultCacheTTL / 10)
				}
				for i := range users {
					require.EqualValues(t, 1, podOf(fmt.Sprint(i)))
				}
				require.Equal(t, before+users, len(f.asked)) //nolint:testifylint // Its list is long.
			})
		})
	}
}

// TestWatchResumes where it has ended, by its token, and vouches then for what was known before.
func TestWatchResumes(t *testing.T) {
	inTime(t, func(t *testing.T, f *fakeFeed) {
		_, podOf := f.watchingRouter(t)
		f.passes(time.Millisecond)
		f.set("u", 2, -1)
		podOf("u")
		f.passes(time.Minute)
		f.cut(nil)
		f.feedMu.Lock()
		token := f.token()
		f.feedMu.Unlock()
		f.passes(time.Minute)
		require.EqualValues(t, 2, podOf("u"))
		require.Equal(t, 1, f.items("u"))
		requests := f.requests()
		require.Len(t, requests, 2)
		require.Equal(t, token, requests[1].GetResumeToken())
	})
}

// TestWatchIsOpenedAgain, with pauses that grow; how often in ten minutes depends on why it has ended.
func TestWatchIsOpenedAgain(t *testing.T) {
	for name, row := range map[string]struct {
		err         error
		least, most int
	}{
		"podlink is away":                 {status.Error(codes.Unavailable, "connection refused"), 40, 200},
		"podlink has no watch":            {status.Error(codes.Unimplemented, "unknown method WatchLinks"), 2, 4},
		"it is not permitted":             {v1.ErrorPermissionDenied("no rule"), 2, 4},
		"too many watches":                {v1.ErrorLimitExceeded("the limit of 4096 watches"), 40, 200},
		"the token of another one is bad": {v1.ErrorInvalidArgument("resume_token is bad"), 3, 5},
	} {
		t.Run(name, func(t *testing.T) {
			var logged logLines
			inTime(t, func(t *testing.T, f *fakeFeed) {
				c := f.watching(t)
				c.watches.log = log.NewHelper(&logged)
				r, err := c.NewRouter(testNamespace, testService, RouterOptions{})
				require.NoError(t, err)
				f.passes(time.Second)
				f.cut(row.err)
				time.Sleep(10 * time.Minute)
				opened := len(f.requests())
				require.GreaterOrEqual(t, opened, row.least)
				require.LessOrEqual(t, opened, row.most)
				require.Equal(t, 1, logged.count("failed, retrying"))
				f.set("u", 2, -1)
				podOf(t, r)("u")
				time.Sleep(DefaultCacheTTL)
				podOf(t, r)("u")
				require.Equal(t, 2, f.items("u"), "by time")
				f.cut(nil)
				f.passes(10 * time.Minute)
				require.Equal(t, 1, logged.count("watching the links of "+testService+" again"))
			})
		})
	}
}

// logLines is a logger that keeps what it gets.
type logLines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logLines) Log(_ log.Level, values ...any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := fmt.Fprintln(&l.text, values...)
	return err
}

func (l *logLines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), part)
}

// TestOneWatch for each service, however many routers and agents it has, and none after Close.
func TestOneWatch(t *testing.T) {
	inTime(t, func(t *testing.T, f *fakeFeed) {
		c := f.watching(t)
		for _, service := range []string{testService, testService, "other"} {
			_, err := c.NewRouter(testNamespace, service, RouterOptions{})
			require.NoError(t, err)
		}
		_, err := c.NewAgent(testNamespace, testService, AgentOptions{PodName: "chat-0"})
		require.NoError(t, err)
		f.passes(time.Minute)
		require.Len(t, f.requests(), 2)
		require.NoError(t, c.Close())
		_, err = c.NewRouter(testNamespace, "late", RouterOptions{})
		require.NoError(t, err)
		f.passes(time.Minute)
		require.Len(t, f.requests(), 2)
	})
}

// TestWatchNeedsGRPC: over HTTP New says so.
func TestWatchNeedsGRPC(t *testing.T) {
	_, err := New("127.0.0.1:8000", Options{HTTP: true, Watch: true})
	require.ErrorContains(t, err, "Options.Watch needs gRPC")
	c, err := New("127.0.0.1:1", Options{Watch: true})
	require.NoError(t, err)
	require.NoError(t, errors.Join(c.Close(), c.Close()))
}
