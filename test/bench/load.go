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

// lateLimit is how long calls may take beyond the time of their load.
const lateLimit = 10 * time.Second

// call makes one call on the connection of its caller. Callers are numbered from 0.
type call func(ctx context.Context, caller int) error

// load is what callers have done, in one slice or in several.
type load struct {
	calls     int
	took      time.Duration
	latencies []time.Duration
}

// add adds another slice.
func (l *load) add(other load) {
	l.calls += other.calls
	l.took += other.took
	l.latencies = append(l.latencies, other.latencies...)
}

// rate is in calls per second.
func (l *load) rate() float64 { return float64(l.calls) / l.took.Seconds() }

// percentiles returns the latencies that the given shares of the calls did not exceed, in milliseconds.
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

// closed is a load in which every caller calls, waits for the answer and calls again: it tells the throughput.
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

// open is a load that comes at its own rate, in calls per second, whether or not the answers do. A latency counts from
// the time that the call was due, so that a server can't hide what it kept waiting.
func open(callers int, rate float64, slice time.Duration, call call) (load, error) {
	due := make(chan int, int(rate*slice.Seconds())+1) // Room for all, so that a slow server doesn't slow the schedule.
	start := time.Now()
	at := func(n int) time.Time { return start.Add(time.Duration(float64(n) / rate * float64(time.Second))) }
	go func() {
		defer close(due)
		for n := range cap(due) - 1 {
			for wait := time.Until(at(n)); wait > 0; wait = time.Until(at(n)) {
				// Go's own timers are late by up to a millisecond when all else rests.
				pause := syscall.NsecToTimespec(int64(wait))
				_ = syscall.Nanosleep(&pause, nil) // A signal ends it early.
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

// from runs the callers; each tells how long its calls took. The first error ends the load.
func from(
	callers int, slice time.Duration, caller func(ctx context.Context, caller int, done func(time.Duration)) error,
) (load, error) {
	ctx, cancel := context.WithTimeout(context.Background(), slice+lateLimit)
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
