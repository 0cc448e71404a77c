package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/go-kratos/kratos/v2/log"

	"podlink/internal/conf"
)

// NewLogger returns a Kratos logger that writes lines at level or above, as JSON or as text for a console.
func NewLogger(c *conf.Log, level *LogLevel, w io.Writer) log.Logger {
	options := &slog.HandlerOptions{Level: &level.at}
	var handler slog.Handler = slog.NewJSONHandler(w, options)
	if c.GetFormat() == "console" {
		handler = slog.NewTextHandler(w, options)
	}
	return adapter{slog.New(handler)}
}

// adapter is a Kratos log.Logger that writes to slog.
type adapter struct{ out *slog.Logger }

// Log implements log.Logger. Kratos passes the message as one of the key-value pairs.
func (a adapter) Log(level log.Level, keyvals ...any) error {
	at := slogLevel(level)
	if !a.out.Enabled(context.Background(), at) {
		return nil
	}
	message := ""
	rest := make([]any, 0, len(keyvals))
	for i := 0; i+1 < len(keyvals); i += 2 {
		key := fmt.Sprint(keyvals[i])
		switch {
		case key == log.DefaultMessageKey:
			message = fmt.Sprint(keyvals[i+1])
		case keyvals[i+1] != "": // Empty, such as the trace id outside a request.
			rest = append(rest, key, keyvals[i+1])
		}
	}
	a.out.Log(context.Background(), at, message, rest...)
	return nil
}

func slogLevel(level log.Level) slog.Level {
	switch level {
	case log.LevelDebug:
		return slog.LevelDebug
	case log.LevelWarn:
		return slog.LevelWarn
	case log.LevelError, log.LevelFatal:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}
