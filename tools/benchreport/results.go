package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
)

// Results is the output of test/bench; its result.go documents the fields.
type Results struct {
	Machine Machine  `json:"machine"`
	Charts  []Chart  `json:"charts"`
	Tables  []Table  `json:"tables"`
	Targets []Target `json:"targets"`
}

// Machine is the machine and the build that were measured.
type Machine struct {
	CPU     string `json:"cpu"`
	Cores   int    `json:"cores"`
	Memory  int64  `json:"memory_bytes"`
	Kernel  string `json:"kernel"`
	Go      string `json:"go"`
	Redis   string `json:"redis"`
	Podlink string `json:"podlink"`
	Date    string `json:"date"`
	Command string `json:"command"`
	Runs    int    `json:"runs"`
}

// Chart is a measurement over a range of x.
type Chart struct {
	ID     string   `json:"id"`
	Title  string   `json:"title"`
	Note   string   `json:"note"`
	X      string   `json:"x"`
	Y      string   `json:"y"`
	LogX   bool     `json:"log_x"`
	LogY   bool     `json:"log_y"`
	Series []Series `json:"series"`
}

// Series is one line of a chart.
type Series struct {
	Name   string  `json:"name"`
	Points []Point `json:"points"`
}

// Point is one measurement at X.
type Point struct {
	X    float64 `json:"x"`
	Runs Runs    `json:"runs"`
}

// Table is a measurement of unordered things.
type Table struct {
	ID      string   `json:"id"`
	Title   string   `json:"title"`
	Note    string   `json:"note"`
	Columns []string `json:"columns"`
	Rows    []Row    `json:"rows"`
}

// Row is a row of a table.
type Row struct {
	Name  string `json:"name"`
	Cells []Runs `json:"cells"`
}

// Target is a performance target and its result.
type Target struct {
	Measure string  `json:"measure"`
	AtLeast bool    `json:"at_least"`
	Limit   float64 `json:"limit"`
	Unit    string  `json:"unit"`
	Runs    Runs    `json:"runs"`
}

// Runs are the values of one figure, one per run.
type Runs []float64

// Median returns the median. There must be a value.
func (r Runs) Median() float64 {
	sorted := slices.Sorted(slices.Values(r))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// Met reports whether the median reaches the target.
func (t Target) Met() bool {
	if t.AtLeast {
		return t.Runs.Median() >= t.Limit
	}
	return t.Runs.Median() <= t.Limit
}

// load reads the results. Unknown fields are an error: the docs would silently omit them.
func load(file string) (*Results, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no results to report; run `make bench` first: %w", err)
	}
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	var results Results
	if err := decoder.Decode(&results); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: trailing data after the results", file)
	}
	if err := results.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &results, nil
}

// idFormat matches an id: section, hyphen, name.
var idFormat = regexp.MustCompile(`^([a-z0-9]+)-[a-z0-9-]+$`)

// check returns an error for results that can't be rendered.
func (r *Results) check() error {
	known := map[string]bool{}
	checkID := func(id string) error {
		if !idFormat.MatchString(id) {
			return fmt.Errorf("the id %q is not SECTION-NAME in lower case, digits and hyphens", id)
		}
		if known[id] {
			return fmt.Errorf("duplicate id %q", id)
		}
		known[id] = true
		return nil
	}
	var errs []error
	for _, chart := range r.Charts {
		errs = append(errs, checkID(chart.ID), chart.check())
	}
	for _, table := range r.Tables {
		errs = append(errs, checkID(table.ID), table.check())
	}
	return errors.Join(errs...)
}

func (c Chart) check() error {
	points := 0
	for _, series := range c.Series {
		points += len(series.Points)
		for i, point := range series.Points {
			switch where := fmt.Sprintf("chart %s, %s at %v", c.ID, series.Name, point.X); {
			case len(point.Runs) == 0:
				return fmt.Errorf("%s: no runs; omit the point", where)
			case i > 0 && point.X <= series.Points[i-1].X:
				return fmt.Errorf("%s: points must be in order of x", where)
			case c.LogX && point.X <= 0, c.LogY && slices.Min(point.Runs) <= 0:
				return fmt.Errorf("%s: values on a logarithmic axis must be above 0", where)
			}
		}
	}
	if points == 0 {
		return fmt.Errorf("chart %s has no points", c.ID)
	}
	return nil
}

func (t Table) check() error {
	for _, row := range t.Rows {
		if len(row.Cells) != len(t.Columns) {
			return fmt.Errorf("table %s, %s: %d cells for %d columns", t.ID, row.Name, len(row.Cells), len(t.Columns))
		}
	}
	return nil
}
