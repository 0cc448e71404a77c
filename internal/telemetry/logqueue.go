package telemetry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/prometheus/client_golang/prometheus"

	"podlink/internal/conf"
	"podlink/internal/telemetry/lines"
)

const (
	// maxQueuedBytes bounds the lines that wait, and so their number too.
	maxQueuedBytes = 1 << 20
	// logFlushTimeout bounds the wait for the last lines.
	logFlushTimeout = time.Second
)

// LogQueue is the queue of podlink's log: a log that is not read, such as a full pipe, delays no request, no probe and no stop.
type LogQueue struct{ *lines.Queue }

// NewLogQueue returns a queue in front of out, whose lines have the configured format. Close it after the last line.
func NewLogQueue(c *conf.Log, out io.Writer) *LogQueue {
	counter := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "podlink_log_lines_dropped_total",
		Help: "Log lines that were dropped because the log was not read in time, or could not be written.",
	})
	return &LogQueue{lines.NewQueue(out, maxQueuedBytes, counter, func(dropped int) []byte {
		var line bytes.Buffer
		log.NewHelper(NewLogger(c, NewLogLevel("warn"), &line)).Warnw(log.DefaultMessageKey,
			"log lines were dropped: the log was not read in time, or could not be written", "count", dropped)
		return line.Bytes()
	})}
}

// Close writes the queued lines, and waits at most a second for that. A later line is dropped.
func (q *LogQueue) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), logFlushTimeout)
	defer cancel()
	if err := q.Queue.Close(ctx); err != nil {
		return fmt.Errorf("the log: %w", err)
	}
	return nil
}
