package lines

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// keptBytes is the size of a buffer that is kept for the next lines.
const keptBytes = 64 << 10

// Queue is an io.Writer that passes log lines on in the background. So a log that is not read, such as a full pipe, delays no
// request, no probe and no stop: lines that do not fit into the queue are dropped and counted. It is a prometheus.Collector.
//
// What is still queued when the process crashes is lost; Go writes the text of the crash itself.
type Queue struct {
	out     io.Writer
	limit   int // of the bytes that wait; as many can be in the hands of the operating system
	notice  func(dropped int) []byte
	counter prometheus.Counter
	wake    chan struct{} // has an element when there is something to do
	done    chan struct{} // closed when the writer has returned

	mu      sync.Mutex
	pending []byte // whole lines
	dropped int    // lines since the last notice; all after those in pending
	closed  bool
}

// NewQueue returns a queue in front of out, in which at most limit bytes wait. Dropped lines are counted, and once out works again
// notice makes a line of their number. Close it after the last line.
func NewQueue(out io.Writer, limit int, counter prometheus.Counter, notice func(dropped int) []byte) *Queue {
	q := &Queue{
		out: out, limit: limit, notice: notice, counter: counter,
		wake: make(chan struct{}, 1),
		done: make(chan struct{}),
	}
	go q.write()
	return q
}

// Describe implements prometheus.Collector.
func (q *Queue) Describe(descriptions chan<- *prometheus.Desc) { q.counter.Describe(descriptions) }

// Collect implements prometheus.Collector.
func (q *Queue) Collect(metrics chan<- prometheus.Metric) { q.counter.Collect(metrics) }

// Write queues whole lines, or drops them. It never blocks and never fails.
func (q *Queue) Write(lines []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.pending)+len(lines) > q.limit {
		q.drop(lines)
	} else {
		q.pending = append(q.pending, lines...)
	}
	q.signal()
	return len(lines), nil
}

// drop counts lines that are not written. The caller holds mu.
func (q *Queue) drop(lines []byte) {
	n := bytes.Count(lines, []byte("\n"))
	q.dropped += n
	q.counter.Add(float64(n))
}

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default: // It is awake.
	}
}

// write passes lines on until Close, and then those that are left.
func (q *Queue) write() {
	defer close(q.done)
	var lines []byte
	for closed := false; !closed; {
		<-q.wake
		for more := true; more; {
			lines, more, closed = q.writeOnce(lines)
		}
	}
}

// writeOnce passes on what is queued, in the order of events. It returns false when nothing was queued, or when the log fails: the
// next line tries again, and trying now would be a loop without a pause.
func (q *Queue) writeOnce(before []byte) (lines []byte, more, closed bool) {
	lines, dropped, closed := q.take(before)
	if len(lines) == 0 && dropped == 0 {
		return lines, false, closed
	}
	if !q.pass(lines) || dropped > 0 && !q.pass(q.notice(dropped)) {
		q.unnoticed(dropped)
		return lines, false, closed
	}
	return lines, true, closed
}

// take returns the pending lines with the number of those dropped after them. It reuses the buffer of the lines before.
func (q *Queue) take(before []byte) (lines []byte, dropped int, closed bool) {
	if cap(before) > keptBytes {
		before = nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	lines, dropped = q.pending, q.dropped
	q.pending, q.dropped = before[:0], 0
	return lines, dropped, q.closed
}

// pass writes lines, counts those that were not written, and reports whether all were.
func (q *Queue) pass(lines []byte) bool {
	if len(lines) == 0 {
		return true
	}
	n, err := q.out.Write(lines)
	if err == nil {
		return true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.drop(lines[n:])
	return false
}

// unnoticed adds dropped lines, which the counter has already, to the next notice.
func (q *Queue) unnoticed(dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropped += dropped
}

// Close writes the queued lines, and waits for that until ctx ends. A later line is dropped.
func (q *Queue) Close(ctx context.Context) error {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
	select {
	case <-q.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the last lines were not read: %w", ctx.Err())
	}
}
