package lines

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// record has lines with the time of writing.
type record struct {
	mu  sync.Mutex
	all []line
}

type line struct {
	at    time.Duration
	text  string
	count int
}

// TestRepeats: the first line is written at once, then the latest one per interval; after a quiet interval it starts over. Kinds
// are independent, and the counts add up.
func TestRepeats(t *testing.T) {
	type failure struct {
		at         time.Duration
		kind, text string
	}
	const ms = time.Millisecond
	for name, row := range map[string]struct {
		failures []failure
		closed   time.Duration
		want     []line
	}{
		"one": {
			[]failure{{0, "a", "1"}}, 5 * time.Second,
			[]line{{0, "1", 1}},
		},
		"many in a second": {
			[]failure{{0, "a", "1"}, {100 * ms, "a", "2"}, {200 * ms, "a", "3"}}, 5 * time.Second,
			[]line{{0, "1", 1}, {1000 * ms, "3", 2}},
		},
		"again in the next second": {
			[]failure{{0, "a", "1"}, {100 * ms, "a", "2"}, {1500 * ms, "a", "3"}}, 5 * time.Second,
			[]line{{0, "1", 1}, {1000 * ms, "2", 1}, {2000 * ms, "3", 1}},
		},
		"after a quiet second": {
			[]failure{{0, "a", "1"}, {1100 * ms, "a", "2"}}, 5 * time.Second,
			[]line{{0, "1", 1}, {1100 * ms, "2", 1}},
		},
		"two kinds": {
			[]failure{{0, "a", "1"}, {100 * ms, "b", "2"}, {200 * ms, "a", "3"}}, 5 * time.Second,
			[]line{{0, "1", 1}, {100 * ms, "2", 1}, {1000 * ms, "3", 1}},
		},
		"pending at Close": {
			[]failure{{0, "a", "1"}, {100 * ms, "a", "2"}}, 500 * ms,
			[]line{{0, "1", 1}, {500 * ms, "2", 1}},
		},
		"after Close": {
			[]failure{{600 * ms, "a", "1"}, {700 * ms, "a", "2"}}, 500 * ms,
			[]line{{600 * ms, "1", 1}, {700 * ms, "2", 1}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, r, got := time.Now(), NewRepeats(time.Second), &record{}
				time.AfterFunc(row.closed, r.Close)
				for _, f := range row.failures {
					time.Sleep(f.at - time.Since(start))
					r.Do(f.kind, func(count int) {
						got.mu.Lock()
						defer got.mu.Unlock()
						got.all = append(got.all, line{time.Since(start), f.text, count})
					})
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				require.Equal(t, row.want, got.all)
				require.Empty(t, r.kinds, "kinds that stopped repeating are forgotten")
			})
		})
	}
}

// TestRepeatsOfManyCallers: every failure is counted in exactly one line.
func TestRepeatsOfManyCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers, calls = 50, 100
		var mu sync.Mutex
		total := 0
		r := NewRepeats(time.Second)
		var calling sync.WaitGroup
		for caller := range callers {
			calling.Go(func() {
				for range calls {
					time.Sleep(time.Duration(caller+1) * time.Millisecond)
					r.Do("a", func(count int) {
						mu.Lock()
						defer mu.Unlock()
						total += count
					})
				}
			})
		}
		calling.Wait()
		r.Close()
		synctest.Wait()
		require.Equal(t, callers*calls, total)
	})
}

// TestRepeatsWithoutInterval: nothing is collapsed.
func TestRepeatsWithoutInterval(t *testing.T) {
	r, written := NewRepeats(0), 0
	for range 3 {
		r.Do("a", func(count int) { written += count })
	}
	require.Equal(t, 3, written)
}

// TestRepeatsOfTooManyKinds: further kinds are refused, until an earlier one has not repeated for an interval.
func TestRepeatsOfTooManyKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRepeats(time.Second)
		defer r.Close()
		var written atomic.Int64
		write := func(count int) { written.Add(int64(count)) }
		require.True(t, r.TryDo(2, "a", write))
		require.True(t, r.TryDo(2, "b", write))
		require.False(t, r.TryDo(2, "c", write))
		require.True(t, r.TryDo(2, "a", write), "a known kind has its place")
		require.EqualValues(t, 2, written.Load())
		time.Sleep(time.Second)
		synctest.Wait()
		require.EqualValues(t, 3, written.Load())
		require.True(t, r.TryDo(2, "c", write), "b has not repeated")
		require.EqualValues(t, 4, written.Load())
	})
}
