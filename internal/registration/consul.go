package registration

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/go-kratos/kratos/contrib/registry/consul/v2"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/hashicorp/consul/api"

	"podlink/internal/conf"
)

// criticalLimit is how long Consul keeps the entry of a podlink that has died, which callers do not find any more; it takes no
// less.
const criticalLimit = "1m"

// consulBackend registers with one Consul agent, under a check that fails when nobody confirms it for the ttl. Kratos writes
// the entry, so that Kratos clients can read it. Its heartbeat is off: that logs by itself, and waits for an agent that does
// not answer without a limit. Each look confirms the check instead.
type consulBackend struct {
	http     *http.Client
	client   *api.Client
	registry *consul.Registry
	ttl      string
}

func newConsul(c *conf.Registry, secured *tls.Config) (*consulBackend, error) {
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

// checkID is the name that Kratos' own heartbeat would use.
func checkID(instance *registry.ServiceInstance) string { return "service:" + instance.ID }

// find asks as callers do, for an entry may be in the agent and not in the catalog.
func (b *consulBackend) find(ctx context.Context, instance *registry.ServiceInstance) error {
	options := new(api.QueryOptions).WithContext(ctx)
	err := b.client.Agent().UpdateTTLOpts(checkID(instance), "", api.HealthPassing, options)
	var refused api.StatusError
	switch {
	case errors.As(err, &refused) && (refused.Code == http.StatusNotFound || refused.Code == http.StatusInternalServerError):
		return errGone // 500 is how older agents say that they know no such check; if it is worse, renew will tell.
	case err != nil:
		return err
	}
	known, _, err := b.client.Health().Service(instance.Name, "", true, options)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(known, func(entry *api.ServiceEntry) bool { return entry.Service.ID == instance.ID }) {
		return errGone
	}
	return nil
}

// renew removes the entry first: an agent that has it does not send the same one to the catalog again.
func (b *consulBackend) renew(ctx context.Context, instance *registry.ServiceInstance) error {
	_ = b.leave(ctx, instance) // If that can't be done, the next can't either, and tells.
	if err := b.registry.Register(ctx, instance); err != nil {
		return err
	}
	return b.client.Agent().CheckRegisterOpts(&api.AgentCheckRegistration{
		ID: checkID(instance), Name: "podlink confirms that it lives", ServiceID: instance.ID,
		AgentServiceCheck: api.AgentServiceCheck{
			TTL: b.ttl, Status: api.HealthPassing, DeregisterCriticalServiceAfter: criticalLimit,
		},
	}, new(api.QueryOptions).WithContext(ctx))
}

func (b *consulBackend) leave(ctx context.Context, instance *registry.ServiceInstance) error {
	return b.registry.Deregister(ctx, instance)
}

func (b *consulBackend) close() { b.http.CloseIdleConnections() }
