package main

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMedian(t *testing.T) {
	require.True(t, math.IsNaN(median(nil)))
	for want, values := range map[float64][]float64{7: {7}, 2: {3, 1, 2}, 2.5: {4, 1, 3, 2}, 1: {1, 100, 1}} {
		require.InDelta(t, want, median(values), 1e-9, "%v", values)
	}
}

func TestFiguresOfSlices(t *testing.T) {
	slow := work{calls: 10, took: time.Second, cpu: time.Second}
	usual := work{calls: 200, took: 2 * time.Second, cpu: time.Second}
	require.Equal(t, [figures]float64{10, 1e5}, slow.figures())
	require.Equal(t, [figures]float64{100, 5000}, ofSlices([]work{usual, slow, usual}), "one slow slice does not count")
}

// TestRatio: above 1 means better than base, for rates and for times.
func TestRatio(t *testing.T) {
	p := pair{base: [figures]float64{rate: 100, cpuPerCall: 10}, head: [figures]float64{rate: 90, cpuPerCall: 20}}
	require.Equal(t, [figures]float64{rate: .9, cpuPerCall: .5}, p.ratios())
}

func TestOfPathIsTheGeometricMeanOfEachRound(t *testing.T) {
	twice, half := pairOf(2), pairOf(.5)
	all := ofPath("gRPC", [][]pair{{twice, twice}, {half, twice}})
	require.Len(t, all, figures)
	for _, r := range all {
		require.True(t, r.path)
		require.InDeltaSlice(t, []float64{1, 2}, r.ratios, 1e-9)
	}
}

func TestInterval(t *testing.T) {
	r := row{}
	for n := range 100 {
		r.ratios = append(r.ratios, float64(n+1))
	}
	slices.Reverse(r.ratios)
	low, high := r.interval(likely) // The 41st to the 60th of 100: the table of the sign test says 40 and 61 for 95 %.
	require.InDelta(t, 41, low, 1)
	require.InDelta(t, 60, high, 1)
	require.Equal(t, low+high, 101.0)
	low, high = row{ratios: []float64{3, 1, 2}}.interval(sure)
	require.Equal(t, []float64{1, 3}, []float64{low, high})
}

func TestVerdict(t *testing.T) {
	const limit = .97
	times := func(n int, values ...float64) []float64 { return slices.Repeat(values, n) }
	tests := []struct {
		name    string
		row     row
		passes  bool
		decided bool
	}{
		{"a path that is as fast", row{path: true, ratios: times(10, .99, 1.01)}, true, true},
		{"a path that is 10 % slower", row{path: true, ratios: times(10, .89, .91)}, false, true},
		{"a path that is 5 % slower, with noise", row{path: true, ratios: times(4, .8, .9, .95, 1, 1.2)}, false, false},
		{"a path that is as fast, with noise", row{path: true, ratios: times(4, .8, .9, 1, 1.1, 1.2)}, true, false},
		{"an operation that is 10 % slower", row{ratios: times(10, .89, .91)}, false, true},
		{"an operation that may be slower by chance", row{ratios: times(4, .8, .9, .95, 1, 1.2)}, true, false},
		{"a path without calls", row{path: true, ratios: times(20, math.NaN())}, false, false},
		{"an operation without calls", row{ratios: times(20, math.NaN())}, false, false},
		{"an operation without rounds", row{}, false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.passes, test.row.passes(limit))
			require.Equal(t, test.decided, test.row.decided(limit))
		})
	}
}

func TestReport(t *testing.T) {
	var out strings.Builder
	good := ofOperation("good", slices.Repeat([]pair{pairOf(1)}, 20))
	require.NoError(t, report(&out, good, .97))
	require.Contains(t, out.String(), "PASS: none of 2 rows is below 0.97 of base")

	out.Reset()
	err := report(&out, append(good, ofOperation("bad", slices.Repeat([]pair{pairOf(.9)}, 20))...), .97)
	require.EqualError(t, err, "2 of 4 rows are below 0.97 of base:\n  bad: calls/s: 0.900\n  bad: CPU per call, µs: 0.900")
	require.Regexp(t, `bad: calls/s +1000 +900 +0.900 +0.900 to 0.900 +20 +FAIL`, out.String())

	out.Reset()
	noisy := row{name: "noisy", path: true, ratios: slices.Repeat([]float64{.7, 1, 1.3}, 7)}
	require.NoError(t, report(&out, []row{noisy}, .97))
	require.Contains(t, out.String(), "noisy may be as low as 0.700")

	require.Error(t, report(&out, nil, .97))
}

// pairOf returns a round in which head was ratio times as good as base.
func pairOf(ratio float64) pair {
	return pair{
		base: [figures]float64{rate: 1000, cpuPerCall: 50},
		head: [figures]float64{rate: 1000 * ratio, cpuPerCall: 50 / ratio},
	}
}
