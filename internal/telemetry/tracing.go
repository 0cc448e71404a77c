package telemetry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"podlink/internal/certs"
	"podlink/internal/conf"
	"podlink/internal/telemetry/lines"
	"podlink/internal/version"
)

const (
	// flushTimeout bounds the export of the last spans when podlink stops.
	flushTimeout = 3 * time.Second
	// repeatInterval is the shortest time between two log lines about export errors.
	repeatInterval = 10 * time.Second
)

// NewTracerProvider returns the tracer provider, and a function that flushes and stops it. Requests never wait for the receiver:
// spans that it does not accept in time are dropped. OpenTelemetry's OTEL_* variables apply to what the configuration does not
// set.
func NewTracerProvider(c *conf.Trace, files *certs.Reloader, logger log.Logger) (trace.TracerProvider, func(), error) {
	helper := log.NewHelper(log.With(logger, "module", "tracing"))
	if !exportEnabled(c, helper) {
		return sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())), func() {}, nil
	}
	failures := lines.NewRepeats(repeatInterval)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		failures.Do("", func(count int) { helper.Warnw(log.DefaultMessageKey, "traces: "+err.Error(), "count", count) })
	}))
	otel.SetLogger(logr.New(sdkLog{helper}))
	options, err := exporterOptions(c, files)
	if err != nil {
		return nil, nil, err
	}
	exporter, err := otlptracegrpc.New(context.Background(), options...)
	if err != nil {
		return nil, nil, fmt.Errorf("traces: %w", err)
	}
	provider := sdktrace.NewTracerProvider(append(samplerOptions(c),
		sdktrace.WithBatcher(exporter), sdktrace.WithResource(describeProcess(helper)))...)
	return provider, func() {
		ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			helper.Warnf("traces: the last spans are lost: %v", err)
			_ = exporter.Shutdown(ctx) // The provider does not cancel its export in flight, nor close the connection.
		}
		failures.Close()
	}, nil
}

// exportEnabled reports whether a receiver is configured. It warns about OTEL_* values that podlink does not support.
func exportEnabled(c *conf.Trace, helper *log.Helper) bool {
	exporter := os.Getenv("OTEL_TRACES_EXPORTER")
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || exporter == "none" {
		return false
	}
	if exporter != "" && exporter != "otlp" {
		helper.Warnf("traces: OTEL_TRACES_EXPORTER is ignored: podlink supports otlp and none, not %q", exporter)
	}
	configured := c.GetEndpoint() != "" || exporter == "otlp" ||
		os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	for _, name := range []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
		if protocol := os.Getenv(name); configured && protocol != "" && protocol != "grpc" {
			helper.Warnf("traces: %s is ignored: podlink supports grpc only, not %q", name, protocol)
		}
	}
	return configured
}

// exporterOptions returns the options that the configuration sets; the exporter takes the rest from the environment.
func exporterOptions(c *conf.Trace, files *certs.Reloader) ([]otlptracegrpc.Option, error) {
	if c.GetEndpoint() == "" {
		return headerOptions(c), nil
	}
	secured, err := c.GetTls().Config("trace.tls", files)
	if err != nil {
		return nil, err
	}
	options := append(headerOptions(c), otlptracegrpc.WithEndpoint(c.GetEndpoint()))
	if secured == nil {
		return append(options, otlptracegrpc.WithInsecure()), nil
	}
	return append(options, otlptracegrpc.WithTLSCredentials(secured.Credentials())), nil
}

func headerOptions(c *conf.Trace) []otlptracegrpc.Option {
	if len(c.GetHeaders()) == 0 {
		return nil
	}
	return []otlptracegrpc.Option{otlptracegrpc.WithHeaders(conf.Pairs(c.GetHeaders()))}
}

// samplerOptions returns the configured sampler, unless the environment sets one.
func samplerOptions(c *conf.Trace) []sdktrace.TracerProviderOption {
	if os.Getenv("OTEL_TRACES_SAMPLER") != "" {
		return nil // The SDK reads it.
	}
	sampler := sdktrace.TraceIDRatioBased(c.GetSamplingRatio())
	if c.GetParentBased() {
		sampler = sdktrace.ParentBased(sampler)
	}
	return []sdktrace.TracerProviderOption{sdktrace.WithSampler(newForcedSampler(sampler, c.GetSamplingRatio(), c.GetMaxForced()))}
}

// describeProcess returns the resource of all spans. It leaves out the command line, which resource.WithProcess would add.
func describeProcess(helper *log.Helper) *resource.Resource {
	described, err := resource.New(context.Background(),
		resource.WithSchemaURL(semconv.SchemaURL),
		resource.WithTelemetrySDK(),
		resource.WithHost(),
		resource.WithAttributes(semconv.ServiceName("podlink"), semconv.ServiceVersion(version.Version)),
		resource.WithFromEnv(), // Last, so that it overrides.
	)
	if err != nil && !errors.Is(err, resource.ErrSchemaURLConflict) {
		helper.Warnf("traces: incomplete description of this process: %v", err)
	}
	return described
}

// sdkLog writes the SDK's errors to the log, without their key-value pairs: those can contain a header with a token.
type sdkLog struct{ log *log.Helper }

// Init implements logr.LogSink.
func (sdkLog) Init(logr.RuntimeInfo) {}

// Enabled implements logr.LogSink: only errors are.
func (sdkLog) Enabled(int) bool { return false }

// Info implements logr.LogSink.
func (sdkLog) Info(int, string, ...any) {}

// Error implements logr.LogSink.
func (l sdkLog) Error(err error, text string, _ ...any) { l.log.Warnf("traces: %s: %v", text, err) }

// WithValues implements logr.LogSink.
func (l sdkLog) WithValues(...any) logr.LogSink { return l }

// WithName implements logr.LogSink.
func (l sdkLog) WithName(string) logr.LogSink { return l }
