// Package audit writes the audit log: one JSON line for each change, refusal and reload. It never blocks a call.
//
// Two things to know. A line that does not fit into the queue is dropped and counted: an audit log that stops the service would be
// a weapon. And what callers choose, such as a uid or a reason, is bounded and escaped: no caller can forge a line or a key.
package audit

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"podlink/internal/auth"
	"podlink/internal/telemetry/lines"
)

const (
	// fileMode lets the owner alone read the file: it says who did what to whom.
	fileMode = 0o600
	// maxQueuedBytes bounds the lines that wait: some 10,000, those of ten of the largest batches.
	maxQueuedBytes = 4 << 20
	// refusalInterval is the time in which the refusals of one caller get one line.
	refusalInterval = time.Second
	// maxRefused bounds the callers whose refusals are counted apart, and so the lines a second too: those that are known, and those that
	// are not. The others share a line.
	maxRefused = 1024
)

// Options configures a Log.
type Options struct {
	File         string    // to append to; empty: Out
	Out          io.Writer // what podlink's log is written to
	AllMutations bool      // false: only those that needed the right operate or force
	PlainUIDs    bool      // false: a keyed hash
	UIDKey       string    // key of the hash; empty: drawn now
}

// Log is the audit log. It is safe for concurrent use, and a prometheus.Collector. The methods of a nil *Log do nothing.
type Log struct {
	all   bool
	uids  *uidHash // nil: plain
	file  *lines.File
	queue *lines.Queue
	// The refusals of callers that are known have places of their own, which strangers can't take.
	refusals, strangers *lines.Repeats
	records             *prometheus.CounterVec
	counts              [len(events)]prometheus.Counter // of records, looked up once
	dropped             prometheus.Counter
}

// New returns a Log. Close it after the last record.
func New(o Options) (*Log, error) {
	l := &Log{
		all: o.AllMutations, refusals: lines.NewRepeats(refusalInterval), strangers: lines.NewRepeats(refusalInterval),
		records: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "podlink_audit_records_total",
			Help: "Records of the audit log, by event, with those that were dropped.",
		}, []string{"event"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "podlink_audit_records_dropped_total",
			Help: "Records of the audit log that were dropped because it was not written in time, or could not be written.",
		}),
	}
	for i, name := range events { // Pre-create the series: rate() misses the first increment of a new one.
		l.counts[i] = l.records.WithLabelValues(name)
	}
	if !o.PlainUIDs {
		key := []byte(o.UIDKey)
		if len(key) == 0 {
			key = []byte(rand.Text())
		}
		l.uids = newUIDHash(key)
	}
	out := o.Out
	if o.File != "" {
		file, err := lines.OpenFile(o.File, fileMode)
		if err != nil {
			return nil, fmt.Errorf("audit.file: %w", err)
		}
		l.file, out = file, file
	}
	l.queue = lines.NewQueue(out, maxQueuedBytes, l.dropped, func(dropped int) []byte {
		return l.line(nil, &entry{
			at: time.Now(), event: happened, count: dropped,
			Record: Record{Operation: "audit", Outcome: "dropped", Detail: "records were not written in time, or could not be written"},
		})
	})
	return l, nil
}

// Wants reports whether changes that needed the right are recorded.
func (l *Log) Wants(right auth.Right) bool { return l != nil && (l.all || right >= auth.Operate) }

// Changed records a change, if its right is wanted.
func (l *Log) Changed(ctx context.Context, r Record) {
	if e := l.entry(ctx, changed, r); e != nil && l.Wants(e.right) {
		l.write(e)
	}
}

// Refused records a refused call. The refusals of a caller with the same outcome, or of a peer whose caller is not known, get one
// line a second, with their count and the rest of the latest one.
func (l *Log) Refused(ctx context.Context, r Record) {
	e := l.entry(ctx, refused, r)
	if e == nil {
		return
	}
	e.Record = e.kept()
	caller, refusals := e.identity.Name+"\x00"+e.identity.Pod, l.refusals
	if e.identity.Name == "" {
		caller, refusals = hostOf(e.Peer), l.strangers
	}
	write := func(count int) {
		e.count = count
		l.write(e)
	}
	if refusals.TryDo(maxRefused, e.Outcome+"\x00"+caller, write) {
		return
	}
	others := entry{at: e.at, event: refused, Record: Record{Outcome: e.Outcome, Detail: "of other callers: too many are refused"}}
	refusals.Do(e.Outcome, func(count int) {
		others.count = count
		l.write(&others)
	})
}

// Happened records what no call of the API did: a reload, or a new log level.
func (l *Log) Happened(ctx context.Context, r Record) {
	if e := l.entry(ctx, happened, r); e != nil {
		l.write(e)
	}
}

// write queues an entry's line.
func (l *Log) write(e *entry) {
	l.counts[e.event].Inc()
	buffer := buffers.Get().(*[]byte)
	*buffer = l.line((*buffer)[:0], e)
	_, _ = l.queue.Write(*buffer) // It never fails.
	buffers.Put(buffer)
}

// Reopen opens the file again at its path, after logrotate has renamed it. On failure the log goes on in the file that is open.
func (l *Log) Reopen() error {
	if l == nil || l.file == nil {
		return nil
	}
	if err := l.file.Reopen(); err != nil {
		return fmt.Errorf("audit.file: %w", err)
	}
	return nil
}

// Close writes the counts of refusals and the queued lines, and waits for that until ctx ends. A later record is dropped.
func (l *Log) Close(ctx context.Context) error {
	if l == nil {
		return nil
	}
	l.refusals.Close()
	l.strangers.Close()
	if err := l.queue.Close(ctx); err != nil {
		return fmt.Errorf("the audit log: %w", err) // The file stays open: it is still being written.
	}
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// Describe implements prometheus.Collector.
func (l *Log) Describe(descriptions chan<- *prometheus.Desc) {
	if l != nil {
		l.records.Describe(descriptions)
		l.dropped.Describe(descriptions)
	}
}

// Collect implements prometheus.Collector.
func (l *Log) Collect(metrics chan<- prometheus.Metric) {
	if l != nil {
		l.records.Collect(metrics)
		l.dropped.Collect(metrics)
	}
}
