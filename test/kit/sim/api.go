package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/go-kratos/kratos/v2/log"

	"podlink/client"
)

// This file is all of the simulators that calls the client's API.

// The simulated service.
const Namespace, ServiceName = "sim", "chat"

// NewRouter returns the router of a caller.
func NewRouter(podlink *client.Client) (*client.Router, error) {
	return podlink.NewRouter(Namespace, ServiceName, client.RouterOptions{UID: client.Field("uid")})
}

// Agent is the agent of a process of a pod.
type Agent struct{ *client.Agent }

// AgentOptions are what the simulated pods differ in.
type AgentOptions struct {
	Ordinal       int32
	TTL, CacheTTL time.Duration
	OnLost        func(uid string, epoch int64)
	Logger        log.Logger
}

// NewAgent returns the agent of a process of the pod.
func NewAgent(podlink *client.Client, o AgentOptions) (Agent, error) {
	agent, err := podlink.NewAgent(Namespace, ServiceName, client.AgentOptions{
		PodName: fmt.Sprintf("%s-%d", ServiceName, o.Ordinal), UID: client.Field("uid"), TTL: o.TTL, CacheTTL: o.CacheTTL,
		DrainTimeout: 2 * time.Second, OnLost: o.OnLost, Logger: o.Logger,
	})
	return Agent{agent}, err
}

// StartSession starts a session.
func (a Agent) StartSession(ctx context.Context, uid string) (Session, error) {
	session, err := a.Agent.StartSession(ctx, uid)
	if err != nil {
		return nil, err
	}
	return session, nil
}

// Run reports until ctx ends. The pod takes new users at once.
func (a Agent) Run(ctx context.Context) {
	_ = a.Ready(ctx)
	_ = a.Start(ctx)
}
