package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon bounds what takes milliseconds on an idle machine.
const soon = 20 * time.Second

func shell(script string) Command { return Command{Program: "sh", Args: []string{"-c", script}} }

// recorder is a test that records how it was ended, and what it logged.
type recorder struct {
	testing.TB
	skipped, fatal string
	failed         bool
	logged         []string
	cleanups       []func()
}

func (r *recorder) Helper()             {}
func (r *recorder) Failed() bool        { return r.failed }
func (r *recorder) Cleanup(last func()) { r.cleanups = append(r.cleanups, last) }

func (r *recorder) Logf(format string, args ...any) {
	r.logged = append(r.logged, fmt.Sprintf(format, args...))
}

func (r *recorder) Skip(args ...any) {
	r.skipped = fmt.Sprint(args...)
	runtime.Goexit()
}

func (r *recorder) Fatal(args ...any) {
	r.fatal = fmt.Sprint(args...)
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) { r.Fatal(fmt.Sprintf(format, args...)) }

// run runs the test and its cleanups.
func (r *recorder) run(test func(tb testing.TB)) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		test(r)
	}()
	<-ended
	for _, cleanup := range r.cleanups {
		cleanup()
	}
}

func TestNeed(t *testing.T) {
	const missing = "no etcd on the PATH: test/install.sh etcd-server installs it"
	for name, row := range map[string]struct {
		present              bool
		ci, skipped, failure string
	}{
		"present":           {present: true},
		"present, in CI":    {present: true, ci: "true"},
		"a laptop skips":    {skipped: missing},
		"CI fails":          {ci: "true", failure: missing},
		"CI=false is no CI": {ci: "false", skipped: missing},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if row.present {
				require.NoError(t, os.WriteFile(filepath.Join(dir, "etcd"), nil, 0o700))
			}
			t.Setenv("PATH", dir)
			t.Setenv("CI", row.ci)
			r := &recorder{TB: t}
			r.run(func(tb testing.TB) { Need(tb, "etcd", "etcd-server") })
			require.Equal(t, row.skipped, r.skipped)
			require.Equal(t, row.failure, r.fatal)
		})
	}
}

func TestProcess(t *testing.T) {
	t.Setenv("KIT_INHERITED", "inherited")
	dir := t.TempDir()
	p := Start(t, Command{
		Program: "sh", Args: []string{"-c", `pwd; echo "$KIT_INHERITED $KIT_ADDED"; echo "to stderr" >&2; exit 3`},
		Env: []string{"KIT_ADDED=added"}, Dir: dir,
	})
	code, err := p.Wait(soon)
	require.NoError(t, err)
	require.Equal(t, 3, code)
	require.Equal(t, dir+"\ninherited added\nto stderr\n", p.Log.String())
}

func TestProcessThatExitsAtOnce(t *testing.T) {
	p := Start(t, shell("echo died; exit 1"))
	<-p.Exited()
	require.Equal(t, "died\n", p.Log.String())
	require.ErrorIs(t, p.Terminate(), os.ErrProcessDone)
	require.ErrorIs(t, p.Freeze(), os.ErrProcessDone)
	require.ErrorIs(t, p.Resume(), os.ErrProcessDone)
	p.Kill()
	code, err := p.Wait(soon)
	require.NoError(t, err)
	require.Equal(t, 1, code, "the code of its own exit, not of the kill")

	require.NoError(t, p.Restart())
	<-p.Exited()
	require.Equal(t, strings.Repeat("died\n", 2), p.Log.String())
}

func TestProcessThatStops(t *testing.T) {
	p := Start(t, shell("trap 'exit 7' TERM; echo ready; while :; do sleep .01; done"))
	p.Log.Wait(t, "ready")
	require.NoError(t, p.Terminate())
	code, err := p.Wait(soon)
	require.NoError(t, err)
	require.Equal(t, 7, code)
}

func TestProcessThatIgnoresSIGTERM(t *testing.T) {
	p := Start(t, shell("trap '' TERM; echo ready; exec sleep 600"))
	p.Log.Wait(t, "ready")
	require.NoError(t, p.Terminate())
	_, err := p.Wait(100 * time.Millisecond)
	require.EqualError(t, err, "sh still runs after 100ms")
	p.Kill()
	code, err := p.Wait(soon)
	require.NoError(t, err)
	require.Equal(t, -1, code)
	require.ErrorIs(t, syscall.Kill(p.PID(), 0), syscall.ESRCH, "the process is gone")
}

func TestFrozenProcess(t *testing.T) {
	p := Start(t, shell("trap 'echo caught' TERM; echo ready; while :; do sleep .01; done"))
	p.Log.Wait(t, "ready")
	require.NoError(t, p.Freeze())
	require.NoError(t, p.Terminate())
	_, err := p.Wait(100 * time.Millisecond)
	require.Error(t, err)
	require.NotContains(t, p.Log.String(), "caught")
	require.NoError(t, p.Resume())
	p.Log.Wait(t, "caught")

	require.NoError(t, p.Freeze())
	p.Kill()
	require.ErrorIs(t, syscall.Kill(p.PID(), 0), syscall.ESRCH)

	require.NoError(t, p.Restart())
	before := p.PID()
	require.NoError(t, p.Freeze())
	require.NoError(t, p.Restart(), "Restart kills a frozen process")
	require.NotEqual(t, before, p.PID())
	require.ErrorIs(t, syscall.Kill(before, 0), syscall.ESRCH)
}

// TestChildKeepsTheOutputOpen: a process has exited even if a child survives it.
func TestChildKeepsTheOutputOpen(t *testing.T) {
	p := Start(t, shell("sleep 600 & echo $!; exit 3"))
	child, err := strconv.Atoi(p.Log.Wait(t, `(\d+)\n`))
	require.NoError(t, err)
	t.Cleanup(func() { _ = syscall.Kill(child, syscall.SIGKILL) })
	code, err := p.Wait(soon)
	require.NoError(t, err)
	require.Equal(t, 3, code)
}

func TestLogOfAFailedTest(t *testing.T) {
	for name, row := range map[string]struct {
		failed bool
		lines  int
		logged int
	}{
		"passed":            {lines: 1},
		"failed":            {failed: true, lines: 1, logged: 1},
		"failed, long logs": {failed: true, lines: 10_000, logged: shownLog / len("line\n")},
	} {
		t.Run(name, func(t *testing.T) {
			r := &recorder{TB: t, failed: row.failed}
			r.run(func(tb testing.TB) {
				p := Start(tb, shell(fmt.Sprintf("yes line | head -n %d; exec sleep 600", row.lines)))
				require.Eventually(t, func() bool { return len(p.Log.String()) == row.lines*len("line\n") }, soon, time.Millisecond)
			})
			logged := strings.Join(r.logged, "")
			require.Equal(t, row.failed, strings.HasPrefix(logged, "the end of sh's log:\n"))
			require.Equal(t, row.logged, strings.Count(logged, "line\n"))
		})
	}
}

func TestNoSuchProgram(t *testing.T) {
	r := &recorder{TB: t}
	r.run(func(tb testing.TB) { Start(tb, Command{Program: "podlink-absent"}) })
	require.Contains(t, r.fatal, "podlink-absent")
	require.Empty(t, r.cleanups)
}
