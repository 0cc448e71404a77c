//go:build faults

package faults

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// recorder is a test that records its failure.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(string, ...any) { r.failed = true }

func (r *recorder) FailNow() { runtime.Goexit() }

func TestReportOfTooSmallRun(t *testing.T) {
	for _, row := range []struct {
		name                 string
		acknowledged, faults int
		fails                bool
	}{
		{"enough", 10, 2, false},
		{"too few operations", 9, 2, true},
		{"too few faults", 10, 1, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			report := Report{
				Operations: 99, Acknowledged: row.acknowledged, Faults: row.faults, wantOperations: 10, wantFaults: 2,
			}
			tb := &recorder{TB: t}
			done := make(chan struct{})
			go func() {
				defer close(done)
				report.requireEnough(tb)
			}()
			<-done
			require.Equal(t, row.fails, tb.failed)
		})
	}
}

func TestReportTable(t *testing.T) {
	broken := Report{Name: "second"}
	broken.violated("%d links are gone", 2)
	var text strings.Builder
	writeTable(&text, []Report{
		{
			Name: "first", Operations: 1, Faults: 2, Acknowledged: 3, Refused: 4, Unknown: 5, Lost: 6,
			Unavailable: 1500 * time.Millisecond, Recovery: time.Second, Late: 7 * time.Millisecond,
		},
		broken,
	})
	lines := strings.Split(text.String(), "\n")
	require.Equal(t, []string{
		"run", "operations", "faults", "acknowledged", "refused", "unknown", "lost", "unavailable", "recovery", "late",
		"broken",
	}, strings.Fields(lines[0]))
	require.Equal(t, strings.Fields("first 1 2 3 4 5 6 1.5s 1s 7ms 0"), strings.Fields(lines[1]))
	require.Equal(t, strings.Fields("second 0 0 0 0 0 0 - - - 1"), strings.Fields(lines[2]))
}
