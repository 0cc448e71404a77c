package client

import (
	"context"
	"errors"
	"sync"

	"github.com/go-kratos/kratos/v2/registry"
)

// patient is a Discovery whose Watch does not wait for the registry, as those of etcd and others do: without theirs, New
// would not return over HTTP, and fail over gRPC.
type patient struct{ registry.Discovery }

// Watch implements registry.Discovery.
func (p patient) Watch(ctx context.Context, service string) (registry.Watcher, error) {
	w := &patientWatcher{discovery: p.Discovery, service: service}
	w.ctx, w.cancel = context.WithCancel(ctx)
	return w, nil
}

// patientWatcher begins to watch with the first Next, which Kratos calls aside, and again when that fails.
type patientWatcher struct {
	discovery registry.Discovery
	service   string
	ctx       context.Context //nolint:containedctx // Stop ends it; Next has none of its own.
	cancel    func()

	mu      sync.Mutex
	watcher registry.Watcher
}

// Next implements registry.Watcher.
func (w *patientWatcher) Next() ([]*registry.ServiceInstance, error) {
	watcher, err := w.begun()
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

func (w *patientWatcher) begun() (registry.Watcher, error) {
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

func (w *patientWatcher) current() registry.Watcher {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.watcher
}

// Stop implements registry.Watcher.
func (w *patientWatcher) Stop() error {
	w.cancel()
	if watcher := w.current(); watcher != nil {
		return watcher.Stop()
	}
	return nil
}
