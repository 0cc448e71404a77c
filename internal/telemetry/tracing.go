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
	"google.golang.org/grpc/credentials"

	"podlink/internal/conf"
	"podlink/internal/version"
)

const (
	// flushLimit bounds how long podlink waits at its end for the receiver to take the last spans.
	flushLimit = 3 * time.Second
	// repeatInterval is how often at most the log says that spans are lost.
	repeatInterval = 10 * time.Second
)

// NewTracerProvider returns the provider of all spans, and a function that sends the last of them and ends it. No
// request ever waits for the receiver: spans that it does not take in time are dropped. What the configuration leaves
// open, OpenTelemetry's own OTEL_* variables say.
func NewTracerProvider(c *conf.Trace, logger log.Logger) (trace.TracerProvider, func(), error) {
	helper := log.NewHelper(log.With(logger, "module", "tracing"))
	if !wanted(c, helper) {
		return sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())), func() {}, nil
	}
	failures := NewRepeats(repeatInterval)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		failures.Do("", func(count int) { helper.Warnw(log.DefaultMessageKey, "traces: "+err.Error(), "count", count) })
	}))
	otel.SetLogger(logr.New(sdkLog{helper}))
	options, err := exporterOptions(c)
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
		ctx, cancel := context.WithTimeout(context.Background(), flushLimit)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			helper.Warnf("traces: the last spans are lost: %v", err)
			_ = exporter.Shutdown(ctx) // The provider leaves its export under way, and the connection.
		}
		failures.Close()
	}, nil
}

// wanted tells whether there is a receiver.
func wanted(c *conf.Trace, helper *log.Helper) bool {
	exporter := os.Getenv("OTEL_TRACES_EXPORTER")
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || exporter == "none" {
		return false
	}
	if exporter != "" && exporter != "otlp" {
		helper.Warnf("traces: OTEL_TRACES_EXPORTER is ignored: podlink knows otlp and none, it says %q", exporter)
	}
	named := c.GetEndpoint() != "" || exporter == "otlp" ||
		os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	for _, name := range []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
		if protocol := os.Getenv(name); named && protocol != "" && protocol != "grpc" {
			helper.Warnf("traces: %s is ignored: podlink speaks grpc only, it says %q", name, protocol)
		}
	}
	return named
}

// exporterOptions are what the configuration says; the exporter takes the rest from the environment.
func exporterOptions(c *conf.Trace) ([]otlptracegrpc.Option, error) {
	if c.GetEndpoint() == "" {
		return headerOptions(c), nil
	}
	secured, err := c.GetTls().Config("trace.tls")
	if err != nil {
		return nil, err
	}
	options := append(headerOptions(c), otlptracegrpc.WithEndpoint(c.GetEndpoint()))
	if secured == nil {
		return append(options, otlptracegrpc.WithInsecure()), nil
	}
	return append(options, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(secured))), nil
}

func headerOptions(c *conf.Trace) []otlptracegrpc.Option {
	if len(c.GetHeaders()) == 0 {
		return nil
	}
	return []otlptracegrpc.Option{otlptracegrpc.WithHeaders(conf.Pairs(c.GetHeaders()))}
}

// samplerOptions are the configuration's, unless the environment names a sampler.
func samplerOptions(c *conf.Trace) []sdktrace.TracerProviderOption {
	if os.Getenv("OTEL_TRACES_SAMPLER") != "" {
		return nil // The SDK reads it.
	}
	sampler := sdktrace.TraceIDRatioBased(c.GetSamplingRatio())
	if c.GetParentBased() {
		sampler = sdktrace.ParentBased(sampler)
	}
	return []sdktrace.TracerProviderOption{sdktrace.WithSampler(sampler)}
}

// describeProcess says which podlink it is. The command line is none of the receiver's business.
func describeProcess(helper *log.Helper) *resource.Resource {
	described, err := resource.New(context.Background(),
		resource.WithSchemaURL(semconv.SchemaURL),
		resource.WithTelemetrySDK(),
		resource.WithHost(),
		resource.WithAttributes(semconv.ServiceName("podlink"), semconv.ServiceVersion(version.Version)),
		resource.WithFromEnv(), // Last, so that it overrides.
	)
	if err != nil && !errors.Is(err, resource.ErrSchemaURLConflict) {
		helper.Warnf("traces: not all of this process is described: %v", err)
	}
	return described
}

// sdkLog sends the errors of the SDK to the log, without what was wrong in full: that may be a header with a token.
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
