// Package logwatch collects the log of a program for tests, and finds lines in it, such as podlink's with its addresses.
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

// waitTimeout bounds the wait for a line: podlink's first ones take as long as its start.
const waitTimeout = 10 * time.Second

// Log is the output of a program so far. It is safe for concurrent use.
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

// String returns the text so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Wait waits for a line that matches the pattern. It returns the pattern's last group, or the match if it has no group.
func (l *Log) Wait(tb testing.TB, pattern string) string {
	tb.Helper()
	found, err := l.Await(pattern)
	require.NoError(tb, err)
	return found
}

// Await is Wait without a test, for an Example.
func (l *Log) Await(pattern string) (string, error) {
	line := regexp.MustCompile(pattern)
	for begin := time.Now(); time.Since(begin) < waitTimeout; time.Sleep(time.Millisecond) {
		if found := line.FindStringSubmatch(l.String()); found != nil {
			return found[len(found)-1], nil
		}
	}
	return "", fmt.Errorf("no line %q in:\n%s", line, l)
}

// Listening waits until a server of podlink, "HTTP", "gRPC" or "admin", listens, and returns its host:port.
func (l *Log) Listening(tb testing.TB, server string) string {
	tb.Helper()
	addr, err := l.AwaitListening(server)
	require.NoError(tb, err)
	return addr
}

// AwaitListening is Listening without a test.
func (l *Log) AwaitListening(server string) (addr string, err error) {
	return l.Await(`\[` + server + `\] server listening on: ([0-9.:[\]]+)`)
}
