// Package registration tells a registry where podlink is, so that Kratos clients find it by discovery:///podlink.
//
// Two things to know. podlink neither waits for its registry nor ends without it. And a registry may come back without its
// data, or somebody may remove an entry, and Kratos' own heartbeats give up or do not notice; so Keeper looks whether podlink
// is still to be found, and registers it anew. Keeper does that for every registry; what differs is behind backend.
package registration

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/google/wire"
	"github.com/prometheus/client_golang/prometheus"

	"podlink/internal/conf"
)

// ProviderSet is what Wire needs of this package.
var ProviderSet = wire.NewSet(NewKeeper)

const (
	// lookInterval is the pause between two looks whether podlink is to be found.
	lookInterval = 2 * time.Second
	// askLimit bounds each call of a backend.
	askLimit = 3 * time.Second
)

// errGone: the registry answers, and callers do not find the instance.
var errGone = errors.New("the registry does not know podlink")

// backend is what differs from registry to registry. Its methods are called one at a time, each returns soon after its
// context has ended, and what goes wrong is for Keeper to tell, not for them. Making one sends nothing.
type backend interface {
	// find returns nil when callers find the instance, and errGone when they do not and renew is worth a try. Where a
	// registration has to be confirmed from time to time, find does that.
	find(ctx context.Context, instance *registry.ServiceInstance) error
	// renew registers the instance, whatever is left of an earlier registration; a find after it tells whether that was of use.
	renew(ctx context.Context, instance *registry.ServiceInstance) error
	// leave removes the instance at once. Nothing brings it back; that it is not there is no error.
	leave(ctx context.Context, instance *registry.ServiceInstance) error
	// close ends what the others have left: connections and goroutines.
	close()
}

// newBackend returns the backend for the registry that c names, nil for none.
func newBackend(c *conf.Registry) (backend, error) {
	secured, err := c.GetTls().Config("registry.tls")
	if err != nil {
		return nil, err
	}
	switch c.GetType() {
	case conf.RegistryEtcd:
		return newEtcd(c, secured), nil
	case conf.RegistryConsul:
		return newConsul(c, secured)
	case conf.RegistryKubernetes:
		return newKubernetes(os.DirFS(serviceAccountDir), os.Getenv)
	default:
		return nil, nil //nolint:nilnil // There is none to keep podlink in.
	}
}

// Keeper is a registry.Registrar that keeps podlink registered, whatever becomes of the registry. Without a registry it does
// nothing. It is a prometheus.Collector too.
type Keeper struct {
	backend backend // nil: no registry
	log     *log.Helper
	gauge   prometheus.Collector
	found   atomic.Bool // by the last look

	mu   sync.Mutex
	kept *kept // nil: nothing
}

// kept is an instance that is kept registered.
type kept struct {
	instance *registry.ServiceInstance
	end      context.CancelFunc
	ended    chan struct{} // closed when nobody looks after it any more
	answered bool          // the registry has, so it may know the instance; to be read after ended only
}

// NewKeeper returns the keeper for the registry that c names, and a function that closes its connections. Nothing is sent
// yet. It is an error that a file can't be read, or with type kubernetes that podlink is not in a pod.
func NewKeeper(c *conf.Registry, logger log.Logger) (*Keeper, func(), error) {
	b, err := newBackend(c)
	if err != nil {
		return nil, nil, err
	}
	k := newKeeper(b, logger)
	return k, k.close, nil
}

func newKeeper(b backend, logger log.Logger) *Keeper {
	k := &Keeper{backend: b, log: log.NewHelper(log.With(logger, "module", "registration"))}
	k.gauge = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "podlink_registered",
		Help: "1 when the last look found podlink in its registry, 0 when not.",
	}, func() float64 {
		if k.found.Load() {
			return 1
		}
		return 0
	})
	return k
}

func (k *Keeper) close() {
	k.end()
	if k.backend != nil {
		k.backend.close()
	}
}

// Describe implements prometheus.Collector.
func (k *Keeper) Describe(descriptions chan<- *prometheus.Desc) { k.gauge.Describe(descriptions) }

// Collect implements prometheus.Collector. Without a registry there is no metric, for 0 would be an alert.
func (k *Keeper) Collect(metrics chan<- prometheus.Metric) {
	if k.backend != nil {
		k.gauge.Collect(metrics)
	}
}

// Endpoints returns what a configuration says that callers shall use; none: the listeners.
func Endpoints(c *conf.Registry) ([]*url.URL, error) {
	endpoints := make([]*url.URL, len(c.GetEndpoints()))
	for i, text := range c.GetEndpoints() {
		var err error
		if endpoints[i], err = url.Parse(text); err != nil {
			return nil, fmt.Errorf("registry.endpoints[%d]: %w", i, err)
		}
	}
	return endpoints, nil
}

// Register implements registry.Registrar. It returns at once, and keeps the instance registered from then on.
func (k *Keeper) Register(ctx context.Context, instance *registry.ServiceInstance) error {
	if k.backend == nil {
		return nil
	}
	ctx, end := context.WithCancel(context.WithoutCancel(ctx)) // It outlives the start.
	held := &kept{instance: instance, end: end, ended: make(chan struct{})}
	k.mu.Lock()
	k.kept = held
	k.mu.Unlock()
	go func() {
		defer close(held.ended)
		k.keep(ctx, held)
	}()
	return nil
}

// Deregister implements registry.Registrar: from now on nobody finds the instance. A second call does nothing.
func (k *Keeper) Deregister(ctx context.Context, _ *registry.ServiceInstance) error {
	return k.Leave(ctx)
}

// Leave is Deregister for what is registered. It is no error that the registry does not answer.
func (k *Keeper) Leave(ctx context.Context) error {
	held := k.end()
	if held == nil || !held.answered {
		return nil
	}
	k.found.Store(false)
	if err := bounded(ctx, k.backend.leave, held); err != nil {
		k.log.Warnf("podlink could not be deregistered, and may be found until the registry forgets it: %v", err)
		return nil
	}
	k.log.Info("podlink is deregistered")
	return nil
}

// end stops looking after the instance, waits until nobody does, and returns it; nil when there is none.
func (k *Keeper) end() *kept {
	k.mu.Lock()
	held := k.kept
	k.kept = nil
	k.mu.Unlock()
	if held != nil {
		held.end()
		<-held.ended
	}
	return held
}

// keep registers the instance whenever it is not to be found, until ctx ends. Each registration is told, and once that there is none.
func (k *Keeper) keep(ctx context.Context, held *kept) {
	for first := true; ; first = false {
		err := bounded(ctx, k.backend.find, held)
		gone := errors.Is(err, errGone)
		if gone {
			if err = bounded(ctx, k.backend.renew, held); err == nil {
				err = bounded(ctx, k.backend.find, held)
			}
		}
		if ctx.Err() != nil {
			return
		}
		was := k.found.Swap(err == nil)
		switch {
		case err == nil && (gone || !was):
			k.log.Infof("podlink is registered as %s: %s", held.instance.Name, strings.Join(held.instance.Endpoints, " "))
		case err != nil && (was || first):
			k.log.Errorf("podlink is perhaps not to be found, for its registry fails: %v", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookInterval):
		}
	}
}

// bounded asks the backend, for askLimit at most.
func bounded(
	ctx context.Context, ask func(context.Context, *registry.ServiceInstance) error, held *kept,
) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	err := ask(ctx, held.instance)
	held.answered = held.answered || err == nil || errors.Is(err, errGone)
	return err
}

// newHTTPClient returns a client for a registry that is asked over HTTP. It carries a token, so it follows no redirect and
// uses no proxy.
func newHTTPClient(secured *tls.Config) *http.Client {
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: secured, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
