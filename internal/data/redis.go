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
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

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
}

// NewStore returns the store that c.redis names, and a function that closes it. Nothing is sent yet: an unreachable
// Redis is Check's to report.
func NewStore(c *conf.Data, logger log.Logger) (*Store, func(), error) {
	helper := log.NewHelper(log.With(logger, "module", "data"))
	redis.SetLogger(driverLog{helper})
	settings := c.GetRedis()
	store := &Store{keys: keyspace(settings.GetPrefix()), log: helper, underWay: math.MaxInt, selfTest: newSelfTest()}
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
	if universal.TLSConfig, err = tlsConfig(settings.GetTls()); err != nil {
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

// pipelined sends reads in one pipeline. It returns nil when each of them has a result or an error of its own: the driver
// leaves them without either when the handshake of a new connection is refused.
func (s *Store) pipelined(ctx context.Context, queue func(pipe redis.Pipeliner)) error {
	start := time.Now()
	cmds, err := s.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		queue(pipe)
		return nil
	})
	told := slices.ContainsFunc(cmds, func(cmd redis.Cmder) bool { return cmd.Err() != nil })
	var failure error
	if err != nil && !errors.Is(err, redis.Nil) {
		failure = readError(ctx, err)
	}
	s.metrics.observe(commandBatch, start, failure)
	if told {
		return nil
	}
	return failure
}

// Check returns nil when the store can be used: it answers, every script passes its self-test there, it takes writes, and
// it does not evict keys. The error's text is for operators.
func (s *Store) Check(ctx context.Context) error {
	if err := s.selfTest.passed(ctx, s); err != nil {
		return err
	}
	return s.onPrimaries(ctx, s.checkServer)
}

// startLimit bounds the check at the start.
const startLimit = time.Second

// Start checks the store once, so that the scripts are loaded and the log tells what is wrong before the first request
// does. It never fails: podlink starts without its store too, and is not ready. With Stop it makes the store a Kratos
// transport.Server, for the listeners to open meanwhile.
func (s *Store) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := s.Check(ctx); err != nil {
		s.log.Errorf("the store is not ready, podlink starts without it: %v", err)
		return nil
	}
	s.log.Info("the store is ready: every script passed its self-test")
	return nil
}

// Stop implements transport.Server. The connections are closed later, after the listeners.
func (s *Store) Stop(context.Context) error { return nil }

// driverLog sends what the driver has to say to the log.
type driverLog struct{ log *log.Helper }

// Printf implements go-redis' logger.
func (l driverLog) Printf(_ context.Context, format string, v ...any) { l.log.Debugf(format, v...) }
