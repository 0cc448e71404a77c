package client

import (
	"context"

	"github.com/cenkalti/backoff/v5"
	kerrors "github.com/go-kratos/kratos/v2/errors"
	"google.golang.org/grpc"

	v1 "podlink/api/podlink/v1"
)

// What other parts of the package bring along.
const (
	metadataNamespace = "namespace"
	metadataService   = "service"
	metadataUID       = "uid"
	metadataEpoch     = "epoch"
	metadataRefusedBy = "refused_by"
)

var repeatable grpc.CallOption = grpc.EmptyCallOption{}

func withCause(err, cause error, metadata ...string) error { return explain(err, cause, metadata...) }

func problemError(p *v1.Problem) error {
	if p == nil {
		return nil
	}
	codes := map[string]int{"STORE_UNAVAILABLE": 503, "NO_AVAILABLE_POD": 503, "OUTCOME_UNKNOWN": 504, "INVALID_ARGUMENT": 400}
	return kerrors.New(codes[p.GetReason()], p.GetReason(), p.GetMessage()).WithMetadata(p.GetMetadata())
}

func (c *Client) repeat(ctx context.Context, between *backoff.ExponentialBackOff) bool {
	return pause(ctx, between.NextBackOff())
}
