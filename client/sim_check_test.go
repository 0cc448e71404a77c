package client_test

import (
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"podlink/internal/biz"
	"podlink/test/kit/model"
	"podlink/test/kit/sim"
)

// simCheck judges what happens in a simulation by the promises of the documentation.
type simCheck struct {
	sim *simulation

	mu       sync.Mutex
	impaired map[int32][]impairment
	losses   []time.Time                 // of data of the store
	byHand   map[string]time.Time        // users that the plan has moved, and when
	moved    map[string]map[int32]move   // by user and the pod that has lost it
	told     map[string]map[int64]string // by user and epoch: the process that was told that the session is lost
	moves    int                         // of persistent links
	digest   uint64                      // of all changes, without the order of those of one moment
}

// impairment is a time in which a pod was not a living, reachable one.
type impairment struct{ from, to time.Time } // to is zero while it lasts

// move is the latest time at which a user was moved away from a pod.
type move struct {
	at     time.Time
	byHand bool
}

func newSimCheck(s *simulation) *simCheck {
	return &simCheck{
		sim: s, impaired: make(map[int32][]impairment), byHand: make(map[string]time.Time),
		moved: make(map[string]map[int32]move), told: make(map[string]map[int64]string),
	}
}

// impair notes that a pod is impaired until the function is called.
func (c *simCheck) impair(pod int32) (well func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := len(c.impaired[pod])
	c.impaired[pod] = append(c.impaired[pod], impairment{from: time.Now()})
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.impaired[pod][at].to = time.Now()
	}
}

// lostData notes that the store has lost data.
func (c *simCheck) lostData() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.losses = append(c.losses, time.Now())
}

// movesByHand notes that the plan moves the user.
func (c *simCheck) movesByHand(uid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byHand[uid] = time.Now()
}

// excused reports whether the pod may have lost users by the rules: it was impaired lately. The caller must hold mu.
func (c *simCheck) excused(pod int32, at time.Time) bool {
	for _, i := range c.impaired[pod] {
		if i.to.IsZero() || at.Sub(i.to) <= 3*c.sim.o.ttl {
			return true
		}
	}
	return false
}

// lossy reports whether the store has lost data lately. The caller must hold mu.
func (c *simCheck) lossy(at time.Time) bool {
	for _, loss := range c.losses {
		if since := at.Sub(loss); since >= 0 && since <= 3*c.sim.o.ttl {
			return true
		}
	}
	return false
}

// changed is called by the store for each change of a link.
func (c *simCheck) changed(change model.Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, before, after := time.Now(), change.Before, change.After
	h := fnv.New64a()
	_, _ = fmt.Fprintln(h, now.UnixNano(), change.Key.UID, before.Pod, after.Pod, after.TTL)
	c.digest += h.Sum64()
	if !before.Exists() || !after.Exists() || before.Pod == after.Pod {
		return
	}
	hand, ok := c.byHand[change.Key.UID]
	byHand := ok && now.Sub(hand) <= simCallTimeout
	if c.moved[change.Key.UID] == nil {
		c.moved[change.Key.UID] = make(map[int32]move)
	}
	c.moved[change.Key.UID][int32(before.Pod)] = move{now, byHand}
	if !before.Persistent() || byHand {
		return
	}
	c.moves++
	if !c.excused(int32(before.Pod), now) && !c.lossy(now) {
		c.sim.violate("moved: %s has left the living pod %d for %d", change.Key.UID, before.Pod, after.Pod)
	}
}

// served is called when a process serves a request for the user.
func (c *simCheck) served(p *process, uid string) {
	link := c.sim.store.Link(simKey(uid))
	c.mu.Lock()
	defer c.mu.Unlock()
	if !link.Exists() || int32(link.Pod) == p.ordinal {
		return
	}
	m, ok := c.moved[uid][p.ordinal]
	bound := max(c.sim.o.guardCacheTTL, c.sim.o.ttl) + simTimeout + time.Second
	if ok && time.Since(m.at) > bound {
		c.sim.violate("stale: %s serves %s, which was moved to pod %d %s ago", p.name, uid, link.Pod, time.Since(m.at))
	}
	if ok && !m.byHand && link.Persistent() && !c.excused(p.ordinal, time.Now()) && !c.lossy(time.Now()) {
		c.sim.violate("overlap: %s serves %s, which podlink has moved to pod %d", p.name, uid, link.Pod)
	}
}

// wrote is called after an accepted write.
func (c *simCheck) wrote(p *process, uid string, session sim.Session) {
	link := c.sim.store.Link(simKey(uid))
	c.mu.Lock()
	defer c.mu.Unlock()
	if link.Exists() && link.Persistent() || c.lossy(time.Now()) || c.excused(p.ordinal, time.Now()) {
		return
	}
	if _, ok := c.byHand[uid]; ok {
		return
	}
	c.sim.violate("link gone: %s has written for a session of %s with epoch %d, whose link is %s", p.name, uid, session.Epoch(), linkText(link))
}

func linkText(link biz.Link) string {
	if !link.Exists() {
		return "gone"
	}
	return fmt.Sprintf("pod %d, epoch %d, ttl %d", link.Pod, link.Epoch, link.TTL)
}

// lost is called for each OnLost.
func (c *simCheck) lost(p *process, uid string, epoch int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told[uid] == nil {
		c.told[uid] = make(map[int64]string)
	}
	if before := c.told[uid][epoch]; before == p.name {
		c.sim.violate("told twice: %s was told twice that %s is lost with epoch %d", p.name, uid, epoch)
	}
	c.told[uid][epoch] = p.name
}

func simKey(uid string) biz.LinkKey {
	return biz.LinkKey{Namespace: sim.Namespace, UID: uid, Service: sim.ServiceName}
}
