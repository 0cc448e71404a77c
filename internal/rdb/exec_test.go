package rdb

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	redistest "podlink/test/kit/redis"
)

// TestRun: a script is executed once, also after its cache was flushed, and Run returns its reply.
func TestRun(t *testing.T) {
	server := redistest.Start(t)
	db, _ := open(t, server)
	for n, want := range []string{"1", "2", "3"} {
		if n == 1 {
			require.NoError(t, server.Client(t).ScriptFlush(t.Context()).Err())
		}
		reply, err := db.Runner.Run(t.Context(), increment, "counter")
		require.NoError(t, err)
		require.Equal(t, "DONE", reply.Status())
		fields, err := reply.Fields(1, 1)
		require.NoError(t, err)
		require.Equal(t, []string{want}, fields)
	}
	replies, err := db.Runner.RunAll(t.Context(), show, []string{"counter", "absent"})
	require.NoError(t, err)
	require.Equal(t, []any{"SHOWN", "3"}, replies[0].Values)
	require.Equal(t, []any{"SHOWN", "0"}, replies[1].Values)
	_, err = db.Runner.RunAll(t.Context(), increment, []string{"counter"})
	require.ErrorContains(t, err, "must be run by Run", "a pipeline is retried")
	require.Equal(t, "3", value(t, server, "counter"))
}

// TestLostReply: a mutation is not sent again and its outcome is unknown; a read is retried.
func TestLostReply(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.NewProxy(t, server.Addr())
	db, _ := open(t, server, func(o *Options) { o.Addrs = []string{proxy.Addr()} })
	require.NoError(t, db.Health.Check(t.Context()))
	proxy.LoseReplies(1)
	_, err := db.Runner.Run(t.Context(), increment, "counter")
	require.Equal(t, OutcomeUnknown, ClassOf(err), "%v", err)
	require.Equal(t, "1", value(t, server, "counter"))
	proxy.LoseReplies(1)
	reply, err := db.Runner.Run(t.Context(), show, "counter")
	require.NoError(t, err)
	require.Equal(t, []any{"SHOWN", "1"}, reply.Values)
}

// TestClasses checks the class of every error, for a read and for a mutation that may have been sent or was not.
func TestClasses(t *testing.T) {
	dial := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	timeout := &net.OpError{Op: "read", Err: context.DeadlineExceeded}
	for _, row := range []struct {
		name       string
		err        error
		read, sent Class
	}{
		{"no connection", dial, Unavailable, OutcomeUnknown},
		{"no free connection", redis.ErrPoolTimeout, Unavailable, OutcomeUnknown},
		{"no reply in time", timeout, DeadlineExceeded, OutcomeUnknown},
		{"the connection broke", io.EOF, Unavailable, OutcomeUnknown},
		{"LOADING", errorReply("LOADING Redis is loading the dataset in memory"), Unavailable, Unavailable},
		{"READONLY", errorReply("READONLY You can't write against a read only replica."), Unavailable, Unavailable},
		{"TRYAGAIN", errorReply("TRYAGAIN Multiple keys request during rehashing of slot"), Unavailable, Unavailable},
		{"NOPERM", errorReply("NOPERM this user has no permissions"), Unavailable, Unavailable},
		{"OOM", errorReply("OOM command not allowed when used memory > 'maxmemory'."), Full, Full},
		{"WRONGTYPE", errorReply("WRONGTYPE Operation against a key"), Corrupt, Corrupt},
		{"an error of a script", errorReply("CORRUPT link"), Corrupt, Corrupt},
		{"a script stopped by the ACL", errorReply("ERR The user executing the script can't run this command"), Unavailable, OutcomeUnknown},
		{"an unknown command", errorReply("ERR unknown command 'x', with args beginning with: 'uid'"), Other, Other},
	} {
		t.Run(row.name, func(t *testing.T) {
			require.Equal(t, row.read, ClassOf(readError(t.Context(), row.err)), "read")
			require.Equal(t, row.sent, ClassOf(sentError(row.err)), "sent")
			require.Equal(t, Unavailable, ClassOf(notSentError(t.Context(), row.err)), "not sent")
			require.NotContains(t, sentError(row.err).Error(), "uid", "an error contains no argument")
		})
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, Canceled, ClassOf(readError(canceled, io.EOF)))
	require.Equal(t, Canceled, ClassOf(notSentError(canceled, io.EOF)))
	require.Equal(t, Unconfirmed, ClassOf(unconfirmedError(errors.New("0 of 1 replicas"))))
	require.Equal(t, Other, ClassOf(errors.New("a bug")))
}

// errorReply returns an error reply of Redis.
func errorReply(text string) error { return redisError(text) }

type redisError string

func (e redisError) Error() string { return string(e) }
func (redisError) RedisError()     {}

// TestReplies: a reply that contradicts the script's header is malformed.
func TestReplies(t *testing.T) {
	script := NewScript("script", "counter", Read, "")
	_, err := newReply(script, int64(1), nil)
	require.ErrorContains(t, err, "contradicts its header")
	text, err := newReply(script, "LINKED 1 2", nil)
	require.NoError(t, err)
	require.Equal(t, "LINKED", text.Status())
	array, err := newReply(script, []any{"PODS", []any{"1", "up"}, []any{}, int64(7)}, nil)
	require.NoError(t, err)
	require.Equal(t, "PODS", array.Status())
	nested, err := array.Nested(1, 2)
	require.NoError(t, err)
	require.Equal(t, []string{"1", "up"}, nested)
	nested, err = array.Nested(2, 2)
	require.NoError(t, err)
	require.Nil(t, nested)
	for name, read := range map[string]func() error{
		"too many values": func() error { _, err := array.Nested(1, 1); return err },
		"not an array":    func() error { _, err := array.Nested(3, 1); return err },
		"no such value":   func() error { _, err := array.Nested(4, 1); return err },
		"not a string":    func() error { _, err := array.Fields(3, 1); return err },
		"too few values":  func() error { _, err := array.Fields(1, 1); return err },
		"text":            func() error { _, err := text.Fields(0, 1); return err },
	} {
		require.ErrorContains(t, read(), "contradicts its header", name)
	}
	require.Empty(t, Reply{}.Status())
}

// TestFullQueue: a call that finds the queue full fails, and was not sent.
func TestFullQueue(t *testing.T) {
	c := &coalescer{queue: make([]*queuedCall, maxQueue)} // No round trip is free.
	cmd := newOnceCmd(t.Context(), []any{"ping"})
	o := c.do(t.Context(), cmd, defaultWeight, nil)
	require.ErrorIs(t, o.err, errQueueFull)
	require.False(t, o.mayBeSent(cmd))
	require.Equal(t, Unavailable, ClassOf(notSentError(t.Context(), o.err)))
}

// TestGate: after a script was stopped half-way, mutations are refused until the self-test passes; reads are not.
func TestGate(t *testing.T) {
	server := redistest.Start(t)
	db, _ := open(t, server)
	require.NoError(t, db.Health.Check(t.Context()))
	acl := func(rule string) {
		require.NoError(t, server.Client(t).Do(t.Context(), "ACL", "SETUSER", "default", rule).Err())
	}
	acl("-incr")
	_, err := db.Runner.Run(t.Context(), increment, "counter")
	require.Equal(t, OutcomeUnknown, ClassOf(err), "%v", err)
	_, err = db.Runner.Run(t.Context(), increment, "counter")
	require.Equal(t, Unavailable, ClassOf(err), "it was not sent: %v", err)
	require.ErrorContains(t, err, "self-test")
	_, err = db.Runner.Run(t.Context(), show, "counter")
	require.NoError(t, err)
	acl("+incr")
	require.Eventually(t, func() bool {
		_, err := db.Runner.Run(context.Background(), increment, "counter")
		return err == nil
	}, 10*time.Second, 50*time.Millisecond)
	require.Equal(t, "1", value(t, server, "counter"))
}

// TestFailuresAreCounted: failures are counted by class, and all series exist from the start.
func TestFailuresAreCounted(t *testing.T) {
	server := redistest.Start(t)
	db, _ := open(t, server)
	require.NoError(t, server.Client(t).HSet(t.Context(), "hash", "field", "value").Err())
	count := func(command string, class Class) float64 {
		return testutil.ToFloat64(db.Metrics.failures.WithLabelValues(command, class.String()))
	}
	require.Equal(t, len(classNames)*5, testutil.CollectAndCount(db.Metrics.failures), "every class of every command")
	_, err := db.Runner.Run(t.Context(), increment, "hash")
	require.Equal(t, Corrupt, ClassOf(err))
	require.InDelta(t, 1, count("increment", Corrupt), 0)
	_, found, call, err := db.Runner.HGet(t.Context(), "hash", "hash", "field")
	require.NoError(t, err)
	require.True(t, found)
	call.Decoded(errors.New("not a number"))
	require.InDelta(t, 1, count(commandHGet, Corrupt), 0)
	server.Kill()
	_, _, _, err = db.Runner.HGet(t.Context(), "hash", "hash", "field")
	require.Equal(t, Unavailable, ClassOf(err))
	require.InDelta(t, 1, count(commandHGet, Unavailable), 0)
	_, err = db.Runner.ReadAll(t.Context(), "hash", [][]any{{"hget", "hash", "field"}, {"hget", "hash", "other"}})
	if err == nil { // Then each read has its own error.
		require.InDelta(t, 1, count(commandPipeline, Unavailable), 0)
	}
	require.False(t, strings.Contains(strings.Join(classNames[:], " "), "  "), "every class has a name")
}

// BenchmarkObserve measures the overhead of the metrics per call of the store.
func BenchmarkObserve(b *testing.B) {
	b.ReportAllocs()
	m := newMetrics(nil)
	for b.Loop() {
		m.begin(b.Context(), commandHGet, "link").end(nil)
		m.batchSizes.Observe(1)
	}
}
