// Package e2e tests the podlink binary from outside, as its users run it.
package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/test/logwatch"
)

// root is the top of the repository, as seen from this package.
const root = "../.."

// binary is podlink, built by the target that users call.
var binary string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "podlink-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "podlink")
	build := exec.Command("make", "build", "BINARY="+binary, "VERSION=v1.2.3-test")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "make build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// process is a running podlink.
type process struct {
	cmd               *exec.Cmd
	log               *logwatch.Log
	started           time.Time
	http, grpc, admin string // addresses
	exited            chan struct{}
}

// start runs podlink with the shipped configuration on free ports, and waits until it listens. Env overrides keys.
func start(t *testing.T, env ...string) *process {
	t.Helper()
	p := &process{log: new(logwatch.Log), exited: make(chan struct{})}
	p.cmd = exec.Command(binary, "-conf", "configs/config.yaml")
	p.cmd.Dir = root
	p.cmd.Stderr = p.log
	p.cmd.Env = append(os.Environ(),
		"PODLINK_SERVER_HTTP_ADDR=127.0.0.1:0", "PODLINK_SERVER_GRPC_ADDR=127.0.0.1:0", "PODLINK_SERVER_ADMIN_ADDR=127.0.0.1:0")
	p.cmd.Env = append(p.cmd.Env, env...)
	p.started = time.Now()
	require.NoError(t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait() // The tests look at ProcessState.
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("podlink's log:\n%s", p.log)
		}
	})
	p.http = p.log.Listening(t, "HTTP")
	p.grpc = p.log.Listening(t, "gRPC")
	p.admin = p.log.Listening(t, "admin")
	return p
}

// ready asks /readyz, and returns the status and the reason.
func (p *process) ready(t *testing.T) (int, string) {
	t.Helper()
	response, err := http.Get("http://" + p.admin + "/readyz")
	require.NoError(t, err)
	defer response.Body.Close()
	var body struct{ Status, Reason string }
	require.NoError(t, json.NewDecoder(response.Body).Decode(&body))
	return response.StatusCode, body.Reason
}

// stop sends SIGTERM and returns the exit code.
func (p *process) stop(t *testing.T) int {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-p.exited:
	case <-time.After(20 * time.Second):
		require.Fail(t, "podlink does not stop")
	}
	return p.cmd.ProcessState.ExitCode()
}
