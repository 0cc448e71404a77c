package api

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"podlink/internal/conf"
	consultest "podlink/test/kit/consul"
	"podlink/test/kit/doors"
	redistest "podlink/test/kit/redis"
)

// scrape returns podlink's own metrics, by name.
func (a *testApp) scrape(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	response, err := http.Get(a.admin + "/metrics")
	require.NoError(t, err)
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	require.NoError(t, err)
	for name := range families {
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			delete(families, name)
		}
	}
	return families
}

// metricWith returns the metric with the given labels, as name and value pairs, or nil. It may have other labels too.
func metricWith(family *dto.MetricFamily, labels ...string) *dto.Metric {
	for _, metric := range family.GetMetric() {
		has := true
		for i := 0; i < len(labels); i += 2 {
			has = has && slices.ContainsFunc(metric.GetLabel(), func(l *dto.LabelPair) bool {
				return l.GetName() == labels[i] && l.GetValue() == labels[i+1]
			})
		}
		if has {
			return metric
		}
	}
	return nil
}

// TestPodsAreCountedWhenTheyReport: a report is enough, without any computed link.
func TestPodsAreCountedWhenTheyReport(t *testing.T) {
	a := startApp(t)
	report := func(ttl string) {
		code, body := a.do(t, http.MethodPut, "/v1/namespaces/ns/services/svc/pods/0", `{"state":"up","ttlSeconds":`+ttl+`}`)
		require.Equal(t, http.StatusOK, code, body)
	}
	pods := func(state string) float64 {
		return metricWith(a.scrape(t)["podlink_pods"], "state", state).GetGauge().GetValue()
	}
	silent := func() float64 { return a.scrape(t)["podlink_pod_services_silent"].GetMetric()[0].GetGauge().GetValue() }
	report("600")
	require.EqualValues(t, 1, pods("live"))
	require.EqualValues(t, 0, pods("in_doubt"))
	require.Zero(t, silent())
	report("1")
	alone := func() bool { return pods("in_doubt") == 1 && pods("live") == 0 && silent() == 1 }
	require.Eventually(t, alone, 20*time.Second, 50*time.Millisecond)
	require.Zero(t, pods("dead"), "no other pod was heard")
}

// TestMetrics: docs/metrics.md lists exactly the exported metrics, with type and labels; the store's metrics match the calls made.
func TestMetrics(t *testing.T) {
	redis := redistest.Start(t)
	agent := consultest.Start(t)
	a := startApp(t, onRedis(redis), func(c *conf.Bootstrap) {
		c.Registry.Type, c.Registry.Addrs = conf.RegistryConsul, []string{agent.Addr}
	})
	const (
		service = "/v1/namespaces/ns-secret/services/svc-secret"
		link    = "/v1/namespaces/ns-secret/links/user-secret/services/svc-secret"
	)
	shared := func() float64 {
		return a.scrape(t)["podlink_store_batch_commands"].GetMetric()[0].GetHistogram().GetSampleSum()
	}
	const times = 30   // More than podlink calls the store by itself in the meantime.
	before := shared() // Scripts of the self-test.
	for _, call := range []struct{ method, path, body string }{
		{http.MethodPut, link, `{"podId":1}`},
		{http.MethodGet, link, ""},
		{http.MethodPost, service + "/links:batchGet", `{"uids":["user-secret"]}`},
	} {
		for range times {
			code, body := a.do(t, call.method, call.path, call.body)
			require.Equal(t, http.StatusOK, code, body)
		}
	}
	families := a.scrape(t)
	for _, command := range []string{"statefulSetLink", "HGET", "pipeline"} {
		metric := metricWith(families["podlink_store_seconds"], "command", command)
		require.GreaterOrEqual(t, metric.GetHistogram().GetSampleCount(), uint64(times), command)
	}
	require.GreaterOrEqual(t, shared()-before, 2.0*times, "the script and HGET were not coalesced")
	require.Less(t, shared()-before, 3.0*times, "the items of a batch go apart")
	for _, metric := range families["podlink_store_errors_total"].GetMetric() {
		require.Zero(t, metric.GetCounter().GetValue(), metric)
	}
	a.log.Wait(t, "podlink is registered")
	require.EqualValues(t, 1, a.scrape(t)["podlink_registered"].GetMetric()[0].GetGauge().GetValue())
	require.EqualValues(t, 1, families["podlink_store_ready"].GetMetric()[0].GetGauge().GetValue())
	last := families["podlink_store_last_success_timestamp_seconds"].GetMetric()[0].GetGauge().GetValue()
	require.InDelta(t, time.Now().Unix(), last, 10)
	for _, name := range []string{"podlink_store_waiting_calls", "podlink_store_round_trips"} { // The feed calls the store, too.
		idle := func() bool { return a.scrape(t)[name].GetMetric()[0].GetGauge().GetValue() == 0 }
		require.Eventually(t, idle, 10*time.Second, 10*time.Millisecond, name)
	}
	require.Positive(t, families["podlink_redis_pool_conn_total_current"].GetMetric()[0].GetGauge().GetValue())

	for _, call := range []struct{ method, path, body string }{ // What reports and computes might leave in a label.
		{http.MethodPut, service + "/pods/1", `{"state":"state-secret"}`},
		{http.MethodPost, link + ":compute", `{}`},
	} {
		code, body := a.do(t, call.method, call.path, call.body)
		require.Equal(t, http.StatusOK, code, body)
	}
	redis.Kill()
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		code, _ := a.do(t, method, link, "")
		require.Equal(t, http.StatusServiceUnavailable, code)
	}
	families = a.scrape(t)
	for _, command := range []string{"HGET", "statefulRemoveLink"} {
		metric := metricWith(families["podlink_store_errors_total"], "command", command, "kind", "unavailable")
		require.EqualValues(t, 1, metric.GetCounter().GetValue(), command)
	}

	page, err := os.ReadFile("../../docs/metrics.md")
	require.NoError(t, err)
	want := make(map[string]string)
	rows := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (counter|gauge|histogram) \\|([^|]*)\\|")
	for _, row := range rows.FindAllStringSubmatch(string(page), -1) {
		labels := regexp.MustCompile(`\w+`).FindAllString(row[3], -1)
		slices.Sort(labels)
		want[row[1]] = row[2] + " " + strings.Join(labels, " ")
	}
	for _, family := range doors.Metrics(t) { // Most of them need a configuration of their own.
		if families[family.GetName()] == nil {
			families[family.GetName()] = family
		}
	}
	got := make(map[string]string)
	for name, family := range families {
		var labels []string
		for _, label := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, label.GetName())
		}
		for _, metric := range family.GetMetric() {
			require.NotContains(t, fmt.Sprint(metric.GetLabel()), "secret", name)
		}
		slices.Sort(labels)
		got[name] = strings.ToLower(family.GetType().String()) + " " + strings.Join(labels, " ")
	}
	require.Equal(t, want, got, "docs/metrics.md lists what podlink exports")
}
