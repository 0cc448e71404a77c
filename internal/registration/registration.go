// Package registration keeps podlink registered in a service registry, where Kratos clients find it as discovery:///podlink.
//
// Two things to know. podlink starts and serves without its registry. And a registration can disappear at any time: a registry
// restarts without its data, an operator deletes the entry, and Kratos' own heartbeats give up or do not notice. So Registrar
// checks its registration in a loop and registers again when it is gone. What differs between registries is behind backend.
package registration

import (
	"context"
	"errors"
	"fmt"
	"net"
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

	"podlink/internal/certs"
	"podlink/internal/conf"
)

// ProviderSet is this package's Wire providers.
var ProviderSet = wire.NewSet(NewRegistrar)

const (
	// checkInterval is the pause between two checks of the registration.
	checkInterval = 2 * time.Second
	// callTimeout bounds each call of a backend.
	callTimeout = 3 * time.Second
)

// errNotRegistered is the answer of a registry in which callers do not find the instance.
var errNotRegistered = errors.New("podlink is not in the registry")

// backend talks to one type of registry. Its methods are called one at a time, return soon after their context has ended, and
// leave logging to Registrar. Constructing a backend sends nothing.
type backend interface {
	// check returns nil when callers find the instance, and errNotRegistered when they do not and register may help. In a
	// registry that expects regular renewals, it also renews the registration.
	check(ctx context.Context, instance *registry.ServiceInstance) error
	// register registers the instance, over whatever an earlier registration left. The caller checks whether it worked.
	register(ctx context.Context, instance *registry.ServiceInstance) error
	// deregister removes the instance and stops its heartbeat. Removing an absent instance is not an error.
	deregister(ctx context.Context, instance *registry.ServiceInstance) error
	// close releases connections and goroutines.
	close()
}

// newBackend returns the backend for the configured registry, nil for none.
func newBackend(c *conf.Registry, files *certs.Reloader) (backend, error) {
	secured, err := c.GetTls().Config("registry.tls", files)
	if err != nil {
		return nil, err
	}
	switch c.GetType() {
	case conf.RegistryEtcd:
		return newEtcd(c, secured), nil
	case conf.RegistryConsul:
		return newConsul(c, secured)
	case conf.RegistryKubernetes:
		return newKubernetes(serviceAccountDir, files, os.Getenv)
	default:
		return nil, nil //nolint:nilnil // No registry is configured.
	}
}

// Registrar is a registry.Registrar that keeps an instance registered until it is stopped, and a prometheus.Collector. It does
// nothing when no registry is configured.
type Registrar struct {
	backend backend // nil: no registry
	log     *log.Helper
	gauge   prometheus.Collector
	found   atomic.Bool // result of the last check

	mu      sync.Mutex    // held while a loop starts or ends, so that at most one runs
	current *registration // nil: none
}

// registration is an instance with the loop that keeps it registered.
type registration struct {
	instance *registry.ServiceInstance
	cancel   context.CancelFunc
	done     chan struct{} // closed when the loop has returned
	answered bool          // the registry has answered, so it may hold the instance; read it after done only
}

// NewRegistrar returns the registrar for the configured registry, and a function that stops it and closes its connections
// without deregistering. It sends nothing yet. It fails when a TLS file can't be read or, with type kubernetes, outside a pod.
func NewRegistrar(c *conf.Registry, files *certs.Reloader, logger log.Logger) (*Registrar, func(), error) {
	b, err := newBackend(c, files)
	if err != nil {
		return nil, nil, err
	}
	r := newRegistrar(b, logger)
	return r, r.close, nil
}

func newRegistrar(b backend, logger log.Logger) *Registrar {
	r := &Registrar{backend: b, log: log.NewHelper(log.With(logger, "module", "registration"))}
	r.gauge = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "podlink_registered",
		Help: "1 when the last check found podlink in its registry, else 0.",
	}, func() float64 {
		if r.found.Load() {
			return 1
		}
		return 0
	})
	return r
}

func (r *Registrar) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopLoop()
	if r.backend != nil {
		r.backend.close()
	}
}

// Describe implements prometheus.Collector.
func (r *Registrar) Describe(descriptions chan<- *prometheus.Desc) { r.gauge.Describe(descriptions) }

// Collect implements prometheus.Collector. Without a registry there is no metric: an alert fires at 0.
func (r *Registrar) Collect(metrics chan<- prometheus.Metric) {
	if r.backend != nil {
		r.gauge.Collect(metrics)
	}
}

// Endpoints parses registry.endpoints. With an empty list, Kratos registers the listeners' addresses.
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

// withHost checks that callers can reach every endpoint. Kratos derives the endpoint of a listener on an unspecified address
// from the machine's interfaces, and gives it no host when none of them has an address that others can reach.
func withHost(endpoints []string) error {
	for _, text := range endpoints {
		endpoint, err := url.Parse(text)
		if err != nil {
			return fmt.Errorf("registry.endpoints: %w", err)
		}
		if ip := net.ParseIP(endpoint.Hostname()); endpoint.Hostname() == "" || ip.IsUnspecified() {
			return fmt.Errorf("registry.endpoints is required: callers can't reach %q, derived from a listener's address", text)
		}
	}
	return nil
}

// Register implements registry.Registrar. It starts the loop that keeps the instance registered, and returns at once. An
// instance that was registered earlier is deregistered first.
func (r *Registrar) Register(ctx context.Context, instance *registry.ServiceInstance) error {
	if r.backend == nil {
		return nil
	}
	if err := withHost(instance.Endpoints); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stop(ctx)
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // The loop outlives the start.
	reg := &registration{instance: instance, cancel: cancel, done: make(chan struct{})}
	r.current = reg
	go func() {
		defer close(reg.done)
		r.loop(ctx, reg)
	}()
	return nil
}

// Deregister implements registry.Registrar. It calls Stop.
func (r *Registrar) Deregister(ctx context.Context, _ *registry.ServiceInstance) error {
	return r.Stop(ctx)
}

// Stop ends the loop and removes the instance from the registry, if there is one. A failure is logged, not returned: podlink
// stops all the same. A second call does nothing.
func (r *Registrar) Stop(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stop(ctx)
	return nil
}

func (r *Registrar) stop(ctx context.Context) {
	reg := r.stopLoop()
	if reg == nil || !reg.answered {
		return
	}
	r.found.Store(false)
	if err := call(ctx, r.backend.deregister, reg); err != nil {
		r.log.Warnf("podlink could not be deregistered; callers may find it until its registry entry expires: %v", err)
		return
	}
	r.log.Info("podlink is deregistered")
}

// stopLoop ends the loop, waits for it, and returns its registration; nil when there is none.
func (r *Registrar) stopLoop() *registration {
	reg := r.current
	r.current = nil
	if reg != nil {
		reg.cancel()
		<-reg.done
	}
	return reg
}

// loop checks the registration until ctx ends, and registers the instance when it is missing. It logs each registration, and
// the first of consecutive failures.
func (r *Registrar) loop(ctx context.Context, reg *registration) {
	for first := true; ; first = false {
		err := call(ctx, r.backend.check, reg)
		missing := errors.Is(err, errNotRegistered)
		if missing {
			if err = call(ctx, r.backend.register, reg); err == nil {
				err = call(ctx, r.backend.check, reg)
			}
		}
		if ctx.Err() != nil {
			return
		}
		was := r.found.Swap(err == nil)
		switch {
		case err == nil && (missing || !was):
			r.log.Infof("podlink is registered as %s: %s", reg.instance.Name, strings.Join(reg.instance.Endpoints, " "))
		case err != nil && (was || first):
			r.log.Errorf("registry unavailable: podlink may be undiscoverable: %v", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(checkInterval):
		}
	}
}

// call calls a method of the backend with callTimeout.
func call(
	ctx context.Context, method func(context.Context, *registry.ServiceInstance) error, reg *registration,
) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := method(ctx, reg.instance)
	reg.answered = reg.answered || err == nil || errors.Is(err, errNotRegistered)
	return err
}

// newHTTPClient returns a client for a registry with an HTTP API. Its requests carry a token, so it follows no redirects and
// uses no proxy.
func newHTTPClient(secured *certs.Client) *http.Client {
	plain := &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute}
	c := &http.Client{
		Transport:     plain,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if secured != nil {
		c.Transport = secured.Transport(plain)
	}
	return c
}
