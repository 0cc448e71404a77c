package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAuditFile: who moved which user is in a file that its owner alone can read, which is rotated as the log is, and has the last
// record when podlink stops.
func TestAuditFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	p := startBare(t, nil, "PODLINK_AUDIT_FILE="+path, "PODLINK_AUDIT_UID_KEY=a key of 16 bytes or more")
	set := func(reason string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPut,
			"http://"+p.http+"/v1/namespaces/game/links/anna/services/room", strings.NewReader(`{"podId":1}`))
		require.NoError(t, err)
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("X-Podlink-Reason", reason)
		response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusOK, response.StatusCode)
	}
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			return ""
		}
		return string(text)
	}
	set("first")
	require.Eventually(t, func() bool { return strings.Contains(read(path), `"reason":"first"}`) }, patience, time.Millisecond)
	require.NotContains(t, read(path), "anna")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())

	require.NoError(t, os.Rename(path, path+".1"))
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	require.Eventually(t, func() bool { _, err := os.Stat(path); return err == nil }, patience, time.Millisecond)
	set("last")
	p.stop(t)
	require.Equal(t, 1, strings.Count(read(path), "\n"))
	require.Contains(t, read(path), `"reason":"last"}`)
	require.NotContains(t, read(path+".1"), `"reason":"last"}`)
	require.Equal(t, 1, strings.Count(read(path)+read(path+".1"), `"outcome":"created"`))
}

// TestAuditFileThatCannotBeOpened: podlink does not run without the audit log that it was asked for.
func TestAuditFileThatCannotBeOpened(t *testing.T) {
	code, out := command(t, "-conf=", "PODLINK_AUDIT_FILE=/absent/audit.log", "PODLINK_SERVER_HTTP_ADDR=127.0.0.1:0",
		"PODLINK_SERVER_GRPC_ADDR=127.0.0.1:0", "PODLINK_SERVER_ADMIN_ADDR=127.0.0.1:0")
	require.Equal(t, 2, code, out)
	require.Equal(t, "podlink: configuration: audit.file: open /absent/audit.log: no such file or directory\n", out)
}
