package client

import (
	"context"

	"github.com/cenkalti/backoff/v5"
)

func (c *Client) repeat(ctx context.Context, between *backoff.ExponentialBackOff) bool {
	return c.retries.wait(ctx, between)
}
