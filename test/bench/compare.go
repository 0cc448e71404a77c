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

// rival is one of the ways that are compared.
type rival struct {
	name string
	call func(ctx context.Context, n int) error // the n-th call
	// fresh makes the store ready for the first users calls, before each slice; a slice ends with them. Nil for calls that
	// can go on for ever.
	fresh func(t *testing.T)

	made int // calls, until now
}

// measured is what calls did, and the CPU time that this process spent on them.
type measured struct {
	load
	cpu time.Duration
}

// microseconds is the CPU time per call.
func (m *measured) microseconds() float64 {
	return float64(m.cpu) / float64(time.Microsecond) / float64(m.calls)
}

// pace says how what is compared takes turns.
type pace struct {
	slice time.Duration
	turns int
}

// steady is for throughput, fine for what needs few calls: the shorter the slices, the more alike the machine is to all.
func steady() pace { return pace{slice() / 4, 4 * turns()} }

func fine() pace { return pace{slice() / 10, 5 * turns()} }

// run makes the rival's calls from that many callers for a slice of time.
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

// compare lets the rivals call in turns, each from that many callers: a slice to warm up, and then those that count.
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

// alternate makes two calls in turns for that long, from one caller, and returns what each did: whatever happens to the
// machine meanwhile happens to both.
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

// ownCPU is the CPU time that this process has used so far.
func ownCPU(t *testing.T) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
