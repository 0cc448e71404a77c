package registration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/go-kratos/kratos/contrib/registry/consul/v2"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/hashicorp/consul/api"

	"podlink/internal/certs"
	"podlink/internal/conf"
)

// deregisterAfter is how long Consul keeps a dead podlink's entry, which callers no longer find; a minute is Consul's minimum.
const deregisterAfter = "1m"

// consulBackend registers with one Consul agent, under a TTL check. Kratos writes the entry, so that Kratos clients can read it,
// but its heartbeat is off: it logs by itself, and waits without a timeout for an agent that hangs. check renews the TTL instead.
type consulBackend struct {
	http     *http.Client
	client   *api.Client
	registry *consul.Registry
	ttl      string
}

func newConsul(c *conf.Registry, secured *certs.Client) (*consulBackend, error) {
	b := &consulBackend{http: newHTTPClient(secured), ttl: c.GetTtl().AsDuration().String()}
	config := &api.Config{Address: c.GetAddrs()[0], Scheme: "http", Token: c.GetToken(), HttpClient: b.http}
	if secured != nil {
		config.Scheme = "https"
	}
	if c.GetUsername() != "" {
		config.HttpAuth = &api.HttpBasicAuth{Username: c.GetUsername(), Password: c.GetPassword()}
	}
	var err error
	if b.client, err = api.NewClient(config); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	b.registry = consul.New(b.client, consul.WithHeartbeat(false), consul.WithHealthCheck(false))
	return b, nil
}

// checkID is the ID of the TTL check: the one that Kratos' own heartbeat would use.
func checkID(instance *registry.ServiceInstance) string { return "service:" + instance.ID }

// check renews the TTL, then looks the instance up as callers do: an entry can be in the agent and missing in the catalog.
func (b *consulBackend) check(ctx context.Context, instance *registry.ServiceInstance) error {
	options := new(api.QueryOptions).WithContext(ctx)
	err := b.client.Agent().UpdateTTLOpts(checkID(instance), "", api.HealthPassing, options)
	var refused api.StatusError
	switch {
	case errors.As(err, &refused) && (refused.Code == http.StatusNotFound || refused.Code == http.StatusInternalServerError):
		return errNotRegistered // Older agents answer 500 for an unknown check. After any other 500, register fails too.
	case err != nil:
		return err
	}
	entries, _, err := b.client.Health().Service(instance.Name, "", true, options)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(entries, func(entry *api.ServiceEntry) bool { return entry.Service.ID == instance.ID }) {
		return errNotRegistered
	}
	return nil
}

// register deregisters first: an agent does not send the catalog an entry that it already has.
func (b *consulBackend) register(ctx context.Context, instance *registry.ServiceInstance) error {
	_ = b.deregister(ctx, instance) // If this fails, so does the next call, which returns the error.
	if err := b.registry.Register(ctx, instance); err != nil {
		return err
	}
	return b.client.Agent().CheckRegisterOpts(&api.AgentCheckRegistration{
		ID: checkID(instance), Name: "podlink heartbeat", ServiceID: instance.ID,
		AgentServiceCheck: api.AgentServiceCheck{
			TTL: b.ttl, Status: api.HealthPassing, DeregisterCriticalServiceAfter: deregisterAfter,
		},
	}, new(api.QueryOptions).WithContext(ctx))
}

func (b *consulBackend) deregister(ctx context.Context, instance *registry.ServiceInstance) error {
	return b.registry.Deregister(ctx, instance)
}

func (b *consulBackend) close() { b.http.CloseIdleConnections() }
