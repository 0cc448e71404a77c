package rdb

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// replication is how many replicas must confirm a mutation before it is answered, and how long to wait for them. With
// none, the primary's reply is enough.
type replication struct {
	replicas int
	timeout  time.Duration
}

// wait returns the command that asks the replicas. WAIT covers what its own connection has written, so it goes in one
// pipeline with the mutation; and it covers all of that, so a mutation that changed nothing confirms what was there.
func (r replication) wait(ctx context.Context) *redis.IntCmd {
	return redis.NewIntCmd(ctx, "wait", r.replicas, r.timeout.Milliseconds())
}

// failure returns why the replicas have not confirmed, nil when they have.
func (r replication) failure(wait *redis.IntCmd) error {
	switch {
	case wait.Err() != nil:
		return wait.Err()
	case wait.Val() < int64(r.replicas):
		return fmt.Errorf("%d of %d replicas within %s", wait.Val(), r.replicas, r.timeout)
	default:
		return nil
	}
}
