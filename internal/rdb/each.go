package rdb

import (
	"context"
	"errors"
	"net"
	"slices"

	"github.com/redis/go-redis/v9"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// maxTogether is the maximum number of steps of one RunEach that are queued at once: so two batch requests take turns, and a
// request that ends early leaves few steps behind whose outcome is unknown.
const maxTogether = 128

// Step is a mutation of one key, one of many that RunEach executes.
type Step struct {
	Script *Script
	Key    string
	Args   []any
}

// RunEach executes the steps, which are mutations, and returns their replies in the same order. Each step is sent at most once, as by
// Run, and fails by itself: its reply then has an Err. The steps share round trips, whatever kinds of keys they are for, with those
// of other calls of RunEach too.
func (r *Runner) RunEach(ctx context.Context, steps []Step) []Reply {
	replies := make([]Reply, 0, len(steps))
	silent := make(map[*redis.Client]error)
	for some := range slices.Chunk(steps, maxTogether) {
		replies = append(replies, r.runSome(ctx, some, silent)...)
	}
	return replies
}

// runSome executes the steps in one round trip per server, if the servers are not busy. silent has the servers that did not
// answer an earlier step: they get no further one, because each would take a whole timeout.
func (r *Runner) runSome(ctx context.Context, steps []Step, silent map[*redis.Client]error) []Reply {
	call := r.metrics.begin(ctx, commandPipeline, steps[0].Script.KeyKind)
	call.describe(semconv.DBOperationBatchSize(len(steps)))
	sent := r.sendSome(ctx, steps, silent)
	replies := make([]Reply, len(steps))
	var first error // the first failure
	for i, step := range steps {
		reply, err := r.settle(ctx, step, &sent[i], silent)
		switch {
		case err != nil:
			reply = Reply{Script: step.Script.Name, Err: err}
		case reply.Unconfirmed != nil:
			err = unconfirmedError(reply.Unconfirmed)
		}
		replies[i] = reply
		if first == nil {
			first = err
		}
	}
	call.end(first)
	return replies
}

// sentStep is a step that was sent, or is queued to be; without a call it was not.
type sentStep struct {
	cmd  *onceCmd
	node *redis.Client
	call *queuedCall
	err  error // why there is no call
}

// sendSome queues the steps, each at its server.
func (r *Runner) sendSome(ctx context.Context, steps []Step, silent map[*redis.Client]error) []sentStep {
	sent := make([]sentStep, len(steps))
	queues := make(map[*coalescer][]*queuedCall)
	for i, step := range steps {
		s := &sent[i]
		if s.err = r.admit(ctx, step.Script); s.err != nil {
			continue
		}
		if s.node, s.err = r.client.primary(ctx, step.Key); s.err == nil {
			s.err = ctx.Err()
		}
		if s.err == nil {
			s.err = silent[s.node]
		}
		if s.err != nil {
			s.err = r.failed(step.Script, notSentError(ctx, s.err))
			continue
		}
		args := append([]any{"evalsha", step.Script.sha, 1, step.Key}, step.Args...)
		s.cmd = newOnceCmd(ctx, args)
		s.call = newQueuedCall(s.cmd, step.Script.Weight, args)
		queue := r.coalescers.bulkTo(s.node, steps[0].Script.KeyKind, step.Script.Access == Write)
		queues[queue] = append(queues[queue], s.call)
	}
	for queue, calls := range queues {
		if queue.enqueue(calls) { //nolint:contextcheck // A round trip belongs to several callers.
			continue
		}
		for _, call := range calls {
			call.err = errQueueFull
			close(call.done)
		}
	}
	return sent
}

// settle returns the reply to a step. A step that Redis has refused because it lacks the script, or because the key is elsewhere,
// was not executed: it is sent by itself then.
func (r *Runner) settle(ctx context.Context, step Step, s *sentStep, silent map[*redis.Client]error) (Reply, error) {
	if s.call == nil {
		return Reply{}, s.err
	}
	o := s.call.wait(ctx)
	if o.err != nil && r.elsewhere(o.err) {
		return r.evaluate(ctx, step.Script, step.Key, step.Args)
	}
	if o.err != nil && (noConnection(o.err) || timedOut(o.err)) {
		silent[s.node] = o.err
	}
	reply, err := settled(ctx, step.Script, s.cmd, o)
	if err != nil {
		return Reply{}, r.failed(step.Script, err)
	}
	return reply, nil
}

// elsewhere reports whether the step was not executed, but may be if it is sent by itself.
func (r *Runner) elsewhere(err error) bool {
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		return true
	}
	return r.client.cluster != nil && (redirection(err) || redis.HasErrorPrefix(err, "TRYAGAIN"))
}

// timedOut reports whether a server did not answer in time.
func timedOut(err error) bool {
	var timeout net.Error
	return replyError(err) == nil && errors.As(err, &timeout) && timeout.Timeout()
}
