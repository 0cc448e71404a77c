// Package logwatch collects the log of a program for a test, and reads from podlink's where it listens.
package logwatch

import (
	"bytes"
	"fmt"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// waitTimeout bounds how long a line may take to come: podlink's first ones take as long as its start.
const waitTimeout = 10 * time.Second

// Log is what a program has logged so far. It is safe for concurrent use.
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
	found, err := l.Await(pattern)
	require.NoError(tb, err)
	return found
}

// Await does what Wait does, where there is no test, as in an Example.
func (l *Log) Await(pattern string) (string, error) {
	line := regexp.MustCompile(pattern)
	for begin := time.Now(); time.Since(begin) < waitTimeout; time.Sleep(time.Millisecond) {
		if found := line.FindStringSubmatch(l.String()); found != nil {
			return found[len(found)-1], nil
		}
	}
	return "", fmt.Errorf("no line %q in:\n%s", line, l)
}

// Listening waits for the line of a server, "HTTP", "gRPC" or "admin", that tells where it listens, and returns that
// host:port.
func (l *Log) Listening(tb testing.TB, server string) string {
	tb.Helper()
	addr, err := l.AwaitListening(server)
	require.NoError(tb, err)
	return addr
}

// AwaitListening does what Listening does, where there is no test.
func (l *Log) AwaitListening(server string) (addr string, err error) {
	return l.Await(`\[` + server + `\] server listening on: ([0-9.:]+)`)
}
