package model

import (
	"maps"
	"slices"
	"time"

	"podlink/internal/biz"
)

// Kill breaks the connections and refuses new ones, until Restart. Requests that wait are lost.
func (s *Store) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill()
}

func (s *Store) kill() {
	s.down, s.frozen, s.waiting = true, false, nil
	close(s.died)
	s.died = make(chan struct{})
}

// Restart starts a store that was killed, with its data.
func (s *Store) Restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restart()
}

func (s *Store) restart() {
	s.down, s.primary = false, s.primary+1
}

// RestartEmpty starts a store that was killed, without its data.
func (s *Store) RestartEmpty() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restart()
	s.clear()
}

// KeepUndo makes FailOver possible: it can lose the writes of the last d.
func (s *Store) KeepUndo(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep = d
}

// FailOver breaks the connections and promotes a replica, which lacks the writes of the last "behind". KeepUndo must have been
// called.
func (s *Store) FailOver(behind time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill()
	s.restart()
	oldest := time.Now().Add(-behind).UnixMicro()
	for len(s.undo) > 0 && s.undo[len(s.undo)-1].at > oldest {
		s.undo[len(s.undo)-1].restore()
		s.undo = s.undo[:len(s.undo)-1]
	}
}

// Flush deletes all data, as FLUSHALL does.
func (s *Store) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
}

// Freeze stops the store without breaking a connection, as SIGSTOP does: requests wait.
func (s *Store) Freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen = !s.down
}

// Unfreeze carries out the requests that have arrived meanwhile, and goes on.
func (s *Store) Unfreeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen = false
	waiting := s.waiting
	s.waiting = nil
	for _, do := range waiting {
		do()
	}
}

// SetLatency sets how long a request takes, there and back. It is called for each request, under a lock. Nil: no time.
func (s *Store) SetLatency(latency func() time.Duration) {
	if latency == nil {
		latency = func() time.Duration { return 0 }
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latency = latency
}

// Corrupt makes the links of a user unreadable: every call about them fails with biz.ErrStoreDataCorrupt.
func (s *Store) Corrupt(namespace, uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corrupt[user{namespace, uid}] = true
}

// Repair undoes Corrupt; the links are as before.
func (s *Store) Repair(namespace, uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.corrupt, user{namespace, uid})
}

// Watch calls a function for each change of a link by a request. It is called under the store's lock.
func (s *Store) Watch(watch func(Change)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch = watch
}

// JudgeBy replaces the rule of liveness by another one, which a test must find to be wrong.
func (s *Store) JudgeBy(liveness func(h biz.Hearing, report biz.Pod, nowMs int64) biz.Liveness) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.judging = liveness
}

// Link returns the link of the key, without a request.
func (s *Store) Link(key biz.LinkKey) biz.Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(key, s.micros()).link
}

// Pass lets time pass for the pods of a service: all times that the store has for it become earlier.
func (s *Store) Pass(key biz.ServiceKey, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.services[key]; v != nil {
		v.pass(d.Milliseconds())
	}
}

func sortedKeys[K ~int32, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
