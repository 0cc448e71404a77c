package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"podlink/internal/conf"
)

const (
	patience = 10 * time.Second
	tick     = time.Millisecond
)

// valve is a log that blocks while mu is held, and fails while it is broken.
type valve struct {
	mu     sync.Mutex
	state  sync.Mutex
	broken bool
	text   bytes.Buffer
}

func (v *valve) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.state.Lock()
	defer v.state.Unlock()
	if v.broken {
		return 0, errors.New("broken pipe")
	}
	return v.text.Write(p)
}

func (v *valve) setBroken(broken bool) {
	v.state.Lock()
	defer v.state.Unlock()
	v.broken = broken
}

func (v *valve) lines() []string {
	v.state.Lock()
	defer v.state.Unlock()
	return strings.Split(strings.TrimSuffix(v.text.String(), "\n"), "\n")
}

// TestLogThatIsNotRead: no line waits, the queue is bounded, and the log has every line that was not dropped, in order, then the
// number of those that were.
func TestLogThatIsNotRead(t *testing.T) {
	defer goleak.VerifyNone(t)
	out := new(valve)
	out.mu.Lock()
	q := NewLogQueue(&conf.Log{Format: "json"}, out)
	const size, count = 1000, 5 * maxQueuedBytes / 1000
	for i := range count {
		n, err := fmt.Fprintf(q, "%0*d\n", size-1, i)
		require.NoError(t, err)
		require.Equal(t, size, n)
	}
	dropped := int(testutil.ToFloat64(q))
	require.Greater(t, dropped, count/2)
	out.mu.Unlock()
	require.Eventually(t, func() bool { return strings.Contains(strings.Join(out.lines(), ""), "dropped") }, patience, tick)
	fmt.Fprintln(q, "later")
	require.NoError(t, q.Close())

	lines := out.lines()
	require.Equal(t, "later", lines[len(lines)-1])
	require.Contains(t, lines[len(lines)-2], fmt.Sprintf(`"count":%d}`, dropped))
	require.Contains(t, lines[len(lines)-2], `"level":"WARN","msg":"log lines were dropped: `)
	require.Len(t, lines, count-dropped+2)
	for i, line := range lines[:count-dropped] {
		require.Equal(t, fmt.Sprintf("%0*d", size-1, i), line)
	}
}

// TestLogThatFails: lines that can't be written are counted, and a notice follows once the log works again.
func TestLogThatFails(t *testing.T) {
	defer goleak.VerifyNone(t)
	out := new(valve)
	out.setBroken(true)
	q := NewLogQueue(&conf.Log{Format: "console"}, out)
	for i := range 3 {
		fmt.Fprintln(q, "lost")
		require.Eventually(t, func() bool { return int(testutil.ToFloat64(q)) == i+1 }, patience, tick)
	}
	out.setBroken(false)
	fmt.Fprintln(q, "first")
	require.NoError(t, q.Close())
	lines := out.lines()
	require.Len(t, lines, 2)
	require.Equal(t, "first", lines[0])
	require.Contains(t, lines[1], "level=WARN msg=\"log lines were dropped")
	require.Contains(t, lines[1], "count=3")

	n, err := fmt.Fprintln(q, "after Close")
	require.NoError(t, err)
	require.Equal(t, len("after Close\n"), n)
	require.Len(t, out.lines(), 2)
}

// TestCloseOfALogThatIsNotRead: it ends, with an error.
func TestCloseOfALogThatIsNotRead(t *testing.T) {
	defer goleak.VerifyNone(t)
	out := new(valve)
	out.mu.Lock()
	q := NewLogQueue(&conf.Log{Format: "json"}, out)
	fmt.Fprintln(q, "line")
	require.Error(t, q.Close())
	out.mu.Unlock()
	<-q.done
	require.Equal(t, []string{"line"}, out.lines())
}

func TestCloseOfAFailingLog(t *testing.T) {
	defer goleak.VerifyNone(t)
	out := new(valve)
	out.setBroken(true)
	q := NewLogQueue(&conf.Log{Format: "json"}, out)
	fmt.Fprintln(q, "line")
	require.NoError(t, q.Close())
	require.EqualValues(t, 1, testutil.ToFloat64(q))
}

// TestLogOfManyWriters: every line is written whole, once.
func TestLogOfManyWriters(t *testing.T) {
	defer goleak.VerifyNone(t)
	out := new(valve)
	q := NewLogQueue(&conf.Log{Format: "json"}, out)
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for i := range 500 {
				fmt.Fprintf(q, "%d-%d\n", w, i)
			}
		})
	}
	writers.Wait()
	require.NoError(t, q.Close())
	seen := make(map[string]bool)
	for _, line := range out.lines() {
		seen[line] = true
	}
	require.Len(t, seen, 8*500)
	require.Len(t, out.lines(), 8*500)
}

func TestLogFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "podlink.log")
	require.NoError(t, os.WriteFile(path, []byte("before\n"), 0o600))
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		return string(text)
	}
	f, err := OpenLogFile(path)
	require.NoError(t, err)
	fmt.Fprintln(f, "one")
	require.NoError(t, os.Rename(path, path+".1"))
	fmt.Fprintln(f, "two")
	require.NoError(t, f.Reopen())
	fmt.Fprintln(f, "three")
	require.Equal(t, "before\none\ntwo\n", read("podlink.log.1"))
	require.Equal(t, "three\n", read("podlink.log"))

	require.NoError(t, os.Remove(path))
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	require.Error(t, f.Reopen())
	fmt.Fprintln(f, "four")
	require.NoError(t, f.Close())

	for _, bad := range []string{dir, path, "/dev/null", filepath.Join(dir, "absent", "podlink.log")} {
		_, err = OpenLogFile(bad)
		require.Error(t, err, bad)
	}
}
