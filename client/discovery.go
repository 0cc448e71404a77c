package client

import (
	"context"
	"errors"
	"sync"

	"github.com/go-kratos/kratos/v2/registry"
)

// lazyDiscovery is a Discovery whose Watch returns at once. Those of etcd and others wait for the registry: while it is away, New
// would not return over HTTP, and fail over gRPC.
type lazyDiscovery struct{ registry.Discovery }

// Watch implements registry.Discovery.
func (d lazyDiscovery) Watch(ctx context.Context, service string) (registry.Watcher, error) {
	w := &lazyWatcher{discovery: d.Discovery, service: service}
	w.ctx, w.cancel = context.WithCancel(ctx)
	return w, nil
}

// lazyWatcher starts to watch with the first Next, which Kratos calls in a goroutine, and again after that has failed.
type lazyWatcher struct {
	discovery registry.Discovery
	service   string
	ctx       context.Context //nolint:containedctx // Stop ends it; Next gets none.
	cancel    func()

	mu      sync.Mutex
	watcher registry.Watcher
}

// Next implements registry.Watcher.
func (w *lazyWatcher) Next() ([]*registry.ServiceInstance, error) {
	watcher, err := w.start()
	if err == nil {
		var found []*registry.ServiceInstance
		if found, err = watcher.Next(); err == nil {
			return found, nil
		}
	}
	if w.ctx.Err() != nil {
		return nil, w.ctx.Err() // The one error that ends Kratos' loop, whatever the registry says then.
	}
	return nil, err
}

func (w *lazyWatcher) start() (registry.Watcher, error) {
	if watcher := w.current(); watcher != nil {
		return watcher, nil
	}
	watcher, err := w.discovery.Watch(w.ctx, w.service)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() != nil { // Stop was faster, and has not seen this one.
		return nil, errors.Join(w.ctx.Err(), watcher.Stop())
	}
	w.watcher = watcher
	return watcher, nil
}

func (w *lazyWatcher) current() registry.Watcher {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.watcher
}

// Stop implements registry.Watcher.
func (w *lazyWatcher) Stop() error {
	w.cancel()
	if watcher := w.current(); watcher != nil {
		return watcher.Stop()
	}
	return nil
}
