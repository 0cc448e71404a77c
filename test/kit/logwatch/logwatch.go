// Package logwatch collects podlink's log for a test, and reads from it where podlink listens.
package logwatch

import (
	"bytes"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// startLimit bounds how long podlink may take until it listens.
const startLimit = 10 * time.Second

// Log is what podlink has logged so far. It is safe for concurrent use.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String is the log's text.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Wait waits for a line that matches the pattern, and returns the text of its group, without one all of the match.
func (l *Log) Wait(tb testing.TB, pattern string) string {
	tb.Helper()
	line := regexp.MustCompile(pattern)
	var found []string
	require.Eventually(tb, func() bool {
		found = line.FindStringSubmatch(l.String())
		return found != nil
	}, startLimit, time.Millisecond, "no line %q in:\n%s", line, l)
	return found[len(found)-1]
}

// Listening waits for the line of a server, "HTTP", "gRPC" or "admin", that tells where it listens, and returns that
// host:port.
func (l *Log) Listening(tb testing.TB, server string) string {
	tb.Helper()
	return l.Wait(tb, `\[`+server+`\] server listening on: ([0-9.:]+)`)
}
