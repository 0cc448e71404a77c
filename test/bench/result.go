//go:build bench

package bench

import (
	"encoding/json"
	"os"
	"slices"
)

// Results has all measurements. tools/benchreport generates docs/performance.md from it.
type Results struct {
	Machine Machine  `json:"machine"`
	Charts  []Chart  `json:"charts"`
	Tables  []Table  `json:"tables"`
	Targets []Target `json:"targets"`
}

// Machine describes the machine and the versions of a measurement.
type Machine struct {
	CPU     string `json:"cpu"`
	Cores   int    `json:"cores"`
	Memory  int64  `json:"memory_bytes"`
	Kernel  string `json:"kernel"`
	Go      string `json:"go"`
	Redis   string `json:"redis"`
	Podlink string `json:"podlink"` // commit
	Date    string `json:"date"`    // YYYY-MM-DD
	Command string `json:"command"` // that repeats the measurement
	Runs    int    `json:"runs"`
}

// Chart is a measurement over a range: a row per x, a column per series.
type Chart struct {
	ID     string   `json:"id"` // names the plot's file: lower case, digits and hyphens
	Title  string   `json:"title"`
	Note   string   `json:"note"` // how it was measured, in a sentence or two
	X      string   `json:"x"`    // what varies: "callers"
	Y      string   `json:"y"`    // what was measured: "calls per second"
	LogX   bool     `json:"log_x"`
	LogY   bool     `json:"log_y"`
	Series []Series `json:"series"`
}

// Series is one line of a chart.
type Series struct {
	Name   string  `json:"name"`
	Points []Point `json:"points"` // in ascending order of X
}

// Point is one measurement at X.
type Point struct {
	X    float64   `json:"x"`
	Runs []float64 `json:"runs"`
}

// Table is a measurement without a range.
type Table struct {
	ID      string   `json:"id"`
	Title   string   `json:"title"`
	Note    string   `json:"note"`
	Columns []string `json:"columns"` // with their units: "Redis time per call, µs"
	Rows    []Row    `json:"rows"`
}

// Row is a row of a table.
type Row struct {
	Name  string `json:"name"`
	Cells []Runs `json:"cells"` // one per column; empty if not measured
}

// Runs has the values of one figure, one per run.
type Runs []float64

// Median returns the median, or 0 without values.
func (r Runs) Median() float64 {
	if len(r) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(r))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// Target is a limit for a figure, with the measured values.
type Target struct {
	Measure string  `json:"measure"`
	AtLeast bool    `json:"at_least"` // otherwise at most
	Limit   float64 `json:"limit"`
	Unit    string  `json:"unit"` // "" for a ratio
	Runs    Runs    `json:"runs"`
}

// Met reports whether the median reaches the target. A target without values is not met.
func (t Target) Met() bool {
	if len(t.Runs) == 0 {
		return false
	}
	if t.AtLeast {
		return t.Runs.Median() >= t.Limit
	}
	return t.Runs.Median() <= t.Limit
}

// write writes the results as JSON.
func (r *Results) write(file string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
