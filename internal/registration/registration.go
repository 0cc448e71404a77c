// Package registration tells a registry where podlink is, so that Kratos clients find it by discovery:///podlink.
//
// Two things to know. podlink neither waits for its registry nor ends without it. And Kratos' registries stop their
// heartbeat for good when the registry was away for a while, and a registry may come back without its data; so Keeper looks
// whether podlink is still to be found, and registers it anew.
package registration

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/google/wire"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"podlink/internal/conf"
)

// ProviderSet is what Wire needs of this package.
var ProviderSet = wire.NewSet(NewKeeper)

const (
	// lookInterval is the pause between two looks whether podlink is to be found.
	lookInterval = 2 * time.Second
	// askLimit bounds each call of the registry.
	askLimit = 3 * time.Second
	// redialInterval is the longest pause between two attempts to reach a registry that is away. gRPC would grow it to two
	// minutes.
	redialInterval = time.Second
)

// Keeper is a registry.Registrar that keeps podlink registered, whatever becomes of the registry. Without a registry it does
// nothing.
type Keeper struct {
	config  clientv3.Config
	options []etcd.Option
	log     *log.Helper

	mu   sync.Mutex
	kept *kept // nil: nothing
}

// kept is an instance that is kept registered. What follows ended is to be used by the one who looks after it, and by others
// once ended is closed.
type kept struct {
	instance *registry.ServiceInstance
	end      context.CancelFunc
	ended    chan struct{} // closed when nobody looks after it any more

	client  *clientv3.Client // nil: none yet
	current *etcd.Registry   // that it is registered with; nil: none yet
	beating context.CancelFunc
}

// NewKeeper returns the keeper for the registry that c names, and a function that closes its connections. Nothing is sent
// yet.
func NewKeeper(c *conf.Registry, logger log.Logger) (*Keeper, func(), error) {
	k := &Keeper{log: log.NewHelper(log.With(logger, "module", "registration"))}
	if c.GetType() == conf.RegistryNone {
		return k, func() {}, nil
	}
	secured, err := c.GetTls().Config("registry.tls")
	if err != nil {
		return nil, nil, err
	}
	k.config = clientv3.Config{
		Endpoints: c.GetAddrs(), Username: c.GetUsername(), Password: c.GetPassword(), TLS: secured,
		DialTimeout: askLimit, DialKeepAliveTime: redialInterval * 10, DialKeepAliveTimeout: askLimit,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: redialInterval / 4, Multiplier: 2, Jitter: .2, MaxDelay: redialInterval},
			MinConnectTimeout: askLimit,
		})},
		Logger: zap.NewNop(), // What goes wrong is told by Keeper.
	}
	k.options = []etcd.Option{etcd.Namespace(c.GetNamespace()), etcd.RegisterTTL(c.GetTtl().AsDuration())}
	return k, func() {
		if held := k.end(); held != nil {
			held.close()
		}
	}, nil
}

// connect makes the client, unless there is one. With a username it logs in at once, so it needs a registry that answers.
func (k *Keeper) connect(ctx context.Context, held *kept) error {
	if held.client != nil {
		return nil
	}
	living, die := context.WithCancel(context.WithoutCancel(ctx))
	config := k.config
	config.Context = living
	left := context.AfterFunc(ctx, die)
	client, err := clientv3.New(config)
	if err != nil {
		die()
		return err
	}
	if left() {
		held.client = client
		return nil
	}
	return errors.Join(ctx.Err(), client.Close())
}

// close ends what is left: the heartbeat, and the connections.
func (h *kept) close() {
	if h.beating != nil {
		h.beating()
	}
	if h.client != nil {
		_ = h.client.Close() // It is of no use any more.
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
	if len(k.config.Endpoints) == 0 {
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

// Leave is Deregister for what is registered. It is no error that the registry does not answer: it forgets the instance
// after registry.ttl.
func (k *Keeper) Leave(ctx context.Context) error {
	held := k.end()
	if held == nil {
		return nil
	}
	defer held.close()
	if held.current == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	if err := held.current.Deregister(ctx, held.instance); err != nil {
		k.log.Warnf("podlink could not be deregistered, and may be found for as long as registry.ttl: %v", err)
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

// errGone: the registry answers, and does not know the instance.
var errGone = errors.New("the registry does not know it")

// keep registers the instance whenever it is not to be found, until ctx ends. Each registration is told, and once that there is none.
func (k *Keeper) keep(ctx context.Context, held *kept) {
	registered, told := false, false
	for {
		err := k.find(ctx, held)
		gone := errors.Is(err, errGone)
		if gone {
			err = k.renew(ctx, held)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && (gone || !registered):
			k.log.Infof("podlink is registered as %s: %s", held.instance.Name, strings.Join(held.instance.Endpoints, " "))
		case err != nil && (registered || !told):
			k.log.Errorf("podlink is perhaps not to be found, for the registry does not answer: %v", err)
		}
		registered, told = err == nil, true
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookInterval):
		}
	}
}

// find returns nil when the registry knows the instance, errGone when it does not.
func (k *Keeper) find(ctx context.Context, held *kept) error {
	if err := k.connect(ctx, held); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	known, err := etcd.New(held.client, k.options...).GetService(ctx, held.instance.Name)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(known, func(other *registry.ServiceInstance) bool { return other.ID == held.instance.ID }) {
		return errGone
	}
	return nil
}

// renew registers the instance anew, and ends the heartbeat of an earlier registration. Each registration has a Registry of
// its own: Kratos' is not made to be registered with while a heartbeat of it goes on.
func (k *Keeper) renew(ctx context.Context, held *kept) error {
	if held.beating != nil {
		held.beating()
	}
	var beating context.Context
	beating, held.beating = context.WithCancel(context.WithoutCancel(ctx)) // Until it is deregistered.
	held.current = etcd.New(held.client, append(slices.Clone(k.options), etcd.Context(beating))...)
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	return held.current.Register(ctx, held.instance)
}
