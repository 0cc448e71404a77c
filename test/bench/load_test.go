//go:build bench

package bench

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPercentiles(t *testing.T) {
	l := load{}
	require.Equal(t, []float64{0}, l.percentiles(.5), "of no calls")
	for n := range 1000 {
		l.latencies = append(l.latencies, time.Duration(1000-n)*time.Millisecond)
	}
	require.Equal(t, []float64{1, 500, 990, 999, 1000}, l.percentiles(0, .5, .99, .999, 1))
}

// TestClosed: each caller has one call in flight at a time.
func TestClosed(t *testing.T) {
	const callers, each = 4, 5 * time.Millisecond
	var under, calls atomic.Int32
	l, err := closed(callers, 20*each, func(context.Context, int) error {
		require.LessOrEqual(t, under.Add(1), int32(callers))
		time.Sleep(each)
		under.Add(-1)
		calls.Add(1)
		return nil
	})
	require.NoError(t, err)
	require.EqualValues(t, l.calls, calls.Load())
	require.GreaterOrEqual(t, l.percentiles(0)[0], 5.0)
	require.InDelta(t, callers/each.Seconds(), l.rate(), callers/each.Seconds()/2)
}

// TestOpen: when a server stalls, all calls due meanwhile are late.
func TestOpen(t *testing.T) {
	const stall = 100 * time.Millisecond
	calls := 0
	l, err := open(1, 1000, 2*stall, func(context.Context, int) error {
		if calls++; calls == 50 {
			time.Sleep(stall)
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, 200, l.calls)
	require.Greater(t, l.percentiles(.75)[0], 20.0, "about 100 of the 200 calls wait, the first one for the whole stall")
}

func TestLoadFails(t *testing.T) {
	failure := errors.New("failed")
	fail := func(ctx context.Context, caller int) error {
		if caller == 1 {
			return failure
		}
		<-ctx.Done()
		return nil
	}
	_, err := closed(4, time.Second, fail)
	require.ErrorIs(t, err, failure)
	_, err = open(4, 1000, time.Second/10, fail)
	require.ErrorIs(t, err, failure)
}

func TestRecord(t *testing.T) {
	table, chart := Table{Columns: []string{"calls", "ratio"}}, Chart{}
	for run := range 2 {
		table.add("all", 0, float64(run))
		chart.add("all", 10, float64(run))
		chart.add("all", 20, float64(run))
	}
	table.add("one", 1, 5)
	require.Equal(t, []Row{{"all", []Runs{{0, 1}, nil}}, {"one", []Runs{nil, {5}}}}, table.Rows)
	require.Equal(t, []Series{{"all", []Point{{10, []float64{0, 1}}, {20, []float64{0, 1}}}}}, chart.Series)
}
