//go:build bench

package bench

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// quick selects a smoke test: one run, short slices, small numbers.
var quick = os.Getenv("PODLINK_BENCH_QUICK") == "1"

// runs is the number of runs of every measurement.
var runs = func() int {
	if n, err := strconv.Atoi(os.Getenv("PODLINK_BENCH_RUNS")); err == nil && n > 0 {
		return n
	}
	if quick {
		return 1
	}
	return 3
}()

// results has all measurements so far. It needs no lock, as measurements don't run in parallel.
var results collector

type collector struct{ Results }

func (c *collector) charts(all ...*Chart) {
	for _, chart := range all {
		c.Charts = append(c.Charts, *chart)
	}
}

func (c *collector) tables(all ...*Table) {
	for _, table := range all {
		c.Tables = append(c.Tables, *table)
	}
}

func (c *collector) target(target Target) { c.Targets = append(c.Targets, target) }

// started is the start of the first measurement.
var started = time.Now()

// progress prints the current measurement.
func progress(run int, format string, args ...any) {
	fmt.Fprintf(os.Stderr, "[%s] run %d of %d: %s\n", time.Since(started).Round(time.Second), run+1, runs,
		fmt.Sprintf(format, args...))
}

// report prints the results, and writes them to the file unless its name is empty. Incomplete results are only printed.
func report(out io.Writer, file string, whole bool) error {
	if len(results.Charts)+len(results.Tables) == 0 {
		return nil
	}
	results.print(out)
	if file == "" || !whole {
		return nil
	}
	var err error
	if results.Machine, err = thisMachine(); err != nil {
		return err
	}
	return results.write(file)
}

// print writes the medians of all results, and the outcome of each target.
func (r *Results) print(out io.Writer) {
	for _, chart := range r.Charts {
		printTable(out, chart.table())
	}
	for _, table := range r.Tables {
		printTable(out, table)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\nTargets\tlimit\tmedian\n")
	for _, target := range r.Targets {
		verdict, bound := "met", "<="
		if !target.Met() {
			verdict = "MISSED"
		}
		if target.AtLeast {
			bound = ">="
		}
		fmt.Fprintf(w, "%s\t%s %s %s\t%s\t%s\n", target.Measure, bound, figure(target.Limit), target.Unit,
			figure(target.Runs.Median()), verdict)
	}
	_ = w.Flush() // Into memory, or to standard output.
}

// table returns the chart as a table with a row per x and a column per series.
func (c Chart) table() Table {
	table := Table{Title: c.Title + ": " + c.Y + ", by " + c.X}
	for _, series := range c.Series {
		table.Columns = append(table.Columns, series.Name)
	}
	for column, series := range c.Series {
		for _, point := range series.Points {
			table.row(figure(point.X)).Cells[column] = point.Runs
		}
	}
	return table
}

func printTable(out io.Writer, table Table) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\n%s\n\t%s\n", table.Title, strings.Join(table.Columns, "\t"))
	for _, row := range table.Rows {
		cells := []string{row.Name}
		for _, cell := range row.Cells {
			text := ""
			if len(cell) > 0 {
				text = figure(cell.Median())
			}
			cells = append(cells, text)
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	_ = w.Flush() // Into memory, or to standard output.
}

// figure formats a number with about three significant digits.
func figure(v float64) string {
	decimals := 0
	for limit := 100.0; decimals < 3 && v != 0 && v < limit && v > -limit; limit /= 10 {
		decimals++
	}
	text := strconv.FormatFloat(v, 'f', decimals, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}
