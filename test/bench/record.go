//go:build bench

package bench

import "slices"

// row returns the row of that name, and appends an empty one if there is none.
func (t *Table) row(name string) *Row {
	at := slices.IndexFunc(t.Rows, func(r Row) bool { return r.Name == name })
	if at < 0 {
		at = len(t.Rows)
		t.Rows = append(t.Rows, Row{Name: name, Cells: make([]Runs, len(t.Columns))})
	}
	return &t.Rows[at]
}

// add records a run's value.
func (t *Table) add(row string, column int, value float64) {
	cell := &t.row(row).Cells[column]
	*cell = append(*cell, value)
}

// add records a run's value at x. Every run must measure in ascending order of x.
func (c *Chart) add(series string, x, value float64) {
	line := slices.IndexFunc(c.Series, func(s Series) bool { return s.Name == series })
	if line < 0 {
		line = len(c.Series)
		c.Series = append(c.Series, Series{Name: series})
	}
	points := &c.Series[line].Points
	at := slices.IndexFunc(*points, func(p Point) bool { return p.X == x })
	if at < 0 {
		at = len(*points)
		*points = append(*points, Point{X: x})
	}
	(*points)[at].Runs = append((*points)[at].Runs, value)
}
