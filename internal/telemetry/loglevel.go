package telemetry

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/go-kratos/kratos/v2/log"
)

// LogLevels are the names of the levels, most verbose first.
var LogLevels = []string{"debug", "info", "warn", "error"}

// LogLevel is the lowest level that is logged. It can be changed at run time, concurrently.
type LogLevel struct{ at slog.LevelVar }

// NewLogLevel returns the level with that name, one of LogLevels.
func NewLogLevel(name string) *LogLevel {
	l := new(LogLevel)
	l.at.Set(slogLevel(log.ParseLevel(name)))
	return l
}

// Set changes the level. It returns an error for a name that is not one of LogLevels.
func (l *LogLevel) Set(name string) error {
	if !slices.Contains(LogLevels, name) {
		return fmt.Errorf("level must be one of %s", strings.Join(LogLevels, ", "))
	}
	l.at.Set(slogLevel(log.ParseLevel(name)))
	return nil
}

// String implements fmt.Stringer.
func (l *LogLevel) String() string { return strings.ToLower(l.at.Level().String()) }
