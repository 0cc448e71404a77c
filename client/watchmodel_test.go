package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

// modelUsers is how many users a model has.
const modelUsers = 12

// watchModel changes links at random, and says so late, in another order, twice, or not at all with a resync.
type watchModel struct {
	*fakeFeed

	r      *rand.Rand
	unsaid []*v1.LinkChange // in the order in which they happened
	lost   bool             // changes were lost since the last resync
}

// user returns a user, and the link; nil: there is none. The caller holds mu.
func (m *watchModel) user() (string, *v1.Link) {
	uid := fmt.Sprint(m.r.IntN(modelUsers))
	return uid, m.links[uid]
}

// change changes a link.
func (m *watchModel) change() {
	m.mu.Lock()
	defer m.mu.Unlock()
	uid, link := m.user()
	c := &v1.LinkChange{Link: &v1.Link{Uid: uid, PodId: -1, TtlSeconds: -2, Epoch: link.GetEpoch()}}
	switch happens := m.r.IntN(10); {
	case link == nil:
		return // A router makes it.
	case happens == 0:
		c.Kind = v1.LinkChange_REMOVED
		delete(m.links, uid)
	case happens <= 2: // The pod and the epoch stay.
		changed := proto.CloneOf(link)
		changed.Persistent = !link.GetPersistent()
		c.Kind, changed.TtlSeconds = v1.LinkChange_EXPIRING, 3600
		if changed.GetPersistent() {
			c.Kind, changed.TtlSeconds = v1.LinkChange_PERSISTED, -1
		}
		m.links[uid] = changed
		c.Link = m.linkOf(uid)
	case happens <= 4: // Nobody knows whether it happens.
		c.Kind, c.Link.Epoch, c.Link.PodId = v1.LinkChange_UNCERTAIN, 0, 1
		if m.r.IntN(2) == 0 {
			m.move(uid)
		}
	default:
		m.move(uid)
		c.Kind = v1.LinkChange_MOVED
		c.Link = m.linkOf(uid)
	}
	m.unsaid = append(m.unsaid, c)
}

// move gives the user to a pod. The caller holds mu.
func (m *watchModel) move(uid string) {
	m.epoch++
	m.links[uid] = &v1.Link{PodId: m.r.Int32N(5), Epoch: m.epoch, Persistent: true, TtlSeconds: -1}
}

// linkOf returns the link as a change says it. The caller holds mu.
func (m *watchModel) linkOf(uid string) *v1.Link {
	link := proto.CloneOf(m.links[uid])
	link.Uid = uid
	return link
}

// tell says some of what has happened. Two podlinks may say it in another order.
func (m *watchModel) tell() {
	n := m.r.IntN(len(m.unsaid) + 1)
	said := slices.Clone(m.unsaid[:n])
	m.unsaid = m.unsaid[n:]
	if m.r.IntN(3) == 0 {
		m.r.Shuffle(len(said), func(i, k int) { said[i], said[k] = said[k], said[i] })
	}
	if n > 0 && m.r.IntN(5) == 0 { // Again.
		said = append(said, said[0])
	}
	message := &v1.WatchLinksReply{Changes: said}
	if m.lost {
		message.Resync, m.lost = v1.WatchLinksReply_GAP, false
	}
	m.say(message)
}

// step does something.
func (m *watchModel) step(call func(uid string)) {
	switch m.r.IntN(12) {
	case 0, 1, 2:
		m.change()
	case 3, 4:
		m.tell()
	case 5, 6, 7:
		call(fmt.Sprint(m.r.IntN(modelUsers)))
	case 8: // A podlink dies with what it has not said.
		if len(m.unsaid) > 0 && m.r.IntN(5) == 0 {
			m.unsaid, m.lost = nil, true
		}
	case 9: // What is said meanwhile is said after the stream goes on, or is missing.
		m.cut(errCut)
		for range m.r.IntN(4) {
			m.change()
		}
		time.Sleep(time.Duration(m.r.IntN(5000)) * time.Millisecond)
		m.cut(nil)
		time.Sleep(time.Duration(m.r.IntN(300)) * time.Millisecond)
	default:
		time.Sleep(time.Duration(m.r.IntN(1500)) * time.Millisecond)
	}
}

// runWatchModel plays a random story, and returns the users whom the router takes for another pod's in the end. Between wraps what the
// watch tells, until ctx ends. Every third story ends without the watch.
func runWatchModel(t *testing.T, seed uint64, between func(ctx context.Context, w linkWatcher) linkWatcher) (wrong []string) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // It has to repeat.
		m := &watchModel{fakeFeed: newFakeFeed(), r: r}
		m.choose = func([]int32) int32 { return int32(m.epoch % 5) }
		var dice sync.Mutex
		slow := rand.New(rand.NewPCG(seed, 2)) //nolint:gosec // As above.
		c := NewOver(m, DefaultTimeout)
		defer func() {
			require.NoError(t, c.Close())
			time.Sleep(time.Second) // The last answers come.
		}()
		router, err := c.NewRouter(testNamespace, testService, RouterOptions{LinkTTL: time.Hour})
		require.NoError(t, err)
		router.links.policy.lookup = func(ctx context.Context, uid string, known *entry) (*v1.Link, error) {
			link, err := router.lookup(ctx, uid, known)
			dice.Lock()
			late := slow.IntN(3) * slow.IntN(200)
			dice.Unlock()
			time.Sleep(time.Duration(late) * time.Millisecond)
			return link, err
		}
		c.watches = newLinkWatches(c.fleet)
		c.watches.log = log.NewHelper(new(logLines))
		c.watches.join(testNamespace, testService, between(c.watches.open, router.links))
		var calls sync.WaitGroup
		call := func(uid string) {
			calls.Go(func() { _, _ = router.links.get(context.Background(), uid) })
		}
		for range 150 {
			m.step(call)
		}
		calls.Wait()
		m.cut(nil)
		time.Sleep(2 * longestWatchPause) // The watch is there again.
		for len(m.unsaid) > 0 || m.lost {
			m.tell()
		}
		m.passes(max(DefaultCacheTTL, unsureFor) + time.Second)
		if seed%3 == 0 {
			m.cut(errCut)
			for range modelUsers {
				m.change()
			}
			time.Sleep(DefaultCacheTTL)
		}
		for i := range modelUsers {
			call(fmt.Sprint(i))
		}
		calls.Wait()
		time.Sleep(time.Second)
		for i := range modelUsers {
			uid := fmt.Sprint(i)
			link, err := router.links.get(context.Background(), uid)
			require.NoError(t, err)
			if link.pod != m.links[uid].GetPodId() {
				wrong = append(wrong, uid)
			}
		}
	})
	return wrong
}

func itself(_ context.Context, w linkWatcher) linkWatcher { return w }

// TestWatchModel: after random changes, gaps and streams that break, a router ends with what podlink has.
func TestWatchModel(t *testing.T) {
	for seed := range uint64(300) {
		require.Empty(t, runWatchModel(t, seed, itself), "seed %d", seed)
	}
}

// badWatcher is a known-bad router.
type badWatcher struct {
	linkWatcher

	drop   func(c *v1.LinkChange) bool // it does not hear of these changes
	deaf   bool                        // it does not hear that changes are missing
	trusts bool                        // it takes the watch for healthy when it has ended
}

func (b badWatcher) broke() {
	if !b.trusts {
		b.linkWatcher.broke()
	}
}

// beat tells the router that all is well until ctx ends.
func (b badWatcher) beat(ctx context.Context) {
	for ctx.Err() == nil {
		b.linkWatcher.noted(&v1.WatchLinksReply{})
		sleep(ctx, time.Second)
	}
}

func (b badWatcher) noted(message *v1.WatchLinksReply) {
	heard := proto.CloneOf(message)
	heard.Changes = nil
	for _, c := range message.GetChanges() {
		if b.drop == nil || !b.drop(c) {
			heard.Changes = append(heard.Changes, c)
		}
	}
	if b.deaf {
		heard.Resync = v1.WatchLinksReply_RESYNC_UNSPECIFIED
	}
	b.linkWatcher.noted(heard)
}

// TestWatchModelFinds known-bad routers.
func TestWatchModelFinds(t *testing.T) {
	of := func(kinds ...v1.LinkChange_Kind) func(c *v1.LinkChange) bool {
		return func(c *v1.LinkChange) bool { return slices.Contains(kinds, c.GetKind()) }
	}
	for name, bad := range map[string]badWatcher{
		"ignores moves":                      {drop: of(v1.LinkChange_MOVED)},
		"ignores removals":                   {drop: of(v1.LinkChange_REMOVED)},
		"ignores changes of unknown outcome": {drop: of(v1.LinkChange_UNCERTAIN)},
		"does not resync":                    {deaf: true},
		"trusts a watch that has ended":      {trusts: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(300) {
				wrong := runWatchModel(t, seed, func(ctx context.Context, w linkWatcher) linkWatcher {
					bad.linkWatcher = w
					if bad.trusts {
						go bad.beat(ctx)
					}
					return bad
				})
				if len(wrong) > 0 {
					return
				}
			}
			t.Error("no seed finds it")
		})
	}
}
