package observability

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	otlptest "podlink/test/kit/otlp"
)

// TestNothingSecretIsTold: after every operation has succeeded and failed in every way, the log at its most verbose, the traces
// and the metrics contain no uid, state, password, token or key.
func TestNothingSecretIsTold(t *testing.T) {
	receiver := otlptest.Start(t)
	s := startScripted(t, append(exportTo(receiver, "1"), "PODLINK_TRACE_HEADERS=authorization="+secretToken)...)
	s.run(t)
	texts := map[string]string{
		"metrics": s.metrics(t, "text/plain"), "metrics as OpenMetrics": s.metrics(t, "application/openmetrics-text"),
	}
	require.Zero(t, s.Stop(t))
	texts["log"], texts["traces"] = s.Log.String(), receiver.Text()

	require.Equal(t, []string{secretToken}, receiver.Headers()[0].Get("authorization"), "the token was in use")
	for _, reason := range []string{ // The load has caused every failure.
		"INVALID_ARGUMENT", "EPOCH_MISMATCH", "POD_NOT_FOUND", "WORKLOAD_NOT_FOUND", "NOT_FOUND", "METHOD_NOT_ALLOWED",
		"BODY_TOO_LARGE", "OUTCOME_UNKNOWN", "STORE_FULL", "STORE_DATA_CORRUPT", "STORE_UNAVAILABLE", "NO_AVAILABLE_POD",
		"DEADLINE_EXCEEDED",
	} {
		require.Contains(t, texts["metrics"], `reason="`+reason+`"`)
		require.Contains(t, texts["log"], `"reason":"`+reason+`"`)
		require.Contains(t, texts["traces"], reason)
	}
	require.Contains(t, texts["log"], "slow request")
	require.Contains(t, texts["log"], "registry unavailable: podlink may be undiscoverable")
	for _, histogram := range []string{"server_requests_seconds", "podlink_store_seconds"} {
		require.Regexp(t, histogram+`_bucket\{.*# \{trace_id=`, texts["metrics as OpenMetrics"])
	}
	for where, text := range texts {
		for _, secret := range []string{secretUID, secretState, secretPassword, secretToken, "podlink:link:", "podlink:service:"} {
			if i := strings.Index(strings.ToLower(text), secret); i >= 0 {
				require.Failf(t, "a secret leaked", "%q in the %s:\n…%s…", secret, where, text[max(0, i-500):min(len(text), i+100)])
			}
		}
	}
}

// metrics returns the metrics page in a format.
func (s scripted) metrics(t *testing.T, format string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Admin+"/metrics", http.NoBody)
	require.NoError(t, err)
	request.Header.Set("Accept", format)
	_, text := send(t, request)
	return text
}
