package rdb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/redis/go-redis/v9"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// The names of calls other than scripts in metrics and traces.
const (
	commandHGet     = "HGET"
	commandRead     = "read"     // any other single read
	commandPipeline = "pipeline" // many reads in one round trip
)

const (
	hgetWeight = 2
	// readWeight is the weight of a read of a whole key.
	readWeight = 100
)

// HGet reads a field of the hash at the key; found is false if there is none. kind is the kind of the key. The caller must
// decode the value and then end the call with Decoded: a value that can't be decoded counts as a failure.
func (r *Runner) HGet(ctx context.Context, kind, key, field string) (value string, found bool, call Call, err error) {
	call = r.metrics.begin(ctx, commandHGet, kind)
	reply, err := r.read(ctx, target{kind: kind, key: key, weight: hgetWeight}, []any{"hget", key, field})
	if err != nil {
		call.end(err)
		return "", false, Call{}, err
	}
	value, found = reply.(string)
	return value, found, call, nil
}

// Read sends a command that reads the key args[1], such as "zrangebyscore", and returns Redis' reply, nil for none. kind is
// the kind of the key. The caller must end the call with Decoded, as after HGet.
func (r *Runner) Read(ctx context.Context, kind string, args ...any) (value any, call Call, err error) {
	call = r.metrics.begin(ctx, commandRead, kind)
	key, ok := "", false
	if len(args) > 1 {
		key, ok = args[1].(string)
	}
	if !ok {
		err = fmt.Errorf("a read without a key: %d arguments", len(args))
	} else {
		value, err = r.read(ctx, target{kind: kind, key: key, weight: readWeight}, args)
	}
	if err != nil {
		call.end(err)
		return nil, Call{}, err
	}
	return value, call, nil
}

// target is the key of a command: its kind decides with which calls it shares round trips.
type target struct {
	kind, key string
	weight    int // of the command
}

// read sends a read to the primary of the key and returns the value, nil if there is none. A read that fails without a
// reply, though not for lack of time, is sent once more: alone by the driver, in a batch by this function. It is also sent
// once more if a sign of a replica came while it was in flight, because its reply may be of that replica. In a cluster the
// second time is through the driver's cluster client, which finds the new primary and follows redirections.
func (r *Runner) read(ctx context.Context, t target, args []any) (any, error) {
	node, err := r.client.primary(ctx, t.key)
	if err != nil {
		return nil, readError(ctx, err)
	}
	var cmd command = redis.NewCmd(ctx, args...)
	coalescer := r.coalescers.to(node, t.kind, false)
	generation := r.client.conns.generation.Load()
	o := coalescer.do(ctx, cmd, t.weight, args)
	switch absent := errors.Is(o.err, redis.Nil); {
	case o.abandoned, ctx.Err() != nil:
	case r.client.cluster != nil && absent:
	case r.client.cluster != nil:
		for tries := 0; o.err != nil && tries < maxRedirects && (tries == 0 && repeatable(o.err) || tryAgain(ctx, o.err)); tries++ {
			cmd = redis.NewCmd(ctx, args...)
			o = outcome{err: r.client.cluster.Process(ctx, cmd)}
		}
	case !absent && o.shared && broken(o.err), r.client.conns.generation.Load() != generation:
		cmd = newOnceCmd(ctx, args) // The driver would repeat it.
		o = coalescer.do(ctx, cmd, t.weight, args)
	}
	switch {
	case errors.Is(o.err, redis.Nil):
		return nil, nil //nolint:nilnil // Redis' own nil.
	case o.err != nil:
		return nil, readError(ctx, o.err)
	}
	return cmd.Val(), nil
}

// repeatable reports whether the driver's cluster client may have an answer to a read that failed: after a failure without
// a reply, and after a redirection.
func repeatable(err error) bool { return replyError(err) == nil || redirection(err) }

// broken reports whether a command has no reply because its connection broke.
func broken(err error) bool {
	if err == nil || replyError(err) != nil || noConnection(err) {
		return false
	}
	var timeout net.Error
	return !errors.As(err, &timeout) || !timeout.Timeout()
}

// redirection reports whether err is a MOVED or ASK reply.
func redirection(err error) bool {
	_, moved := redis.IsMovedError(err)
	_, asking := redis.IsAskError(err)
	return moved || asking
}

// Result is the result of one read of ReadAll: a value, nil if there is none, or an error.
type Result struct {
	Value any
	Err   error
}

// ReadAll sends the reads, each a command with its arguments, in one pipeline. Their keys are of one kind. It returns an
// error only if no read has a result.
func (r *Runner) ReadAll(ctx context.Context, kind string, reads [][]any) ([]Result, error) {
	call := r.metrics.begin(ctx, commandPipeline, kind)
	call.describe(semconv.DBOperationBatchSize(len(reads)))
	generation := r.client.conns.generation.Load()
	cmds, failure := r.pipeline(ctx, reads)
	for _, cmd := range cmds {
		r.client.conns.observe(cmd.Err(), generation)
	}
	if r.client.conns.generation.Load() != generation && ctx.Err() == nil {
		cmds, failure = r.pipeline(ctx, reads) // The replies may be of a replica.
	}
	// If the handshake of a new connection is refused, the driver sets neither results nor errors on the commands.
	if failure != nil && !slices.ContainsFunc(cmds, func(cmd *redis.Cmd) bool { return cmd.Err() != nil }) {
		failure = readError(ctx, failure)
		call.end(failure)
		return nil, failure
	}
	results := make([]Result, len(reads))
	var first error // the first failure; a missing value is none, nor is NOSCRIPT, after which the script is sent again
	for i, cmd := range cmds {
		err := cmd.Err()
		switch {
		case err == nil:
			results[i].Value = cmd.Val()
		case errors.Is(err, redis.Nil):
		default:
			results[i].Err = readError(ctx, err)
			if first == nil && !redis.HasErrorPrefix(err, "NOSCRIPT") {
				first = results[i].Err
			}
		}
	}
	call.end(first)
	return results, nil
}

// pipeline sends the reads in one pipeline and returns the commands with their replies.
func (r *Runner) pipeline(ctx context.Context, reads [][]any) ([]*redis.Cmd, error) {
	cmds := make([]*redis.Cmd, len(reads))
	_, failure := r.client.driver.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, args := range reads {
			cmds[i] = pipe.Do(ctx, args...)
		}
		return nil
	})
	return cmds, failure
}

// RunAll executes a read-only script on each of the keys, with the same arguments, in one pipeline. It returns the replies
// in the order of the keys; one that failed has an Err. It returns an error only if no key has a reply.
func (r *Runner) RunAll(ctx context.Context, script *Script, keys []string, args ...any) ([]Reply, error) {
	if script.Access != Read { // The driver retries a pipeline.
		return nil, fmt.Errorf("%s: a script that writes must be run by Run", script.Name)
	}
	results, err := r.evaluateAll(ctx, script, "evalsha", script.sha, keys, args)
	if err == nil {
		err = r.evaluateMissing(ctx, script, keys, args, results)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", script.Name, err)
	}
	replies := make([]Reply, len(keys))
	for i, result := range results {
		err := result.Err
		if err == nil {
			replies[i], err = newReply(script, result.Value, nil)
		}
		if err != nil {
			replies[i] = Reply{Script: script.Name, Err: fmt.Errorf("%s: %w", script.Name, err)}
		}
	}
	return replies, nil
}

// evaluateMissing calls the script by its source for each key whose server doesn't have it cached, and replaces the result.
func (r *Runner) evaluateMissing(ctx context.Context, script *Script, keys []string, args []any, results []Result) error {
	var missing []int // indexes of keys
	var of []string
	for i, result := range results {
		if redis.HasErrorPrefix(result.Err, "NOSCRIPT") {
			missing, of = append(missing, i), append(of, keys[i])
		}
	}
	if len(missing) == 0 {
		return nil
	}
	again, err := r.evaluateAll(ctx, script, "eval", script.source, of, args)
	for n, i := range missing {
		if err == nil {
			results[i] = again[n]
		} else {
			results[i].Err = err
		}
	}
	if len(missing) == len(keys) {
		return err
	}
	return nil
}

func (r *Runner) evaluateAll(
	ctx context.Context, script *Script, command, text string, keys []string, args []any,
) ([]Result, error) {
	reads := make([][]any, len(keys))
	for i, key := range keys {
		reads[i] = append([]any{command, text, 1, key}, args...)
	}
	return r.ReadAll(ctx, script.KeyKind, reads)
}
