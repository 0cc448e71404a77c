//go:build faults

package faults

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"
)

// Report is the result of a run.
type Report struct {
	Name         string
	Operations   int // calls with any answer
	Faults       int // injected
	Acknowledged int // executed, or declined as the contract says
	Refused      int // certainly not executed
	Unknown      int // may or may not have been executed
	Lost         int // acknowledged writes that are gone
	// Unavailable is the longest time between two acknowledged calls of any clients.
	Unavailable time.Duration
	// Recovery is the longest time from a fault to the first acknowledged mutation after it.
	Recovery time.Duration
	// Late is how far the slowest call exceeded podlink's request timeout.
	Late time.Duration
	// Violations describes the guarantees that were violated.
	Violations []string

	wantOperations, wantFaults int
}

// violated records a violation of a guarantee.
func (r *Report) violated(format string, args ...any) {
	r.Violations = append(r.Violations, fmt.Sprintf(format, args...))
}

// publish logs the report, adds it to the table of all runs, and fails a run that is too small.
func (r *Report) publish(t testing.TB) {
	t.Helper()
	var text strings.Builder
	writeTable(&text, []Report{*r})
	t.Logf("\n%s%s", &text, strings.Join(r.Violations, "\n"))
	published.add(*r)
	r.requireEnough(t)
}

// requireEnough fails a run that is too small to prove anything.
func (r *Report) requireEnough(t testing.TB) {
	t.Helper()
	require.GreaterOrEqual(t, r.Acknowledged, r.wantOperations, "too few operations to prove anything")
	require.GreaterOrEqual(t, r.Faults, r.wantFaults, "too few faults to prove anything")
}

// published has the reports of all runs so far.
var published reports

type reports struct {
	mu  sync.Mutex
	all []Report
}

func (r *reports) add(report Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, report)
}

func (r *reports) write(w io.Writer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.all) > 0 {
		writeTable(w, r.all)
	}
}

// writeTable writes a line per report. The last column is the number of violations.
func writeTable(w io.Writer, all []Report) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table,
		"run\toperations\tfaults\tacknowledged\trefused\tunknown\tlost\tunavailable\trecovery\tlate\tbroken")
	for _, r := range all {
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%d\n", r.Name, r.Operations, r.Faults, r.Acknowledged,
			r.Refused, r.Unknown, r.Lost, milliseconds(r.Unavailable), milliseconds(r.Recovery), milliseconds(r.Late),
			len(r.Violations))
	}
	_ = table.Flush() // To memory or standard output.
}

func milliseconds(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return d.Round(time.Millisecond).String()
}
