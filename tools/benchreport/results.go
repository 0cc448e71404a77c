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

// Results is what test/bench writes; its result.go says what the fields mean.
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
	Podlink string `json:"podlink"`
	Date    string `json:"date"`
	Command string `json:"command"`
	Runs    int    `json:"runs"`
}

// Chart is a measurement over a range.
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

// Table is a measurement of things that have no order.
type Table struct {
	ID      string   `json:"id"`
	Title   string   `json:"title"`
	Note    string   `json:"note"`
	Columns []string `json:"columns"`
	Rows    []Row    `json:"rows"`
}

// Row is one thing of a table.
type Row struct {
	Name  string `json:"name"`
	Cells []Runs `json:"cells"`
}

// Target is what podlink is to reach, and what it reached.
type Target struct {
	Measure string  `json:"measure"`
	AtLeast bool    `json:"at_least"`
	Limit   float64 `json:"limit"`
	Unit    string  `json:"unit"`
	Runs    Runs    `json:"runs"`
}

// Runs are the values of one figure, one per run.
type Runs []float64

// Median is the middle one; there must be one.
func (r Runs) Median() float64 {
	sorted := slices.Sorted(slices.Values(r))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// Met tells whether the median reaches the target.
func (t Target) Met() bool {
	if t.AtLeast {
		return t.Runs.Median() >= t.Limit
	}
	return t.Runs.Median() <= t.Limit
}

// load reads the results. It refuses fields that it does not know, for they are figures that the docs would leave out.
func load(file string) (*Results, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there are no results to report, `make bench` measures: %w", err)
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
		return nil, fmt.Errorf("%s: there is more after the results", file)
	}
	if err := results.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &results, nil
}

// idFormat is that of an id: its section, a hyphen, and the rest.
var idFormat = regexp.MustCompile(`^([a-z0-9]+)-[a-z0-9-]+$`)

// check finds what can't be shown.
func (r *Results) check() error {
	known := map[string]bool{}
	checkID := func(id string) error {
		if !idFormat.MatchString(id) {
			return fmt.Errorf("the id %q is not SECTION-NAME in lower case, digits and hyphens", id)
		}
		if known[id] {
			return fmt.Errorf("the id %q is taken twice", id)
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
				return fmt.Errorf("%s: it has no runs; leave the point out", where)
			case i > 0 && point.X <= series.Points[i-1].X:
				return fmt.Errorf("%s: the points are not by rising x", where)
			case c.LogX && point.X <= 0, c.LogY && slices.Min(point.Runs) <= 0:
				return fmt.Errorf("%s: what is not above 0 has no place on a logarithmic axis", where)
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
