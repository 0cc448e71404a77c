package rdb

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// replication is the number of replicas that must confirm a mutation before it returns, and the maximum wait for them. With
// 0 replicas, the reply of the primary is enough.
type replication struct {
	replicas int
	timeout  time.Duration
}

// wait returns the WAIT command. WAIT covers the earlier writes of its connection, so it has to be in one pipeline with
// the mutation.
func (r replication) wait(ctx context.Context) *redis.IntCmd {
	return redis.NewIntCmd(ctx, "wait", r.replicas, r.timeout.Milliseconds())
}

// failure returns why replicas have not confirmed, nil if they have.
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
