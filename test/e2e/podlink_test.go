// Package e2e tests the podlink binary from outside, as its users run it.
package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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
	log               *output
	started           time.Time
	http, grpc, admin string // addresses
	exited            chan struct{}
}

// start runs podlink with the shipped configuration on free ports, and waits until it listens. Env overrides keys.
func start(t *testing.T, env ...string) *process {
	t.Helper()
	p := &process{log: new(output), exited: make(chan struct{})}
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
	p.http = p.listening(t, `\[HTTP\]`)
	p.grpc = p.listening(t, `\[gRPC\]`)
	p.admin = p.listening(t, `\[admin\]`)
	return p
}

// listening waits for the line that tells where a server listens.
func (p *process) listening(t *testing.T, server string) string {
	t.Helper()
	line := regexp.MustCompile(server + ` server listening on: ([0-9.:]+)`)
	var found []string
	require.Eventually(t, func() bool {
		found = line.FindStringSubmatch(p.log.String())
		return found != nil
	}, 10*time.Second, time.Millisecond, "no line %q in:\n%s", line, p.log)
	return found[1]
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

// output collects what a process writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
