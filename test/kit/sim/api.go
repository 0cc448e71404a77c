package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/registry"

	"podlink/client"
)

// This file is all of the simulators that calls the client's API.

// The simulated service.
const (
	Namespace   = "sim"
	ServiceName = "chat"
)

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
	Registrar     registry.Registrar
	OnLost        func(uid string, epoch int64)
	Logger        log.Logger
}

// NewAgent returns the agent of a process of the pod.
func NewAgent(podlink *client.Client, o AgentOptions) (Agent, error) {
	agent, err := podlink.NewAgent(Namespace, ServiceName, client.AgentOptions{
		PodName: fmt.Sprintf("%s-%d", ServiceName, o.Ordinal), UID: client.Field("uid"), TTL: o.TTL, CacheTTL: o.CacheTTL,
		Registrar: o.Registrar, DrainTimeout: 2 * time.Second, OnLost: o.OnLost, Logger: o.Logger,
	})
	return Agent{agent}, err
}

// StartSession starts a session.
func (a Agent) StartSession(ctx context.Context, uid string) (Session, error) {
	session, err := a.Agent.StartSession(ctx, uid)
	if err != nil {
		return nil, err // Not a nil *client.Session that is no nil Session.
	}
	return session, nil
}

// Run does what an app of Kratos with this name does with the agent, until ctx ends: Ready is called when it has started.
func (a Agent) Run(ctx context.Context, name string) {
	ctx = kratos.NewContext(ctx, kratos.New(kratos.ID(name), kratos.Name(ServiceName), kratos.Metadata(a.Metadata())))
	_ = a.Ready(ctx)
	_ = a.Start(ctx)
}
