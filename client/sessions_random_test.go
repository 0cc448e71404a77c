package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// chaos is users of some pods who come and go, routers and operators that move them, and a podlink that fails in all ways.
type chaos struct {
	t     *testing.T
	seed  uint64
	store *fakeLinks
	pods  []*podSessions

	mu     sync.Mutex
	random *rand.Rand
	calm   bool
	owners map[string]*podSessions // "<uid> <epoch>" -> who was given it
	held   map[*Session]string     // handles that have not ended -> uid
}

func (c *chaos) n(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.random.IntN(n)
}

func (c *chaos) pause(most time.Duration) { time.Sleep(time.Duration(c.n(int(most)))) }

func (c *chaos) failf(format string, args ...any) {
	c.t.Helper()
	c.t.Errorf("seed %d: %s", c.seed, fmt.Sprintf(format, args...))
}

// around is a podlink that is slow, loses calls and answers, or carries them out when the caller has left.
func (c *chaos) around(ctx context.Context, method string, do func()) error {
	c.mu.Lock()
	calm := c.calm
	c.mu.Unlock()
	if calm {
		do()
		return nil
	}
	c.pause(20 * time.Millisecond)
	reads := method == "Get" || method == "BatchVerify"
	switch luck := c.n(100); {
	case luck < 3:
		return hang(ctx, method, do)
	case luck < 8 && !reads:
		return loses(ctx, method, do)
	case luck < 10 && (method == "Set" || method == "BatchRemove"):
		go func() { c.pause(2 * podTimeout); do() }()
		c.pause(podTimeout)
		return withCause(ErrOutcomeUnknown, nil)
	case luck < 15:
		return ErrUnavailable
	}
	if ctx.Err() != nil {
		return hang(ctx, method, do)
	}
	do()
	c.pause(20 * time.Millisecond)
	return nil
}

// note checks that no two processes hold a user under one epoch.
func (c *chaos) note(p *podSessions, uid string, epoch int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := uid + " " + strconv.FormatInt(epoch, 10)
	if before := c.owners[key]; before != nil && before != p {
		c.failf("two processes hold %s", key)
	}
	c.owners[key] = p
}

// play is a user who comes, stays, and leaves, on whatever pod.
func (c *chaos) play(uid string, rounds int) {
	for range rounds {
		c.pause(5 * time.Second)
		link := c.store.of(uid)
		if link.GetPodId() < 0 {
			c.store.put(uid, int32(c.n(2)))
			link = c.store.of(uid)
		}
		var p *podSessions // Of two processes of an ordinal, either.
		for p == nil || p.pod != link.GetPodId() {
			p = c.pods[c.n(len(c.pods))]
		}
		seen := link.GetEpoch()
		if c.n(4) == 0 {
			seen = 0
		}
		h, err := p.start(context.Background(), uid, seen)
		if err != nil {
			continue
		}
		c.note(p, uid, h.Epoch())
		c.mu.Lock()
		c.held[h] = uid
		c.mu.Unlock()
		for range c.n(10) {
			c.pause(5 * time.Second)
			if held := p.holding(uid); held.epoch != 0 {
				c.note(p, uid, held.epoch)
			}
		}
		if c.n(10) == 0 {
			continue // It stays.
		}
		c.mu.Lock()
		delete(c.held, h)
		c.mu.Unlock()
		h.End(context.Background(), time.Duration(c.n(2)*c.n(20))*time.Second)
	}
}

// TestRandomSessions: whatever happens at the same time, in the end a session runs exactly where its link is, no link of a
// session that has ended stays, each lost session was told once, and no epoch ever had two holders.
func TestRandomSessions(t *testing.T) {
	t.Parallel()
	first, seeds := rand.Uint64N(1<<32), uint64(20)
	if RaceEnabled {
		seeds = 8
	}
	if text := os.Getenv("SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, seeds = seed, 1
	}
	for seed := first; seed < first+seeds && !t.Failed(); seed++ {
		synctest.Test(t, func(t *testing.T) { playChaos(t, seed) })
	}
}

func playChaos(t *testing.T, seed uint64) {
	c := &chaos{
		t: t, seed: seed, store: newFakeLinks(), random: rand.New(rand.NewPCG(seed, 1)), owners: map[string]*podSessions{},
		held: map[*Session]string{},
	}
	c.store.around = c.around
	for i, pod := range []int32{0, 0, 1} {
		c.pods = append(c.pods, runPod(t, newPodSessions(c.store, pod, int64(7+i))))
	}
	const users, players = 6, 12
	uid := func(i int) string { return fmt.Sprint("u", i%users) }
	var all sync.WaitGroup
	for i := range players {
		all.Go(func() { c.play(uid(i), 12) })
	}
	all.Go(func() {
		for range 60 {
			c.pause(6 * time.Second)
			switch c.n(8) {
			case 0, 1, 2:
				c.store.put(uid(c.n(users)), int32(c.n(2)))
			case 3:
				c.store.drop(uid(c.n(users)))
			case 4:
				c.store.flush()
			case 5:
				p := c.pods[c.n(len(c.pods))]
				p.silent.Store(true)
				c.pause(2 * podTTL)
				p.silent.Store(false)
			}
		}
	})
	all.Wait()
	c.mu.Lock()
	c.calm = true
	c.mu.Unlock()
	time.Sleep(4*podTTL + 2*podTimeout)
	synctest.Wait() // Until what happens at this very moment has happened.
	c.verify(users, uid)
}

func (c *chaos) verify(users int, uid func(int) string) {
	told := map[string]int{}
	for _, p := range c.pods {
		if _, ending := p.count(); ending != 0 {
			c.failf("pod %d: %d ends that podlink does not know", p.pod, ending)
		}
		if len(p.turns.held) != 0 || len(p.doubted) != 0 {
			c.failf("pod %d: turns %v, in doubt %v", p.pod, p.turns.held, p.doubted)
		}
		for _, loss := range p.losses() {
			key := fmt.Sprintf("%p %s", p.sessions, loss)
			if told[key]++; told[key] > 1 {
				c.failf("pod %d: %s is told twice", p.pod, loss)
			}
		}
	}
	for i := range users {
		link, holders := c.store.of(uid(i)), 0
		for _, p := range c.pods {
			held := p.holding(uid(i))
			if held.epoch == 0 {
				continue
			}
			holders++
			if held.uncertain || link.GetPodId() != p.pod || link.GetEpoch() != held.epoch || !link.GetPersistent() {
				c.failf("pod %d holds %s with %+v, its link is %v", p.pod, uid(i), held, link)
			}
		}
		if holders > 1 || holders == 0 && link.GetPersistent() && link.GetClaim() != 0 {
			c.failf("%d hold %s, its link is %v", holders, uid(i), link)
		}
	}
	for h, uid := range c.held {
		select {
		case <-h.Lost():
			if told[fmt.Sprintf("%p %s %d", h.in, uid, h.Epoch())] != 1 {
				c.failf("the loss of %s %d was not told", uid, h.Epoch())
			}
		default:
			if held := h.in.holding(uid); held.epoch != h.Epoch() {
				c.failf("a handle of %s has %d, its pod holds %+v", uid, h.Epoch(), held)
			}
		}
	}
	if c.t.Failed() {
		c.t.Fatal(errors.New("see above"))
	}
}
