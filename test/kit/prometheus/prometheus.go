// Package prometheus starts real Prometheus processes for tests, and queries them. Without prometheus on PATH tests are
// skipped; with CI=true they fail instead.
package prometheus

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/test/kit/proc"
)

// StartTimeout bounds how long Prometheus may take to start or stop.
const StartTimeout = 20 * time.Second

// Server is a Prometheus process.
type Server struct{ url string }

// Start starts a Prometheus on a free port and waits until it is ready. Files, by name, are written to its directory; one of
// them must be prometheus.yml, its configuration. Args are additional flags.
func Start(tb testing.TB, files map[string]string, args ...string) *Server {
	tb.Helper()
	proc.Need(tb, "prometheus", "prometheus")
	dir, addr := tb.TempDir(), proc.FreeAddr(tb)
	for name, text := range files {
		require.NoError(tb, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	process := proc.Start(tb, proc.Command{Program: "prometheus", Args: append([]string{
		"--config.file=" + filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path=" + filepath.Join(dir, "data"),
		"--web.listen-address=" + addr, "--log.level=warn",
	}, args...)})
	tb.Cleanup(func() { // If this takes too long, proc kills the process.
		http.DefaultClient.CloseIdleConnections()
		if process.Terminate() == nil {
			_, _ = process.Wait(StartTimeout)
		}
	})
	s := &Server{url: "http://" + addr}
	require.Eventually(tb, s.ready, StartTimeout, 100*time.Millisecond, "prometheus is not ready")
	return s
}

func (s *Server) ready() bool {
	response, err := http.Get(s.url + "/-/ready")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// get reads the data of a path of Prometheus' HTTP API.
func (s *Server) get(tb testing.TB, path string, data any) {
	tb.Helper()
	response, err := http.Get(s.url + path)
	require.NoError(tb, err)
	defer response.Body.Close()
	var body struct {
		Status, Error string
		Data          json.RawMessage
	}
	require.NoError(tb, json.NewDecoder(response.Body).Decode(&body))
	require.Equal(tb, "success", body.Status, body.Error)
	require.NoError(tb, json.Unmarshal(body.Data, data))
}

// Firing returns the names of the firing alerts, sorted.
func (s *Server) Firing(tb testing.TB) []string {
	tb.Helper()
	var data struct {
		Alerts []struct {
			State  string
			Labels map[string]string
		}
	}
	s.get(tb, "/api/v1/alerts", &data)
	names := make(map[string]bool)
	for _, alert := range data.Alerts {
		if alert.State == "firing" {
			names[alert.Labels["alertname"]] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Results returns how many series a query returns.
func (s *Server) Results(tb testing.TB, query string) int {
	tb.Helper()
	var data struct{ Result []any }
	s.get(tb, "/api/v1/query?query="+url.QueryEscape(query), &data)
	return len(data.Result)
}
