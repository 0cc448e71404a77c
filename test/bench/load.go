//go:build bench

package bench

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"syscall"
	"time"
)

// overrunTimeout bounds how long the calls of a load may run after its slice.
const overrunTimeout = 10 * time.Second

// call makes one call on the connection of a caller. Callers are numbered from 0.
type call func(ctx context.Context, caller int) error

// load is the result of concurrent callers in one or several slices of time.
type load struct {
	calls     int
	took      time.Duration
	latencies []time.Duration
}

// add adds the result of another slice.
func (l *load) add(other load) {
	l.calls += other.calls
	l.took += other.took
	l.latencies = append(l.latencies, other.latencies...)
}

// rate returns the calls per second.
func (l *load) rate() float64 { return float64(l.calls) / l.took.Seconds() }

// percentiles returns latencies in milliseconds, with the shares as in .99 for p99.
func (l *load) percentiles(shares ...float64) []float64 {
	slices.Sort(l.latencies)
	result := make([]float64, len(shares))
	for i, share := range shares {
		if len(l.latencies) > 0 {
			rank := int(math.Ceil(share * float64(len(l.latencies))))
			result[i] = float64(l.latencies[max(rank, 1)-1]) / float64(time.Millisecond)
		}
	}
	return result
}

// closed runs a closed loop: each caller waits for its answer before the next call. It measures the throughput.
func closed(callers int, slice time.Duration, call call) (load, error) {
	start := time.Now()
	return from(callers, slice, func(ctx context.Context, caller int, done func(time.Duration)) error {
		for time.Since(start) < slice {
			begin := time.Now()
			if err := call(ctx, caller); err != nil {
				return err
			}
			done(time.Since(begin))
		}
		return nil
	})
}

// open runs an open loop: calls come at a fixed rate per second, even if answers are late. Latencies count from the time a call
// was due, so that a stalled server can't hide its queue.
func open(callers int, rate float64, slice time.Duration, call call) (load, error) {
	due := make(chan int, int(rate*slice.Seconds())+1) // Buffered, so that a slow server doesn't delay the schedule.
	start := time.Now()
	at := func(n int) time.Time { return start.Add(time.Duration(float64(n) / rate * float64(time.Second))) }
	go func() {
		defer close(due)
		for n := range cap(due) - 1 {
			for wait := time.Until(at(n)); wait > 0; wait = time.Until(at(n)) {
				// Go's timers are up to a millisecond late on an idle machine.
				pause := syscall.NsecToTimespec(int64(wait))
				_ = syscall.Nanosleep(&pause, nil) // A signal interrupts it.
			}
			due <- n
		}
	}()
	return from(callers, slice, func(ctx context.Context, caller int, done func(time.Duration)) error {
		for n := range due {
			if err := call(ctx, caller); err != nil {
				return err
			}
			done(time.Since(at(n)))
		}
		return nil
	})
}

// from runs the callers, which report the latency of each call to done. The first error ends the load.
func from(
	callers int, slice time.Duration, caller func(ctx context.Context, caller int, done func(time.Duration)) error,
) (load, error) {
	ctx, cancel := context.WithTimeout(context.Background(), slice+overrunTimeout)
	defer cancel()
	var running sync.WaitGroup
	latencies, errs := make([][]time.Duration, callers), make([]error, callers)
	start := time.Now()
	for i := range callers {
		running.Go(func() {
			errs[i] = caller(ctx, i, func(latency time.Duration) { latencies[i] = append(latencies[i], latency) })
			if errs[i] != nil {
				cancel()
			}
		})
	}
	running.Wait()
	l := load{took: time.Since(start), latencies: slices.Concat(latencies...)}
	l.calls = len(l.latencies)
	return l, errors.Join(errs...)
}
