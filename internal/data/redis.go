// Package data keeps links, pod reports and workload states in Redis.
//
// Two things to know before changing anything here. Every mutation is one script on one key (lua/), so it happens wholly
// or not at all. And every mutation is sent at most once (script.go): go-redis would repeat a command whose reply was
// lost.
package data

import (
	"context"
	"errors"
	"math"
	"net"
	"slices"
	"sync"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"podlink/internal/conf"
)

// Store is the connection to Redis, or to the embedded store. It is safe for concurrent use.
type Store struct {
	client  redis.UniversalClient
	keys    keyspace
	durable *conf.Data_Redis // nil for the embedded store, which can't be asked about itself
	log     *log.Helper

	confirm   confirmation
	underWay  int      // how many round trips to a server calls do not share
	pipelines sync.Map // *redis.Client -> *pipelines
	selfTest  selfTest
	metrics   *storeMetrics
	watch     *watch
}

// NewStore returns the store that c.redis names, and a function that closes it. Nothing is sent yet: an unreachable
// Redis is Check's to report.
func NewStore(c *conf.Data, logger log.Logger) (*Store, func(), error) {
	helper := log.NewHelper(log.With(logger, "module", "data"))
	redis.SetLogger(driverLog{helper})
	settings := c.GetRedis()
	store := &Store{keys: keyspace(settings.GetPrefix()), log: helper, underWay: math.MaxInt, selfTest: newSelfTest(), watch: newWatch()}
	store.metrics = newStoreMetrics(store)
	if settings.GetAutoPipeline() {
		store.underWay = maxUnderWay
	}
	if settings.GetMode() == conf.ModeEmbedded {
		helper.Warn("the store is embedded: it lives in memory, is lost when podlink stops, and is for development only")
		embedded, err := startEmbedded()
		if err != nil {
			return nil, nil, err
		}
		store.client = redis.NewClient(embedded.options(options(settings).Simple()))
		return store, func() {
			_ = store.client.Close()
			embedded.close()
		}, nil
	}
	universal := options(settings)
	var err error
	if universal.TLSConfig, err = settings.GetTls().Config("data.redis.tls"); err != nil {
		return nil, nil, err
	}
	store.durable = settings
	store.confirm = confirmation{
		replicas: int(settings.GetWaitReplicas()), timeout: settings.GetWaitTimeout().AsDuration(),
	}
	store.client = newClient(settings.GetMode(), universal)
	return store, func() { _ = store.client.Close() }, nil
}

// newClient returns the client for the mode; everything behind it is the same for all of them.
func newClient(mode string, universal *redis.UniversalOptions) redis.UniversalClient {
	switch mode {
	case conf.ModeSentinel:
		return withDialHook(redis.NewFailoverClient(universal.Failover()))
	case conf.ModeCluster:
		return newCluster(universal.Cluster())
	default:
		return withDialHook(redis.NewClient(universal.Simple()))
	}
}

func withDialHook(client *redis.Client) *redis.Client {
	client.AddHook(dialHook{})
	return client
}

// dialHook makes every failure to connect one that noConnection knows: the driver passes on what the sentinels have
// answered as if it were the answer to the command, and "I don't know this primary" looks like "there is no link" then.
type dialHook struct{ failed func(context.Context) } // called on a failure, if not nil

// DialHook implements redis.Hook.
func (h dialHook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(ctx, network, addr)
		if err == nil {
			return conn, nil
		}
		if h.failed != nil && !errors.Is(err, context.Canceled) {
			h.failed(ctx)
		}
		return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New(err.Error())}
	}
}

// ProcessHook implements redis.Hook.
func (dialHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

// ProcessPipelineHook implements redis.Hook.
func (dialHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// options leaves nothing that matters to the driver's defaults.
func options(c *conf.Data_Redis) *redis.UniversalOptions {
	return &redis.UniversalOptions{
		Addrs:      c.GetAddrs(),
		MasterName: c.GetMasterName(),
		DB:         int(c.GetDb()),
		Username:   c.GetUsername(),
		Password:   c.GetPassword(),

		SentinelUsername: c.GetSentinelUsername(),
		SentinelPassword: c.GetSentinelPassword(),

		// Pipelines get no connections of their own: pool_size is all there are.
		PipelinePoolSize: -1,
		PoolSize:         int(c.GetPoolSize()),
		MinIdleConns:     int(c.GetMinIdleConns()),
		PoolTimeout:      c.GetPoolTimeout().AsDuration(),
		DialTimeout:      c.GetDialTimeout().AsDuration(),
		ReadTimeout:      c.GetReadTimeout().AsDuration(),
		WriteTimeout:     c.GetWriteTimeout().AsDuration(),
		// A call ends with its request: the driver ignores deadlines unless told.
		ContextTimeoutEnabled: true,
		// Only reads are repeated, once; mutations forbid it (onceCmd).
		MaxRetries:    1,
		DialerRetries: 1,
		// No CLIENT SETINFO and no maintenance notifications: old servers and narrow ACLs refuse them.
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// pipelined sends reads of keys of one kind in one pipeline. It returns nil when each of them has a result or an error of
// its own: the driver leaves them without either when the handshake of a new connection is refused.
func (s *Store) pipelined(ctx context.Context, kind string, queue func(pipe redis.Pipeliner)) error {
	c := s.metrics.begin(ctx, commandBatch, kind)
	cmds, err := s.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		queue(pipe)
		return nil
	})
	told := slices.ContainsFunc(cmds, func(cmd redis.Cmder) bool { return cmd.Err() != nil })
	c.describe(semconv.DBOperationBatchSize(len(cmds)))
	if told {
		c.end(firstFailure(ctx, cmds))
		return nil
	}
	if err != nil {
		err = readError(ctx, err)
	}
	c.end(err)
	return err
}

// firstFailure returns the first error of the reads, nil when all of them were answered. That there is nothing is an answer,
// and so is that the script is not known yet: it is sent anew.
func firstFailure(ctx context.Context, cmds []redis.Cmder) error {
	for _, cmd := range cmds {
		if err := cmd.Err(); err != nil && !errors.Is(err, redis.Nil) && !redis.HasErrorPrefix(err, "NOSCRIPT") {
			return readError(ctx, err)
		}
	}
	return nil
}

// driverLog sends what the driver has to say to the log.
type driverLog struct{ log *log.Helper }

// Printf implements go-redis' logger.
func (l driverLog) Printf(_ context.Context, format string, v ...any) { l.log.Debugf(format, v...) }
