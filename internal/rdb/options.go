package rdb

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Mode is the deployment mode of Redis.
type Mode string

// The modes.
const (
	Standalone Mode = "standalone"
	Sentinel   Mode = "sentinel"
	Cluster    Mode = "cluster"
)

// Options configures a DB. Every duration must be set: the driver's defaults are not used.
type Options struct {
	Mode       Mode
	Addrs      []string // host:port of the server, of the sentinels, or of some nodes of the cluster
	MasterName string   // Sentinel only
	DB         int      // not for Cluster
	Username   string
	Password   string

	SentinelUsername string
	SentinelPassword string

	// TLS returns the configuration for a new connection. Nil: plaintext.
	TLS func() *tls.Config

	PoolSize     int // connections per server
	MinIdleConns int
	PoolTimeout  time.Duration // maximum wait for a free connection
	DialTimeout  time.Duration
	ReadTimeout  time.Duration
	WriteTimeout time.Duration
	// ConnMaxIdleTime is the idle time after which a connection is not used again.
	ConnMaxIdleTime time.Duration

	// Coalesce batches concurrent calls to a server, on keys of one kind, into shared round trips.
	Coalesce bool
	// WaitReplicas is the number of replicas that must confirm a mutation before it returns, 0 for none. WaitTimeout is
	// the maximum wait for them.
	WaitReplicas int
	WaitTimeout  time.Duration
	// AllowEviction accepts servers that may evict keys as ready.
	AllowEviction bool
	// Embedded is set for the in-process store, which supports neither INFO nor replicas.
	Embedded bool

	Logger Logger // for changes of the store's health
}

// Logger is the part of a logger that Health uses.
type Logger interface {
	Infof(format string, args ...any)
	Warnf(format string, args ...any)
	Errorf(format string, args ...any)
}

// driver returns the driver's options.
func (o Options) driver() *redis.UniversalOptions {
	return &redis.UniversalOptions{
		Addrs:      o.Addrs,
		MasterName: o.MasterName,
		DB:         o.DB,
		Username:   o.Username,
		Password:   o.Password,

		SentinelUsername: o.SentinelUsername,
		SentinelPassword: o.SentinelPassword,

		// Pipelines share the pool: PoolSize is all the connections there are.
		PipelinePoolSize: -1,
		PoolSize:         o.PoolSize,
		MinIdleConns:     o.MinIdleConns,
		PoolTimeout:      o.PoolTimeout,
		DialTimeout:      o.DialTimeout,
		ReadTimeout:      o.ReadTimeout,
		WriteTimeout:     o.WriteTimeout,
		ConnMaxIdleTime:  o.ConnMaxIdleTime,
		// By default the driver ignores the deadline of a context.
		ContextTimeoutEnabled: true,
		// Only reads are retried, once; mutations forbid it (onceCmd).
		MaxRetries:    1,
		DialerRetries: 1,
		// No CLIENT SETINFO and no maintenance notifications: old servers and narrow ACLs deny them.
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// LogDriver sets the log function of the driver. It applies to the whole process, so only main should call it.
func LogDriver(log func(format string, args ...any)) { redis.SetLogger(driverLog(log)) }

type driverLog func(format string, args ...any)

// Printf implements the driver's logger.
func (log driverLog) Printf(_ context.Context, format string, args ...any) { log(format, args...) }
