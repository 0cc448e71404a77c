package registration

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"time"

	"github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	"github.com/go-kratos/kratos/v2/registry"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"podlink/internal/conf"
)

// redialInterval is the longest pause between two attempts to reach an etcd that is away. gRPC would grow it to two minutes.
const redialInterval = time.Second

// etcdBackend registers under a key with a lease, which Kratos' heartbeat keeps alive until etcd is away for a while.
type etcdBackend struct {
	config  clientv3.Config
	options []etcd.Option

	client  *clientv3.Client // nil: none yet
	current *etcd.Registry   // that the instance is registered with; nil: none yet
	beating context.CancelFunc
}

func newEtcd(c *conf.Registry, secured *tls.Config) *etcdBackend {
	return &etcdBackend{
		config: clientv3.Config{
			Endpoints: c.GetAddrs(), Username: c.GetUsername(), Password: c.GetPassword(), TLS: secured,
			DialTimeout: askLimit, DialKeepAliveTime: redialInterval * 10, DialKeepAliveTimeout: askLimit,
			DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: redialInterval / 4, Multiplier: 2, Jitter: .2, MaxDelay: redialInterval},
				MinConnectTimeout: askLimit,
			})},
			Logger: zap.NewNop(), // What goes wrong is told by Keeper.
		},
		options: []etcd.Option{etcd.Namespace(c.GetNamespace()), etcd.RegisterTTL(c.GetTtl().AsDuration())},
		beating: func() {},
	}
}

// connect makes the client, unless there is one. With a username it logs in at once, so it needs an etcd that answers.
func (b *etcdBackend) connect(ctx context.Context) error {
	if b.client != nil {
		return nil
	}
	living, die := context.WithCancel(context.WithoutCancel(ctx))
	config := b.config
	config.Context = living
	left := context.AfterFunc(ctx, die)
	client, err := clientv3.New(config)
	if err != nil {
		die()
		return err
	}
	if left() {
		b.client = client
		return nil
	}
	return errors.Join(ctx.Err(), client.Close())
}

func (b *etcdBackend) find(ctx context.Context, instance *registry.ServiceInstance) error {
	if err := b.connect(ctx); err != nil {
		return err
	}
	known, err := etcd.New(b.client, b.options...).GetService(ctx, instance.Name)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(known, func(other *registry.ServiceInstance) bool { return other.ID == instance.ID }) {
		return errGone
	}
	return nil
}

// renew gives each registration a Registry of its own: Kratos' is not made to be registered with while a heartbeat of it
// goes on.
func (b *etcdBackend) renew(ctx context.Context, instance *registry.ServiceInstance) error {
	b.beating()
	var beating context.Context
	beating, b.beating = context.WithCancel(context.WithoutCancel(ctx)) // Until it is deregistered.
	b.current = etcd.New(b.client, append(slices.Clone(b.options), etcd.Context(beating))...)
	return b.current.Register(ctx, instance)
}

func (b *etcdBackend) leave(ctx context.Context, instance *registry.ServiceInstance) error {
	defer b.beating()
	if b.current == nil { // An earlier podlink with this id has registered it.
		b.current = etcd.New(b.client, b.options...)
	}
	return b.current.Deregister(ctx, instance)
}

func (b *etcdBackend) close() {
	b.beating()
	if b.client != nil {
		_ = b.client.Close() // It is of no use any more.
	}
}
