package data

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// confirmation says how many replicas have to confirm a mutation before it is answered, and how long to wait for them.
// Without replicas to wait for, the primary's word is enough.
type confirmation struct {
	replicas int
	timeout  time.Duration
}

// exec sends the command and WAIT to the node: in one pipeline, for WAIT is about what its own connection has written. It
// covers all that the node has written so far, so an answer that changes nothing confirms what stands.
func (c confirmation) exec(ctx context.Context, node *redis.Client, cmd *onceCmd, asking bool) (err, unconfirmed error) {
	wait := redis.NewIntCmd(ctx, "wait", c.replicas, c.timeout.Milliseconds())
	_, failure := node.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		if asking {
			_ = pipe.Process(ctx, redis.NewStatusCmd(ctx, "asking"))
		}
		_ = pipe.Process(ctx, cmd)
		return pipe.Process(ctx, wait)
	})
	if err := failureOf(cmd, failure); err != nil {
		return err, nil
	}
	switch {
	case wait.Err() != nil:
		return nil, wait.Err()
	case wait.Val() < int64(c.replicas):
		return nil, fmt.Errorf("%d of %d replicas within %s", wait.Val(), c.replicas, c.timeout)
	default:
		return nil, nil
	}
}
