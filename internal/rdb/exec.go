package rdb

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// Runner sends scripts and reads to the server that holds their key. It is safe for concurrent use.
type Runner struct {
	client      *client
	coalescers  *coalescers
	replication replication
	gate        *gate
	metrics     *Metrics
}

// Run executes the script on the key and returns its reply. A mutation that was executed but not confirmed by replicas
// has a Reply too: see Reply.Unconfirmed.
//
// A script takes three steps: admit holds mutations back while a script may stop half-way, evaluate names the script to
// Redis, and send puts the command on a connection, at most once if it is a mutation.
func (r *Runner) Run(ctx context.Context, script *Script, key string, args ...any) (Reply, error) {
	call := r.metrics.begin(ctx, script.Name, script.KeyKind)
	reply, err := r.run(ctx, script, key, args)
	switch {
	case err != nil:
		call.end(err)
		return Reply{}, err
	case reply.Unconfirmed != nil:
		call.describe(semconv.DBResponseStatusCode(reply.Status()))
		call.end(unconfirmedError(reply.Unconfirmed))
	default:
		call.describe(semconv.DBResponseStatusCode(reply.Status()))
		call.end(nil)
	}
	return reply, nil
}

func (r *Runner) run(ctx context.Context, script *Script, key string, args []any) (Reply, error) {
	if err := r.admit(ctx, script); err != nil {
		return Reply{}, err
	}
	return r.evaluate(ctx, script, key, args)
}

// admit refuses a mutation while the gate is closed.
func (r *Runner) admit(ctx context.Context, script *Script) error {
	if script.Access == Read {
		return nil
	}
	if err := r.gate.admit(ctx); err != nil {
		// Whatever class the self-test's own error has, this script was not sent.
		return withClass(Unavailable, fmt.Errorf("%s: %w", script.Name, err))
	}
	return nil
}

// evaluate sends the script by its SHA-1, and by its source if Redis doesn't know that. The self-test, which opens the
// gate, starts here.
func (r *Runner) evaluate(ctx context.Context, script *Script, key string, args []any) (Reply, error) {
	reply, err := r.send(ctx, script, "evalsha", script.sha, key, args)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		// Not executed: Redis restarted, failed over or flushed its scripts. EVAL executes the script and caches it.
		reply, err = r.send(ctx, script, "eval", script.source, key, args)
	}
	if err != nil {
		if aborted(err) {
			r.gate.close()
		}
		return Reply{}, fmt.Errorf("%s: %w", script.Name, err)
	}
	return reply, nil
}

// send sends the command as the script's access demands: a read may be repeated, a mutation is sent at most once.
func (r *Runner) send(ctx context.Context, script *Script, command, text, key string, args []any) (Reply, error) {
	full := append([]any{command, text, 1, key}, args...)
	if script.Access == Read {
		value, err := r.read(ctx, key, full)
		if err != nil {
			return Reply{}, err
		}
		return newReply(script, value, nil)
	}
	if err := ctx.Err(); err != nil {
		return Reply{}, notSentError(ctx, err)
	}
	cmd, o := r.sendOnce(ctx, script, key, full)
	switch {
	case o.err == nil:
		return newReply(script, cmd.Val(), o.unconfirmed)
	case o.mayBeSent(cmd) && !noConnection(o.err):
		return Reply{}, sentError(o.err)
	default:
		return Reply{}, notSentError(ctx, o.err)
	}
}

// onceCmd is a command that is sent at most once. The driver repeats any other command whose reply was lost.
type onceCmd struct {
	*redis.Cmd
	written atomic.Bool
}

func newOnceCmd(ctx context.Context, args []any) *onceCmd {
	return &onceCmd{Cmd: redis.NewCmd(ctx, args...)}
}

// NoRetry tells the driver never to repeat the command.
func (c *onceCmd) NoRetry() bool { return true }

// Args records that a server's client asked for the arguments, which it does to write them to the connection. A command
// that failed before that certainly never left the process: the dial, the handshake or the wait for a connection failed.
func (c *onceCmd) Args() []any {
	c.written.Store(true)
	return c.Cmd.Args()
}

// maxRedirects bounds how often a command follows a cluster's redirections.
const maxRedirects = 3

// sendOnce sends a mutation to the primary of the key, and waits for replicas if they must confirm it. It returns the
// command as it was sent last, and the outcome.
//
// It asks the driver for the server and follows redirections itself. The driver's client for a whole cluster asks for a
// command's arguments before it has a connection, so it would be unknown what was sent; and it would send WAIT to any
// node.
func (r *Runner) sendOnce(ctx context.Context, script *Script, key string, args []any) (*onceCmd, outcome) {
	cmd := newOnceCmd(ctx, args)
	node, err := r.client.primary(ctx, key)
	if err != nil {
		return cmd, outcome{err: err}
	}
	o := r.coalescers.to(node, script.Access == Write).do(ctx, cmd)
	if r.client.cluster == nil {
		return cmd, o
	}
	replicas := r.replication
	if script.Access != Write {
		replicas.replicas = 0
	}
	for redirects := 0; o.err != nil && !o.abandoned && redirects < maxRedirects; redirects++ {
		node, asking := r.client.cluster.redirected(ctx, o.err, key)
		if node == nil {
			break
		}
		cmd = newOnceCmd(ctx, args)
		o = sendAlone(ctx, node, cmd, replicas, asking)
	}
	return cmd, o
}

// read sends a read of the key to its primary and returns the value, nil when there is none. The driver repeats one that
// fails once, alone or with those that it shares a round trip with. In a cluster the primary may have changed: the
// driver's client for the whole cluster finds the new one, and follows redirections.
func (r *Runner) read(ctx context.Context, key string, args []any) (any, error) {
	node, err := r.client.primary(ctx, key)
	if err != nil {
		return nil, readError(ctx, err)
	}
	cmd := redis.NewCmd(ctx, args...)
	o := r.coalescers.to(node, false).do(ctx, cmd)
	if r.client.cluster != nil && o.err != nil && !o.abandoned && ctx.Err() == nil &&
		(replyError(o.err) == nil || redirection(o.err)) {
		cmd = redis.NewCmd(ctx, args...)
		o.err = r.client.cluster.Process(ctx, cmd)
	}
	switch {
	case errors.Is(o.err, redis.Nil):
		return nil, nil //nolint:nilnil // Redis' own nil.
	case o.err != nil:
		return nil, readError(ctx, o.err)
	}
	return cmd.Val(), nil
}

// redirection reports whether a node of a cluster redirected a command.
func redirection(err error) bool {
	_, moved := redis.IsMovedError(err)
	_, asking := redis.IsAskError(err)
	return moved || asking
}
