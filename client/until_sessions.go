package client

import (
	"context"
	"time"

	v1 "podlink/api/podlink/v1"
)

// What the guard needs until the sessions bring it along.

// agentSessions are the agent's sessions, for its guard.
type agentSessions struct{ of *Agent }

func (s agentSessions) holding(uid string) holding { return holding{epoch: s.of.sessionEpoch(uid)} }

func (s agentSessions) saw(uid string, link *v1.Link, _ time.Time) {
	if epoch := s.of.sessionEpoch(uid); epoch != 0 && (link.GetPodId() != s.of.pod || link.GetEpoch() != epoch) {
		go func() { _ = s.of.verify(context.Background(), uid) }()
	}
}

func (s agentSessions) restore(_ context.Context, uid string) (holding, error) {
	return s.holding(uid), nil
}
