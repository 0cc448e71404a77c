package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// worker is a running test binary of a revision's test/bench, which calls that revision's data layer on its own Redis. The
// protocol is in test/bench/turns_test.go.
type worker struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *bufio.Scanner
	errors  bytes.Buffer
}

func startWorker(ctx context.Context, r revision) (*worker, error) {
	w := &worker{cmd: exec.CommandContext(ctx, r.worker)}
	w.cmd.Dir = filepath.Join(r.dir, "test", "bench") // As go test does.
	w.cmd.Env = append(os.Environ(), "PODLINK_BENCH_TURNS=1")
	w.cmd.Stderr = &w.errors
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	w.cmd.Cancel, w.cmd.WaitDelay = w.in.Close, startTimeout // A killed worker would leave its Redis running.
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	w.answers = bufio.NewScanner(out)
	if !w.answers.Scan() || w.answers.Text() != "ready" {
		return nil, w.fail()
	}
	return w, nil
}

// run implements subject.
func (w *worker) run(_ context.Context, m measure, slice time.Duration) (work, error) {
	if _, err := fmt.Fprintln(w.in, m.callers, slice.Nanoseconds(), m.operation); err != nil {
		return work{}, w.fail()
	}
	if !w.answers.Scan() {
		return work{}, w.fail()
	}
	var calls int
	var took, cpu int64
	if _, err := fmt.Sscanf(w.answers.Text(), "ok %d %d %d", &calls, &took, &cpu); err != nil {
		return work{}, w.fail()
	}
	return work{calls: calls, took: time.Duration(took), cpu: time.Duration(cpu)}, nil
}

// fail stops a worker that did not answer as expected, and returns an error with its output.
func (w *worker) fail() error {
	text := w.answers.Text()
	_ = w.in.Close()
	for w.answers.Scan() {
		text += "\n" + w.answers.Text()
	}
	_ = w.cmd.Wait() // Its status is in the message.
	return fmt.Errorf("%s does not answer: %s\n%s\n%s", w.cmd.Path, w.cmd.ProcessState, text, &w.errors)
}

// stop closes the worker's input: it then stops its Redis and exits.
func (w *worker) stop() {
	_ = w.in.Close()
	for w.answers.Scan() {
	}
	_ = w.cmd.Wait() // Its results are already read.
}
