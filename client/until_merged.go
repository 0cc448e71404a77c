package client

import (
	"context"

	"github.com/cenkalti/backoff/v5"
)

// What other parts of the package bring along.
const (
	metadataNamespace = "namespace"
	metadataService   = "service"
	metadataUID       = "uid"
	metadataEpoch     = "epoch"
	metadataRefusedBy = "refused_by"
)

func (c *Client) repeat(ctx context.Context, between *backoff.ExponentialBackOff) bool {
	return c.retries.wait(ctx, between)
}
