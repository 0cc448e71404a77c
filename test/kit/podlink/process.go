// Package podlink builds podlink and runs it as a process for tests, as its users do.
//
// Two things to know. Every process, connection and goroutine ends with the test that started it. And a binary can be
// built from patched sources, for tests that have to show that they find a fault.
package podlink

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"podlink/test/kit/logwatch"
	"podlink/test/kit/proc"
)

const (
	// readyLimit bounds how long podlink may take until it is ready.
	readyLimit = 10 * time.Second
	// stopLimit bounds how long podlink may take to stop: more than its own limit, server.stop.timeout.
	stopLimit = 20 * time.Second
	// askLimit bounds a call to the admin listener.
	askLimit = 5 * time.Second
)

// Process is a running podlink.
type Process struct {
	GRPC, HTTP, Admin string // addresses, host:port
	Log               *logwatch.Log
	Started           time.Time

	process *proc.Process
	admin   *http.Client
}

// Start runs the binary with the shipped configuration on free ports, and waits until it listens. Env overrides keys of
// the configuration: "PODLINK_DATA_REDIS_MODE=standalone".
func Start(tb testing.TB, binary string, env ...string) *Process {
	tb.Helper()
	command, err := command(binary, env)
	require.NoError(tb, err)
	started := time.Now()
	p := newProcess(proc.Start(tb, command), started)
	require.NoError(tb, p.listens())
	return p
}

// Launch does what Start does where there is no test to end podlink, as in an Example, and waits until it is ready. The
// caller kills it.
func Launch(binary string, env ...string) (*Process, error) {
	command, err := command(binary, env)
	if err != nil {
		return nil, err
	}
	started := time.Now()
	process, err := proc.Launch(command)
	if err != nil {
		return nil, err
	}
	p := newProcess(process, started)
	if err = p.listens(); err == nil {
		err = p.awaitReady()
	}
	if err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

func newProcess(process *proc.Process, started time.Time) *Process {
	return &Process{
		Log: process.Log, Started: started, process: process,
		admin: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: askLimit},
	}
}

func command(binary string, env []string) (proc.Command, error) {
	root, err := Root()
	return proc.Command{
		Program: binary, Args: []string{"-conf", "configs/config.yaml"}, Dir: root,
		Env: append([]string{
			"PODLINK_SERVER_HTTP_ADDR=127.0.0.1:0",
			"PODLINK_SERVER_GRPC_ADDR=127.0.0.1:0",
			"PODLINK_SERVER_ADMIN_ADDR=127.0.0.1:0",
		}, env...),
	}, err
}

// listens waits until podlink listens, and reads from its log where.
func (p *Process) listens() (err error) {
	for server, addr := range map[string]*string{"HTTP": &p.HTTP, "gRPC": &p.GRPC, "admin": &p.Admin} {
		if *addr, err = p.Log.AwaitListening(server); err != nil {
			return err
		}
	}
	return nil
}

// OnRedis is the environment that makes podlink use a Redis: mode is standalone, sentinel or cluster.
func OnRedis(mode string, addrs ...string) []string {
	return []string{"PODLINK_DATA_REDIS_MODE=" + mode, "PODLINK_DATA_REDIS_ADDRS=" + strings.Join(addrs, ",")}
}

// PID returns the id of the process.
func (p *Process) PID() int { return p.process.PID() }

// Ready asks /readyz, and returns the status and the reason.
func (p *Process) Ready(tb testing.TB) (status int, reason string) {
	tb.Helper()
	status, reason, err := p.ready()
	require.NoError(tb, err)
	return status, reason
}

func (p *Process) ready() (status int, reason string, err error) {
	status, text, err := p.ask("/readyz")
	if err != nil {
		return 0, "", err
	}
	var body struct{ Reason string }
	err = json.Unmarshal([]byte(text), &body)
	return status, body.Reason, err
}

// WaitReady waits until podlink is ready.
func (p *Process) WaitReady(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, p.awaitReady())
}

func (p *Process) awaitReady() error {
	for deadline := time.Now().Add(readyLimit); ; time.Sleep(5 * time.Millisecond) {
		status, reason, err := p.ready()
		switch {
		case err != nil:
			return err
		case status == http.StatusOK:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("not ready within %s: %s", readyLimit, reason)
		}
	}
}

// Metric returns the value of a metric without labels, as go_goroutines.
func (p *Process) Metric(tb testing.TB, name string) float64 {
	tb.Helper()
	_, text, err := p.ask("/metrics")
	require.NoError(tb, err)
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
func (p *Process) ask(path string) (status int, body string, err error) {
	response, err := p.admin.Get("http://" + p.Admin + path)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
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
	require.NoError(tb, p.process.Terminate())
}

// Wait waits until a process that was told to stop has ended, and returns its exit code.
func (p *Process) Wait(tb testing.TB) int {
	tb.Helper()
	code, err := p.process.Wait(stopLimit)
	require.NoError(tb, err)
	return code
}

// Kill ends the process as kill -9 does, and returns when it is gone.
func (p *Process) Kill() { p.process.Kill() }

// Freeze stops the process as a stalled machine would: connections stay open, and nothing answers. It returns when the whole
// process has stopped.
func (p *Process) Freeze() error { return p.process.Freeze() }

// Resume ends Freeze.
func (p *Process) Resume() error { return p.process.Resume() }
