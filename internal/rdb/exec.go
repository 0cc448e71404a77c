package rdb

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// Runner sends scripts and reads to the server that holds their key. It is safe for concurrent use.
type Runner struct {
	client      *client
	coalescers  *coalescers
	replication replication
	gate        *gate
	primaries   *primaries
	metrics     *Metrics
}

// Primaries returns a comma-separated list of short ids of the store's primaries, or a digest of them if they are many. It
// changes when a primary restarts or fails over, either of which may lose data: at the latest two seconds after podlink has
// reached the new one, while Health runs. It returns "" if the ids are unknown: before the first check, and where Redis
// denies INFO.
func (r *Runner) Primaries() string { return r.primaries.String() }

// Run executes the script on the key and returns its reply. A mutation that was executed but not confirmed by replicas
// has a Reply too: see Reply.Unconfirmed.
func (r *Runner) Run(ctx context.Context, script *Script, key string, args ...any) (Reply, error) {
	call := r.metrics.begin(ctx, script.Name, script.KeyKind)
	reply, err := r.run(ctx, script, key, args)
	call.replied(reply, err)
	return reply, err
}

// run executes the script in three steps: admit refuses mutations while the gate is closed, evaluate calls the script by
// its SHA-1, and by its source after NOSCRIPT, and for each of these send writes one command to the primary.
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
		// This script was not sent, whatever the class of the self-test's error.
		class := Unavailable
		if ClassOf(err) == Full {
			class = Full
		}
		return withClass(class, fmt.Errorf("%s: %w", script.Name, err))
	}
	return nil
}

// evaluate calls the script by its SHA-1, or by its source if Redis doesn't have it cached. The self-test enters here: it
// has to run while the gate is closed.
func (r *Runner) evaluate(ctx context.Context, script *Script, key string, args []any) (Reply, error) {
	reply, err := r.send(ctx, script, "evalsha", script.sha, key, args)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		// Not executed: Redis restarted, failed over or flushed its script cache. EVAL runs the script and caches it.
		reply, err = r.send(ctx, script, "eval", script.source, key, args)
	}
	if err != nil {
		return Reply{}, r.failed(script, err)
	}
	return reply, nil
}

// failed returns the error of a script with its name. It closes the gate if the ACL has stopped the script.
func (r *Runner) failed(script *Script, err error) error {
	if aborted(err) {
		r.gate.close()
	}
	return fmt.Errorf("%s: %w", script.Name, err)
}

// send sends the command of a script: a read may be retried, a mutation is sent at most once.
func (r *Runner) send(ctx context.Context, script *Script, command, text, key string, args []any) (Reply, error) {
	full := append(append(make([]any, 0, 4+len(args)), command, text, 1, key), args...)
	if script.Access == Read {
		value, err := r.read(ctx, target{kind: script.KeyKind, key: key, weight: script.Weight}, full)
		if err != nil {
			return Reply{}, err
		}
		return newReply(script, value, nil)
	}
	if err := ctx.Err(); err != nil {
		return Reply{}, notSentError(ctx, err)
	}
	cmd, o := r.sendOnce(ctx, script, key, full)
	return settled(ctx, script, cmd, o)
}

// settled returns the reply to a mutation, or the error of its class.
func settled(ctx context.Context, script *Script, cmd *onceCmd, o outcome) (Reply, error) {
	switch {
	case o.err == nil:
		return newReply(script, cmd.Val(), o.unconfirmed)
	case o.mayBeSent(cmd) && !noConnection(o.err):
		return Reply{}, sentError(o.err)
	default:
		return Reply{}, notSentError(ctx, o.err)
	}
}

// onceCmd is a command that is sent at most once. The driver retries any other command whose reply was lost.
type onceCmd struct {
	*redis.Cmd
	written atomic.Bool
}

func newOnceCmd(ctx context.Context, args []any) *onceCmd {
	return &onceCmd{Cmd: redis.NewCmd(ctx, args...)}
}

// NoRetry makes the driver never retry the command.
func (c *onceCmd) NoRetry() bool { return true }

// Args records that the command may have been written: a server's client only calls it to write the command to a
// connection. If it was never called, the wait for a connection, the dial or the handshake failed.
func (c *onceCmd) Args() []any {
	c.written.Store(true)
	return c.Cmd.Args()
}

// maxRedirects is the maximum number of redirections that a command follows in a cluster.
const maxRedirects = 3

// sendOnce sends a mutation to the primary of the key, and waits for replicas if they must confirm it. It returns the
// command as last sent, and its outcome.
//
// It picks the node and follows redirections itself. The driver's cluster client calls Args before it has a
// connection, which would mark every command as written; and it would send WAIT to an arbitrary node.
func (r *Runner) sendOnce(ctx context.Context, script *Script, key string, args []any) (*onceCmd, outcome) {
	cmd := newOnceCmd(ctx, args)
	node, err := r.client.primary(ctx, key)
	if err != nil {
		return cmd, outcome{err: err}
	}
	o := r.coalescers.to(node, script.KeyKind, script.Access == Write).do(ctx, cmd, script.Weight, args)
	if r.client.cluster == nil {
		return cmd, o
	}
	replicas := r.replication
	if script.Access != Write {
		replicas.replicas = 0
	}
	for redirects := 0; o.err != nil && !o.abandoned && redirects < maxRedirects; redirects++ {
		target, asking := r.client.cluster.redirected(ctx, o.err, key)
		switch {
		case target != nil:
			node = target
		case tryAgain(ctx, o.err): // At the same node, without ASKING: it answers ASK itself if need be.
		default:
			return cmd, o
		}
		cmd = newOnceCmd(ctx, args)
		o = sendAlone(ctx, node, cmd, replicas, asking)
	}
	return cmd, o
}

// tryAgainPause is the pause before a command is sent again after TRYAGAIN.
const tryAgainPause = 20 * time.Millisecond

// tryAgain reports, after a pause, whether err is a TRYAGAIN reply: the command was not executed, because its keys are on
// two nodes until the migration of their slot has moved the rest of them.
func tryAgain(ctx context.Context, err error) bool {
	if !redis.HasErrorPrefix(err, "TRYAGAIN") {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(tryAgainPause):
		return true
	}
}
