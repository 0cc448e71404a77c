package client

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	v1 "podlink/api/podlink/v1"
)

const (
	// reachedWindow is how recently another pod must have answered for a pod to count as unreachable: else the fault is likely this
	// caller's. It is also how long a pod is avoided before somebody is sent there again.
	reachedWindow = 10 * time.Second
	// reachedEvery is how exactly the time of a pod's last answer is kept.
	reachedEvery = 100 * time.Millisecond
	// avoidAfter is how long a pod has been unreachable before it is avoided: a new connection takes some time. By then a call has
	// made four tries, within its RetryTimeout.
	avoidAfter = 250 * time.Millisecond
	// maxAvoided is how many pods podlink takes in avoid_pods.
	maxAvoided = 16
	// maxMoves is how many users are remembered as moved away from an unreachable pod.
	maxMoves = 10_000
)

// podRecord is what the calls of a router have found out about a pod.
type podRecord struct {
	id      int32
	reached atomic.Int64 // when it answered last, Unix time in ns; 0: never

	// podTable.mu guards these.
	since, failed time.Time // the first and the last failure to reach it since it answered; zero: none
	instance      string    // of the process that podlink named last; empty: none
	named         time.Time // when podlink was asked for that
}

// answered notes that the pod has answered.
func (p *podRecord) answered(now time.Time) {
	at := now.UnixNano()
	if passed := at - p.reached.Load(); passed > int64(reachedEvery) || passed < 0 {
		p.reached.Store(at) // Not with each call: all callers share it.
	}
}

func (p *podRecord) reachedAt() time.Time { return time.Unix(0, p.reached.Load()) }

// podTable is what a router knows about the pods of its service.
type podTable struct {
	mu      sync.Mutex
	records map[string]*podRecord // by ordinal, as instances name it
	found   []string              // the ordinals that discovery has shown last
	failed  time.Time             // the last failure to reach a pod
}

func newPodTable() *podTable { return &podTable{records: map[string]*podRecord{}} }

// discovered takes in the pods that discovery shows, and returns their records.
func (t *podTable) discovered(ordinals []string) []*podRecord {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.found = ordinals
	records := make([]*podRecord, len(ordinals))
	for i, ordinal := range ordinals {
		records[i] = t.record(ordinal)
	}
	return records
}

// record returns the pod's record; nil for an ordinal that is none. The caller holds the lock.
func (t *podTable) record(ordinal string) *podRecord {
	if known := t.records[ordinal]; known != nil {
		return known
	}
	id, ok := podNumber(ordinal)
	if !ok {
		return nil
	}
	made := &podRecord{id: id}
	t.records[ordinal] = made
	return made
}

// named takes in the process that podlink has named as the pod's, when it was asked at that time.
func (t *podTable) named(pod *v1.Pod, asked time.Time) {
	if pod == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.record(number(pod.GetPodId())); !asked.Before(p.named) {
		p.instance, p.named = pod.GetInstanceId(), asked
	}
}

// instance returns the process that podlink has named last as the pod's.
func (t *podTable) instance(ordinal string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.records[ordinal]; p != nil {
		return p.instance
	}
	return ""
}

// unreached notes that the pod is not in discovery, or that no connection to it was got.
func (t *podTable) unreached(ordinal string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.record(ordinal)
	if p == nil {
		return
	}
	if !p.failing(now) {
		p.since = now
	}
	p.failed, t.failed = now, now
}

// failing reports whether the pod is unreachable, as far as this router's calls show. The caller holds the lock.
func (p *podRecord) failing(now time.Time) bool {
	return now.Sub(p.failed) < reachedWindow && p.reachedAt().Before(p.failed)
}

// unreachable returns the pods that attract no users now: those that could not be reached for a while, though another pod was, and at
// most half of the pods that are known. Those that have been unreachable for the longest go first.
func (t *podTable) unreachable(now time.Time, after time.Duration) []int32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.failed) >= reachedWindow {
		return nil
	}
	var failing []*podRecord
	known, reachedOne := len(t.found), false
	for ordinal, p := range t.records {
		switch {
		case p.failing(now):
			if !slices.Contains(t.found, ordinal) {
				known++
			}
			if now.Sub(p.since) >= after {
				failing = append(failing, p)
			}
		case now.Sub(p.reachedAt()) < reachedWindow:
			reachedOne = true
		}
	}
	if !reachedOne {
		return nil
	}
	slices.SortFunc(failing, func(a, b *podRecord) int {
		if order := a.since.Compare(b.since); order != 0 {
			return order
		}
		return int(a.id) - int(b.id)
	})
	var pods []int32
	for _, p := range failing[:min(len(failing), known/2, maxAvoided)] {
		pods = append(pods, p.id)
	}
	return pods
}

// moves remembers which users were moved away from an unreachable pod, so that it is done once per uid and LinkTTL.
type moves struct {
	cache *otter.Cache[string, struct{}]
}

func newMoves(every time.Duration) (moves, error) {
	cache, err := otter.New(&otter.Options[string, struct{}]{
		MaximumSize: maxMoves, ExpiryCalculator: otter.ExpiryWriting[string, struct{}](every),
	})
	return moves{cache}, err
}

func (m moves) close() { m.cache.StopAllGoroutines() }

func (m moves) first(uid string) bool {
	_, set := m.cache.SetIfAbsent(uid, struct{}{})
	return set
}

// mayAvoid reports whether podlink is to choose another pod for the user whose pod was not reached. A user with a session, whose link
// is persistent, is not moved.
func (r *Router) mayAvoid(uid string, link *entry, now time.Time) bool {
	return !link.persistent && slices.Contains(r.pods.unreachable(now, r.avoidAfter), link.pod) && r.moves.first(uid)
}
