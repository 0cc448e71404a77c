package registration

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	"github.com/go-kratos/kratos/v2/registry"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"podlink/internal/certs"
	"podlink/internal/conf"
)

// redialInterval is the longest backoff between two attempts to connect to etcd. gRPC's default is two minutes.
const redialInterval = time.Second

// etcdBackend registers under a key with a lease. Kratos' heartbeat keeps the lease alive, and gives up in a long outage.
type etcdBackend struct {
	config  clientv3.Config
	options []etcd.Option

	client        *clientv3.Client // nil: not connected yet
	registry      *etcd.Registry   // of the current registration; nil: none yet
	stopHeartbeat context.CancelFunc
}

func newEtcd(c *conf.Registry, secured *certs.Client) *etcdBackend {
	b := &etcdBackend{
		config: clientv3.Config{
			Endpoints: c.GetAddrs(), Username: c.GetUsername(), Password: c.GetPassword(),
			DialTimeout: callTimeout, DialKeepAliveTime: redialInterval * 10, DialKeepAliveTimeout: callTimeout,
			DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: redialInterval / 4, Multiplier: 2, Jitter: .2, MaxDelay: redialInterval},
				MinConnectTimeout: callTimeout,
			})},
			Logger: zap.NewNop(), // Registrar logs failures.
		},
		options:       []etcd.Option{etcd.Namespace(c.GetNamespace()), etcd.RegisterTTL(c.GetTtl().AsDuration())},
		stopHeartbeat: func() {},
	}
	if secured != nil { // After clientv3's own, so that this one counts. It has no field for them.
		b.config.DialOptions = append(b.config.DialOptions, grpc.WithTransportCredentials(secured.Credentials()))
	}
	return b
}

// connect creates the client unless there is one. It can't be created earlier: with a username, clientv3.New logs in at once.
// The client outlives ctx, unless ctx ends while it is being created.
func (b *etcdBackend) connect(ctx context.Context) error {
	if b.client != nil {
		return nil
	}
	clientCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	config := b.config
	config.Context = clientCtx
	detach := context.AfterFunc(ctx, cancel)
	client, err := clientv3.New(config)
	if err != nil {
		cancel()
		return err
	}
	if detach() {
		b.client = client
		return nil
	}
	return errors.Join(ctx.Err(), client.Close())
}

func (b *etcdBackend) check(ctx context.Context, instance *registry.ServiceInstance) error {
	if err := b.connect(ctx); err != nil {
		return err
	}
	entries, err := etcd.New(b.client, b.options...).GetService(ctx, instance.Name)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(entries, func(entry *registry.ServiceInstance) bool { return entry.ID == instance.ID }) {
		return errNotRegistered
	}
	return nil
}

// register creates a new etcd.Registry each time: one whose heartbeat still runs can't be reused.
func (b *etcdBackend) register(ctx context.Context, instance *registry.ServiceInstance) error {
	b.stopHeartbeat()
	var heartbeat context.Context
	heartbeat, b.stopHeartbeat = context.WithCancel(context.WithoutCancel(ctx)) // Until deregister.
	b.registry = etcd.New(b.client, append(slices.Clone(b.options), etcd.Context(heartbeat))...)
	return b.registry.Register(ctx, instance)
}

func (b *etcdBackend) deregister(ctx context.Context, instance *registry.ServiceInstance) error {
	defer b.stopHeartbeat()
	if b.registry == nil { // The entry is from an earlier process with the same id.
		b.registry = etcd.New(b.client, b.options...)
	}
	return b.registry.Deregister(ctx, instance)
}

func (b *etcdBackend) close() {
	b.stopHeartbeat()
	if b.client != nil {
		_ = b.client.Close() // Nothing is sent after this.
	}
}
