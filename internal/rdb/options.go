package rdb

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Mode is how Redis is run.
type Mode string

// The modes.
const (
	Standalone Mode = "standalone"
	Sentinel   Mode = "sentinel"
	Cluster    Mode = "cluster"
)

// Options configures a DB. Every duration must be set: nothing that matters is left to the driver's defaults.
type Options struct {
	Mode       Mode
	Addrs      []string // host:port of the server, of the sentinels, or of some nodes of the cluster
	MasterName string   // Sentinel only
	DB         int      // not for Cluster
	Username   string
	Password   string

	SentinelUsername string
	SentinelPassword string

	TLS *tls.Config // nil: plaintext

	PoolSize     int // connections per server
	MinIdleConns int
	PoolTimeout  time.Duration // wait for a free connection
	DialTimeout  time.Duration
	ReadTimeout  time.Duration
	WriteTimeout time.Duration

	// Coalesce lets concurrent calls share round trips to a server.
	Coalesce bool
	// WaitReplicas is how many replicas must confirm a mutation before it is answered, 0 for none, and WaitTimeout how
	// long to wait for them.
	WaitReplicas int
	WaitTimeout  time.Duration
	// AllowEviction makes a server ready that may evict keys.
	AllowEviction bool
	// Embedded is set for the in-process store: it has neither INFO nor replicas to be asked about.
	Embedded bool

	Logger Logger // of the store's health
}

// Logger takes the lines about the health of the store.
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

		TLSConfig: o.TLS,

		// Pipelines share the pool: PoolSize is all the connections there are.
		PipelinePoolSize: -1,
		PoolSize:         o.PoolSize,
		MinIdleConns:     o.MinIdleConns,
		PoolTimeout:      o.PoolTimeout,
		DialTimeout:      o.DialTimeout,
		ReadTimeout:      o.ReadTimeout,
		WriteTimeout:     o.WriteTimeout,
		// The driver ignores a context's deadline unless told.
		ContextTimeoutEnabled: true,
		// Only reads are repeated, once; mutations forbid it (onceCmd).
		MaxRetries:    1,
		DialerRetries: 1,
		// No CLIENT SETINFO and no maintenance notifications: old servers and narrow ACLs refuse them.
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// LogDriver sends the driver's own messages to log. It is process-wide, because the driver's logger is: only the owner of
// a process calls it.
func LogDriver(log func(format string, args ...any)) { redis.SetLogger(driverLog(log)) }

type driverLog func(format string, args ...any)

// Printf implements the driver's logger.
func (log driverLog) Printf(_ context.Context, format string, args ...any) { log(format, args...) }
