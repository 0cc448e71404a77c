package demo

import (
	"context"

	"github.com/go-kratos/kratos/v2/registry"
)

// static is a registry.Discovery with a fixed list of pods, for a demo without etcd.
type static []*registry.ServiceInstance

// GetService implements registry.Discovery.
func (s static) GetService(context.Context, string) ([]*registry.ServiceInstance, error) {
	return s, nil
}

// Watch implements registry.Discovery.
func (s static) Watch(ctx context.Context, _ string) (registry.Watcher, error) {
	ctx, stop := context.WithCancel(ctx)
	first := make(chan static, 1)
	first <- s
	return &staticWatcher{first, ctx.Done(), stop}, nil
}

type staticWatcher struct {
	first chan static
	done  <-chan struct{}
	stop  context.CancelFunc
}

// Next implements registry.Watcher.
func (w *staticWatcher) Next() ([]*registry.ServiceInstance, error) {
	select {
	case list := <-w.first:
		return list, nil
	case <-w.done:
		return nil, context.Canceled
	}
}

// Stop implements registry.Watcher.
func (w *staticWatcher) Stop() error {
	w.stop()
	return nil
}
