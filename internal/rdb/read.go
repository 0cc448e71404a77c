package rdb

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// The names of calls other than scripts in metrics and traces.
const (
	commandHGet     = "HGET"
	commandPipeline = "pipeline" // many reads in one round trip
)

// HGet reads a field of the hash at the key; found is false if there is none. kind is the kind of the key, for traces. The
// caller must decode the value and then end the call with Decoded: a value that can't be decoded counts as a failure.
func (r *Runner) HGet(ctx context.Context, kind, key, field string) (value string, found bool, call Call, err error) {
	call = r.metrics.begin(ctx, commandHGet, kind)
	reply, err := r.read(ctx, key, []any{"hget", key, field})
	if err != nil {
		call.end(err)
		return "", false, Call{}, err
	}
	value, found = reply.(string)
	return value, found, call, nil
}

// read sends a read to the primary of the key and returns the value, nil if there is none. The driver retries a failed
// round trip once. In a cluster, a read that fails without a reply or is redirected is sent once more through the driver's
// cluster client, which finds the new primary.
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
	cmds := make([]*redis.Cmd, len(reads))
	_, failure := r.client.driver.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, args := range reads {
			cmds[i] = pipe.Do(ctx, args...)
		}
		return nil
	})
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

// ScriptResult is the result of RunAll for one key: a reply or an error.
type ScriptResult struct {
	Reply Reply
	Err   error
}

// RunAll executes a read-only script on each of the keys, with the same arguments, in one pipeline. It returns the results in
// the order of the keys, and an error only if no key has a result.
func (r *Runner) RunAll(ctx context.Context, script *Script, keys []string, args ...any) ([]ScriptResult, error) {
	if script.Access != Read { // The driver retries a pipeline.
		return nil, fmt.Errorf("%s: a script that writes must be run by Run", script.Name)
	}
	results, err := r.evaluateAll(ctx, script, "evalsha", script.sha, keys, args)
	if slices.ContainsFunc(results, func(result Result) bool { return redis.HasErrorPrefix(result.Err, "NOSCRIPT") }) {
		results, err = r.evaluateAll(ctx, script, "eval", script.source, keys, args)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", script.Name, err)
	}
	replies := make([]ScriptResult, len(keys))
	for i, result := range results {
		if result.Err != nil {
			replies[i].Err = fmt.Errorf("%s: %w", script.Name, result.Err)
			continue
		}
		replies[i].Reply, replies[i].Err = newReply(script, result.Value, nil)
	}
	return replies, nil
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
