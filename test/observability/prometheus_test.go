//go:build alerts

package observability

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	prometheustest "podlink/test/kit/prometheus"
)

const (
	// shorter divides every window of the rules in the tests: five minutes become three seconds.
	shorter = 100
	// scrapeInterval is the scrape interval of the tests' Prometheus.
	scrapeInterval = 500 * time.Millisecond
	// pollInterval is the interval at which the tests poll the firing alerts.
	pollInterval = 100 * time.Millisecond
)

// ruleDurations matches the durations in a file of rules.
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

// startPrometheus starts a Prometheus that scrapes a podlink, with the rules of deploy/prometheus in shorter windows.
func startPrometheus(t *testing.T, target string) *prometheustest.Server {
	t.Helper()
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
	return prometheustest.Start(t, files, "--query.lookback-delta=3s")
}

// TestShortenedRulesAreRules: the tests use the rules that deploy/ ships, except for the durations.
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
