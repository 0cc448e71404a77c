package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// work is the number of calls in a slice, with their wall-clock and CPU time.
type work struct {
	calls     int
	took, cpu time.Duration
}

// The figures of a measure.
const (
	rate       = iota // calls per second
	cpuPerCall        // of the measured process, in microseconds
	figures
)

var figureNames = [figures]string{"calls/s", "CPU per call, µs"}

// figures returns the figures of a slice.
func (w work) figures() [figures]float64 {
	return [figures]float64{float64(w.calls) / w.took.Seconds(), w.cpu.Seconds() * 1e6 / float64(w.calls)}
}

// pair holds the figures of base and head from the same round.
type pair struct{ base, head [figures]float64 }

// ofSlices returns the median of each figure over a process's slices in a round. The median ignores slices that other processes
// slowed down.
func ofSlices(all []work) (medians [figures]float64) {
	for figure := range figures {
		var values []float64
		for _, w := range all {
			values = append(values, w.figures()[figure])
		}
		medians[figure] = median(values)
	}
	return medians
}

// ratios returns how head compares with base in a round, by figure: above 1, head is better.
func (p pair) ratios() (ratios [figures]float64) {
	for figure := range figures {
		ratios[figure] = p.head[figure] / p.base[figure]
		if figure == cpuPerCall {
			ratios[figure] = p.base[figure] / p.head[figure]
		}
	}
	return ratios
}

// row is a line of the table. Its lists have one value per round.
type row struct {
	name       string
	base, head []float64 // empty for a path
	ratios     []float64
	path       bool // a whole path instead of one operation
}

// Confidence levels of an interval, in standard deviations: 95 % and 99.9 %.
const (
	likely = 1.96
	sure   = 3.29
)

// ofOperation returns a row for each figure of a measure.
func ofOperation(name string, pairs []pair) []row {
	all := make([]row, figures)
	for figure := range all {
		r := &all[figure]
		r.name = name + ": " + figureNames[figure]
		for _, p := range pairs {
			r.base, r.head = append(r.base, p.base[figure]), append(r.head, p.head[figure])
			r.ratios = append(r.ratios, p.ratios()[figure])
		}
	}
	return all
}

// ofPath returns a row for each figure of a path: the geometric mean of its operations, by round. All operations must have the
// same number of pairs.
func ofPath(name string, operations [][]pair) []row {
	all := make([]row, figures)
	for figure := range all {
		r := &all[figure]
		r.name, r.path = "all of "+name+": "+figureNames[figure], true
		for round := range operations[0] {
			sum := 0.0
			for _, pairs := range operations {
				sum += math.Log(pairs[round].ratios()[figure])
			}
			r.ratios = append(r.ratios, math.Exp(sum/float64(len(operations))))
		}
	}
	return all
}

// ratio returns the median of the rounds' ratios, not the ratio of the medians: the machine's speed drifts between rounds, but
// hardly within one.
func (r row) ratio() float64 { return median(r.ratios) }

// passes reports whether head is fast enough. A path passes if its ratio reaches the limit. Among many operations some are below
// the limit by chance, so an operation fails only if it is significantly below. NaN, from slices without calls, fails.
func (r row) passes(limit float64) bool {
	if r.path {
		return r.ratio() >= limit
	}
	_, high := r.interval(sure)
	return high >= limit && !math.IsNaN(r.ratio())
}

// decided reports whether the limit is outside the interval, so that more rounds are unlikely to change the verdict.
func (r row) decided(limit float64) bool {
	low, high := r.interval(likely)
	return low >= limit || high < limit
}

// interval returns the confidence interval of the median ratio. It is distribution-free: a sign test's.
func (r row) interval(confidence float64) (low, high float64) {
	n := len(r.ratios)
	if n == 0 {
		return math.NaN(), math.NaN()
	}
	sorted := slices.Sorted(slices.Values(r.ratios))
	rank := max(0, int((float64(n)-confidence*math.Sqrt(float64(n)))/2))
	return sorted[rank], sorted[n-1-rank]
}

// median returns the median; NaN of no values.
func median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// report prints the table, and returns an error that names the failed rows.
func report(out io.Writer, all []row, limit float64) error {
	if len(all) == 0 {
		return errors.New("nothing was measured")
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "measure\tbase\thead\tratio\t95 % interval\trounds\t")
	var failed []string
	for _, r := range all {
		verdict := "PASS"
		if !r.passes(limit) {
			verdict = "FAIL"
			failed = append(failed, fmt.Sprintf("  %s: %.3f", r.name, r.ratio()))
			if _, high := r.interval(likely); r.path && high >= limit {
				failed[len(failed)-1] += fmt.Sprintf(", but may be as high as %.3f: the machine was too busy to say more", high)
			}
		}
		base, head := "", ""
		if !r.path {
			base, head = format(median(r.base)), format(median(r.head))
		}
		low, high := r.interval(likely)
		fmt.Fprintf(w, "%s\t%s\t%s\t%.3f\t%.3f to %.3f\t%d\t%s\n", r.name, base, head, r.ratio(), low, high, len(r.ratios), verdict)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d rows are below %.3g of base:\n%s", len(failed), len(all), limit, strings.Join(failed, "\n"))
	}
	for _, r := range all {
		if r.path && !r.decided(limit) {
			low, _ := r.interval(likely)
			fmt.Fprintf(out, "%s may be as low as %.3f: the machine was too busy for a narrower interval\n", r.name, low)
		}
	}
	fmt.Fprintf(out, "PASS: none of %d rows is below %.3g of base\n", len(all), limit)
	return nil
}

// format formats a number with at least three digits.
func format(v float64) string {
	if math.Abs(v) >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
