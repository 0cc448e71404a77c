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

// quick is for a look whether all of it still works: one run, short slices, small numbers.
var quick = os.Getenv("PODLINK_BENCH_QUICK") == "1"

// runs is how often everything is measured.
var runs = func() int {
	if n, err := strconv.Atoi(os.Getenv("PODLINK_BENCH_RUNS")); err == nil && n > 0 {
		return n
	}
	if quick {
		return 1
	}
	return 3
}()

// results is all that was measured so far. The measurements come one after the other.
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

// started is when the measurements began.
var started = time.Now()

// progress tells a person who waits what is measured now.
func progress(run int, format string, args ...any) {
	fmt.Fprintf(os.Stderr, "[%s] run %d of %d: %s\n", time.Since(started).Round(time.Second), run+1, runs,
		fmt.Sprintf(format, args...))
}

// report prints what was measured, and writes it to the file, if there is to be one. Of a measurement that failed it
// only prints what there is.
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

// print writes the medians of everything that was measured, and what became of the targets.
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

// table is the chart as a table: a row per x, a column per series.
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

// figure is a number with about three digits that count.
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
