// Package podlink builds podlink and runs it as a process for tests, as its users do.
//
// Two things to know. Every process, connection and goroutine ends with the test that started it. And a binary can be
// built from patched sources, for tests that have to show that they find a fault.
package podlink

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"podlink/test/kit/logwatch"
)

const (
	// readyLimit bounds how long podlink may take until it is ready.
	readyLimit = 10 * time.Second
	// stopLimit bounds how long podlink may take to stop: more than its own limit, server.stop.timeout.
	stopLimit = 20 * time.Second
	// logLimit is how much of podlink's log a failed test shows: a load under faults fills many screens.
	logLimit = 16 << 10
	// askLimit bounds a call to the admin listener.
	askLimit = 5 * time.Second
)

// Process is a running podlink.
type Process struct {
	GRPC, HTTP, Admin string // addresses, host:port
	Log               *logwatch.Log
	Started           time.Time

	cmd    *exec.Cmd
	admin  *http.Client
	exited chan struct{}
}

// Start runs the binary with the shipped configuration on free ports, and waits until it listens. Env overrides keys of
// the configuration: "PODLINK_DATA_REDIS_MODE=standalone".
func Start(tb testing.TB, binary string, env ...string) *Process {
	tb.Helper()
	root, err := Root()
	require.NoError(tb, err)
	p := &Process{
		Log:    new(logwatch.Log),
		cmd:    exec.Command(binary, "-conf", "configs/config.yaml"),
		admin:  &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: askLimit},
		exited: make(chan struct{}),
	}
	p.cmd.Dir = root
	p.cmd.Stderr = p.Log
	p.cmd.Env = append(os.Environ(),
		"PODLINK_SERVER_HTTP_ADDR=127.0.0.1:0",
		"PODLINK_SERVER_GRPC_ADDR=127.0.0.1:0",
		"PODLINK_SERVER_ADMIN_ADDR=127.0.0.1:0")
	p.cmd.Env = append(p.cmd.Env, env...)
	p.Started = time.Now()
	require.NoError(tb, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait() // The tests look at the exit code.
		close(p.exited)
	}()
	tb.Cleanup(func() {
		p.Kill()
		if tb.Failed() {
			text := p.Log.String()
			tb.Logf("the end of podlink's log:\n%s", text[max(0, len(text)-logLimit):])
		}
	})
	p.HTTP = p.Log.Listening(tb, "HTTP")
	p.GRPC = p.Log.Listening(tb, "gRPC")
	p.Admin = p.Log.Listening(tb, "admin")
	return p
}

// OnRedis is the environment that makes podlink use a Redis: mode is standalone, sentinel or cluster.
func OnRedis(mode string, addrs ...string) []string {
	return []string{"PODLINK_DATA_REDIS_MODE=" + mode, "PODLINK_DATA_REDIS_ADDRS=" + strings.Join(addrs, ",")}
}

// PID is the id of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ready asks /readyz, and returns the status and the reason.
func (p *Process) Ready(tb testing.TB) (status int, reason string) {
	tb.Helper()
	status, text := p.ask(tb, "/readyz")
	var body struct{ Reason string }
	require.NoError(tb, json.Unmarshal([]byte(text), &body))
	return status, body.Reason
}

// WaitReady waits until podlink is ready.
func (p *Process) WaitReady(tb testing.TB) {
	tb.Helper()
	for deadline := time.Now().Add(readyLimit); ; time.Sleep(5 * time.Millisecond) {
		status, reason := p.Ready(tb)
		if status == http.StatusOK {
			return
		}
		require.True(tb, time.Now().Before(deadline), "not ready within %s: %s", readyLimit, reason)
	}
}

// Metric returns the value of a metric without labels, as go_goroutines.
func (p *Process) Metric(tb testing.TB, name string) float64 {
	tb.Helper()
	_, text := p.ask(tb, "/metrics")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			require.NoError(tb, err)
			return number
		}
	}
	require.Failf(tb, "no such metric", "%s in:\n%s", name, text)
	return 0
}

// ask reads a path of the admin listener.
func (p *Process) ask(tb testing.TB, path string) (status int, body string) {
	tb.Helper()
	response, err := p.admin.Get("http://" + p.Admin + path)
	require.NoError(tb, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(tb, err)
	return response.StatusCode, string(text)
}

// Conn returns a new connection to the gRPC listener, which is closed with the test. It repeats nothing by itself.
func (p *Process) Conn(tb testing.TB) *grpc.ClientConn {
	tb.Helper()
	conn, err := grpc.NewClient(p.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig())
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Stop sends SIGTERM, waits until the process has ended and returns its exit code.
func (p *Process) Stop(tb testing.TB) int {
	tb.Helper()
	p.Terminate(tb)
	return p.Wait(tb)
}

// Terminate sends SIGTERM.
func (p *Process) Terminate(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, p.cmd.Process.Signal(syscall.SIGTERM))
}

// Wait waits until a process that was told to stop has ended, and returns its exit code.
func (p *Process) Wait(tb testing.TB) int {
	tb.Helper()
	select {
	case <-p.exited:
	case <-time.After(stopLimit):
		require.Failf(tb, "podlink does not stop", "within %s", stopLimit)
	}
	return p.cmd.ProcessState.ExitCode()
}

// Kill ends the process as kill -9 does, and returns when it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // It may have ended by itself.
	<-p.exited
}
