package telemetry

import (
	"context"
	"crypto/tls"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"podlink/internal/conf"
	certstest "podlink/test/kit/certs"
	"podlink/test/kit/logwatch"
	otlptest "podlink/test/kit/otlp"
	tlstest "podlink/test/kit/tls"
)

func TestMain(m *testing.M) {
	for _, variable := range os.Environ() { // The tests set what they need.
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "OTEL_") {
			_ = os.Unsetenv(name)
		}
	}
	goleak.VerifyTestMain(m)
}

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	token   = "t0ken-nobody-sees"
)

// calledBy returns the context of a request with a traceparent with these flags; empty: without one.
func calledBy(t *testing.T, flags string) context.Context {
	t.Helper()
	if flags == "" {
		return t.Context()
	}
	header := propagation.HeaderCarrier(http.Header{"Traceparent": {"00-" + traceID + "-00f067aa0ba902b7-" + flags}})
	return propagation.TraceContext{}.Extract(t.Context(), header)
}

// start returns a provider, a function that stops it before the end of the test, and its log.
func start(t *testing.T, change func(*conf.Trace)) (trace.TracerProvider, func(), *logwatch.Log) {
	t.Helper()
	c := conf.Default()
	change(c.Trace)
	require.NoError(t, c.Validate())
	lines := new(logwatch.Log)
	provider, end, err := NewTracerProvider(c.Trace, nil, NewLogger(c.Log, NewLogLevel("debug"), lines))
	require.NoError(t, err)
	t.Cleanup(end)
	return provider, end, lines
}

func TestWhatIsTraced(t *testing.T) {
	receiver := otlptest.Start(t)
	url := "http://" + receiver.Addr
	everything := func(c *conf.Trace) { c.SamplingRatio = 1 } // Without a receiver.
	always := func(c *conf.Trace) { c.Endpoint, c.SamplingRatio = receiver.Addr, 1 }
	never := func(c *conf.Trace) { c.Endpoint, c.SamplingRatio = receiver.Addr, 0 }
	for name, row := range map[string]struct {
		config func(*conf.Trace)
		env    map[string]string
		caller string // flags of the traceparent; empty: none
		traced bool
	}{
		"nothing by default":                    {func(*conf.Trace) {}, nil, "01", false},
		"with a receiver":                       {always, nil, "", true},
		"what the caller traces":                {never, nil, "01", true},
		"not what the caller does not trace":    {always, nil, "00", false},
		"whatever the caller does":              {func(c *conf.Trace) { always(c); c.ParentBased = false }, nil, "00", true},
		"nothing with a ratio of 0":             {func(c *conf.Trace) { never(c); c.ParentBased = false }, nil, "01", false},
		"to the environment's receiver":         {everything, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": url}, "", true},
		"to the environment's, of traces":       {everything, map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": url}, "", true},
		"the configuration's receiver is first": {always, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, "", true},
		"by the environment's sampler":          {never, map[string]string{"OTEL_TRACES_SAMPLER": "always_on"}, "", true},
		"not by the environment's sampler":      {always, map[string]string{"OTEL_TRACES_SAMPLER": "always_off"}, "", false},
		"nothing when OpenTelemetry is off":     {always, map[string]string{"OTEL_SDK_DISABLED": "true"}, "", false},
		"nothing without an exporter":           {always, map[string]string{"OTEL_TRACES_EXPORTER": "none"}, "", false},
		"with an unsupported exporter":          {always, map[string]string{"OTEL_TRACES_EXPORTER": "console"}, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			for variable, value := range row.env {
				t.Setenv(variable, value)
			}
			provider, end, lines := start(t, row.config)
			_, span := provider.Tracer("test").Start(calledBy(t, row.caller), "operation")
			require.True(t, span.SpanContext().IsValid(), "every request has a trace id")
			require.Equal(t, row.traced, span.IsRecording())
			if row.caller != "" {
				require.Equal(t, traceID, span.SpanContext().TraceID().String())
			}
			before := len(receiver.All())
			span.End()
			end()
			if row.traced {
				require.Len(t, receiver.All(), before+1, "stopping flushes")
			} else {
				require.Len(t, receiver.All(), before)
			}
			if name == "with an unsupported exporter" {
				require.Contains(t, lines.String(), "OTEL_TRACES_EXPORTER is ignored")
			} else {
				require.Empty(t, lines.String())
			}
		})
	}
}

func TestExportedResourceAndHeaders(t *testing.T) {
	for name, row := range map[string]struct {
		env           map[string]string
		headers       []string
		resource      map[string]string
		authorization string
	}{
		"by the configuration": {nil, []string{"authorization=" + token}, map[string]string{"service.name": "podlink"}, token},
		"by the environment": {
			map[string]string{
				"OTEL_EXPORTER_OTLP_HEADERS": "authorization=" + token, "OTEL_SERVICE_NAME": "podlink-eu",
				"OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=podlink-0",
			}, nil, map[string]string{"service.name": "podlink-eu", "k8s.pod.name": "podlink-0"}, token,
		},
	} {
		t.Run(name, func(t *testing.T) {
			for variable, value := range row.env {
				t.Setenv(variable, value)
			}
			receiver := otlptest.Start(t)
			provider, end, lines := start(t, func(c *conf.Trace) {
				c.Endpoint, c.SamplingRatio, c.Headers = receiver.Addr, 1, row.headers
			})
			_, span := provider.Tracer("test").Start(t.Context(), "operation")
			span.End()
			end()
			require.Subset(t, receiver.Resource(), row.resource)
			require.Contains(t, receiver.Resource(), "service.version")
			require.Contains(t, receiver.Resource(), "host.name")
			require.NotContains(t, receiver.Text(), os.Args[0], "the command line is not exported")
			require.Equal(t, []string{row.authorization}, receiver.Headers()[0].Get("authorization"))
			require.Empty(t, lines.String())
		})
	}
}

func TestTLSToTheReceiver(t *testing.T) {
	dir := t.TempDir()
	ca := tlstest.New(t, dir, "ca")
	tlstest.New(t, dir, "stranger")
	ca.Sign(t, "server", "collector.test", time.Now().Add(time.Hour))
	ca.Sign(t, "client", "podlink.test", time.Now().Add(time.Hour))
	pair, err := tls.LoadX509KeyPair(ca.Path("server.crt"), ca.Path("server.key"))
	require.NoError(t, err)
	for name, row := range map[string]struct {
		change func(*conf.TLS)
		ok     bool
	}{
		"all in order":          {func(*conf.TLS) {}, true},
		"an unknown authority":  {func(c *conf.TLS) { c.CaFile = ca.Path("stranger.crt") }, false},
		"another name":          {func(c *conf.TLS) { c.ServerName = "other.test" }, false},
		"no client certificate": {func(c *conf.TLS) { c.CertFile, c.KeyFile = "", "" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			receiver := otlptest.Start(t, grpc.Creds(credentials.NewTLS(&tls.Config{
				MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair},
				ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
			})))
			provider, end, lines := start(t, func(c *conf.Trace) {
				c.Endpoint, c.SamplingRatio, c.Headers = receiver.Addr, 1, []string{"authorization=" + token}
				c.Tls = &conf.TLS{
					Enabled: true, CaFile: ca.Path("ca.crt"), CertFile: ca.Path("client.crt"), KeyFile: ca.Path("client.key"),
					ServerName: "collector.test",
				}
				row.change(c.Tls)
			})
			_, span := provider.Tracer("test").Start(t.Context(), "operation")
			span.End()
			end()
			if row.ok {
				require.Len(t, receiver.All(), 1)
				require.Empty(t, lines.String())
				return
			}
			require.Empty(t, receiver.All())
			require.Contains(t, lines.String(), "traces: ")
			require.NotContains(t, lines.String(), token)
		})
	}
	c := conf.Default()
	c.Trace.Endpoint, c.Trace.Tls = "127.0.0.1:1", &conf.TLS{Enabled: true, CaFile: ca.Path("absent.crt")}
	_, _, err = NewTracerProvider(c.Trace, nil, NewLogger(c.Log, NewLogLevel("debug"), new(logwatch.Log)))
	require.ErrorContains(t, err, "trace.tls.ca_file")
}

// TestNewFilesOfTheReceiver: a connection that is made after the files were replaced uses the new ones.
func TestNewFilesOfTheReceiver(t *testing.T) {
	dir := t.TempDir()
	ca := tlstest.New(t, dir, "ca")
	tlstest.New(t, dir, "stranger")
	ca.Sign(t, "server", "collector.test", time.Time{})
	pair, err := tls.LoadX509KeyPair(ca.Path("server.crt"), ca.Path("server.key"))
	require.NoError(t, err)
	receiver := otlptest.Start(t, grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair},
	})))
	tlstest.Copy(t, ca.Path("used.crt"), ca.Path("stranger.crt"))
	c, files, lines := conf.Default(), certstest.Start(t), new(logwatch.Log)
	c.Trace.Endpoint, c.Trace.SamplingRatio = receiver.Addr, 1
	c.Trace.Tls = &conf.TLS{Enabled: true, CaFile: ca.Path("used.crt"), ServerName: "collector.test"}
	provider, end, err := NewTracerProvider(c.Trace, files, NewLogger(c.Log, NewLogLevel("debug"), lines))
	require.NoError(t, err)
	t.Cleanup(end)
	tlstest.Copy(t, ca.Path("used.crt"), ca.Path("ca.crt"))
	require.Eventually(t, func() bool {
		_, span := provider.Tracer("test").Start(t.Context(), "operation")
		span.End()
		_ = provider.(*sdktrace.TracerProvider).ForceFlush(t.Context()) // It fails until the new file is read.
		return len(receiver.All()) > 0
	}, time.Minute, 50*time.Millisecond, lines)
}

// TestUnreachableReceiver: it delays neither requests nor the stop, and is logged.
func TestUnreachableReceiver(t *testing.T) {
	provider, end, lines := start(t, func(c *conf.Trace) {
		c.Endpoint, c.SamplingRatio, c.Headers = "127.0.0.1:1", 1, []string{"authorization=" + token}
	})
	begin := time.Now()
	for range 10_000 { // More than the queue holds.
		_, span := provider.Tracer("test").Start(t.Context(), "operation")
		span.End()
	}
	require.Less(t, time.Since(begin), 5*time.Second)
	begin = time.Now()
	end()
	require.Less(t, time.Since(begin), 2*flushTimeout)
	require.Contains(t, lines.String(), "traces: ")
	require.NotContains(t, lines.String(), token)
}

// TestMalformedEnvironment: the SDK would write the whole header to standard error.
func TestMalformedEnvironment(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", token)
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "malformed")
	stderr, err := os.CreateTemp(t.TempDir(), "stderr")
	require.NoError(t, err)
	defer stderr.Close()
	before := os.Stderr
	os.Stderr = stderr
	defer func() { os.Stderr = before }()
	receiver := otlptest.Start(t)
	_, _, lines := start(t, func(c *conf.Trace) { c.Endpoint = receiver.Addr })
	os.Stderr = before
	for _, want := range []string{"parse headers", "OTEL_EXPORTER_OTLP_PROTOCOL is ignored", "incomplete description of this process"} {
		require.Contains(t, lines.String(), want)
	}
	require.NotContains(t, lines.String(), token)
	text, err := os.ReadFile(stderr.Name())
	require.NoError(t, err)
	require.Empty(t, string(text))
}
