//go:build bench

package bench

import (
	"encoding/json"
	"os"
	"slices"
)

// Results is all that was measured; tools/benchreport makes docs/performance.md of it.
type Results struct {
	Machine Machine  `json:"machine"`
	Charts  []Chart  `json:"charts"`
	Tables  []Table  `json:"tables"`
	Targets []Target `json:"targets"`
}

// Machine is what it was measured on.
type Machine struct {
	CPU     string `json:"cpu"`
	Cores   int    `json:"cores"`
	Memory  int64  `json:"memory_bytes"`
	Kernel  string `json:"kernel"`
	Go      string `json:"go"`
	Redis   string `json:"redis"`
	Podlink string `json:"podlink"` // the commit
	Date    string `json:"date"`    // YYYY-MM-DD
	Command string `json:"command"` // that repeats it
	Runs    int    `json:"runs"`
}

// Chart is a measurement over a range: a row per x, a column per series.
type Chart struct {
	ID     string   `json:"id"` // names the plot's file: lower case, digits and hyphens
	Title  string   `json:"title"`
	Note   string   `json:"note"` // what was done, in a sentence or two
	X      string   `json:"x"`    // what varies: "callers"
	Y      string   `json:"y"`    // what was measured: "calls per second"
	LogX   bool     `json:"log_x"`
	LogY   bool     `json:"log_y"`
	Series []Series `json:"series"`
}

// Series is one line of a chart.
type Series struct {
	Name   string  `json:"name"`
	Points []Point `json:"points"` // by rising X
}

// Point is one measurement at X.
type Point struct {
	X    float64   `json:"x"`
	Runs []float64 `json:"runs"`
}

// Table is a measurement of things that have no order.
type Table struct {
	ID      string   `json:"id"`
	Title   string   `json:"title"`
	Note    string   `json:"note"`
	Columns []string `json:"columns"` // with their units: "Redis time per call, µs"
	Rows    []Row    `json:"rows"`
}

// Row is one thing of a table.
type Row struct {
	Name  string `json:"name"`
	Cells []Runs `json:"cells"` // one per column; empty where there is nothing to measure
}

// Runs are the values of one figure, one per run.
type Runs []float64

// Median is the middle one; 0 without any.
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

// Target is what podlink is to reach, and what it reached.
type Target struct {
	Measure string  `json:"measure"`
	AtLeast bool    `json:"at_least"` // else: at most
	Limit   float64 `json:"limit"`
	Unit    string  `json:"unit"` // "" for a ratio
	Runs    Runs    `json:"runs"`
}

// Met tells whether the median reaches the target; one that was not measured is not met.
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
