//go:build alerts

package observability

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"podlink/test/kit/logwatch"
)

const (
	// shorter is by how much every window of the rules is shorter in the tests: five minutes are three seconds.
	shorter = 100
	// scrapeInterval is how often the tests' Prometheus asks podlink.
	scrapeInterval = 500 * time.Millisecond
	// pollInterval is how often the tests ask which alerts fire.
	pollInterval = 100 * time.Millisecond
	// prometheusLimit bounds how long Prometheus may take to start, or to stop.
	prometheusLimit = 20 * time.Second
)

// ruleDurations finds the durations in a file of rules.
var ruleDurations = regexp.MustCompile(`(\[|\b(?:for|interval):\s*|\boffset\s+)([0-9]+[smhd])`)

// shortened returns a file of rules with shorter windows.
func shortened(t *testing.T, text string) string {
	t.Helper()
	return ruleDurations.ReplaceAllStringFunc(text, func(found string) string {
		parts := ruleDurations.FindStringSubmatch(found)
		duration, err := model.ParseDuration(parts[2])
		require.NoError(t, err)
		return fmt.Sprintf("%s%dms", parts[1], (time.Duration(duration) / shorter).Milliseconds())
	})
}

// prometheus is a real one, that watches a podlink with the rules of deploy/prometheus in shorter windows.
type prometheus struct{ url string }

func startPrometheus(t *testing.T, target string) *prometheus {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{"prometheus.yml": fmt.Sprintf(`
global: {scrape_interval: %[1]dms, scrape_timeout: %[1]dms, evaluation_interval: %[1]dms}
rule_files: [podlink.rules.yml, podlink.alerts.yml]
scrape_configs:
  - job_name: podlink
    static_configs: [{targets: ["%[2]s"]}]
`, scrapeInterval.Milliseconds(), target)}
	for _, name := range []string{"podlink.rules.yml", "podlink.alerts.yml"} {
		text, err := os.ReadFile(deployed(t, "deploy/prometheus/"+name))
		require.NoError(t, err)
		files[name] = shortened(t, string(text))
	}
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	addr := freeAddr(t)

	lines, exited := new(logwatch.Log), make(chan struct{})
	cmd := exec.Command("prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr,
		"--query.lookback-delta=3s", "--log.level=warn")
	cmd.Stderr = lines
	require.NoError(t, cmd.Start())
	go func() {
		_ = cmd.Wait() // Whether it served is told by its answers.
		close(exited)
	}()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(prometheusLimit):
			_ = cmd.Process.Kill()
			<-exited
		}
		if t.Failed() {
			t.Logf("prometheus' log:\n%s", lines)
		}
	})
	p := &prometheus{url: "http://" + addr}
	require.Eventually(t, func() bool {
		response, err := http.Get(p.url + "/-/ready")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK
	}, prometheusLimit, pollInterval, "prometheus is not ready")
	return p
}

// freeAddr is an address of the loopback where nobody listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

// ask returns the data that a path of Prometheus' API answers.
func (p *prometheus) ask(t *testing.T, path string, data any) {
	t.Helper()
	response, err := http.Get(p.url + path)
	require.NoError(t, err)
	defer response.Body.Close()
	var body struct {
		Status, Error string
		Data          json.RawMessage
	}
	require.NoError(t, json.NewDecoder(response.Body).Decode(&body))
	require.Equal(t, "success", body.Status, body.Error)
	require.NoError(t, json.Unmarshal(body.Data, data))
}

// firing returns the alerts that fire now.
func (p *prometheus) firing(t *testing.T) []string {
	t.Helper()
	var data struct {
		Alerts []struct {
			State  string
			Labels map[string]string
		}
	}
	p.ask(t, "/api/v1/alerts", &data)
	names := make(map[string]bool)
	for _, alert := range data.Alerts {
		if alert.State == "firing" {
			names[alert.Labels["alertname"]] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// results returns how many series a query answers with now.
func (p *prometheus) results(t *testing.T, query string) int {
	t.Helper()
	var data struct{ Result []any }
	p.ask(t, "/api/v1/query?query="+url.QueryEscape(query), &data)
	return len(data.Result)
}

// TestShortenedRulesAreRules: what the other tests run is what deploy/ ships, but for the windows.
func TestShortenedRulesAreRules(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"podlink.rules.yml", "podlink.alerts.yml"} {
		text, err := os.ReadFile(deployed(t, "deploy/prometheus/"+name))
		require.NoError(t, err)
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, []byte(shortened(t, string(text))), 0o600))
		out, err := exec.Command("promtool", "check", "rules", file).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	require.Equal(t, "sum(rate(a:rate5m[3000ms])) for: 600ms interval: 150ms offset 36000ms",
		shortened(t, "sum(rate(a:rate5m[5m])) for: 1m interval: 15s offset 1h"))
}
