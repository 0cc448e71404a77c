//go:build fleet

package fleet

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	podlinktest "podlink/test/kit/podlink"
)

var allLinks = flag.Int("fleet.links", 1_000_000, "number of links, a multiple of 10,000")

// binary is podlink.
var binary string

func TestMain(m *testing.M) {
	os.Exit(podlinktest.Main(&binary, func() int {
		code := m.Run()
		measured.print()
		return code
	}))
}

// TestFleet: a million links are listed, verified, and moved.
func TestFleet(t *testing.T) {
	require.Positive(t, *allLinks)
	require.Zero(t, *allLinks%10_000)
	f := newFleet(t)
	f.fill()
	f.requireListed(f.stored(), true)
	f.requireVerified()
	f.relocation(0).requireMoved()
	f.start(2)
	killed := f.relocation(1)
	killed.kills = []float64{.25, .5}
	killed.requireMoved()
}

// figures are what was measured, in rows.
type figures [][3]string

var measured figures

func (f *figures) add(target, value, measure string, args ...any) {
	*f = append(*f, [3]string{fmt.Sprintf(measure, args...), value, target})
}

// took adds how long something took. No target: "".
func (f *figures) took(target string, d time.Duration, measure string, args ...any) {
	digits := time.Millisecond
	if d > 10*time.Second {
		digits = 100 * time.Millisecond
	} else if d < time.Second {
		digits = 10 * time.Microsecond
	}
	f.add(target, d.Round(digits).String(), measure, args...)
}

func (f *figures) print() {
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "measure\tfigure\ttarget")
	for _, row := range *f {
		fmt.Fprintf(table, "%s\t%s\t%s\n", row[0], row[1], row[2])
	}
	table.Flush()
}
