package client

import (
	"context"
	"sync"
)

// turns lets one caller at a time change the link of a uid: a start, a restore and an end of the same session must not
// overtake one another on their way to podlink. The zero value is ready.
type turns struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when the turn ends; nil until another caller waits
}

// enter takes the uid's turn. It waits until it is free, or returns ctx's error.
func (t *turns) enter(ctx context.Context, uid string) error {
	for !t.try(uid) {
		free := t.free(uid)
		if free == nil {
			continue
		}
		select {
		case <-free:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// try takes the uid's turn if it is free.
func (t *turns) try(uid string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, held := t.held[uid]; held {
		return false
	}
	if t.held == nil {
		t.held = map[string]chan struct{}{}
	}
	t.held[uid] = nil
	return true
}

// free returns a channel that is closed when the uid's turn ends; nil if it is free.
func (t *turns) free(uid string) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	free, held := t.held[uid]
	if held && free == nil {
		free = make(chan struct{})
		t.held[uid] = free
	}
	return free
}

// leave ends the uid's turn.
func (t *turns) leave(uid string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if free := t.held[uid]; free != nil {
		close(free)
	}
	delete(t.held, uid)
}
