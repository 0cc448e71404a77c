package server

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"podlink/internal/conf"
	"podlink/internal/telemetry"
	"podlink/test/kit/logwatch"
)

func TestLogLevel(t *testing.T) {
	p, lines := newParts(t), new(logwatch.Log)
	p.logger = telemetry.NewLogger(&conf.Log{Format: "json"}, p.level, lines)
	admin := serveAdmin(t, p)
	put := func(body string) (int, string) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, admin.URL+"/loglevel", strings.NewReader(body))
		require.NoError(t, err)
		response, err := admin.Client().Do(request)
		require.NoError(t, err)
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return response.StatusCode, strings.TrimSpace(string(text))
	}
	shows := func(level string) {
		t.Helper()
		code, body := get(t, admin, "/loglevel")
		require.Equal(t, http.StatusOK, code)
		require.JSONEq(t, `{"level":"`+level+`"}`, string(body))
	}
	shows("warn")
	const malformed = `the body must be an object such as {"level":"debug"}`
	for _, step := range []struct {
		body string
		code int
		says string
		then string // the level
		line string // in the log; empty: none
	}{
		{`{"level":"debug"}`, http.StatusOK, `{"level":"debug"}`, "debug", "log level changed from warn to debug"},
		{`{"level":"debug"}`, http.StatusOK, `{"level":"debug"}`, "debug", ""},
		{`{"level":"error"}`, http.StatusOK, `{"level":"error"}`, "error", "log level changed from debug to error"},
		{`{"level":"info"}`, http.StatusOK, `{"level":"info"}`, "info", "log level changed from error to info"},
		{`{"level":"loud"}`, http.StatusBadRequest, "level must be one of debug, info, warn, error", "info", ""},
		{`{"level":"INFO"}`, http.StatusBadRequest, "level must be one of debug, info, warn, error", "info", ""},
		{`{}`, http.StatusBadRequest, "level must be one of debug, info, warn, error", "info", ""},
		{``, http.StatusBadRequest, malformed, "info", ""},
		{`{"level":1}`, http.StatusBadRequest, malformed, "info", ""},
		{`{"level":"warn","for":"1h"}`, http.StatusBadRequest, malformed, "info", ""},
		{`{"level":"` + strings.Repeat("x", 2000) + `"}`, http.StatusBadRequest, malformed, "info", ""},
	} {
		before := len(lines.String())
		code, says := put(step.body)
		require.Equal(t, step.code, code, step.body)
		require.Equal(t, step.says, says, step.body)
		shows(step.then)
		written := lines.String()[before:]
		require.Contains(t, written, step.line, step.body)
		require.Equal(t, step.line == "", written == "", "%s: %s", step.body, written)
	}
	response, err := admin.Client().Post(admin.URL+"/loglevel", "application/json", strings.NewReader(`{"level":"debug"}`))
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusMethodNotAllowed, response.StatusCode)
	shows("info")
}
