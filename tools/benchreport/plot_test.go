package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLogTicks(t *testing.T) {
	for name, row := range map[string]struct {
		low, high float64
		want      []float64
	}{
		"within a decade":   {210, 480, []float64{200, 500}},
		"over two":          {8000, 200000, []float64{5000, 10000, 20000, 50000, 100000, 200000}},
		"over many":         {3, 50000, []float64{1, 10, 100, 1000, 10000, 100000}},
		"fractions":         {0.3, 1.5, []float64{0.2, 0.5, 1, 2}},
		"a single value":    {30, 30, []float64{20, 50}},
		"a value on a tick": {100, 100, []float64{100, 200}},
	} {
		t.Run(name, func(t *testing.T) {
			require.InDeltaSlice(t, row.want, logTicks(row.low, row.high), 1e-9)
		})
	}
}

func TestLinearTicks(t *testing.T) {
	for name, row := range map[string]struct {
		low, high float64
		want      []float64
	}{
		"from zero":      {0, 131000, []float64{0, 20000, 40000, 60000, 80000, 100000, 120000, 140000}},
		"fine":           {0, 0.43, []float64{0, 0.1, 0.2, 0.3, 0.4, 0.5}},
		"below zero":     {-30, 70, []float64{-40, -20, 0, 20, 40, 60, 80}},
		"a single value": {0, 0, []float64{0, 0.2, 0.4, 0.6, 0.8, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			require.InDeltaSlice(t, row.want, linearTicks(row.low, row.high), 1e-9)
		})
	}
}
