package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	v1 "podlink/api/podlink/v1"
	chatv1 "podlink/examples/chat/api/chat/v1"
	"podlink/examples/chat/caller"
	"podlink/examples/chat/names"
)

const (
	// sayTimeout bounds one message, including the router's lookups and retries.
	sayTimeout = caller.Timeout
	// checkTimeout bounds the check of an answer: while podlink is away, the next message does not wait for it.
	checkTimeout = 500 * time.Millisecond
	// retryDelay is the pause before a failed message is repeated.
	retryDelay = 300 * time.Millisecond
	// leaveEvery is the number of messages after which a room is left: the next message finds the temporary link.
	leaveEvery = 7
)

// talk sends messages to all rooms and records every violation of podlink's promises.
type talk struct {
	chat  chatv1.ChatServiceClient
	links v1.LinkServiceClient
	every time.Duration // interval between two messages in a room
	rooms []*room

	mu      sync.Mutex
	phase   string
	said    map[int32]int    // answered messages by pod
	failed  map[string]int   // failed calls by phase
	last    error            // the last failure
	holders map[tenure]int32 // the owner of a room in an epoch, according to podlink
	checked int              // messages checked against podlink's link
	wrong   []string         // violations

	victim    int32                    // the pod that was killed or frozen last
	goneSince time.Time                // when that was
	orphaned  map[*room]bool           // its rooms that no other pod has taken over yet
	longest   map[string]time.Duration // the longest takeover of a room, by phase
	attempts  map[string]int           // failed calls to orphaned rooms, and in outages, by phase

	outages map[string]*outage // by phase
	moved   map[tenure]int32   // to which pods rooms have moved in the relocation
}

// outage is a phase in which no pod fails, and so no room may move.
type outage struct {
	before map[*room]int32 // the rooms' pods
	over   bool
	moved  int
	within time.Duration // how long after its end the last room was answered
}

// room is the caller's view of a room. Only the room's goroutine writes it.
type room struct {
	name  string
	said  int64
	pod   int32
	epoch int64
	at    time.Time // of the last answer
}

// tenure is the time a room spends on one pod.
type tenure struct {
	room  string
	epoch int64
}

func newTalk(chat chatv1.ChatServiceClient, links v1.LinkServiceClient, rooms int, every time.Duration) *talk {
	t := &talk{
		chat: chat, links: links, every: every, phase: "start",
		said: map[int32]int{}, failed: map[string]int{}, holders: map[tenure]int32{},
		orphaned: map[*room]bool{}, longest: map[string]time.Duration{}, attempts: map[string]int{},
		outages: map[string]*outage{}, moved: map[tenure]int32{},
	}
	for i := range rooms {
		t.rooms = append(t.rooms, &room{name: fmt.Sprintf("room-%04d", i), pod: -1})
	}
	return t
}

// run talks in every room until ctx ends.
func (t *talk) run(ctx context.Context) {
	var talkers sync.WaitGroup
	for _, r := range t.rooms {
		talkers.Go(func() {
			// Start at a random time, to spread the load.
			for wait := time.Duration(rand.Int64N(int64(t.every))); ; { //nolint:gosec // Not a secret.
				select {
				case <-time.After(wait):
				case <-ctx.Done():
					return
				}
				if wait = t.every; !t.say(ctx, r) {
					wait = retryDelay
				}
			}
		})
	}
	talkers.Wait()
}

// say sends the room's next message, and reports whether it was answered. A failed message is repeated by the next call.
func (t *talk) say(ctx context.Context, r *room) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sayTimeout) // Wait for the last message.
	defer cancel()
	t.mu.Lock()
	phase := t.phase
	t.mu.Unlock()
	reply, err := t.chat.Say(ctx, &chatv1.SayRequest{Room: r.name, Id: messageID(r.said + 1), Text: "hello"})
	if err != nil {
		t.fail(phase, r, err)
		return false
	}
	t.answered(r, reply)
	t.check(ctx, r)
	if r.said%leaveEvery == 0 {
		if _, err := t.chat.Leave(ctx, &chatv1.LeaveRequest{Room: r.name}); err != nil {
			t.fail(phase, r, err)
		}
	}
	return true
}

func messageID(n int64) string { return fmt.Sprintf("message-%d", n) }

func (t *talk) fail(phase string, r *room, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = err
	if t.orphaned[r] {
		t.attempts[t.phase]++ // Expected: no pod owns the room yet.
		return
	}
	for _, during := range []string{phase, t.phase} { // It may have been in flight when the outage began.
		if t.outages[during] != nil {
			t.attempts[during]++ // Expected: the pod can't know whether it owns the room.
			return
		}
	}
	t.failed[phase]++
}

func (t *talk) answered(r *room, reply *chatv1.SayReply) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if reply.GetNumber() != r.said+1 {
		t.wrong = append(t.wrong, fmt.Sprintf("%s: message %d got number %d", r.name, r.said+1, reply.GetNumber()))
	}
	if reply.GetEpoch() < r.epoch {
		t.wrong = append(t.wrong, fmt.Sprintf("%s: epoch %d after %d", r.name, reply.GetEpoch(), r.epoch))
	}
	if t.phase == relocating && reply.GetPodId() != r.pod {
		t.moved[tenure{r.name, reply.GetEpoch()}] = reply.GetPodId()
	}
	r.said, r.pod, r.epoch, r.at = reply.GetNumber(), reply.GetPodId(), reply.GetEpoch(), time.Now()
	t.said[r.pod]++
	if t.orphaned[r] && r.pod != t.victim { // A late answer of the victim is no takeover.
		delete(t.orphaned, r)
		t.longest[t.phase] = max(t.longest[t.phase], time.Since(t.goneSince))
	}
}

// check compares the pod that answered with podlink's link. If the room has moved since the answer, the epochs differ and there
// is nothing to compare.
func (t *talk) check(ctx context.Context, r *room) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	reply, err := t.links.GetLinkedPod(ctx, &v1.GetLinkedPodRequest{Namespace: names.Namespace, Uid: r.name, Service: names.Service})
	if err != nil {
		t.record(tenure{}, 0, r) // What podlink has said before counts.
		return
	}
	t.record(tenure{r.name, reply.GetLink().GetEpoch()}, reply.GetLink().GetPodId(), r)
}

// record stores the owner of a tenure, and records a violation if another pod answered in it.
func (t *talk) record(current tenure, holder int32, r *room) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if current.epoch != 0 {
		t.holders[current] = holder
	}
	if holder, ok := t.holders[tenure{r.name, r.epoch}]; ok {
		t.checked++
		if holder != r.pod {
			t.wrong = append(t.wrong, fmt.Sprintf("%s: pod %d answered, but the link was to pod %d", r.name, r.pod, holder))
		}
	}
}

// setPhase starts a phase: failures count for it from now on.
func (t *talk) setPhase(phase string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.phase = phase
}

// markGone records that a pod was killed or frozen, and returns the number of its rooms: calls to them may fail until other
// pods take over.
func (t *talk) markGone(victim int32) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.goneSince, t.victim = time.Now(), victim
	for _, r := range t.rooms {
		if r.pod == victim {
			t.orphaned[r] = true
		}
	}
	return len(t.orphaned)
}

// orphans returns the number of rooms of a killed or frozen pod that no other pod has taken over yet.
func (t *talk) orphans() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.orphaned)
}

// on returns the number of rooms that the pod has answered last.
func (t *talk) on(pod int32) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, r := range t.rooms {
		if r.pod == pod {
			n++
		}
	}
	return n
}

// unanswered returns the number of rooms without any answer.
func (t *talk) unanswered() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, r := range t.rooms {
		if r.said == 0 {
			n++
		}
	}
	return n
}

// beginOutage starts a phase in which no room may move. Its calls may fail.
func (t *talk) beginOutage(phase string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := &outage{before: make(map[*room]int32, len(t.rooms))}
	for _, r := range t.rooms {
		o.before[r] = r.pod
	}
	t.phase, t.outages[phase] = phase, o
}

// unansweredSince returns the number of rooms without an answer since that time.
func (t *talk) unansweredSince(since time.Time) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, r := range t.rooms {
		if !r.at.After(since) {
			n++
		}
	}
	return n
}

// endOutage records which rooms have moved in an outage, and how long after its end the last one was answered.
func (t *talk) endOutage(phase string, within time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.outages[phase]
	o.over, o.within = true, within
	for r, pod := range o.before {
		if r.pod != pod {
			o.moved++
		}
	}
	t.phase = "after: " + phase
}
