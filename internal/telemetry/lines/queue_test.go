package lines

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

const (
	patience = 10 * time.Second
	tick     = time.Millisecond
	limit    = 1 << 20
)

// newQueue returns a queue in front of out, whose notices are short.
func newQueue(out io.Writer) *Queue {
	return NewQueue(out, limit, prometheus.NewCounter(prometheus.CounterOpts{Name: "dropped"}), func(dropped int) []byte {
		return fmt.Appendf(nil, "%d dropped\n", dropped)
	})
}

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

// TestOutputThatIsNotRead: no line waits, the queue is bounded, and the log has every line that was not dropped, in order, then the
// number of those that were.
func TestOutputThatIsNotRead(t *testing.T) {
	defer goleak.VerifyNone(t)
	out := new(valve)
	out.mu.Lock()
	q := newQueue(out)
	const size, count = 1000, 5 * limit / 1000
	fmt.Fprintln(q, "being written")
	require.Eventually(t, func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return len(q.pending) == 0
	}, patience, tick)
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
	require.NoError(t, q.Close(t.Context()))

	lines := out.lines()
	require.Equal(t, "later", lines[len(lines)-1])
	require.Equal(t, fmt.Sprintf("%d dropped", dropped), lines[len(lines)-2])
	require.Len(t, lines, 1+count-dropped+2)
	for i, line := range lines[1 : 1+count-dropped] {
		require.Equal(t, fmt.Sprintf("%0*d", size-1, i), line)
	}
}

// TestOutputThatFails: lines that can't be written are counted, and a notice follows once the log works again.
func TestOutputThatFails(t *testing.T) {
	defer goleak.VerifyNone(t)
	out := new(valve)
	out.setBroken(true)
	q := newQueue(out)
	for i := range 3 {
		fmt.Fprintln(q, "lost")
		require.Eventually(t, func() bool { return int(testutil.ToFloat64(q)) == i+1 }, patience, tick)
	}
	out.setBroken(false)
	fmt.Fprintln(q, "first")
	require.NoError(t, q.Close(t.Context()))
	lines := out.lines()
	require.Len(t, lines, 2)
	require.Equal(t, "first", lines[0])
	require.Equal(t, "3 dropped", lines[1])

	n, err := fmt.Fprintln(q, "after Close")
	require.NoError(t, err)
	require.Equal(t, len("after Close\n"), n)
	require.Len(t, out.lines(), 2)
}

// TestCloseOfAnOutputThatIsNotRead: it ends, with an error.
func TestCloseOfAnOutputThatIsNotRead(t *testing.T) {
	defer goleak.VerifyNone(t)
	out := new(valve)
	out.mu.Lock()
	q := newQueue(out)
	fmt.Fprintln(q, "line")
	ctx, cancel := context.WithTimeout(t.Context(), tick)
	defer cancel()
	require.ErrorIs(t, q.Close(ctx), context.DeadlineExceeded)
	out.mu.Unlock()
	<-q.done
	require.Equal(t, []string{"line"}, out.lines())
}

func TestCloseOfAFailingOutput(t *testing.T) {
	defer goleak.VerifyNone(t)
	out := new(valve)
	out.setBroken(true)
	q := newQueue(out)
	fmt.Fprintln(q, "line")
	require.NoError(t, q.Close(t.Context()))
	require.Contains(t, []float64{1, 2}, testutil.ToFloat64(q), "the line, and perhaps the notice of its loss")
}

// TestManyWriters: every line is written whole, once.
func TestManyWriters(t *testing.T) {
	defer goleak.VerifyNone(t)
	out := new(valve)
	q := newQueue(out)
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for i := range 500 {
				fmt.Fprintf(q, "%d-%d\n", w, i)
			}
		})
	}
	writers.Wait()
	require.NoError(t, q.Close(t.Context()))
	seen := make(map[string]bool)
	for _, line := range out.lines() {
		seen[line] = true
	}
	require.Len(t, seen, 8*500)
	require.Len(t, out.lines(), 8*500)
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "podlink.log")
	require.NoError(t, os.WriteFile(path, []byte("before\n"), 0o600))
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		return string(text)
	}
	f, err := OpenFile(path, 0o640)
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
		_, err = OpenFile(bad, 0o640)
		require.Error(t, err, bad)
	}
}
