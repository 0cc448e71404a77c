package rdb

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	redistest "podlink/test/kit/redis"
)

// weigh is a read on a separate kind of key.
var weigh = NewScript("weigh", "scale", Read, "return {'WEIGHED', ARGV[1]}")

// withScale is the self-test with a second kind of key.
var withScale = SelfTest{
	Scripts: append(slices.Clone(counterTest.Scripts), weigh), Steps: counterTest.Steps, Key: counterTest.Key,
}

// openWithScale returns a DB that is ready and whose commands may take long.
func openWithScale(t *testing.T, addr string) *DB {
	t.Helper()
	o := testOptions(addr)
	o.ReadTimeout, o.PoolTimeout = 20*time.Second, 20*time.Second
	db := Open(o, withScale)
	t.Cleanup(db.Close)
	require.NoError(t, db.Health.Check(t.Context()))
	return db
}

// callers runs calls that the test waits for.
type callers struct {
	sync.WaitGroup
	db *DB
}

// queue starts a call and waits until it has joined the queue.
func (c *callers) queue(t *testing.T, call func(context.Context)) {
	t.Helper()
	before, _ := c.db.Runner.coalescers.load()
	c.Go(func() { call(context.Background()) })
	require.Eventually(t, func() bool {
		now, _ := c.db.Runner.coalescers.load()
		return now > before
	}, 10*time.Second, 100*time.Microsecond)
}

// occupy starts reads on a kind of key until its lane has no free round trip. The server must be paused.
func (c *callers) occupy(t *testing.T, kind string) {
	t.Helper()
	_, before := c.db.Runner.coalescers.load()
	for n := range maxInFlight {
		c.Go(func() { _, _, _, _ = c.db.Runner.HGet(context.Background(), kind, "hash", "field") })
		require.Eventually(t, func() bool {
			_, now := c.db.Runner.coalescers.load()
			return now == before+n+1
		}, 10*time.Second, 100*time.Microsecond)
	}
}

// TestKindsHaveTheirOwnRoundTrips: calls on one kind of key wait for round trips of their kind only.
func TestKindsHaveTheirOwnRoundTrips(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	db := openWithScale(t, server.Addr())
	c := &callers{db: db}
	defer c.Wait()
	server.Pause()
	defer server.Resume()
	c.occupy(t, "scale")
	c.queue(t, func(ctx context.Context) { _, _ = db.Runner.Run(ctx, weigh, "scale", "") })
	c.occupy(t, "counter") // It does not queue.
	queued, inFlight := db.Runner.coalescers.load()
	require.Equal(t, []int{1, 2 * maxInFlight}, []int{queued, inFlight})
}

// TestBatchesAreBounded: by count, and by the cost of their commands; a command that is too expensive goes alone.
func TestBatchesAreBounded(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		weight, argument int
		queued           []int // the sizes of the batches that the calls are claimed in
	}{
		"by count":     {0, 0, []int{maxBatch, maxBatch, 1}},
		"by weight":    {maxBatchCost / 4, 0, []int{4, 4, 2}},
		"by arguments": {0, bytesPerCost * maxBatchCost / 2, []int{2, 2, 1}},
		"too much":     {maxBatchCost + 1, 0, []int{1, 1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			c := &coalescer{batch: maxBatch, cost: maxBatchCost, inFlight: 1}
			args := []any{"evalsha", strings.Repeat("x", row.argument), 7}
			total := 0
			for _, size := range row.queued {
				total += size
			}
			for range total {
				c.queue = append(c.queue, &queuedCall{cost: cost(row.weight, args)})
			}
			var got []int
			for batch := c.claim(); batch != nil; batch = c.claim() {
				got = append(got, len(batch))
			}
			require.Equal(t, row.queued, got)
			require.Zero(t, c.inFlight)
		})
	}
	one := &coalescer{batch: 1, inFlight: 1, queue: []*queuedCall{{}, {}}}
	require.Len(t, one.claim(), 1, "without sharing")
}

// TestReadOfABrokenBatch: when the connection breaks under a batch, its reads are sent once more, and its mutations are
// not.
func TestReadOfABrokenBatch(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.NewProxy(t, server.Addr())
	db := openWithScale(t, proxy.Addr())
	for round := range 3 {
		c := &callers{db: db}
		server.Pause()
		c.occupy(t, "counter")
		var written, read error
		var reply Reply
		key := "lost" + strconv.Itoa(round)
		c.queue(t, func(ctx context.Context) { _, written = db.Runner.Run(ctx, increment, key) })
		c.queue(t, func(ctx context.Context) { reply, read = db.Runner.Run(ctx, show, key) })
		proxy.LoseReplies(1)
		server.Resume()
		c.Wait()
		require.Equal(t, OutcomeUnknown, ClassOf(written), "%v", written)
		require.NoError(t, read)
		require.Equal(t, []any{"SHOWN", "1"}, reply.Values)
		require.Equal(t, "1", value(t, server, key))
	}
}
