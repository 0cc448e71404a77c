// Package prometheus starts real Prometheus processes for tests, on free ports of the loopback, and queries them. Without
// prometheus on the PATH the tests are skipped, except where the environment says CI=true: there they fail.
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

// StartLimit bounds how long Prometheus may take to start, or to stop.
const StartLimit = 20 * time.Second

// Server is a Prometheus process.
type Server struct{ url string }

// Start starts a Prometheus with the files, by their names, in its folder, and waits until it is ready. One of them is its
// configuration, prometheus.yml. Args are added to its own.
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
	tb.Cleanup(func() { // It is killed where that takes too long.
		http.DefaultClient.CloseIdleConnections()
		if process.Terminate() == nil {
			_, _ = process.Wait(StartLimit)
		}
	})
	s := &Server{url: "http://" + addr}
	require.Eventually(tb, s.ready, StartLimit, 100*time.Millisecond, "prometheus is not ready")
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

// ask returns the data that a path of Prometheus' API answers.
func (s *Server) ask(tb testing.TB, path string, data any) {
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

// Firing returns the names of the alerts that fire now, in order.
func (s *Server) Firing(tb testing.TB) []string {
	tb.Helper()
	var data struct {
		Alerts []struct {
			State  string
			Labels map[string]string
		}
	}
	s.ask(tb, "/api/v1/alerts", &data)
	names := make(map[string]bool)
	for _, alert := range data.Alerts {
		if alert.State == "firing" {
			names[alert.Labels["alertname"]] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Results returns how many series a query answers with now.
func (s *Server) Results(tb testing.TB, query string) int {
	tb.Helper()
	var data struct{ Result []any }
	s.ask(tb, "/api/v1/query?query="+url.QueryEscape(query), &data)
	return len(data.Result)
}
