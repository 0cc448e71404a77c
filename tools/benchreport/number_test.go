package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNumber(t *testing.T) {
	for want, v := range map[string]float64{
		"0": 0, "7": 7, "136": 136, "1,234": 1234, "12,345,678": 12345678, "-1,234": -1234, "-123": -123,
		"1,235": 1234.56, "123": 123.4, "12.3": 12.34, "1.23": 1.234, "0.97": 0.9715, "0.042": 0.04183, "-0.50": -0.5,
	} {
		require.Equal(t, want, number(v))
	}
}

func TestNumberBeside(t *testing.T) {
	for want, row := range map[string]struct{ v, limit float64 }{
		"0.97":    {0.9715, 0.9},
		"0.8996":  {0.8996, 0.9},
		"0.90":    {0.9, 0.9},
		"25.02":   {25.02, 25},
		"145":     {145, 145},
		"1.15004": {1.15004, 1.15},
	} {
		require.Equal(t, want, numberBeside(row.v, row.limit))
	}
}

func TestShort(t *testing.T) {
	for want, v := range map[string]float64{
		"0": 0, "0.3": 3 * 0.1, "0.05": 0.05, "10": 10, "256": 256, "1,024": 1024, "1k": 1000, "2.5": 2.5, "5k": 5000,
		"10k": 10000, "31.25k": 31250, "100k": 1e5, "1M": 1e6, "2.5M": 2.5e6, "1G": 1e9,
	} {
		require.Equal(t, want, short(v))
	}
}

func TestMedian(t *testing.T) {
	for _, row := range []struct {
		runs Runs
		want float64
	}{{Runs{3}, 3}, {Runs{9, 1, 2}, 2}, {Runs{4, 1, 2, 9}, 3}} {
		before := append(Runs(nil), row.runs...)
		require.InDelta(t, row.want, row.runs.Median(), 0)
		require.Equal(t, before, row.runs, "the runs keep their order")
	}
}
