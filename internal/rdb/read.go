package rdb

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// The names that metrics and traces give to calls that are no script.
const (
	commandHGet     = "HGET"
	commandPipeline = "pipeline" // many reads in one round trip
)

// HGet reads a field of the hash at the key, of that kind; found is false when there is none. The caller decodes the value
// and then ends the call with Decoded, so that a value it can't decode counts as a failure.
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

// Result is what one read of ReadAll returned: a value, nil for none, or an error.
type Result struct {
	Value any
	Err   error
}

// ReadAll sends reads of keys of one kind, each a command with its arguments, in one pipeline. It returns an error when no
// read has a result.
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
	// The driver leaves commands without a result or an error when the handshake of a new connection is refused.
	if failure != nil && !slices.ContainsFunc(cmds, func(cmd *redis.Cmd) bool { return cmd.Err() != nil }) {
		failure = readError(ctx, failure)
		call.end(failure)
		return nil, failure
	}
	results := make([]Result, len(reads))
	var first error // that is a failure: a missing value is none, and a forgotten script is sent again
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

// RunAll executes a script that reads on each key, in one pipeline, and returns the replies in the order of keys. args
// follow each key.
func (r *Runner) RunAll(ctx context.Context, script *Script, keys []string, args ...any) ([]Reply, error) {
	results, err := r.evaluateAll(ctx, script, "evalsha", script.sha, keys, args)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		results, err = r.evaluateAll(ctx, script, "eval", script.source, keys, args)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", script.Name, err)
	}
	replies := make([]Reply, len(keys))
	for i, result := range results {
		if replies[i], err = newReply(script, result.Value, nil); err != nil {
			return nil, err
		}
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
	results, err := r.ReadAll(ctx, script.KeyKind, reads)
	if err != nil {
		return nil, err
	}
	for _, result := range results {
		if result.Err != nil {
			return nil, result.Err
		}
	}
	return results, nil
}
