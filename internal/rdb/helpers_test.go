package rdb

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"podlink/test/kit/logwatch"
	redistest "podlink/test/kit/redis"
)

func TestMain(m *testing.M) {
	LogDriver(func(string, ...any) {}) // What the driver says of the faults that tests make.
	// After many failed dials the driver keeps dialling by itself; it checks once a second whether its client is closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// The scripts that the tests run: one of each access.
var (
	increment = NewScript("increment", "counter", Write, "return {'DONE', tostring(redis.call('INCR', KEYS[1]))}")
	show      = NewScript("show", "counter", Read, "return {'SHOWN', redis.call('GET', KEYS[1]) or '0'}")
)

var counterTest = SelfTest{
	Scripts: []*Script{increment, show},
	Steps:   []SelfTestStep{{increment, nil, "DONE"}, {show, nil, "SHOWN"}},
	Key:     func(kind, id string) string { return "selftest:" + kind + ":" + id },
}

// testOptions are the options of a store on that server.
func testOptions(addr string) Options {
	const timeout = 500 * time.Millisecond
	return Options{
		Mode: Standalone, Addrs: []string{addr}, PoolSize: 8, PoolTimeout: timeout, DialTimeout: timeout, ReadTimeout: timeout,
		WriteTimeout: timeout, Coalesce: true, WaitTimeout: timeout, Logger: testLogger{new(logwatch.Log)},
	}
}

// open returns a store on the server, and what it logs.
func open(t *testing.T, server *redistest.Server, change ...func(*Options)) (*DB, *logwatch.Log) {
	t.Helper()
	o, log := testOptions(server.Addr()), new(logwatch.Log)
	o.Logger = testLogger{log}
	for _, f := range change {
		f(&o)
	}
	db := Open(o, counterTest)
	t.Cleanup(db.Close)
	return db, log
}

// value returns the counter, read past the engine.
func value(t *testing.T, server *redistest.Server, key string) string {
	t.Helper()
	text, err := server.Client(t).Get(t.Context(), key).Result()
	require.NoError(t, err)
	return text
}
