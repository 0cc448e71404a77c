package telemetry

import (
	"errors"
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
)

// TestComputeOutcomes: every result of Compute counts as exactly one outcome, and every outcome has a pre-created series.
func TestComputeOutcomes(t *testing.T) {
	domain := NewDomain()
	require.Equal(t, len(computeOutcomes), testutil.CollectAndCount(domain.computes))
	end := func(result biz.ComputeResult) {
		domain.ComputeEnded(domain.ComputeStarted(t.Context(), biz.ServiceKey{}), result)
	}
	for want, result := range map[string]biz.ComputeResult{
		"existing":         {Outcome: biz.Existing},
		"created":          {Outcome: biz.Created},
		"relinked":         {Outcome: biz.Relinked},
		"no_available_pod": {Err: fmt.Errorf("%w: room", biz.ErrNoAvailablePod)},
		"contended":        {Err: biz.ErrContended},
		"failed":           {Err: errors.New("anything")},
	} {
		end(result)
		require.InDelta(t, 1, testutil.ToFloat64(domain.computes.WithLabelValues(want)), 0, want)
	}
	end(biz.ComputeResult{})
	require.InDelta(t, 2, testutil.ToFloat64(domain.computes.WithLabelValues("failed")), 0, "a panic")
	require.ErrorIs(t, biz.ErrContended, biz.ErrStoreUnavailable)
}
