package data

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

const (
	// maxUnderWay is how many round trips to a server may be under way at once before calls share them. One would make
	// the batches deepest; a second one keeps the server busy while the replies of the first are read.
	maxUnderWay = 2
	// maxBatch is how many commands go in one round trip.
	maxBatch = 512
	// maxQueue is how many calls may wait for a round trip, before further ones are refused.
	maxQueue = 16384
)

// errQueueFull refuses a call that would have to wait behind too many others.
var errQueueFull = errors.New("too many calls wait for the store")

// pipeline lets concurrent calls to one server share round trips. A call that finds one free goes at once, on its
// caller's goroutine, as it would without the pipeline. Calls that come while all are under way wait, and go together
// in the next one. So a batch is as deep as the server is busy, and nobody waits for a batch to fill.
//
// The driver has an auto-pipeliner too; docs/decisions/0007-own-pipeline.md says why it is not this one.
type pipeline struct {
	client  *redis.Client
	confirm confirmation // of all of its commands
	limit   int          // of round trips under way, before calls share them
	batches prometheus.Observer

	mu       sync.Mutex
	underWay int
	queue    []*queued
}

// queued is a call in a pipeline.
type queued struct {
	cmd         command
	state       atomic.Int32
	done        chan struct{} // closed when the rest is set
	err         error
	unconfirmed error
}

// The states of a queued call. Whoever takes it out of waiting decides: the batch that sends it, or the caller who
// leaves.
const (
	waiting int32 = iota
	taken
	left
)

// command is what a pipeline sends: a command of the driver whose reply tells by itself whether it came.
type command interface {
	redis.Cmder
	Val() any
}

// outcome is what became of a command.
type outcome struct {
	err         error
	unconfirmed error // with err nil: why replicas have not confirmed the mutation
	// left is true when the caller left before there was an outcome: the command belongs to its batch and must not be
	// looked at. It may be sent, then or later, unless it was never taken.
	left, taken bool
}

// maySent tells whether the command may have left the process, so that it may be carried out.
func (o outcome) maySent(cmd *onceCmd) bool {
	if o.left {
		return o.taken
	}
	return cmd.mayBeSent.Load()
}

// do sends the command and returns what became of it, by the end of ctx at the latest.
func (p *pipeline) do(ctx context.Context, cmd command) outcome {
	p.mu.Lock()
	if p.underWay < p.limit {
		p.underWay++
		p.mu.Unlock()
		defer p.next() //nolint:contextcheck // What goes next belongs to other callers.
		p.batches.Observe(1)
		return alone(ctx, p.client, cmd, p.confirm, false)
	}
	if len(p.queue) >= maxQueue {
		p.mu.Unlock()
		return outcome{err: errQueueFull, left: true}
	}
	q := &queued{cmd: cmd, done: make(chan struct{})}
	p.queue = append(p.queue, q)
	p.mu.Unlock()
	select {
	case <-q.done:
		return outcome{err: q.err, unconfirmed: q.unconfirmed}
	case <-ctx.Done():
		wasTaken := !q.state.CompareAndSwap(waiting, left)
		return outcome{err: ctx.Err(), left: true, taken: wasTaken}
	}
}

// next gives the round trip that has ended to those who wait, and frees it when nobody does.
func (p *pipeline) next() {
	if batch := p.take(); batch != nil {
		go p.work(batch)
	}
}

// work sends batches until nobody waits. It ends by itself: every round trip is bounded by the driver's timeouts.
func (p *pipeline) work(batch []*queued) {
	for ; batch != nil; batch = p.take() {
		p.send(batch)
	}
}

// take returns those who wait, at most maxBatch of them; without any it frees the round trip and returns nil.
func (p *pipeline) take() []*queued {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) > 0 {
		n := min(len(p.queue), maxBatch)
		batch := make([]*queued, 0, n)
		for _, q := range p.queue[:n] {
			if q.state.CompareAndSwap(waiting, taken) {
				batch = append(batch, q)
			}
		}
		rest := copy(p.queue, p.queue[n:])
		clear(p.queue[rest:])
		p.queue = p.queue[:rest]
		if len(batch) > 0 {
			return batch
		}
	}
	p.underWay--
	return nil
}

// send sends the batch and tells everyone in it what became of his command. It belongs to nobody's request, so only the
// driver's timeouts bound it.
func (p *pipeline) send(batch []*queued) {
	cmds := make([]command, len(batch))
	for i, q := range batch {
		cmds[i] = q.cmd
	}
	p.batches.Observe(float64(len(batch)))
	failure, unconfirmed := roundTrip(context.Background(), p.client, cmds, p.confirm, false)
	for _, q := range batch {
		q.err, q.unconfirmed = failureOf(q.cmd, failure), unconfirmed
		close(q.done)
	}
}

// alone sends one command in a round trip of its own.
func alone(ctx context.Context, node *redis.Client, cmd command, confirm confirmation, asking bool) outcome {
	if confirm.replicas == 0 && !asking {
		return outcome{err: node.Process(ctx, cmd)}
	}
	failure, unconfirmed := roundTrip(ctx, node, []command{cmd}, confirm, asking)
	if err := failureOf(cmd, failure); err != nil {
		return outcome{err: err}
	}
	return outcome{unconfirmed: unconfirmed}
}

// roundTrip sends the commands in one round trip, WAIT after them where replicas are to confirm them, and ASKING before a
// single one to which a node was asked to send it. It returns the pipeline's error, and why the replicas have not
// confirmed.
func roundTrip(
	ctx context.Context, node *redis.Client, cmds []command, confirm confirmation, asking bool,
) (failure, unconfirmed error) {
	wait := confirm.command(ctx)
	_, failure = node.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		if asking {
			_ = pipe.Process(ctx, redis.NewStatusCmd(ctx, "asking"))
		}
		for _, cmd := range cmds {
			_ = pipe.Process(ctx, cmd)
		}
		if confirm.replicas > 0 {
			_ = pipe.Process(ctx, wait)
		}
		return nil
	})
	if confirm.replicas > 0 {
		unconfirmed = confirm.judge(wait)
	}
	return failure, unconfirmed
}

// failureOf returns the error of a command of a pipeline that ended with failure, nil for one that has its reply.
func failureOf(cmd command, failure error) error {
	switch {
	case cmd.Val() != nil:
		cmd.SetErr(nil) // The driver gives the error of a pipeline to all its commands, also to those that have a reply.
		return nil
	case cmd.Err() != nil:
		return cmd.Err()
	default: // The handshake was refused: the driver leaves a pipeline's commands as they are then.
		return failure
	}
}

// pipelines are those to one server. Reads do not share round trips with mutations that wait for replicas.
type pipelines struct{ plain, confirmed *pipeline }

// pipelineTo returns the pipeline to the server for commands that are confirmed like that: as the store's setting says, or
// not at all.
func (s *Store) pipelineTo(node *redis.Client, confirm confirmation) *pipeline {
	known, ok := s.pipelines.Load(node)
	if !ok {
		known, _ = s.pipelines.LoadOrStore(node, &pipelines{
			plain:     &pipeline{client: node, limit: s.underWay, batches: s.metrics.batches},
			confirmed: &pipeline{client: node, limit: s.underWay, confirm: s.confirm, batches: s.metrics.batches},
		})
	}
	if confirm.replicas > 0 {
		return known.(*pipelines).confirmed
	}
	return known.(*pipelines).plain
}
