package observability

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"podlink/test/kit/doors"
	podlinktest "podlink/test/kit/podlink"
)

// deployed returns the path of a file, given its path from the root of the repository.
func deployed(t *testing.T, path string) string {
	t.Helper()
	root, err := podlinktest.Root()
	require.NoError(t, err)
	return filepath.Join(root, path)
}

// rule is an alert or a recording rule.
type rule struct {
	Alert, Record, Expr string
	Annotations, Labels map[string]string
}

// rules returns the rules in a file of deploy/prometheus.
func rules(t *testing.T, file string) []rule {
	t.Helper()
	text, err := os.ReadFile(deployed(t, "deploy/prometheus/"+file))
	require.NoError(t, err)
	var content struct{ Groups []struct{ Rules []rule } }
	require.NoError(t, yaml.Unmarshal(text, &content))
	var all []rule
	for _, group := range content.Groups {
		all = append(all, group.Rules...)
	}
	require.NotEmpty(t, all)
	return all
}

// panelQueries returns the queries of the dashboard, with values for Grafana's variables.
func panelQueries(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(deployed(t, "deploy/grafana/podlink.json"))
	require.NoError(t, err)
	var dashboard any
	require.NoError(t, json.Unmarshal(text, &dashboard))
	var queries []string
	var walk func(node any)
	walk = func(node any) {
		switch v := node.(type) {
		case map[string]any:
			if expr, ok := v["expr"].(string); ok {
				queries = append(queries, strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*").Replace(expr))
			}
			for _, child := range v {
				walk(child)
			}
		case []any:
			for _, child := range v {
				walk(child)
			}
		}
	}
	walk(dashboard)
	require.Greater(t, len(queries), 20)
	return queries
}

// exported has the labels of every series that a podlink exports, by sample name.
type exported map[string][]map[string]string

// prometheusAdds are the labels that Prometheus adds to every series it scrapes.
var prometheusAdds = map[string]string{"job": "podlink", "instance": "127.0.0.1:8001"}

func parseMetrics(t *testing.T, text string) exported {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	require.NoError(t, err)
	e := exported{"up": {prometheusAdds}}
	for _, family := range families {
		e.addFamily(family)
	}
	return e
}

// addFamily records the series of a family.
func (e exported) addFamily(family *dto.MetricFamily) {
	for _, metric := range family.GetMetric() {
		labels := maps.Clone(prometheusAdds)
		for _, label := range metric.GetLabel() {
			labels[label.GetName()] = label.GetValue()
		}
		e.add(family.GetName(), family.GetType(), metric, labels)
	}
}

// add records the series of a metric.
func (e exported) add(name string, kind dto.MetricType, metric *dto.Metric, labels map[string]string) {
	with := func(label string, value float64) map[string]string {
		all := maps.Clone(labels)
		all[label] = fmt.Sprint(value)
		return all
	}
	switch kind {
	case dto.MetricType_HISTOGRAM:
		for _, bucket := range metric.GetHistogram().GetBucket() {
			e[name+"_bucket"] = append(e[name+"_bucket"], with("le", bucket.GetUpperBound()))
		}
	case dto.MetricType_SUMMARY:
		for _, quantile := range metric.GetSummary().GetQuantile() {
			e[name] = append(e[name], with("quantile", quantile.GetQuantile()))
		}
	default:
		e[name] = append(e[name], labels)
		return
	}
	e[name+"_sum"], e[name+"_count"] = append(e[name+"_sum"], labels), append(e[name+"_count"], labels)
}

var (
	queryText     = regexp.MustCompile(`"(\\.|[^"\\])*"`)
	querySelector = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{([^}]*)\}`)
	queryMatcher  = regexp.MustCompile(`(\w+)\s*(=~|!~|!=|=)\s*"((?:\\.|[^"\\])*)"`)
	queryGrouping = regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
	queryWord     = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*`)
	queryCall     = regexp.MustCompile(`[a-zA-Z_]+\s*\(`)
	queryRange    = regexp.MustCompile(`\[[^\]]*\]`)
	queryKeywords = []string{"and", "or", "unless", "offset", "bool", "by", "without"}
)

// check fails unless podlink exports every series that the query selects, with the labels and label values that it uses.
func (e exported) check(query string) error {
	var selected []string
	for _, selector := range querySelector.FindAllStringSubmatch(query, -1) {
		if err := e.checkSelector(selector[1], selector[2]); err != nil {
			return err
		}
		selected = append(selected, selector[1])
	}
	rest := querySelector.ReplaceAllString(query, "")
	rest = queryRange.ReplaceAllString(queryText.ReplaceAllString(rest, ""), "")
	groupings := queryGrouping.FindAllStringSubmatch(rest, -1)
	rest = queryCall.ReplaceAllString(queryGrouping.ReplaceAllString(rest, ""), "(")
	for _, name := range queryWord.FindAllString(rest, -1) {
		if slices.Contains(queryKeywords, name) {
			continue
		}
		if _, ok := e[name]; !ok {
			return fmt.Errorf("podlink exports no %s", name)
		}
		selected = append(selected, name)
	}
	if len(selected) == 0 {
		return errors.New("it selects nothing")
	}
	for _, grouping := range groupings {
		for _, label := range queryWord.FindAllString(grouping[2], -1) {
			if !slices.ContainsFunc(selected, func(name string) bool { return hasLabel(e[name], label) }) {
				return fmt.Errorf("nothing of %v has the label %s", selected, label)
			}
		}
	}
	return nil
}

func hasLabel(series []map[string]string, label string) bool {
	_, ok := series[0][label]
	return ok
}

// checkSelector fails unless a series has that name and matching labels.
func (e exported) checkSelector(name, matchers string) error {
	series, ok := e[name]
	if !ok {
		return fmt.Errorf("podlink exports no %s", name)
	}
	for _, matcher := range queryMatcher.FindAllStringSubmatch(matchers, -1) {
		label, operator, value := matcher[1], matcher[2], matcher[3]
		if !hasLabel(e[name], label) {
			return fmt.Errorf("%s has no label %s", name, label)
		}
		pattern := regexp.QuoteMeta(value)
		if strings.HasSuffix(operator, "~") {
			pattern = value
		}
		matches := regexp.MustCompile("^(?:" + pattern + ")$")
		series = slices.DeleteFunc(slices.Clone(series), func(labels map[string]string) bool {
			return matches.MatchString(labels[label]) == strings.HasPrefix(operator, "!")
		})
	}
	if len(series) == 0 {
		return fmt.Errorf("no series matches %s{%s}", name, matchers)
	}
	return nil
}

// TestQueriesAskForWhatIsExported: every metric, label and label value in a dashboard panel, an alert or a recording rule is
// exported by a podlink on which every operation has succeeded and failed.
func TestQueriesAskForWhatIsExported(t *testing.T) {
	s := startScripted(t)
	s.run(t)
	metrics := parseMetrics(t, s.metrics(t, "text/plain"))
	for _, family := range doors.Metrics(t) {
		if _, ok := metrics[family.GetName()]; !ok {
			metrics.addFamily(family)
		}
	}
	for _, wrong := range []string{
		`rate(podlink_absent_total[5m])`,
		`rate(podlink_absent_total{job="podlink"}[5m])`,
		`sum(podlink_store_ready{absent="1"})`,
		`podlink_pods{state="absent"}`,
		`podlink_store_errors_total{kind=~"absent|gone"}`,
		`server_requests_code_total{code!~"[0-9]+"}`,
		`sum by (absent) (podlink_store_ready)`,
		`server_requests_seconds_bucket{le="0.026"}`,
		`1 - podlink_store_ready / podlink_absent`,
	} {
		require.Error(t, metrics.check(wrong), wrong)
	}
	for _, rule := range rules(t, "podlink.rules.yml") {
		require.NoError(t, metrics.check(rule.Expr), rule.Record)
		labels := map[string]string{"job": "podlink"}
		for _, grouping := range queryGrouping.FindAllStringSubmatch(rule.Expr, -1) {
			for _, label := range queryWord.FindAllString(grouping[2], -1) {
				labels[label] = ""
			}
		}
		metrics[rule.Record] = []map[string]string{labels}
	}
	for _, rule := range rules(t, "podlink.alerts.yml") {
		require.NoError(t, metrics.check(rule.Expr), rule.Alert)
	}
	for _, query := range panelQueries(t) {
		require.NoError(t, metrics.check(query), query)
	}
}

// TestEveryAlertHasItsCases: promtool's tests, which make check-rules runs, have for each alert a case in which it fires and one
// in which it doesn't.
func TestEveryAlertHasItsCases(t *testing.T) {
	text, err := os.ReadFile(deployed(t, "deploy/prometheus/podlink.tests.yml"))
	require.NoError(t, err)
	var content struct {
		Tests []struct {
			Cases []struct {
				Alertname string
				Expected  []any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	require.NoError(t, yaml.Unmarshal(text, &content))
	fires, silent := make(map[string]bool), make(map[string]bool)
	for _, test := range content.Tests {
		for _, c := range test.Cases {
			if len(c.Expected) > 0 {
				fires[c.Alertname] = true
			} else {
				silent[c.Alertname] = true
			}
		}
	}
	for _, rule := range rules(t, "podlink.alerts.yml") {
		require.True(t, fires[rule.Alert], "%s: no case in which it fires", rule.Alert)
		require.True(t, silent[rule.Alert], "%s: no case in which it does not", rule.Alert)
	}
}

// TestEveryAlertHasItsPage: each alert has a severity, texts, and a runbook at its URL, and each runbook has an alert.
func TestEveryAlertHasItsPage(t *testing.T) {
	pages := []string{"README.md"}
	index, err := os.ReadFile(deployed(t, "docs/runbooks/README.md"))
	require.NoError(t, err)
	for _, rule := range rules(t, "podlink.alerts.yml") {
		page := rule.Alert + ".md"
		pages = append(pages, page)
		require.Equal(t, "docs/runbooks/"+page, rule.Annotations["runbook_url"])
		require.NotEmpty(t, rule.Annotations["summary"], rule.Alert)
		require.NotEmpty(t, rule.Annotations["description"], rule.Alert)
		require.Contains(t, []string{"critical", "warning"}, rule.Labels["severity"], rule.Alert)
		text, err := os.ReadFile(deployed(t, "docs/runbooks/"+page))
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(string(text), "# "+rule.Alert+"\n"), page)
		for _, part := range []string{"## What it means", "## How to check", "## What to do", "## What not to do"} {
			require.Contains(t, string(text), "\n"+part+"\n", page)
		}
		require.Contains(t, string(index), "("+page+")", "the index")
	}
	files, err := os.ReadDir(deployed(t, "docs/runbooks"))
	require.NoError(t, err)
	var names []string
	for _, file := range files {
		names = append(names, file.Name())
	}
	require.ElementsMatch(t, pages, names)
}
