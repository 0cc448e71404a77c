package app

import (
	"github.com/go-kratos/kratos/v2/log"

	"podlink/internal/certs"
	"podlink/internal/conf"
	"podlink/internal/data"
	"podlink/internal/rdb"
	"podlink/internal/rdb/embedded"
)

// OpenStore returns the configured store, and a function that closes it. It sends nothing: Health reports an unreachable Redis. Files
// keeps its TLS files up to date; nil: they are read once.
func OpenStore(c *conf.Data, files *certs.Reloader, logger log.Logger) (*rdb.DB, func(), error) {
	helper := log.NewHelper(log.With(logger, "module", "data"))
	rdb.LogDriver(helper.Debugf)
	redis := c.GetRedis()
	options, test := storeOptions(redis), data.SelfTest(Keyspace(c))
	options.Logger = helper
	if redis.GetMode() == conf.ModeEmbedded {
		helper.Warn("the store is embedded: data is in memory only and lost when podlink stops; for development only")
		server, err := embedded.Start()
		if err != nil {
			return nil, nil, err
		}
		db := rdb.Open(server.Options(options), test)
		return db, func() {
			db.Close()
			server.Close()
		}, nil
	}
	secured, err := redis.GetTls().Config("data.redis.tls", files)
	if err != nil {
		return nil, nil, err
	}
	if secured != nil {
		options.TLS = secured.Config
	}
	db := rdb.Open(options, test)
	return db, db.Close, nil
}

// Keyspace returns the configured prefix of podlink's keys.
func Keyspace(c *conf.Data) data.Keyspace { return data.Keyspace(c.GetRedis().GetPrefix()) }

// storeOptions returns the options of internal/rdb, without TLS and the logger.
func storeOptions(c *conf.Data_Redis) rdb.Options {
	return rdb.Options{
		Mode:             rdb.Mode(c.GetMode()),
		Addrs:            c.GetAddrs(),
		MasterName:       c.GetMasterName(),
		DB:               int(c.GetDb()),
		Username:         c.GetUsername(),
		Password:         c.GetPassword(),
		SentinelUsername: c.GetSentinelUsername(),
		SentinelPassword: c.GetSentinelPassword(),
		PoolSize:         int(c.GetPoolSize()),
		MinIdleConns:     int(c.GetMinIdleConns()),
		PoolTimeout:      c.GetPoolTimeout().AsDuration(),
		DialTimeout:      c.GetDialTimeout().AsDuration(),
		ReadTimeout:      c.GetReadTimeout().AsDuration(),
		WriteTimeout:     c.GetWriteTimeout().AsDuration(),
		ConnMaxIdleTime:  c.GetConnMaxIdleTime().AsDuration(),
		Coalesce:         c.GetAutoPipeline(),
		WaitReplicas:     int(c.GetWaitReplicas()),
		WaitTimeout:      c.GetWaitTimeout().AsDuration(),
		AllowEviction:    c.GetAllowEviction(),
	}
}
