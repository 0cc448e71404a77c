package client_test

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sync"
	"time"

	"podlink/client"
	"podlink/internal/biz"
	"podlink/test/kit/model"
	"podlink/test/kit/sim"
)

// simCheck judges what happens in a simulation by the promises of the documentation.
type simCheck struct {
	sim.Excuses

	sim *simulation

	mu    sync.Mutex
	moved map[string]map[int32]simMove // by user and the pod that has lost it
	told  map[toldLoss]bool
	last  map[string]lastAnswer // by user
	// starved are users who were refused as no pod was available, although the same caller had sent a call to their pod just before.
	starved map[string]bool
	moves   int    // of persistent links
	losses  int    // of sessions
	digest  uint64 // of all changes, without the order of those of one moment
}

// simMove is the latest time at which a user was moved away from a pod.
type simMove struct {
	at     time.Time
	byHand bool
}

// toldLoss is a call of OnLost.
type toldLoss struct {
	process, uid string
	epoch        int64
}

// lastAnswer is the last call for a user that was served.
type lastAnswer struct {
	caller *simCaller
	at     time.Time
}

func newSimCheck(s *simulation) *simCheck {
	return &simCheck{
		Excuses: sim.Excuses{Window: sim.Window(s.o.ttl), Strict: s.o.strict}, sim: s,
		moved: make(map[string]map[int32]simMove), told: make(map[toldLoss]bool),
		last: make(map[string]lastAnswer), starved: make(map[string]bool),
	}
}

// changed is called by the store for each change of a link.
func (c *simCheck) changed(change model.Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, before, after, uid := time.Now(), change.Before, change.After, change.Key.UID
	c.sim.follow(uid, "%s: link %s -> %s", uid, linkText(before), linkText(after))
	h := fnv.New64a()
	_, _ = fmt.Fprintln(h, now.UnixNano(), uid, before.Pod, after.Pod, after.TTL)
	c.digest += h.Sum64()
	if after.Exists() {
		delete(c.moved[uid], int32(after.Pod)) // The user is back.
	}
	if !before.Exists() || !after.Exists() || before.Pod == after.Pod {
		return
	}
	byHand := c.HandExcused(uid, simCallTimeout)
	if c.moved[uid] == nil {
		c.moved[uid] = make(map[int32]simMove)
	}
	c.moved[uid][int32(before.Pod)] = simMove{now, byHand}
	if !before.Persistent() || byHand {
		return
	}
	c.moves++
	if !c.Excused(int32(before.Pod), uid) {
		c.sim.violate("moved: %s has left the living pod %d for %d", uid, before.Pod, after.Pod)
	}
}

// answered is called with the result of each call. A caller whose user was served a moment ago knows where to send the next call.
func (c *simCheck) answered(caller *simCaller, uid, action string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last, ok := c.last[uid]
	switch {
	case err == nil && action == sim.Leave:
		delete(c.last, uid)
	case err == nil:
		c.last[uid] = lastAnswer{caller, time.Now()}
	case ok && errors.Is(err, client.ErrNoAvailablePod) && last.caller == caller && time.Since(last.at) < c.sim.o.ttl && !c.anyImpaired():
		c.starved[uid] = true
	}
}

func (c *simCheck) anyImpaired() bool {
	for pod := range int32(simPods) {
		if c.Impaired(pod) {
			return true
		}
	}
	return false
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
	// Podlink itself moves nobody before the lease of the pod has ended. A move by hand is noticed when the guard asks: where it gets no
	// answer, when the lease ends.
	const slow = simTimeout + time.Second
	bound := max(c.sim.o.guardCacheTTL, c.sim.o.ttl) + slow
	if ok && time.Since(m.at) > bound && !c.Silenced(p.ordinal, c.sim.o.ttl, slow) {
		c.sim.violate("stale: %s serves %s, which was moved to pod %d %s ago", p.name, uid, link.Pod, time.Since(m.at))
	}
	if ok && !m.byHand && link.Persistent() && !c.Lossy() && !p.stopping.Load() {
		c.sim.violate("overlap: %s serves %s, which podlink has moved to pod %d", p.name, uid, link.Pod)
	}
}

// wrote is called after an accepted write.
func (c *simCheck) wrote(p *process, uid string, session sim.Session) {
	link := c.sim.store.Link(simKey(uid))
	if link.Exists() && link.Persistent() || c.Excused(p.ordinal, uid) || c.Restoring() {
		return
	}
	c.sim.violate("link gone: %s has written for a session of %s with epoch %d, whose link is %s",
		p.name, uid, session.Epoch(), linkText(link))
}

func linkText(link biz.Link) string {
	if !link.Exists() {
		return "gone"
	}
	return fmt.Sprintf("pod %d, epoch %d, ttl %d, claim %d", link.Pod, link.Epoch, link.TTL, link.Claim)
}

// lost is called for each OnLost.
func (c *simCheck) lost(p *process, uid string, epoch int64) {
	c.sim.follow(uid, "%s: %s has lost the session with epoch %d", uid, p.name, epoch)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.losses++
	loss := toldLoss{p.name, uid, epoch}
	if c.told[loss] {
		c.sim.violate("told twice: %s was told twice that %s is lost with epoch %d", p.name, uid, epoch)
	}
	c.told[loss] = true
	if !c.PodExcused(p.ordinal) && !c.MovedSince(uid, time.UnixMicro(epoch)) {
		c.sim.violate("lost: %s has lost the session of %s with epoch %d", p.name, uid, epoch)
	}
}

// starvation checks that few users were refused without need.
func (c *simCheck) starvation() {
	c.mu.Lock()
	starved := len(c.starved)
	c.mu.Unlock()
	if starved > c.sim.o.users/10 { // A few: the caller knew that the link was about to end.
		c.sim.violate("starved: %d users were refused, although their caller had just sent calls to their pods", starved)
	}
}

// settled checks that each session that runs has its link, or none of the wrong ones that a pod must have noticed by now: two ttl after
// the last fault those to other pods, and by the end of the window all.
func (c *simCheck) settled(noticed func(p *process, link biz.Link) bool) {
	c.sim.mu.Lock()
	processes := slices.Collect(maps.Values(c.sim.running))
	c.sim.mu.Unlock()
	for _, p := range processes {
		p.service.Held(func(uid string, session sim.Session) {
			link := c.sim.store.Link(simKey(uid))
			right := int32(link.Pod) == p.ordinal && int64(link.Epoch) == session.Epoch() && link.Persistent()
			if !right && noticed(p, link) {
				c.sim.violate("unnoticed: %s still has a session of %s with epoch %d, whose link is %s",
					p.name, uid, session.Epoch(), linkText(link))
			}
		})
	}
}

func simKey(uid string) biz.LinkKey {
	return biz.LinkKey{Namespace: sim.Namespace, UID: uid, Service: sim.ServiceName}
}
