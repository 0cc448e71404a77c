// Package podlink builds podlink for tests and runs it as a process, as its users do.
//
// Two things to know. Every process, connection and goroutine ends with the test that started it. And a binary can be
// built from patched sources, so that a test can prove that it finds a fault.
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
	// readyTimeout bounds how long podlink may take to become ready.
	readyTimeout = 10 * time.Second
	// stopTimeout bounds how long podlink may take to stop: more than its own limit, server.stop.timeout.
	stopTimeout = 20 * time.Second
	// adminTimeout bounds a request to the admin listener.
	adminTimeout = 5 * time.Second
)

// Process is a running podlink.
type Process struct {
	GRPC, HTTP, Admin string // addresses, host:port
	Log               *logwatch.Log
	Started           time.Time

	process *proc.Process
	admin   *http.Client
}

// Start runs the binary with configs/config.yaml on free ports, and waits until it listens. Env overrides keys of the
// configuration: "PODLINK_DATA_REDIS_MODE=standalone".
func Start(tb testing.TB, binary string, env ...string) *Process {
	tb.Helper()
	return StartWith(tb, binary, "configs/config.yaml", env...)
}

// StartWith is Start with another configuration.
func StartWith(tb testing.TB, binary, configuration string, env ...string) *Process {
	tb.Helper()
	command, err := command(binary, configuration, env)
	require.NoError(tb, err)
	started := time.Now()
	p := newProcess(proc.Start(tb, command), started)
	require.NoError(tb, p.awaitListening())
	return p
}

// Launch is Start without a test, for an Example. It waits until podlink is ready; the caller must kill it.
func Launch(binary string, env ...string) (*Process, error) {
	command, err := command(binary, "configs/config.yaml", env)
	if err != nil {
		return nil, err
	}
	started := time.Now()
	process, err := proc.Launch(command)
	if err != nil {
		return nil, err
	}
	p := newProcess(process, started)
	if err = p.awaitListening(); err == nil {
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
		admin: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: adminTimeout},
	}
}

func command(binary, configuration string, env []string) (proc.Command, error) {
	root, err := Root()
	return proc.Command{
		Program: binary, Args: []string{"-conf", configuration}, Dir: root,
		Env: append([]string{
			"PODLINK_SERVER_HTTP_ADDR=127.0.0.1:0",
			"PODLINK_SERVER_GRPC_ADDR=127.0.0.1:0",
			"PODLINK_SERVER_ADMIN_ADDR=127.0.0.1:0",
		}, env...),
	}, err
}

// awaitListening waits until podlink listens, and reads the addresses from its log.
func (p *Process) awaitListening() (err error) {
	for server, addr := range map[string]*string{"HTTP": &p.HTTP, "gRPC": &p.GRPC, "admin": &p.Admin} {
		if *addr, err = p.Log.AwaitListening(server); err != nil {
			return err
		}
	}
	return nil
}

// OnRedis returns the environment that points podlink to a Redis. Mode is standalone, sentinel or cluster.
func OnRedis(mode string, addrs ...string) []string {
	return []string{"PODLINK_DATA_REDIS_MODE=" + mode, "PODLINK_DATA_REDIS_ADDRS=" + strings.Join(addrs, ",")}
}

// PID returns the id of the process.
func (p *Process) PID() int { return p.process.PID() }

// Ready returns the status and the reason of /readyz.
func (p *Process) Ready(tb testing.TB) (status int, reason string) {
	tb.Helper()
	status, reason, err := p.ready()
	require.NoError(tb, err)
	return status, reason
}

func (p *Process) ready() (status int, reason string, err error) {
	status, text, err := p.getAdmin("/readyz")
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
	for deadline := time.Now().Add(readyTimeout); ; time.Sleep(5 * time.Millisecond) {
		status, reason, err := p.ready()
		switch {
		case err != nil:
			return err
		case status == http.StatusOK:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("not ready within %s: %s", readyTimeout, reason)
		}
	}
}

// Metric returns the value of a metric without labels, such as go_goroutines.
func (p *Process) Metric(tb testing.TB, name string) float64 {
	tb.Helper()
	return p.Metrics(tb, name)[0]
}

// Metrics returns the values that metrics had at the same time.
func (p *Process) Metrics(tb testing.TB, names ...string) []float64 {
	tb.Helper()
	_, text, err := p.getAdmin("/metrics")
	require.NoError(tb, err)
	values := make([]float64, len(names))
	for i, name := range names {
		_, line, found := strings.Cut("\n"+text, "\n"+name+" ")
		require.Truef(tb, found, "no metric %s in:\n%s", name, text)
		value, _, _ := strings.Cut(line, "\n")
		values[i], err = strconv.ParseFloat(value, 64)
		require.NoError(tb, err)
	}
	return values
}

// getAdmin gets a path of the admin listener.
func (p *Process) getAdmin(path string) (status int, body string, err error) {
	response, err := p.admin.Get("http://" + p.Admin + path)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// Conn returns a new connection to the gRPC listener, which is closed with the test. It retries nothing by itself.
func (p *Process) Conn(tb testing.TB) *grpc.ClientConn {
	tb.Helper()
	conn, err := grpc.NewClient(p.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig())
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Stop sends SIGTERM, waits until the process has exited, and returns its exit code.
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

// Wait waits until a process that was told to stop has exited, and returns its exit code.
func (p *Process) Wait(tb testing.TB) int {
	tb.Helper()
	code, err := p.process.Wait(stopTimeout)
	require.NoError(tb, err)
	return code
}

// Kill ends the process as kill -9 does, and returns when it is gone.
func (p *Process) Kill() { p.process.Kill() }

// Freeze suspends the process, like a stalled machine: connections stay open, and nothing answers. It returns once every
// thread is suspended.
func (p *Process) Freeze() error { return p.process.Freeze() }

// Resume ends Freeze.
func (p *Process) Resume() error { return p.process.Resume() }
