package main

import (
	"context"
	"sync"

	"podlink/client"
	counterv1 "podlink/examples/counter/api/counter/v1"
	"podlink/examples/counter/store"
)

// counter implements counterv1.CounterServiceServer. It runs behind the agent's Guard.
type counter struct {
	counterv1.UnimplementedCounterServiceServer
	agent *client.Agent
	store store.Store

	mu    sync.Mutex
	users map[string]*user // never removed: it is an example
}

// user is what the pod holds of a user.
type user struct {
	mu      sync.Mutex      // one visit at a time
	session *client.Session // nil: none
	epoch   int64           // with which visits was loaded
	visits  int64
}

// Visit implements counterv1.CounterServiceServer.
func (c *counter) Visit(ctx context.Context, request *counterv1.VisitRequest) (*counterv1.VisitReply, error) {
	u := c.user(request.GetUid())
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.session == nil {
		session, err := c.agent.StartSession(ctx, request.GetUid())
		if err != nil {
			return nil, err
		}
		u.session, u.epoch = session, 0
	}
	epoch := u.session.Epoch()
	if u.epoch < epoch { // It was never loaded, or another process may have held the user since.
		visits, err := c.store.Load(request.GetUid(), epoch)
		if err != nil {
			return nil, err
		}
		u.epoch, u.visits = epoch, visits
	}
	if err := c.store.Save(request.GetUid(), epoch, u.visits+1); err != nil {
		u.epoch = 0 // It may be stored all the same: load it again.
		return nil, err
	}
	u.visits++
	return &counterv1.VisitReply{Visits: u.visits, PodId: c.agent.PodID()}, nil
}

func (c *counter) user(uid string) *user {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users[uid] == nil {
		c.users[uid] = &user{}
	}
	return c.users[uid]
}

// lost drops a user whom another process holds by now: it is AgentOptions.OnLost.
func (c *counter) lost(uid string, epoch int64) {
	u := c.user(uid)
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.session != nil && u.session.Epoch() <= epoch {
		u.session = nil
	}
}

// endAll ends all sessions, because the pod stops: it is AgentOptions.OnDrain. Each visit is in the store already.
func (c *counter) endAll(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, u := range c.users {
		u.mu.Lock()
		if u.session != nil {
			u.session.End(ctx, 0)
			u.session = nil
		}
		u.mu.Unlock()
	}
}
