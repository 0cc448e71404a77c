package server

import (
	"context"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/transport"

	"podlink/internal/conf"
	"podlink/internal/telemetry"
)

// requestLog writes lines on requests that failed, and on slow ones. They name the operation, never what the request
// holds.
type requestLog struct {
	logger  log.Logger
	slow    time.Duration // what is slow; 0: nothing
	repeats *telemetry.Repeats
}

func newRequestLog(c *conf.Log, logger log.Logger) *requestLog {
	return &requestLog{
		logger: logger, slow: c.GetSlowRequest().AsDuration(),
		repeats: telemetry.NewRepeats(c.GetRepeatInterval().AsDuration()),
	}
}

// note writes the line that a call deserves, if any. A stream is never slow: it lasts as long as its caller likes.
func (l *requestLog) note(ctx context.Context, t transport.Transporter, of callType, took time.Duration, err error) {
	switch {
	case err != nil:
		l.failed(ctx, t, kerrors.FromError(err), took)
	case of == unaryCall && l.slow > 0 && took >= l.slow:
		kind, operation := t.Kind().String(), t.Operation()
		l.repeated(ctx, log.LevelWarn, kind+operation, log.DefaultMessageKey, "slow request",
			"transport", kind, "operation", operation, "took", took.String())
	}
}

// failed writes a line for a request that failed: as an error when podlink or its store is at fault, else for debugging.
func (l *requestLog) failed(ctx context.Context, t transport.Transporter, public *kerrors.Error, took time.Duration) {
	kind, operation := t.Kind().String(), t.Operation()
	line := []any{
		log.DefaultMessageKey, "request failed",
		"transport", kind,
		"operation", operation,
		"code", public.Code,
		"reason", public.Reason,
		"took", took.String(),
		"cause", causeText(public),
	}
	if public.Code < 500 {
		_ = log.WithContext(ctx, l.logger).Log(log.LevelDebug, line...)
		return
	}
	l.repeated(ctx, log.LevelError, kind+operation+" "+public.Reason, line...)
}

// repeated writes a line unless one of its kind was written just now; then a later one says how many there were.
func (l *requestLog) repeated(ctx context.Context, level log.Level, kind string, line ...any) {
	l.repeats.Do(kind, func(count int) {
		if count > 1 {
			line = append(line, "count", count)
		}
		_ = log.WithContext(ctx, l.logger).Log(level, line...)
	})
}

// causeText is what stands behind an error: its cause, or the text that the caller got.
func causeText(err *kerrors.Error) string {
	if cause := err.Unwrap(); cause != nil {
		return cause.Error()
	}
	return err.Message
}
