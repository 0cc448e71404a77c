package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	podlinktest "podlink/test/kit/podlink"
	"podlink/test/kit/proc"
	redistest "podlink/test/kit/redis"
)

// patience bounds what happens soon on an idle machine.
const patience = 20 * time.Second

// bare is a podlink whose standard error the test has in its hands.
type bare struct {
	http, admin string
	cmd         *exec.Cmd
	exited      chan struct{}
}

// startBare runs podlink until the test ends.
func startBare(t *testing.T, stderr *os.File, env ...string) *bare {
	t.Helper()
	p := &bare{http: proc.FreeAddr(t), admin: proc.FreeAddr(t), cmd: exec.Command(binary), exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), append([]string{
		"PODLINK_SERVER_HTTP_ADDR=" + p.http, "PODLINK_SERVER_GRPC_ADDR=127.0.0.1:0", "PODLINK_SERVER_ADMIN_ADDR=" + p.admin,
		"PODLINK_SERVER_STOP_DRAIN=0s", "PODLINK_LOG_LEVEL=debug", "PODLINK_LOG_REPEAT_INTERVAL=0s",
	}, env...)...)
	p.cmd.Stderr = stderr
	require.NoError(t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait() // The exit code is in the ProcessState.
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // It may have exited.
		<-p.exited
	})
	require.Eventually(t, func() bool {
		code, _, err := p.get(p.admin, "/readyz")
		return err == nil && code == http.StatusOK
	}, patience, 5*time.Millisecond, "podlink is not ready")
	return p
}

// get gets a path, on a new connection.
func (p *bare) get(addr, path string) (code int, body string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// logLines makes podlink log at least n lines of refused requests.
func (p *bare) logLines(t *testing.T, n int) {
	t.Helper()
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: 5 * time.Second}
			defer client.CloseIdleConnections()
			for range n/4 + 1 {
				response, err := client.Get("http://" + p.http + "/v1/namespaces/%7B/links/u/services/s")
				if err != nil {
					t.Errorf("a call failed: %v", err)
					return
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
			}
		})
	}
	callers.Wait()
}

func (p *bare) dropped(t *testing.T) int {
	t.Helper()
	_, text, err := p.get(p.admin, "/metrics")
	require.NoError(t, err)
	found := regexp.MustCompile(`(?m)^podlink_log_lines_dropped_total (\S+)$`).FindStringSubmatch(text)
	require.NotNil(t, found)
	n, err := strconv.ParseFloat(found[1], 64)
	require.NoError(t, err)
	return int(n)
}

// stop sends SIGTERM, and requires exit code 0.
func (p *bare) stop(t *testing.T) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-p.exited:
	case <-time.After(patience):
		require.Fail(t, "podlink does not stop")
	}
	require.Equal(t, 0, p.cmd.ProcessState.ExitCode())
}

// fullPipe returns a pipe that is full.
func fullPipe(t *testing.T) (reader, writer *os.File) {
	t.Helper()
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = reader.Close()
		_ = writer.Close()
	})
	require.NoError(t, writer.SetWriteDeadline(time.Now().Add(50*time.Millisecond)))
	_, err = writer.Write(bytes.Repeat([]byte("x"), 16<<20))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	return reader, writer
}

// TestLogThatIsNotRead: a log pipe that is full from the start on holds up no call, no probe, no scrape and no stop. What is
// dropped is counted, and logged once the pipe is read.
func TestLogThatIsNotRead(t *testing.T) {
	reader, writer := fullPipe(t)
	p := startBare(t, writer)
	require.Eventually(t, func() bool {
		p.logLines(t, 2000)
		return p.dropped(t) > 0
	}, 60*time.Second, time.Millisecond, "nothing is dropped")
	code, _, err := p.get(p.admin, "/readyz")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, code)

	var log strings.Builder
	var mu sync.Mutex
	var reading sync.WaitGroup
	reading.Go(func() {
		buffer := make([]byte, 64<<10)
		for {
			n, err := reader.Read(buffer)
			mu.Lock()
			log.Write(buffer[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	text := func() string {
		mu.Lock()
		defer mu.Unlock()
		return log.String()
	}
	require.Eventually(t, func() bool { return strings.Contains(text(), "log lines were dropped: ") }, patience, 10*time.Millisecond)
	p.stop(t)
	require.NoError(t, writer.Close())
	reading.Wait()
	require.Contains(t, text(), "[HTTP] server stopping", "the last lines are written at the stop")
	require.Contains(t, text(), `"msg":"podlink starts"`, "and so are the first ones")
}

// TestStopWhileTheLogIsNotRead: it waits for the log no longer than a second.
func TestStopWhileTheLogIsNotRead(t *testing.T) {
	_, writer := fullPipe(t)
	startBare(t, writer).stop(t)
}

// TestLogWhoseReaderIsGone: podlink serves on, and stops as always.
func TestLogWhoseReaderIsGone(t *testing.T) {
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	p := startBare(t, writer)
	require.NoError(t, writer.Close())
	require.NoError(t, reader.Close())
	p.logLines(t, 10)
	require.Eventually(t, func() bool { return p.dropped(t) >= 10 }, patience, 10*time.Millisecond)
	p.stop(t)
}

// TestHangup: SIGHUP ends nothing. It opens the log file again, if there is one.
func TestHangup(t *testing.T) {
	p := start(t)
	require.NoError(t, syscall.Kill(p.PID(), syscall.SIGHUP))
	p.Log.Wait(t, "SIGHUP has no effect: neither log.file nor audit.file is set")
	p.WaitReady(t)

	path := filepath.Join(t.TempDir(), "podlink.log")
	reads := func(path, want string) func() bool {
		return func() bool {
			text, err := os.ReadFile(path)
			return err == nil && strings.Contains(string(text), want)
		}
	}
	inFile := startBare(t, nil, "PODLINK_LOG_FILE="+path)
	require.Eventually(t, reads(path, `"msg":"podlink starts"`), patience, time.Millisecond)
	require.NoError(t, os.Rename(path, path+".1"))
	require.NoError(t, inFile.cmd.Process.Signal(syscall.SIGHUP))
	require.Eventually(t, reads(path, "SIGHUP: log.file was opened again"), patience, time.Millisecond)
	inFile.stop(t)
	require.True(t, reads(path, "server stopping")())
	require.False(t, reads(path+".1", "server stopping")())
}

// TestFirstLine: one line says what runs.
func TestFirstLine(t *testing.T) {
	first, _, _ := strings.Cut(start(t).Log.String(), "\n")
	for _, want := range []string{
		`"msg":"podlink starts"`, `"version":"` + podlinktest.Version + `"`, `"store":"embedded"`, `"http":"127.0.0.1:0"`,
		`"grpc":"127.0.0.1:0"`, `"admin":"127.0.0.1:0"`, `"registry":"none"`,
	} {
		require.Contains(t, first, want)
	}
}

// command runs podlink with an argument, and returns the exit code and its output.
func command(t *testing.T, argument string, env ...string) (code int, out string) {
	t.Helper()
	cmd := exec.Command(binary, argument)
	cmd.Env = append(os.Environ(), env...)
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	require.True(t, err == nil || errors.As(err, &exit), err)
	return cmd.ProcessState.ExitCode(), string(text)
}

// TestHealth: podlink -health needs no shell and no curl.
func TestHealth(t *testing.T) {
	redis := redistest.Start(t)
	addr := proc.FreeAddr(t)
	_, port, _ := strings.Cut(addr, ":")
	p := start(t, append(onRedis(redis), "PODLINK_SERVER_ADMIN_ADDR="+addr)...)
	p.WaitReady(t)
	admin := []string{
		"PODLINK_SERVER_ADMIN_ADDR=0.0.0.0:" + port, "PODLINK_DATA_REDIS_ALLOW_EMBEDDED=true",
		"http_proxy=http://127.0.0.1:1", "HTTP_PROXY=http://127.0.0.1:1",
	}
	code, out := command(t, "-health", admin...)
	require.Equal(t, "ready\n", out)
	require.Equal(t, 0, code)

	redis.Kill()
	require.Eventually(t, func() bool {
		code, out = command(t, "-health", admin...)
		return code == 1
	}, patience, 50*time.Millisecond)
	require.Regexp(t, `^not ready: redis does not answer: [^\n]+\n$`, out)

	require.NoError(t, p.Freeze())
	code, out = command(t, "-health", admin...)
	require.NoError(t, p.Resume())
	require.Equal(t, 1, code)
	require.Equal(t, "not ready: no answer from 127.0.0.1:"+port+" (server.admin.addr) within 2s\n", out)

	p.Kill()
	code, out = command(t, "-health", admin...)
	require.Equal(t, 1, code)
	require.Equal(t, "not ready: no podlink answers at 127.0.0.1:"+port+" (server.admin.addr)\n", out)
	code, out = command(t, "-health", "PODLINK_SERVER_ADMIN_ADDR=127.0.0.1:0")
	require.Equal(t, 1, code)
	require.Contains(t, out, "not ready: the port of server.admin.addr is 0")
}

// TestCheck: podlink -check prints the configuration in force, and opens nothing.
func TestCheck(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(secret, []byte("hunter2\n"), 0o600))
	code, out := command(t, "-check", "PODLINK_DATA_REDIS_MODE=standalone", "PODLINK_DATA_REDIS_ADDRS=192.0.2.1:6379",
		"PODLINK_DATA_REDIS_PASSWORD_FILE="+secret, "PODLINK_SERVER_HTTP_ADDR=192.0.2.1:80", "PODLINK_AUTH_ALLOW_INSECURE=true",
		"PODLINK_LOG_FILE=/absent/log")
	require.Equal(t, 0, code, out)
	require.Contains(t, out, "    mode: standalone\n    addrs:\n      - 192.0.2.1:6379\n")
	require.Contains(t, out, `password: "***"`)
	require.NotContains(t, out, "hunter2")

	path := filepath.Join(t.TempDir(), "printed.yaml")
	require.NoError(t, os.WriteFile(path, []byte(out), 0o600))
	cmd := exec.Command(binary, "-check", "-conf", path)
	refused, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(refused), "data.redis.password is ***")
	cmd = exec.Command(binary, "-check", "-conf", path)
	cmd.Env = append(os.Environ(), "PODLINK_DATA_REDIS_PASSWORD_FILE="+secret)
	again, err := cmd.Output()
	require.NoError(t, err)
	require.Equal(t, out, string(again), "with its secrets it is a file for -conf")
}

// TestBadCertificateFile: a file that can't be used is an error of the configuration, for a start and for -check.
func TestBadCertificateFile(t *testing.T) {
	for _, argument := range []string{"-check", "-conf="} {
		code, out := command(t, argument, "PODLINK_DATA_REDIS_MODE=standalone", "PODLINK_DATA_REDIS_TLS_ENABLED=true",
			"PODLINK_DATA_REDIS_TLS_CA_FILE=/etc/hostname")
		require.Equal(t, 2, code, out)
		require.Equal(t, "podlink: configuration: data.redis.tls.ca_file: no PEM certificate in the file\n", out)
	}
}
