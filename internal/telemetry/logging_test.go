package telemetry

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/stretchr/testify/require"

	"podlink/internal/conf"
)

func TestLevels(t *testing.T) {
	levels := []log.Level{log.LevelDebug, log.LevelInfo, log.LevelWarn, log.LevelError}
	for from, name := range []string{"debug", "info", "warn", "error"} {
		for at, level := range levels {
			var out bytes.Buffer
			require.NoError(t, NewLogger(&conf.Log{Format: "json"}, NewLogLevel(name), &out).Log(level, "msg", "hello"))
			require.Equal(t, at >= from, out.Len() > 0, "a line at %s, logger at %s", level, name)
		}
	}
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	logger := log.With(NewLogger(&conf.Log{Format: "json"}, NewLogLevel("info"), &out), "trace_id", "")
	log.NewHelper(logger).Errorw("msg", "request failed", "code", 503, "cause", `a "quoted" one`)
	var line map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &line))
	require.NotEmpty(t, line["time"])
	delete(line, "time")
	require.Equal(t, map[string]any{
		"level": "ERROR", "msg": "request failed", "code": 503.0, "cause": `a "quoted" one`,
	}, line, "empty values, such as the trace id outside a request, are omitted")
}

func TestConsole(t *testing.T) {
	var out bytes.Buffer
	log.NewHelper(NewLogger(&conf.Log{Format: "console"}, NewLogLevel("info"), &out)).Warn("not ready")
	require.Contains(t, out.String(), `level=WARN msg="not ready"`)
}
