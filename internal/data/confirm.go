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

// command is what the replicas are asked with. It is about what its own connection has written, so it goes in one
// pipeline with that. It covers all that the server has written so far: an answer that changes nothing confirms what
// stands.
func (c confirmation) command(ctx context.Context) *redis.IntCmd {
	return redis.NewIntCmd(ctx, "wait", c.replicas, c.timeout.Milliseconds())
}

// judge returns why the replicas have not confirmed, nil when they have.
func (c confirmation) judge(wait *redis.IntCmd) error {
	switch {
	case wait.Err() != nil:
		return wait.Err()
	case wait.Val() < int64(c.replicas):
		return fmt.Errorf("%d of %d replicas within %s", wait.Val(), c.replicas, c.timeout)
	default:
		return nil
	}
}
