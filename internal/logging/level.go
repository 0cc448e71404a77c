package logging

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/go-kratos/kratos/v2/log"
)

// Levels are the names of the levels, the most talkative first.
var Levels = []string{"debug", "info", "warn", "error"}

// Level is the level from which on lines are written. It can be changed at any time.
type Level struct{ at slog.LevelVar }

// NewLevel returns the level of that name, one of Levels.
func NewLevel(name string) *Level {
	l := new(Level)
	l.at.Set(slogLevel(log.ParseLevel(name)))
	return l
}

// Set changes the level to that of the name, and returns an error unless it is one of Levels.
func (l *Level) Set(name string) error {
	if !slices.Contains(Levels, name) {
		return fmt.Errorf("level must be one of %s", strings.Join(Levels, ", "))
	}
	l.at.Set(slogLevel(log.ParseLevel(name)))
	return nil
}

// String returns the level's name.
func (l *Level) String() string { return strings.ToLower(l.at.Level().String()) }
