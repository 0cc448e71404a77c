// Package pods says where everything is: podlink and three pods, on this machine. A real service asks a registry instead: etcd,
// Consul or Kubernetes.
package pods

import (
	"context"
	"fmt"
	"strconv"

	"github.com/go-kratos/kratos/v2/registry"

	"podlink/client"
)

// Podlink is podlink's address.
const Podlink = "127.0.0.1:9000"

// Address returns a pod's address.
func Address(pod int32) string { return fmt.Sprintf("127.0.0.1:%d", 9010+pod) }

// Discovery finds the pods.
type Discovery struct{}

// GetService implements registry.Discovery.
func (Discovery) GetService(_ context.Context, service string) ([]*registry.ServiceInstance, error) {
	var instances []*registry.ServiceInstance
	for pod := range int32(3) {
		name := strconv.Itoa(int(pod))
		instances = append(instances, &registry.ServiceInstance{
			ID: name, Name: service, Endpoints: []string{"grpc://" + Address(pod)},
			Metadata: map[string]string{client.MetadataPodID: name}, // By this a router knows which pod it is.
		})
	}
	return instances, nil
}

// Watch implements registry.Discovery.
func (d Discovery) Watch(ctx context.Context, service string) (registry.Watcher, error) {
	ctx, stop := context.WithCancel(ctx)
	return &watcher{next: func() ([]*registry.ServiceInstance, error) { return d.GetService(ctx, service) }, end: ctx.Done(), stop: stop}, nil
}

// watcher shows the pods once: they don't change.
type watcher struct {
	next func() ([]*registry.ServiceInstance, error)
	end  <-chan struct{}
	stop func()
	seen bool
}

// Next implements registry.Watcher.
func (w *watcher) Next() ([]*registry.ServiceInstance, error) {
	if !w.seen {
		w.seen = true
		return w.next()
	}
	<-w.end
	return nil, context.Canceled
}

// Stop implements registry.Watcher.
func (w *watcher) Stop() error {
	w.stop()
	return nil
}
