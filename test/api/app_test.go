// Package api tests the API over HTTP and gRPC, on a complete podlink that app.New assembles in the test's process.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/middleware/tracing"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"podlink/internal/app"
	"podlink/internal/audit"
	"podlink/internal/conf"
	"podlink/internal/telemetry"
	"podlink/test/kit/logwatch"
	redistest "podlink/test/kit/redis"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// testApp is a complete podlink in this process, assembled by Wire as in the binary, on free ports.
type testApp struct {
	http  string // base URL of the API
	admin string // base URL of the admin listener
	grpc  *grpc.ClientConn
	log   *logwatch.Log
	stop  func() error
}

// onRedis points a configuration at a Redis.
func onRedis(redis *redistest.Server) func(*conf.Bootstrap) {
	return func(c *conf.Bootstrap) {
		c.Data.Redis.Mode = conf.ModeStandalone
		c.Data.Redis.Addrs = []string{redis.Addr()}
	}
}

// startApp starts podlink with the changed defaults, and stops it when the test ends.
func startApp(t testing.TB, change ...func(*conf.Bootstrap)) *testApp {
	t.Helper()
	return startWired(t, app.New, change...)
}

// startWired is startApp with another function to assemble podlink.
func startWired(
	t testing.TB,
	assemble func(
		*conf.Bootstrap, *telemetry.LogLevel, *telemetry.LogQueue, *audit.Log, log.Logger,
	) (*kratos.App, func(), error),
	change ...func(*conf.Bootstrap),
) *testApp {
	t.Helper()
	config := conf.Default()
	config.Server.Http.Addr = "127.0.0.1:0"
	config.Server.Grpc.Addr = "127.0.0.1:0"
	config.Server.Admin.Addr = "127.0.0.1:0"
	config.Server.Stop.Drain.Reset()
	config.Log.Level = "debug"
	config.Log.RepeatInterval.Reset()
	for _, f := range change {
		f(config)
	}
	require.NoError(t, config.Validate())

	a := &testApp{log: new(logwatch.Log)}
	level := telemetry.NewLogLevel(config.Log.Level)
	queue := telemetry.NewLogQueue(config.Log, io.Discard) // For its metric: tests read a line as soon as it is written.
	logger := log.With(telemetry.NewLogger(config.Log, level, a.log), "trace_id", tracing.TraceID())
	log.SetLogger(logger) // Kratos' servers log their addresses to the global logger.
	podlink, cleanup, err := assemble(config, level, queue, nil, logger)
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- podlink.Run() }()

	a.log.Wait(t, `the store is (ready|not ready)`) // Otherwise the self-test would interfere with the test.
	a.http = "http://" + a.log.Listening(t, "HTTP")
	a.admin = "http://" + a.log.Listening(t, "admin")
	a.grpc, err = grpc.NewClient(a.log.Listening(t, "gRPC"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	a.stop = sync.OnceValue(func() error {
		defer queue.Close()
		defer cleanup()
		if err := podlink.Stop(); err != nil {
			return err
		}
		select {
		case err := <-ended:
			return err
		case <-time.After(20 * time.Second):
			return fmt.Errorf("podlink did not stop")
		}
	})
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		_ = a.grpc.Close()
		require.NoError(t, a.stop())
	})
	return a
}

// do sends an HTTP request and returns the status and the body.
func (a *testApp) do(t testing.TB, method, path, body string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, a.http+path, bytes.NewBufferString(body))
	require.NoError(t, err)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(text)
}

// TestOutageInTheLog: an outage is logged at once, repeats are collapsed, and each failure is counted in exactly one line.
func TestOutageInTheLog(t *testing.T) {
	const calls = 200
	redis := redistest.Start(t)
	a := startApp(t, onRedis(redis), func(c *conf.Bootstrap) { c.Log.RepeatInterval = conf.Default().Log.RepeatInterval })
	redis.Kill()
	for range calls {
		code, _ := a.do(t, http.MethodGet, "/v1/namespaces/ns/links/u1/services/svc", "")
		require.Equal(t, http.StatusServiceUnavailable, code)
	}
	require.Contains(t, a.log.String(), "request failed")
	require.NoError(t, a.stop(), "the pending counts are logged at the stop")
	lines, counted := 0, 0
	for text := range strings.Lines(a.log.String()) {
		line := struct {
			Msg   string
			Count int
		}{Count: 1}
		require.NoError(t, json.Unmarshal([]byte(text), &line))
		if line.Msg == "request failed" {
			lines++
			counted += line.Count
		}
	}
	require.Equal(t, calls, counted)
	require.Less(t, lines, calls/4)
}
