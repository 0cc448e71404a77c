package server

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/audit"
	"podlink/internal/conf"
	"podlink/internal/telemetry"
	"podlink/test/kit/logwatch"
)

// healthyStore is a store that is always usable.
type healthyStore struct{}

// Last implements Checker.
func (healthyStore) Last(context.Context) error { return nil }

// get returns status and body of a GET.
func get(t *testing.T, server *httptest.Server, path string) (int, []byte) {
	t.Helper()
	response, err := server.Client().Get(server.URL + path)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, body
}

// newAdmin returns an admin listener with that audit log; nil: none.
func newAdmin(t *testing.T, p parts, audited *audit.Log) *AdminServer {
	t.Helper()
	metrics, err := NewMetrics(nil)
	require.NoError(t, err)
	return NewAdminServer(AdminOptions{
		Server: p.config, Connections: NewConnections(p.config, nil), Store: healthyStore{}, Drain: p.drain, Metrics: metrics, Level: p.level,
		Audit: audited, Logger: p.logger,
	})
}

// serveAdmin serves the admin listener's handler, with a write timeout shorter than the duration of a profile.
func serveAdmin(t *testing.T, p parts) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.Config = newAdmin(t, p, nil).server
	server.Config.WriteTimeout = 500 * time.Millisecond
	server.Start()
	t.Cleanup(server.Close)
	return server
}

var profiles = []string{
	"", "profile?seconds=1", "trace?seconds=1", "symbol", "heap", "goroutine", "allocs", "block", "mutex", "threadcreate",
}

func TestProfilesAreOffByDefault(t *testing.T) {
	admin := serveAdmin(t, newParts(t))
	for _, name := range append(profiles, "cmdline") {
		code, _ := get(t, admin, "/debug/pprof/"+name)
		require.Equal(t, http.StatusNotFound, code, name)
	}
}

func TestProfiles(t *testing.T) {
	p, lines := newParts(t), new(logwatch.Log)
	p.config.Admin.Pprof = true
	p.logger = telemetry.NewLogger(&conf.Log{Format: "json"}, p.level, lines)
	admin, api := serveAdmin(t, p), httptest.NewServer(p.http())
	t.Cleanup(api.Close)
	require.Contains(t, lines.String(), "server.admin.pprof is on")
	for _, name := range profiles {
		code, body := get(t, admin, "/debug/pprof/"+name)
		require.Equal(t, http.StatusOK, code, name)
		require.NotEmpty(t, body, name)
		if name != "" && name != "trace?seconds=1" && name != "symbol" {
			require.Equal(t, "\x1f\x8b", string(body[:2]), "%s is not gzipped, as profiles are", name)
		}
		code, _ = get(t, api, "/debug/pprof/"+name)
		require.Equal(t, http.StatusNotFound, code, "%s on the API's listener", name)
	}
	code, _ := get(t, admin, "/debug/pprof/cmdline")
	require.Equal(t, http.StatusNotFound, code, "the command line is not exposed")
}
