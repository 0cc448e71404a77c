//go:build bench

package bench

import (
	"context"
	"math"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// rival is one side of a comparison.
type rival struct {
	name string
	call func(ctx context.Context, n int) error // the n-th call
	// fresh prepares the store for freshUsers calls before each slice, which ends after them. Nil if calls can be repeated
	// without limit.
	fresh func(t *testing.T)

	made int // calls so far
}

// measured is a load with the CPU time that this process spent on it.
type measured struct {
	load
	cpu time.Duration
}

// microseconds returns the CPU time per call.
func (m *measured) microseconds() float64 {
	return float64(m.cpu) / float64(time.Microsecond) / float64(m.calls)
}

// pace is the length and number of the turns of each rival.
type pace struct {
	slice time.Duration
	turns int
}

// steady is the pace for throughput, and fine the one for figures that need few calls. Shorter slices spread the machine's
// changes more evenly over the rivals.
func steady() pace { return pace{slice() / 4, 4 * turns()} }

func fine() pace { return pace{slice() / 10, 5 * turns()} }

// run makes the rival's calls from concurrent callers for a slice of time.
func (r *rival) run(t *testing.T, callers int, slice time.Duration) measured {
	t.Helper()
	last := int64(math.MaxInt64)
	if r.fresh != nil {
		r.fresh(t)
		r.made, last = 0, freshUsers-1
	}
	var next atomic.Int64
	next.Store(int64(r.made) - 1)
	before, begin := ownCPU(t), time.Now()
	l, err := from(callers, slice, func(ctx context.Context, _ int, done func(time.Duration)) error {
		for {
			start := time.Now()
			n := next.Add(1)
			if n > last || start.Sub(begin) > slice {
				return nil
			}
			if err := r.call(ctx, int(n)); err != nil {
				return err
			}
			done(time.Since(start))
		}
	})
	require.NoError(t, err, r.name)
	r.made = int(next.Load())
	return measured{load: l, cpu: ownCPU(t) - before}
}

// compare runs the rivals in turns. The first turn is a warm-up and doesn't count.
func compare(t *testing.T, p pace, callers int, rivals ...rival) []measured {
	t.Helper()
	total := make([]measured, len(rivals))
	for turn := range p.turns + 1 {
		for i := range rivals {
			m := rivals[i].run(t, callers, p.slice)
			if turn > 0 {
				total[i].add(m.load)
				total[i].cpu += m.cpu
			}
		}
	}
	return total
}

// alternate makes the calls in turns from one caller for a slice of time, so that changes of the machine affect all of them. It
// returns one load per call.
func alternate(t *testing.T, slice time.Duration, calls ...func(ctx context.Context) error) []load {
	t.Helper()
	loads := make([]load, len(calls))
	for begin := time.Now(); time.Since(begin) < slice; {
		for i, call := range calls {
			start := time.Now()
			require.NoError(t, call(t.Context()))
			took := time.Since(start)
			loads[i].add(load{calls: 1, took: took, latencies: []time.Duration{took}})
		}
	}
	return loads
}

// ownCPU returns the CPU time of this process so far.
func ownCPU(t *testing.T) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
