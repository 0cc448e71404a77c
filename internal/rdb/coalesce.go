package rdb

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

const (
	// maxInFlight is the number of in-flight round trips per server before calls are coalesced. A limit of
	// one would give the largest batches; a second round trip keeps the server busy while the first one's replies are read.
	maxInFlight = 2
	// maxBatch is the maximum number of commands per round trip.
	maxBatch = 512
	// maxBatchCost is the maximum cost of the commands of a round trip, about a microsecond of Redis' time each. All calls of
	// a batch wait for its last reply, so this bounds how long an expensive call delays the others. A call that costs more is
	// sent alone.
	maxBatchCost = 4096
	// bytesPerCost is how many bytes of arguments cost as much as a microsecond of a script.
	bytesPerCost = 64
	// maxBulkCost is maxBatchCost for the items of batch requests. A round trip of them delays the single calls behind it in Redis.
	maxBulkCost = 1024
	// maxQueue is the maximum number of queued calls per coalescer; further calls fail.
	maxQueue = 16384
)

var errQueueFull = errors.New("too many calls are queued for the store")

// coalescer batches concurrent calls to one server into shared round trips. A call below the in-flight limit is sent at
// once, on its caller's goroutine, as it would be without the coalescer. Calls above the limit are queued and sent
// together in the next round trip. So batches grow with the load, and no call waits for a batch to fill.
//
// The driver has an auto-pipeliner too; docs/decisions/0007-own-pipeline.md says why it is not used.
type coalescer struct {
	client      *redis.Client
	conns       *conns      // of the client
	replication replication // applies to all commands
	limit       int         // max in-flight round trips before calls are queued
	batch       int         // max commands per round trip
	cost        int         // max cost of the commands of a round trip
	batchSizes  prometheus.Observer

	mu       sync.Mutex
	inFlight int
	queue    []*queuedCall
}

// queuedCall is a call that waits for a round trip.
type queuedCall struct {
	cmd         command
	cost        int
	state       atomic.Int32
	done        chan struct{} // closed when the rest is set
	err         error
	unconfirmed error
}

// The states of a queued call. It leaves queued once: claimed by the batch that sends it, or abandoned by its caller.
const (
	queued int32 = iota
	claimed
	abandoned
)

// command is a driver command with access to its reply: Val is nil until the reply has arrived.
type command interface {
	redis.Cmder
	Val() any
}

// outcome is the result of sending a command.
type outcome struct {
	err         error
	unconfirmed error // if err is nil: why replicas have not confirmed the mutation
	// abandoned is set if the context ended before the reply arrived. The command then still belongs to its batch and
	// must not be read. If claimed is set as well, it has been or will be sent.
	abandoned, claimed bool
	shared             bool // the command shared its round trip with others
}

// mayBeSent reports whether Redis may execute the command: it may have left the process, or may still leave it.
func (o outcome) mayBeSent(cmd *onceCmd) bool {
	if o.abandoned {
		return o.claimed
	}
	return cmd.written.Load()
}

// do sends the command and returns its outcome. It returns when ctx ends at the latest. weight is the command's cost
// without its arguments.
func (c *coalescer) do(ctx context.Context, cmd command, weight int, args []any) outcome {
	c.mu.Lock()
	if c.inFlight < c.limit {
		c.inFlight++
		c.mu.Unlock()
		defer c.release() //nolint:contextcheck // The next batch belongs to other callers.
		c.batchSizes.Observe(1)
		generation := c.conns.generation.Load()
		o := sendAlone(ctx, c.client, cmd, c.replication, false)
		c.conns.observe(o.err, generation)
		return o
	}
	if len(c.queue) >= maxQueue {
		c.mu.Unlock()
		return outcome{err: errQueueFull, abandoned: true}
	}
	q := newQueuedCall(cmd, weight, args)
	c.queue = append(c.queue, q)
	c.mu.Unlock()
	return q.wait(ctx)
}

// enqueue queues the calls together, and starts as many round trips as there may be. It returns false, and queues none, if the
// queue is full.
func (c *coalescer) enqueue(calls []*queuedCall) bool {
	c.mu.Lock()
	if len(c.queue)+len(calls) > maxQueue {
		c.mu.Unlock()
		return false
	}
	c.queue = append(c.queue, calls...)
	starts := c.limit - c.inFlight
	c.inFlight += starts
	c.mu.Unlock()
	for range starts {
		c.release()
	}
	return true
}

func newQueuedCall(cmd command, weight int, args []any) *queuedCall {
	return &queuedCall{cmd: cmd, cost: cost(weight, args), done: make(chan struct{})}
}

// wait returns the outcome of the call when it has one, or when ctx ends.
func (q *queuedCall) wait(ctx context.Context) outcome {
	select {
	case <-q.done:
		return outcome{err: q.err, unconfirmed: q.unconfirmed, shared: true}
	case <-ctx.Done():
		wasClaimed := !q.state.CompareAndSwap(queued, abandoned)
		return outcome{err: ctx.Err(), abandoned: true, claimed: wasClaimed}
	}
}

// release passes the caller's round trip on to the queued calls, or frees it if there are none.
func (c *coalescer) release() {
	if batch := c.claim(); batch != nil {
		go c.sendBatches(batch)
	}
}

// sendBatches sends batches until the queue is empty. The driver's timeouts bound every round trip.
func (c *coalescer) sendBatches(batch []*queuedCall) {
	for ; batch != nil; batch = c.claim() {
		c.sendBatch(batch)
	}
}

// claim returns the queued calls of the next batch. If there are none, it frees the round trip and returns nil.
func (c *coalescer) claim() []*queuedCall {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) > 0 {
		n := c.nextBatch()
		batch := make([]*queuedCall, 0, n)
		for _, q := range c.queue[:n] {
			if q.state.CompareAndSwap(queued, claimed) {
				batch = append(batch, q)
			}
		}
		rest := copy(c.queue, c.queue[n:])
		clear(c.queue[rest:])
		c.queue = c.queue[:rest]
		if len(batch) > 0 {
			return batch
		}
	}
	c.inFlight--
	return nil
}

// nextBatch returns how many of the queued calls, at least one, are within the bounds of a batch.
func (c *coalescer) nextBatch() int {
	total := 0
	for n, q := range c.queue {
		total += q.cost
		if n > 0 && (n >= c.batch || total > c.cost) {
			return n
		}
	}
	return len(c.queue)
}

// cost returns the estimated cost of a command, in the unit of maxBatchCost.
func cost(weight int, args []any) int {
	size := 0
	for _, arg := range args {
		switch v := arg.(type) {
		case string:
			size += len(v)
		case []byte:
			size += len(v)
		}
	}
	return weight + size/bytesPerCost
}

// sendBatch sends the batch and sets the outcome of each call. A batch has no caller's context: only the driver's timeouts
// bound it.
func (c *coalescer) sendBatch(batch []*queuedCall) {
	cmds := make([]command, len(batch))
	for i, q := range batch {
		cmds[i] = q.cmd
	}
	c.batchSizes.Observe(float64(len(batch)))
	// The driver retries no pipeline with such a command. It would retry one of reads alone; Runner.read retries each read.
	cmds[0] = onceBatch{cmds[0]}
	generation := c.conns.generation.Load()
	failure, unconfirmed := roundTrip(context.Background(), c.client, cmds, c.replication, false)
	for _, q := range batch {
		q.err, q.unconfirmed = errorOf(q.cmd, failure), unconfirmed
		c.conns.observe(q.err, generation)
	}
	for _, q := range batch { // Now that every sign of a replica has been seen: the reads of the batch look for it.
		close(q.done)
	}
}

// onceBatch is a command that makes the driver send its pipeline at most once.
type onceBatch struct{ command }

// NoRetry makes the driver never retry the pipeline.
func (onceBatch) NoRetry() bool { return true }

// sendAlone sends a single command in its own round trip.
func sendAlone(ctx context.Context, node *redis.Client, cmd command, replicas replication, asking bool) outcome {
	if replicas.replicas == 0 && !asking {
		return outcome{err: node.Process(ctx, cmd)}
	}
	failure, unconfirmed := roundTrip(ctx, node, []command{cmd}, replicas, asking)
	if err := errorOf(cmd, failure); err != nil {
		return outcome{err: err}
	}
	return outcome{unconfirmed: unconfirmed}
}

// roundTrip sends the commands in one pipeline, followed by WAIT if replicas must confirm them, and preceded by ASKING if
// a cluster redirected the command. It returns the pipeline's error, and why replicas have not confirmed.
func roundTrip(
	ctx context.Context, node *redis.Client, cmds []command, replicas replication, asking bool,
) (failure, unconfirmed error) {
	wait := replicas.wait(ctx)
	_, failure = node.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		if asking {
			_ = pipe.Process(ctx, redis.NewStatusCmd(ctx, "asking"))
		}
		for _, cmd := range cmds {
			_ = pipe.Process(ctx, cmd)
		}
		if replicas.replicas > 0 {
			_ = pipe.Process(ctx, wait)
		}
		return nil
	})
	if replicas.replicas > 0 {
		unconfirmed = replicas.failure(wait)
	}
	return failure, unconfirmed
}

// errorOf returns the error of one command of a pipeline that ended with failure; nil if the command has its reply.
func errorOf(cmd command, failure error) error {
	switch {
	case cmd.Val() != nil:
		cmd.SetErr(nil) // The driver sets a pipeline's error on all its commands, even on those that have a reply.
		return nil
	case cmd.Err() != nil:
		return cmd.Err()
	default: // The handshake was refused; the driver sets no error on the commands then.
		return failure
	}
}
