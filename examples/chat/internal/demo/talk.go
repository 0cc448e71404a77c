package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	v1 "podlink/api/podlink/v1"
	chatv1 "podlink/examples/chat/api/chat/v1"
	"podlink/examples/chat/internal/pod"
)

const (
	// sayLimit bounds a message with all that the router does for it.
	sayLimit = 3 * time.Second
	// retryPause is before a message that failed is said again.
	retryPause = 300 * time.Millisecond
	// leaveEvery is after how many messages a room is left, to come back to the link that was kept.
	leaveEvery = 7
)

// talk talks in all the rooms, and notes what must not be.
type talk struct {
	chat  chatv1.ChatServiceClient
	links v1.LinkServiceClient
	every time.Duration // between two messages of a room
	rooms []*room

	mu       sync.Mutex
	phase    string
	said     map[int32]int    // messages by the pod that has answered
	failed   map[string]int   // by phase
	last     error            // the last failure
	holders  map[tenure]int32 // which pod podlink says holds a room in an epoch
	checked  int              // messages compared with podlink's link
	wrong    []string         // what must not be
	gone     time.Time        // when a pod was killed or frozen; zero: none
	victim   int32
	awaited  map[*room]bool           // the rooms of that pod that nobody has answered for yet
	longest  map[string]time.Duration // how long the longest of them was without an answer, by phase
	orphaned map[string]int           // tries that failed in them, by phase
}

// room is what its talker knows. Only the talker changes it.
type room struct {
	name  string
	said  int64
	pod   int32
	epoch int64
}

// tenure is a room's time at one pod.
type tenure struct {
	room  string
	epoch int64
}

func newTalk(chat chatv1.ChatServiceClient, links v1.LinkServiceClient, rooms int, every time.Duration) *talk {
	t := &talk{
		chat: chat, links: links, every: every, phase: "start",
		said: map[int32]int{}, failed: map[string]int{}, holders: map[tenure]int32{}, awaited: map[*room]bool{}, longest: map[string]time.Duration{}, orphaned: map[string]int{},
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
			// They do not all talk at once.
			for wait := time.Duration(rand.Int64N(int64(t.every))); ; { //nolint:gosec // It is no secret.
				select {
				case <-time.After(wait):
				case <-ctx.Done():
					return
				}
				if wait = t.every; !t.say(ctx, r) {
					wait = retryPause
				}
			}
		})
	}
	talkers.Wait()
}

// say says the room's next message, the same one again if it failed before, and tells whether it was answered.
func (t *talk) say(ctx context.Context, r *room) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sayLimit) // The last message is waited for.
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
	t.compare(ctx, r)
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
	if t.awaited[r] {
		t.orphaned[t.phase]++ // Nobody can answer yet.
		return
	}
	t.failed[phase]++
}

func (t *talk) answered(r *room, reply *chatv1.SayReply) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if reply.GetNumber() != r.said+1 {
		t.wrong = append(t.wrong, fmt.Sprintf("%s: message %d became number %d", r.name, r.said+1, reply.GetNumber()))
	}
	if reply.GetEpoch() < r.epoch {
		t.wrong = append(t.wrong, fmt.Sprintf("%s: epoch %d after %d", r.name, reply.GetEpoch(), r.epoch))
	}
	r.said, r.pod, r.epoch = reply.GetNumber(), reply.GetPodId(), reply.GetEpoch()
	t.said[r.pod]++
	if t.awaited[r] && r.pod != t.victim { // Its last answer may come late.
		delete(t.awaited, r)
		t.longest[t.phase] = max(t.longest[t.phase], time.Since(t.gone))
	}
}

// compare asks podlink whose the room is. If it has moved since the answer, the epochs differ, and nothing is said about it.
func (t *talk) compare(ctx context.Context, r *room) {
	reply, err := t.links.GetLinkedPod(ctx, &v1.GetLinkedPodRequest{Namespace: pod.Namespace, Uid: r.name, Service: pod.Service})
	if err != nil {
		return
	}
	t.note(tenure{r.name, reply.GetLink().GetEpoch()}, reply.GetLink().GetPodId(), r)
}

// note notes which pod holds a room, and whether it is the one that has answered.
func (t *talk) note(of tenure, holder int32, r *room) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if of.epoch != 0 {
		t.holders[of] = holder
	}
	if holder, known := t.holders[tenure{r.name, r.epoch}]; known {
		t.checked++
		if holder != r.pod {
			t.wrong = append(t.wrong, fmt.Sprintf("%s: pod %d has answered, the link was to pod %d", r.name, r.pod, holder))
		}
	}
}

// begin names what is done from now on.
func (t *talk) begin(phase string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.phase = phase
}

// lose notes that a pod has been killed or frozen: its rooms may fail until others answer for them.
func (t *talk) lose(victim int32) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gone, t.victim = time.Now(), victim
	for _, r := range t.rooms {
		if r.pod == victim {
			t.awaited[r] = true
		}
	}
	return len(t.awaited)
}

// waiting returns for how many rooms of that pod nobody has answered yet.
func (t *talk) waiting() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.awaited)
}

// silent returns how many rooms were never answered.
func (t *talk) silent() int {
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
