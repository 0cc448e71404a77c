package server

import (
	"context"
	"net/http"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/transport"

	"podlink/internal/conf"
	"podlink/internal/telemetry/lines"
)

// requestLog logs failed and slow requests. Lines name the operation, never the contents of the request.
type requestLog struct {
	logger  log.Logger
	slow    time.Duration // threshold; 0: never
	repeats *lines.Repeats
}

func newRequestLog(c *conf.Log, logger log.Logger) *requestLog {
	return &requestLog{
		logger: logger, slow: c.GetSlowRequest().AsDuration(),
		repeats: lines.NewRepeats(c.GetRepeatInterval().AsDuration()),
	}
}

// record logs a call if it failed or was slow. A stream is never slow: it lasts as long as its caller likes.
func (l *requestLog) record(ctx context.Context, t transport.Transporter, typ callType, took time.Duration, err error) {
	switch {
	case err != nil:
		l.failed(ctx, t, kerrors.FromError(err), took)
	case typ == unaryCall && l.slow > 0 && took >= l.slow:
		kind, operation := t.Kind().String(), t.Operation()
		l.collapse(ctx, log.LevelWarn, kind+operation, log.DefaultMessageKey, "slow request",
			"transport", kind, "operation", operation, "took", took.String())
	}
}

// failed logs a failed request.
func (l *requestLog) failed(ctx context.Context, t transport.Transporter, public *kerrors.Error, took time.Duration) {
	l.failure(ctx, t, public, "request failed", "took", took.String())
}

// itemFailed logs a failed item of a batch.
func (l *requestLog) itemFailed(ctx context.Context, t transport.Transporter, public *kerrors.Error) {
	l.failure(ctx, t, public, "an item of the request failed")
}

// failure logs a failure: as an error when podlink or its store is at fault, else at the level debug. What this podlink is configured not
// to do is no fault.
func (l *requestLog) failure(ctx context.Context, t transport.Transporter, public *kerrors.Error, text string, more ...any) {
	kind, operation := t.Kind().String(), t.Operation()
	line := append([]any{
		log.DefaultMessageKey, text,
		"transport", kind,
		"operation", operation,
		"code", public.Code,
		"reason", public.Reason,
	}, more...)
	line = append(line, "cause", causeText(public))
	if public.Code < http.StatusInternalServerError || public.Code == http.StatusNotImplemented {
		_ = log.WithContext(ctx, l.logger).Log(log.LevelDebug, line...)
		return
	}
	l.collapse(ctx, log.LevelError, text+kind+operation+" "+public.Reason, line...)
}

// collapse logs a line, or counts it if one of the same kind was logged within the repeat interval.
func (l *requestLog) collapse(ctx context.Context, level log.Level, kind string, line ...any) {
	l.repeats.Do(kind, func(count int) {
		if count > 1 {
			line = append(line, "count", count)
		}
		_ = log.WithContext(ctx, l.logger).Log(level, line...)
	})
}

// causeText returns an error's cause; without one, its public text.
func causeText(err *kerrors.Error) string {
	if cause := err.Unwrap(); cause != nil {
		return cause.Error()
	}
	return err.Message
}
