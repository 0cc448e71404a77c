package telemetry

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/go-kratos/kratos/v2/log"
)

// LogLevels are the names of the levels, the most talkative first.
var LogLevels = []string{"debug", "info", "warn", "error"}

// LogLevel is the level from which on lines are written. It can be changed at any time.
type LogLevel struct{ at slog.LevelVar }

// NewLogLevel returns the level of that name, one of LogLevels.
func NewLogLevel(name string) *LogLevel {
	l := new(LogLevel)
	l.at.Set(slogLevel(log.ParseLevel(name)))
	return l
}

// Set changes the level to that of the name, and returns an error unless it is one of LogLevels.
func (l *LogLevel) Set(name string) error {
	if !slices.Contains(LogLevels, name) {
		return fmt.Errorf("level must be one of %s", strings.Join(LogLevels, ", "))
	}
	l.at.Set(slogLevel(log.ParseLevel(name)))
	return nil
}

// String returns the level's name.
func (l *LogLevel) String() string { return strings.ToLower(l.at.Level().String()) }
