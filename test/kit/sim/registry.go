package sim

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/go-kratos/kratos/v2/registry"
)

// Registry is a registry in memory.
type Registry struct {
	mu        sync.Mutex
	instances map[string]*registry.ServiceInstance // by id
	changed   chan struct{}                        // closed when they change
}

var (
	_ registry.Registrar = (*Registry)(nil)
	_ registry.Discovery = (*Registry)(nil)
)

// NewRegistry returns a registry with the instances of gRPC servers at the addresses.
func NewRegistry(service string, addresses ...string) *Registry {
	r := &Registry{instances: make(map[string]*registry.ServiceInstance), changed: make(chan struct{})}
	for _, address := range addresses {
		r.instances[address] = &registry.ServiceInstance{ID: address, Name: service, Endpoints: []string{"grpc://" + address}}
	}
	return r
}

func (r *Registry) change(do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	do()
	close(r.changed)
	r.changed = make(chan struct{})
}

// Register implements registry.Registrar.
func (r *Registry) Register(_ context.Context, instance *registry.ServiceInstance) error {
	r.change(func() { r.instances[instance.ID] = instance })
	return nil
}

// Deregister implements registry.Registrar.
func (r *Registry) Deregister(_ context.Context, instance *registry.ServiceInstance) error {
	r.change(func() { delete(r.instances, instance.ID) })
	return nil
}

// named returns the instances of a service, and a channel that is closed when they change.
func (r *Registry) named(service string) ([]*registry.ServiceInstance, chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []*registry.ServiceInstance
	for _, id := range slices.Sorted(maps.Keys(r.instances)) {
		if instance := r.instances[id]; instance.Name == service {
			found = append(found, instance)
		}
	}
	return found, r.changed
}

// GetService implements registry.Discovery.
func (r *Registry) GetService(_ context.Context, service string) ([]*registry.ServiceInstance, error) {
	found, _ := r.named(service)
	return found, nil
}

// Watch implements registry.Discovery.
func (r *Registry) Watch(ctx context.Context, service string) (registry.Watcher, error) {
	ctx, cancel := context.WithCancel(ctx)
	return &watcher{registry: r, service: service, ctx: ctx, cancel: cancel}, nil
}

// watcher implements registry.Watcher. Only one goroutine calls Next.
type watcher struct {
	registry *Registry
	service  string
	ctx      context.Context //nolint:containedctx // Its end is the watcher's.
	cancel   context.CancelFunc
	changed  chan struct{} // nil before the first Next
}

// Next implements registry.Watcher.
func (w *watcher) Next() ([]*registry.ServiceInstance, error) {
	if w.changed != nil {
		select {
		case <-w.changed:
		case <-w.ctx.Done():
		}
	}
	if w.ctx.Err() != nil {
		return nil, w.ctx.Err()
	}
	var found []*registry.ServiceInstance
	found, w.changed = w.registry.named(w.service)
	return found, nil
}

// Stop implements registry.Watcher.
func (w *watcher) Stop() error {
	w.cancel()
	return nil
}
