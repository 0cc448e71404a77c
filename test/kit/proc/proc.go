// Package proc runs programs for tests: it finds free ports, supervises the processes, and skips a test whose program is
// not installed.
//
// Two things to know. A process ends with the test that started it, frozen or not; on Linux also when the test binary is killed.
// And a failed test prints the logs of its processes by itself.
package proc

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"podlink/test/kit/logwatch"
)

const (
	// shownLog is how much of each process' log a failed test prints: a server under load logs megabytes.
	shownLog = 16 << 10
	// freezeTimeout bounds how long SIGSTOP may take to stop all threads of a process.
	freezeTimeout = 10 * time.Second
	// outputTimeout bounds how long the output of a process is read after its exit: a child may keep it open.
	outputTimeout = 5 * time.Second
)

// Command is a program to run.
type Command struct {
	Program string // a path, or a command on PATH
	Args    []string
	Env     []string // added to the test's environment
	Dir     string   // working directory; empty: the test's
}

// Process is a running or exited program. It is safe for concurrent use.
type Process struct {
	// Log holds its standard output and error, of all runs.
	Log *logwatch.Log

	command Command
	mu      sync.Mutex
	run     *run // the latest
}

// run is one run of a program.
type run struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has exited and its output has been read
}

// Need skips the test if a command is not on PATH. With CI=true it fails the test instead, so that a pipeline without the
// server is not green. debianPackage contains the command and is known to test/install.sh.
func Need(tb testing.TB, command, debianPackage string) {
	tb.Helper()
	if _, err := exec.LookPath(command); err == nil {
		return
	}
	missing := "no " + command + " on the PATH: test/install.sh " + debianPackage + " installs it"
	if os.Getenv("CI") == "true" {
		tb.Fatal(missing)
	}
	tb.Skip(missing)
}

// Start runs a command until the test ends.
func Start(tb testing.TB, c Command) *Process {
	tb.Helper()
	p, err := Launch(c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		p.Kill()
		if tb.Failed() {
			text := p.Log.String()
			tb.Logf("the end of %s's log:\n%s", filepath.Base(c.Program), text[max(0, len(text)-shownLog):])
		}
	})
	return p
}

// Launch is Start without a test, for an Example. The caller must kill the process.
func Launch(c Command) (*Process, error) {
	p := &Process{Log: new(logwatch.Log), command: c}
	if err := p.Restart(); err != nil {
		return nil, err
	}
	return p, nil
}

// Restart kills the process if it is running, and runs the command again.
func (p *Process) Restart() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.run.kill()
	cmd := exec.Command(p.command.Program, p.command.Args...)
	cmd.Dir, cmd.Env = p.command.Dir, append(os.Environ(), p.command.Env...)
	cmd.Stdout, cmd.Stderr = p.Log, p.Log
	cmd.WaitDelay = outputTimeout
	cmd.SysProcAttr = endsWithParent()
	r := &run{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error, 1)
	go r.live(started)
	if err := <-started; err != nil {
		return err
	}
	p.run = r
	return nil
}

// live starts the program and returns when it has exited. It keeps its thread until then: with endsWithParent the program ends
// with the thread that started it, not only with the process.
func (r *run) live(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := r.cmd.Start()
	started <- err
	if err == nil {
		_ = r.cmd.Wait() // The exit code is in the ProcessState.
		close(r.exited)
	}
}

// kill does nothing to a run that is nil or has ended.
func (r *run) kill() {
	if r == nil {
		return
	}
	_ = r.cmd.Process.Kill() // It may have exited by itself.
	<-r.exited
}

func (p *Process) latest() *run {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.run
}

// PID returns the id of the process.
func (p *Process) PID() int { return p.latest().cmd.Process.Pid }

// Exited returns a channel that is closed when the process has exited and its log is complete.
func (p *Process) Exited() <-chan struct{} { return p.latest().exited }

// Kill sends SIGKILL, which ends a frozen process too, and returns when the process has exited.
func (p *Process) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.run.kill()
}

// Terminate sends SIGTERM, and does not wait for the process to exit.
func (p *Process) Terminate() error { return p.signal(p.latest(), syscall.SIGTERM) }

// Wait returns the exit code of the process, -1 if a signal killed it. It fails if the process is still running after the
// timeout.
func (p *Process) Wait(timeout time.Duration) (code int, err error) {
	r := p.latest()
	select {
	case <-r.exited:
		return r.cmd.ProcessState.ExitCode(), nil
	case <-time.After(timeout):
		return 0, fmt.Errorf("%s still runs after %s", p.command.Program, timeout)
	}
}

// Freeze suspends the process, like a stalled machine: its connections stay open, and nothing answers. Threads stop one by
// one; it returns when all have.
func (p *Process) Freeze() error {
	r := p.latest()
	if err := p.signal(r, syscall.SIGSTOP); err != nil {
		return err
	}
	for begin := time.Now(); !stopped(r.cmd.Process.Pid); time.Sleep(time.Millisecond) {
		if time.Since(begin) > freezeTimeout {
			return fmt.Errorf("%s is not frozen after %s", p.command.Program, freezeTimeout)
		}
	}
	return nil
}

// Resume ends Freeze.
func (p *Process) Resume() error { return p.signal(p.latest(), syscall.SIGCONT) }

func (p *Process) signal(r *run, signal syscall.Signal) error {
	if err := r.cmd.Process.Signal(signal); err != nil {
		return fmt.Errorf("%s to %s: %w", signal, p.command.Program, err)
	}
	return nil
}

// stopped reports whether SIGSTOP has stopped all threads of a process. It is true for an exited process, and where there is
// no /proc to see them.
func stopped(pid int) bool {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(dir)
	if err != nil {
		return true
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(filepath.Join(dir, thread.Name(), "stat"))
		if err == nil && !bytes.Contains(stat, []byte(") T ")) { // A thread that has just exited has no file.
			return false
		}
	}
	return true
}
