package data

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
)

// TestErrorKinds: every way in which a call of the store can fail has a kind of its own, also when it is wrapped.
func TestErrorKinds(t *testing.T) {
	for want, err := range map[string]error{
		"unavailable":     biz.ErrStoreUnavailable,
		"outcome_unknown": biz.ErrOutcomeUnknown,
		"unconfirmed":     &biz.UnconfirmedError{Cause: errors.New("too few replicas")},
		"full":            biz.ErrStoreFull,
		"corrupt":         biz.ErrStoreDataCorrupt,
		"deadline":        biz.ErrDeadlineExceeded,
		"canceled":        biz.ErrCanceled,
		"other":           errors.New("ERR something else"),
	} {
		require.Equal(t, want, errorKind(fmt.Errorf("statefulSetLink: %w", err)))
	}
}

// BenchmarkObserve is what the metrics add to each call of the store.
func BenchmarkObserve(b *testing.B) {
	b.ReportAllocs()
	m, start := newStoreMetrics(new(Store)), time.Now()
	for b.Loop() {
		m.observe(commandGet, start, nil)
		m.batches.Observe(1)
	}
}
