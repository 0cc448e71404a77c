package data

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"podlink/internal/biz"
)

// onceCmd is a command that is sent at most once. go-redis repeats any command whose reply was lost; a link script that
// runs twice can undo what somebody else did in between.
type onceCmd struct {
	*redis.Cmd
	mayBeSent atomic.Bool
}

// NoRetry tells go-redis never to repeat the command.
func (c *onceCmd) NoRetry() bool { return true }

// Args notes that the client of a server asked for the arguments, as it does to write them to the connection. Until then
// the command certainly has not left the process: what failed was the dial, the handshake or the wait for a connection.
func (c *onceCmd) Args() []any {
	c.mayBeSent.Store(true)
	return c.Cmd.Args()
}

// run executes the script on the key and returns its reply.
func (s *Store) run(ctx context.Context, sc *script, key string, args ...any) (reply, error) {
	c := s.metrics.begin(ctx, sc.name, sc.kind)
	answer, err := s.gated(ctx, sc, key, args...)
	failure := err
	if failure == nil {
		failure = answer.confirmed(nil)
	}
	if err == nil {
		c.describe(semconv.DBResponseStatusCode(answer.status()))
	}
	c.end(failure)
	return answer, err
}

// gated is run, unobserved.
func (s *Store) gated(ctx context.Context, sc *script, key string, args ...any) (reply, error) {
	if sc.writes {
		if err := s.selfTest.gate(ctx, s); err != nil {
			// What became of the self-test's scripts says nothing about this one: it was not sent.
			return reply{}, fmt.Errorf("%s: %w: %v", sc.name, biz.ErrStoreUnavailable, err) //nolint:errorlint // On purpose.
		}
	}
	return s.execute(ctx, sc, key, args...)
}

// execute is run without a look at the self-test, for the self-test itself.
func (s *Store) execute(ctx context.Context, sc *script, key string, args ...any) (reply, error) {
	answer, err := s.evaluate(ctx, sc, "evalsha", sc.sha, key, args)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		// The script was not executed: Redis was restarted, failed over or flushed. EVAL runs it and keeps it.
		answer, err = s.evaluate(ctx, sc, "eval", sc.source, key, args)
	}
	if err != nil {
		if stopped(err) {
			s.selfTest.suspect()
		}
		return reply{}, fmt.Errorf("%s: %w", sc.name, err)
	}
	return answer, nil
}

// evaluate sends the script as its access demands: a read may be repeated, a mutation is sent at most once.
func (s *Store) evaluate(ctx context.Context, sc *script, command, text, key string, args []any) (reply, error) {
	full := append([]any{command, text, 1, key}, args...)
	if !sc.writes {
		value, err := s.read(ctx, key, full...)
		if err != nil {
			return reply{}, err
		}
		return sc.reply(value, nil)
	}
	if err := ctx.Err(); err != nil {
		return reply{}, notSentError(ctx, err)
	}
	cmd, o := s.mutate(ctx, sc, key, func() *onceCmd { return &onceCmd{Cmd: redis.NewCmd(ctx, full...)} })
	switch {
	case o.err == nil:
		return sc.reply(cmd.Val(), o.unconfirmed)
	case o.maySent(cmd) && !noConnection(o.err):
		return reply{}, sentError(o.err)
	default:
		return reply{}, notSentError(ctx, o.err)
	}
}

// reply returns the script's reply: one text, or an array.
func (sc *script) reply(value any, unconfirmed error) (reply, error) {
	r := reply{script: sc.name, unconfirmed: unconfirmed}
	switch v := value.(type) {
	case string:
		r.text = v
	case []any:
		r.values = v
	default:
		return reply{}, fmt.Errorf("%s: reply %T is not as its header says", sc.name, value)
	}
	return r, nil
}

// maxRedirects bounds how often a command is sent on to the node that a cluster names.
const maxRedirects = 3

// mutate sends the command that fresh returns to the primary of the key, and waits for replicas where they are to confirm
// it. It returns the command as it was sent last, and what became of it.
//
// It asks the driver for the server and follows redirections itself. The driver's client for a whole cluster asks for a
// command's arguments before it has a connection, so nobody could tell any more what was sent; and it would send WAIT to
// any node.
func (s *Store) mutate(ctx context.Context, sc *script, key string, fresh func() *onceCmd) (*onceCmd, outcome) {
	cmd := fresh()
	node, err := s.primary(ctx, key)
	if err != nil {
		return cmd, outcome{err: err}
	}
	confirm := s.confirm
	if !sc.confirmed {
		confirm.replicas = 0
	}
	o := s.pipelineTo(node, confirm).do(ctx, cmd)
	cluster, ok := s.client.(*cluster)
	for tries := 0; ok && o.err != nil && !o.left && tries < maxRedirects; tries++ {
		node, asking := cluster.redirected(ctx, o.err, key)
		if node == nil {
			break
		}
		cmd = fresh()
		o = alone(ctx, node, cmd, confirm, asking)
	}
	return cmd, o
}

// read sends a read of the key to its primary and returns the value. The driver sends one that fails once more, alone or
// with those that it shares a round trip with. In a cluster the primary may be another one since: there the driver's
// client for the whole cluster looks for it, and follows redirections.
func (s *Store) read(ctx context.Context, key string, args ...any) (any, error) {
	node, err := s.primary(ctx, key)
	if err != nil {
		return nil, readError(ctx, err)
	}
	cmd := redis.NewCmd(ctx, args...)
	o := s.pipelineTo(node, confirmation{}).do(ctx, cmd)
	cluster, ok := s.client.(*cluster)
	if ok && o.err != nil && !o.left && ctx.Err() == nil && (replyError(o.err) == nil || redirection(o.err)) {
		cmd = redis.NewCmd(ctx, args...)
		o.err = cluster.Process(ctx, cmd)
	}
	switch {
	case errors.Is(o.err, redis.Nil):
		return nil, redis.Nil
	case o.err != nil:
		return nil, readError(ctx, o.err)
	}
	return cmd.Val(), nil
}

// redirection tells that a node of a cluster has sent a command on.
func redirection(err error) bool {
	_, moved := redis.IsMovedError(err)
	_, asking := redis.IsAskError(err)
	return moved || asking
}

// primary returns the client of the server that takes writes of the key.
func (s *Store) primary(ctx context.Context, key string) (*redis.Client, error) {
	switch client := s.client.(type) {
	case *cluster:
		return client.MasterForKey(ctx, key)
	case *redis.Client:
		return client, nil
	default:
		return nil, fmt.Errorf("no primary of a %T", client)
	}
}
