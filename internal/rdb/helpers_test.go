package rdb

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"podlink/test/kit/logwatch"
	redistest "podlink/test/kit/redis"
)

func TestMain(m *testing.M) {
	LogDriver(func(string, ...any) {}) // The tests inject faults; the driver's messages about them are noise.
	// After many failed dials the driver dials in the background; it checks once a second whether its client is closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// The scripts of the tests: a mutation and a read.
var (
	increment = NewScript("increment", "counter", Write, "return {'DONE', tostring(redis.call('INCR', KEYS[1]))}")
	show      = NewScript("show", "counter", Read, "return {'SHOWN', redis.call('GET', KEYS[1]) or '0'}")
)

var counterTest = SelfTest{
	Scripts: []*Script{increment, show},
	Steps:   []SelfTestStep{{increment, nil, "DONE"}, {show, nil, "SHOWN"}},
	Key:     func(kind, id string) string { return "selftest:" + kind + ":" + id },
}

// testOptions returns the options of a DB on the server.
func testOptions(addr string) Options {
	const timeout = 500 * time.Millisecond
	return Options{
		Mode: Standalone, Addrs: []string{addr}, PoolSize: 8, PoolTimeout: timeout, DialTimeout: timeout, ReadTimeout: timeout,
		WriteTimeout: timeout, ConnMaxIdleTime: time.Minute, Coalesce: true, WaitTimeout: timeout, Logger: testLogger{new(logwatch.Log)},
	}
}

// open returns a DB on the server, and its log.
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

// value reads the counter directly, without the DB.
func value(t *testing.T, server *redistest.Server, key string) string {
	t.Helper()
	text, err := server.Client(t).Get(t.Context(), key).Result()
	require.NoError(t, err)
	return text
}

// clients returns the number of podlink's connections to the server, in the view of a client of its own.
func clients(t *testing.T, server *redistest.Server) int {
	t.Helper()
	count := 0
	for client := range strings.Lines(server.Client(t).ClientList(context.Background()).Val()) {
		if strings.Contains(client, " cmd=get ") || strings.Contains(client, " cmd=evalsha ") || strings.Contains(client, " cmd=info ") {
			count++
		}
	}
	return count
}
