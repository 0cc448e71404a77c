package telemetry

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/prometheus/client_golang/prometheus"

	"podlink/internal/conf"
)

const (
	// maxQueuedBytes bounds the lines that wait, and so their number too. As many can be in the hands of the operating system.
	maxQueuedBytes = 1 << 20
	// keptBytes is the size of a buffer that is kept for the next lines.
	keptBytes = 64 << 10
	// logFlushTimeout bounds the wait for the last lines.
	logFlushTimeout = time.Second
)

// LogQueue is an io.Writer that passes log lines on in the background. So a log that is not read, such as a full pipe, delays no
// request, no probe and no stop: lines that do not fit into the queue are dropped and counted. It is a prometheus.Collector.
//
// What is still queued when the process crashes is lost; Go writes the text of the crash itself.
type LogQueue struct {
	out     io.Writer
	notice  func(dropped int) []byte
	counter prometheus.Counter
	wake    chan struct{} // has an element when there is something to do
	done    chan struct{} // closed when the writer has returned

	mu      sync.Mutex
	pending []byte // whole lines
	dropped int    // lines since the last notice; all after those in pending
	closed  bool
}

// NewLogQueue returns a queue in front of out, whose lines have the configured format. Close it after the last line.
func NewLogQueue(c *conf.Log, out io.Writer) *LogQueue {
	q := &LogQueue{
		out: out,
		notice: func(dropped int) []byte {
			var line bytes.Buffer
			log.NewHelper(NewLogger(c, NewLogLevel("warn"), &line)).Warnw(log.DefaultMessageKey,
				"log lines were dropped: the log was not read in time, or could not be written", "count", dropped)
			return line.Bytes()
		},
		counter: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "podlink_log_lines_dropped_total",
			Help: "Log lines that were dropped because the log was not read in time, or could not be written.",
		}),
		wake: make(chan struct{}, 1),
		done: make(chan struct{}),
	}
	go q.write()
	return q
}

// Describe implements prometheus.Collector.
func (q *LogQueue) Describe(descriptions chan<- *prometheus.Desc) { q.counter.Describe(descriptions) }

// Collect implements prometheus.Collector.
func (q *LogQueue) Collect(metrics chan<- prometheus.Metric) { q.counter.Collect(metrics) }

// Write queues whole lines, or drops them. It never blocks and never fails.
func (q *LogQueue) Write(lines []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.pending)+len(lines) > maxQueuedBytes {
		q.drop(lines)
	} else {
		q.pending = append(q.pending, lines...)
	}
	q.signal()
	return len(lines), nil
}

// drop counts lines that are not written. The caller holds mu.
func (q *LogQueue) drop(lines []byte) {
	n := bytes.Count(lines, []byte("\n"))
	q.dropped += n
	q.counter.Add(float64(n))
}

func (q *LogQueue) signal() {
	select {
	case q.wake <- struct{}{}:
	default: // It is awake.
	}
}

// write passes lines on until Close, and then those that are left.
func (q *LogQueue) write() {
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
func (q *LogQueue) writeOnce(before []byte) (lines []byte, more, closed bool) {
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
func (q *LogQueue) take(before []byte) (lines []byte, dropped int, closed bool) {
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
func (q *LogQueue) pass(lines []byte) bool {
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
func (q *LogQueue) unnoticed(dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropped += dropped
}

// Close writes the queued lines, and waits at most a second for that. A later line is dropped.
func (q *LogQueue) Close() error {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
	select {
	case <-q.done:
		return nil
	case <-time.After(logFlushTimeout):
		return fmt.Errorf("the last log lines were not read within %s", logFlushTimeout)
	}
}
