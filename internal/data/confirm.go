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

// maxRedirects bounds how often a command is sent on to the node that a cluster names.
const maxRedirects = 3

// sendConfirmed sends the command that fresh returns, together with WAIT: in one pipeline, for WAIT is about what its own
// connection has written, and hence on the key's own node, for the driver would send WAIT anywhere. It returns the
// command as it was sent last, its error, and, if that is nil, why the replicas have not confirmed it.
//
// WAIT covers all that the node has written so far. So an answer that changes nothing confirms what stands.
func (s *Store) sendConfirmed(
	ctx context.Context, key string, fresh func() *onceCmd,
) (cmd *onceCmd, err, unconfirmed error) {
	cmd = fresh()
	node, err := s.primary(ctx, key)
	if err != nil {
		return cmd, err, nil
	}
	asking := false
	for range maxRedirects + 1 {
		cmd = fresh()
		if err, unconfirmed = s.confirm.exec(ctx, node, cmd, asking); err == nil {
			return cmd, nil, unconfirmed
		}
		cluster, ok := s.client.(*cluster)
		if !ok {
			return cmd, err, nil
		}
		if node, asking = cluster.redirected(ctx, err); node == nil {
			return cmd, err, nil
		}
	}
	return cmd, err, nil
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

// exec sends the command and WAIT to the node.
func (c confirmation) exec(ctx context.Context, node *redis.Client, cmd *onceCmd, asking bool) (err, unconfirmed error) {
	wait := redis.NewIntCmd(ctx, "wait", c.replicas, c.timeout.Milliseconds())
	_, failure := node.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		if asking {
			_ = pipe.Process(ctx, redis.NewStatusCmd(ctx, "asking"))
		}
		_ = pipe.Process(ctx, cmd)
		return pipe.Process(ctx, wait)
	})
	switch {
	case cmd.Val() == nil && cmd.Err() != nil:
		return cmd.Err(), nil
	case cmd.Val() == nil: // The handshake was refused: the driver leaves a pipeline's commands as they are then.
		return failure, nil
	}
	cmd.SetErr(nil) // The driver gives the error of a pipeline to all its commands, also to those that have a reply.
	switch {
	case wait.Err() != nil:
		return nil, wait.Err()
	case wait.Val() < int64(c.replicas):
		return nil, fmt.Errorf("%d of %d replicas within %s", wait.Val(), c.replicas, c.timeout)
	default:
		return nil, nil
	}
}
