//go:build alerts

package observability

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	podlinktest "podlink/test/kit/podlink"
	"podlink/test/kit/proc"
)

// exampleTimeout bounds deploy/observability/start.sh, which waits for five scrapes at an interval of 5 s.
const exampleTimeout = 2 * time.Minute

// runExample runs deploy/observability/start.sh with a Prometheus at that address, and returns its output and exit code.
func runExample(t *testing.T, prometheusAddr string, args ...string) (output string, code int) {
	t.Helper()
	_, port, err := net.SplitHostPort(prometheusAddr)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), exampleTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, deployed(t, "deploy/observability/start.sh"), args...)
	cmd.Env = append(os.Environ(), "PROMETHEUS_PORT="+port, "TMPDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		require.NoError(t, err, "%s", out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// TestExample: the README's example prints the state of a podlink, and leaves no process or file behind.
func TestExample(t *testing.T) {
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	p, addr := podlinktest.Start(t, binary), proc.FreeAddr(t)
	p.WaitReady(t)
	calling, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for calling.Err() == nil {
			for _, call := range httpCalls {
				callHTTP(t, p, call.method, call.path, call.body, "")
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
	output, code := runExample(t, addr, "--once", "--admin", p.Admin)
	stop()
	<-ended
	require.Zero(t, code, output)
	require.Regexp(t, `(?s)requests per second, by operation\n +\w+ +\d+\.\d+ /s\n.*ComputeLinkedPod +\d`, output)
	require.Regexp(t, `error ratio, without NO_AVAILABLE_POD\n +0\.000 %\n`, output)
	require.Regexp(t, `p99 latency, by operation\n +\w+ +\d+\.\d+ ms\n`, output)
	require.Contains(t, output, "store ready\n  yes\n")
	require.Regexp(t, `(?s)links by outcome, since podlink started\n.*created +\d+\n`, output)
	require.Regexp(t, `(?s)pods by state\n.*live +\d\n`, output)
	require.NotContains(t, output, "no data")
	_, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", addr)
	require.Error(t, err, "Prometheus still listens")
}

func TestExampleSaysWhatIsWrong(t *testing.T) {
	for name, row := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no podlink":       {[]string{"--once", "--admin", proc.FreeAddr(t)}, 1, "podlink does not answer"},
		"no address":       {[]string{"--admin", "nonsense"}, 2, "not HOST:PORT: nonsense"},
		"unknown argument": {[]string{"--twice"}, 2, "unknown argument: --twice"},
		"help":             {[]string{"--help"}, 0, "usage: start.sh"},
	} {
		t.Run(name, func(t *testing.T) {
			output, code := runExample(t, proc.FreeAddr(t), row.args...)
			require.Equal(t, row.code, code, output)
			require.Contains(t, output, row.want)
		})
	}
}
