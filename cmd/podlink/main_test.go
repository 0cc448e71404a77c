package main

import (
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRun checks exit codes. The e2e tests check the output of the binary.
func TestRun(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "config.yaml")
	require.NoError(t, os.WriteFile(bad, []byte("servers: {}"), 0o600))
	good := filepath.Join(t.TempDir(), "config.yaml")
	require.NoError(t, os.WriteFile(good, []byte(`server: {admin: {addr: "127.0.0.1:0"}}`), 0o600))
	for name, row := range map[string]struct {
		args []string
		code int
	}{
		"version":        {[]string{"-version"}, 0},
		"help":           {[]string{"-h"}, 0},
		"unknown flag":   {[]string{"-verbose"}, 2},
		"argument":       {[]string{"serve"}, 2},
		"bad config":     {[]string{"-conf", bad}, 2},
		"two commands":   {[]string{"-check", "-health"}, 2},
		"check":          {[]string{"-conf", good, "-check"}, 0},
		"bad to check":   {[]string{"-conf", bad, "-check"}, 2},
		"bad to health":  {[]string{"-conf", bad, "-health"}, 1},
		"no port":        {[]string{"-conf", good, "-health"}, 1},
		"missing config": {[]string{"-conf", bad + ".missing"}, 2},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, row.code, run(row.args)) })
	}
}

func TestRunServesUntilASignal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	require.NoError(t, os.WriteFile(path, []byte(`
server:
  http: {addr: "127.0.0.1:0"}
  grpc: {addr: "127.0.0.1:0"}
  admin: {addr: "127.0.0.1:0"}
  stop: {drain: 0s}
log: {level: error}
`), 0o600))
	// Catch the signal, so that it does not kill the test before podlink handles it.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGTERM)
	defer signal.Stop(caught)
	code := make(chan int, 1)
	go func() { code <- run([]string{"-conf", path}) }()
	require.Eventually(t, func() bool {
		require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGTERM))
		select {
		case got := <-code:
			require.Equal(t, 0, got)
			return true
		default:
			return false
		}
	}, 10*time.Second, 50*time.Millisecond, "podlink did not stop")
}

func TestRunFailsWhenItCannotListen(t *testing.T) {
	t.Setenv("PODLINK_SERVER_HTTP_ADDR", "192.0.2.1:80") // Not an address of this machine: RFC 5737.
	t.Setenv("PODLINK_DATA_REDIS_ALLOW_EMBEDDED", "true")
	t.Setenv("PODLINK_AUTH_ALLOW_INSECURE", "true")
	t.Setenv("PODLINK_SERVER_GRPC_ADDR", "127.0.0.1:0")
	t.Setenv("PODLINK_SERVER_ADMIN_ADDR", "127.0.0.1:0")
	require.Equal(t, 1, run(nil))
}
