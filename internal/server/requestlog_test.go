package server

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"podlink/internal/conf"
	"podlink/internal/telemetry"
	"podlink/test/kit/logwatch"
)

// answer is the outcome of a request, and its duration.
type answer struct {
	err  error
	took time.Duration
}

var (
	errStoreDown = kerrors.New(503, "STORE_UNAVAILABLE", "not now").WithCause(errors.New("connection refused"))
	errStoreFull = kerrors.New(507, "STORE_FULL", "full").WithCause(errors.New("OOM"))
	errNotValid  = kerrors.New(400, "INVALID_ARGUMENT", "uid is required")
	errNoIndex   = kerrors.New(501, "INDEX_DISABLED", "no index").WithCause(errors.New("fleet.index"))
)

// TestRequestLog checks which lines a sequence of requests logs.
func TestRequestLog(t *testing.T) {
	const ms = time.Millisecond
	for name, row := range map[string]struct {
		config  *conf.Log
		answers []answer
		want    []string // level, message, reason, cause and count of each line
	}{
		"success": {
			conf.Default().Log, []answer{{nil, 499 * ms}}, nil,
		},
		"slow": {
			conf.Default().Log, []answer{{nil, 500 * ms}}, []string{"WARN slow request"},
		},
		"slow, with the threshold off": {
			&conf.Log{}, []answer{{nil, 10_000 * ms}}, nil,
		},
		"a lower threshold": {
			&conf.Log{SlowRequest: durationpb.New(ms)}, []answer{{nil, 2 * ms}}, []string{"WARN slow request"},
		},
		"slow repeatedly": {
			&conf.Log{SlowRequest: durationpb.New(300 * ms), RepeatInterval: durationpb.New(time.Second)},
			[]answer{{nil, 300 * ms}, {nil, 300 * ms}, {nil, 300 * ms}, {nil, 300 * ms}},
			[]string{"WARN slow request", "WARN slow request 3"},
		},
		"failure": {
			conf.Default().Log, []answer{{errStoreDown, ms}},
			[]string{"ERROR request failed STORE_UNAVAILABLE connection refused"},
		},
		"slow failure": {
			conf.Default().Log, []answer{{errStoreDown, 900 * ms}},
			[]string{"ERROR request failed STORE_UNAVAILABLE connection refused"},
		},
		"the same failure repeatedly": {
			conf.Default().Log, []answer{{errStoreDown, ms}, {errStoreDown, ms}, {errStoreDown, ms}},
			[]string{
				"ERROR request failed STORE_UNAVAILABLE connection refused",
				"ERROR request failed STORE_UNAVAILABLE connection refused 2",
			},
		},
		"another reason": {
			conf.Default().Log, []answer{{errStoreDown, ms}, {errStoreFull, ms}},
			[]string{"ERROR request failed STORE_UNAVAILABLE connection refused", "ERROR request failed STORE_FULL OOM"},
		},
		"repeats are not collapsed": {
			&conf.Log{}, []answer{{errStoreDown, ms}, {errStoreDown, ms}},
			[]string{
				"ERROR request failed STORE_UNAVAILABLE connection refused",
				"ERROR request failed STORE_UNAVAILABLE connection refused",
			},
		},
		"the caller's error": {
			conf.Default().Log, []answer{{errNotValid, ms}, {errNotValid, ms}},
			[]string{
				"DEBUG request failed INVALID_ARGUMENT uid is required",
				"DEBUG request failed INVALID_ARGUMENT uid is required",
			},
		},
		"as configured": {
			conf.Default().Log, []answer{{errNoIndex, ms}}, []string{"DEBUG request failed INDEX_DISABLED fleet.index"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lines := new(logwatch.Log)
				requests := newRequestLog(row.config, telemetry.NewLogger(&conf.Log{Format: "json"}, telemetry.NewLogLevel("debug"), lines))
				for _, answer := range row.answers {
					time.Sleep(answer.took)
					requests.record(t.Context(), call{}, unaryCall, answer.took, answer.err)
				}
				time.Sleep(10 * time.Second)
				require.Equal(t, row.want, summaries(t, lines.String()))
			})
		})
	}
}

// TestStreamIsNeverSlow: a stream lasts as long as its caller likes.
func TestStreamIsNeverSlow(t *testing.T) {
	lines := new(logwatch.Log)
	requests := newRequestLog(conf.Default().Log, telemetry.NewLogger(&conf.Log{Format: "json"}, telemetry.NewLogLevel("debug"), lines))
	requests.record(t.Context(), call{}, streamCall, time.Hour, nil)
	require.Empty(t, lines.String())
}

// summaries returns the lines without the parts that differ between runs.
func summaries(t *testing.T, text string) []string {
	t.Helper()
	var all []string
	for text := range strings.Lines(text) {
		var line struct {
			Level, Msg, Reason, Cause string
			Count                     json.Number
		}
		require.NoError(t, json.Unmarshal([]byte(text), &line))
		all = append(all, strings.Join(strings.Fields(
			strings.Join([]string{line.Level, line.Msg, line.Reason, line.Cause, line.Count.String()}, " ")), " "))
	}
	return all
}
