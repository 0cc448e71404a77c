package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/middleware/tracing"
	"github.com/stretchr/testify/require"
	otelcodes "go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
	"podlink/internal/conf"
	"podlink/internal/telemetry"
	"podlink/test/kit/logwatch"
)

// observedServer is a gRPC listener with the metrics, spans and log lines of its calls.
type observedServer struct {
	store   *switchedStore
	drain   *Drain
	chain   *Chain
	conn    *grpc.ClientConn
	http    http.Handler // the HTTP listener's, with the same chain
	metrics *Metrics
	spans   *tracetest.SpanRecorder
	lines   *logwatch.Log
}

// serveObserved starts a listener with additional services until the test ends.
func serveObserved(t *testing.T, services ...*grpc.ServiceDesc) *observedServer {
	t.Helper()
	return serveGuarded(t, nil, newParts(t), services...)
}

// serveGuarded is serveObserved with an access.
func serveGuarded(t *testing.T, access *Access, p parts, services ...*grpc.ServiceDesc) *observedServer {
	t.Helper()
	w := &observedServer{store: new(switchedStore), drain: p.drain, spans: tracetest.NewSpanRecorder(), lines: new(logwatch.Log)}
	var err error
	w.metrics, err = NewMetrics(nil)
	require.NoError(t, err)
	chain, closeChain := NewChain(ChainOptions{
		Server: p.config, Log: conf.Default().Log, Access: access, Metrics: w.metrics,
		Tracer: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(w.spans)),
		Logger: log.With(telemetry.NewLogger(&conf.Log{Format: "json"}, telemetry.NewLogLevel("debug"), w.lines), "trace_id", tracing.TraceID()),
	})
	p.config.Grpc.Addr, p.chain, w.chain = "127.0.0.1:0", chain, chain
	w.http = p.http()
	api := p.api()
	for _, service := range services {
		api = append(api, apiService{service.ServiceName, nil, func(r grpc.ServiceRegistrar) { r.RegisterService(service, nil) }})
	}
	srv, stop := NewGRPCServer(p.config, api, chain, w.store, p.drain, ListenerTLS{})
	endpoint, err := srv.Endpoint()
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- srv.Start(context.Background()) }()
	w.conn, err = grpc.NewClient(endpoint.Host, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, w.conn.Close())
		require.NoError(t, srv.Stop(context.Background()))
		require.NoError(t, <-ended)
		stop()
		closeChain()
	})
	return w
}

// ended waits for the span of the only call and returns it. Ending the span is the last step of the chain.
func (w *observedServer) ended(t *testing.T) sdktrace.ReadOnlySpan {
	t.Helper()
	require.Eventually(t, func() bool { return len(w.spans.Ended()) > 0 }, 10*time.Second, time.Millisecond)
	require.Len(t, w.spans.Ended(), 1)
	return w.spans.Ended()[0]
}

// page returns the page of metrics.
func (w *observedServer) page(t *testing.T) string {
	t.Helper()
	page := httptest.NewRecorder()
	w.metrics.handler().ServeHTTP(page, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
	return page.Body.String()
}

// counted returns the series of server_requests_* and server_streams_* that have the label and are not 0.
func (w *observedServer) counted(t *testing.T, label string) []string {
	t.Helper()
	var found []string
	for line := range strings.Lines(w.page(t)) {
		line = strings.TrimSpace(line)
		of := strings.HasPrefix(line, "server_requests_code_total{") || strings.HasPrefix(line, "server_requests_seconds_count{") ||
			strings.HasPrefix(line, "server_streams_seconds_count{")
		if of && strings.Contains(line, label) && !strings.HasSuffix(line, " 0") {
			found = append(found, line)
		}
	}
	return found
}

// failures returns a summary and the cause of each logged failure.
func (w *observedServer) failures(t *testing.T) (levels, causes []string) {
	t.Helper()
	for text := range strings.Lines(w.lines.String()) {
		var line struct{ Level, Msg, Operation, Reason, Cause string }
		require.NoError(t, json.Unmarshal([]byte(text), &line))
		require.Equal(t, "request failed", line.Msg)
		levels, causes = append(levels, line.Level+" "+line.Operation+" "+line.Reason), append(causes, line.Cause)
	}
	return levels, causes
}

const (
	testService = "podlink.v1.TestService"
	askMethod   = "/" + testService + "/Ask"
	watchMethod = "/" + testService + "/Watch"
)

// The stream of the tests has no option for its right.
func init() { foreign[watchMethod] = true }

// testServiceDesc is a service with a unary method and a stream, which both call handle. The stream sends a message first.
func testServiceDesc(handle func(ctx context.Context) error) *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: testService,
		Methods: []grpc.MethodDesc{{
			MethodName: "Ask",
			Handler: func(_ any, ctx context.Context, receive func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
				request := new(emptypb.Empty)
				if err := receive(request); err != nil {
					return nil, err
				}
				return intercept(ctx, request, &grpc.UnaryServerInfo{FullMethod: askMethod}, func(ctx context.Context, _ any) (any, error) {
					return new(emptypb.Empty), handle(ctx)
				})
			},
		}},
		Streams: []grpc.StreamDesc{{
			StreamName:    "Watch",
			ServerStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error {
				if err := stream.RecvMsg(new(emptypb.Empty)); err != nil {
					return err
				}
				if err := stream.SendMsg(new(emptypb.Empty)); err != nil {
					return err
				}
				return handle(stream.Context())
			},
		}},
	}
}

// open opens a stream and sends the request.
func (w *observedServer) open(ctx context.Context, t *testing.T, method string, request proto.Message) grpc.ClientStream {
	t.Helper()
	stream, err := w.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
	require.NoError(t, err)
	require.NoError(t, stream.SendMsg(request))
	require.NoError(t, stream.CloseSend())
	return stream
}

// ask makes the unary call, or reads the stream to its end and returns its trailer.
func (w *observedServer) ask(ctx context.Context, t *testing.T, method string) (metadata.MD, error) {
	t.Helper()
	if method == askMethod {
		return nil, w.conn.Invoke(ctx, method, new(emptypb.Empty), new(emptypb.Empty))
	}
	stream := w.open(ctx, t, method, new(emptypb.Empty))
	for {
		err := stream.RecvMsg(new(emptypb.Empty))
		if errors.Is(err, io.EOF) {
			return stream.Trailer(), nil
		}
		if err != nil {
			return stream.Trailer(), err
		}
	}
}

// TestChainServesUnaryCallsAndStreams: every call is counted, traced and logged once, with the same reason in all three, and
// its cause appears only in the log.
func TestChainServesUnaryCallsAndStreams(t *testing.T) {
	domain := func(context.Context) error { return fmt.Errorf("%w: secret", biz.ErrStoreDataCorrupt) }
	fault := func(context.Context) error { return &biz.InvalidArgumentError{Field: "uid", Detail: "is required"} }
	foreign := func(context.Context) error { return status.Error(codes.NotFound, "secret") }
	panics := func(context.Context) error { panic("secret") }
	leaves := func(ctx context.Context) error {
		<-ctx.Done()
		return fmt.Errorf("%w: %w", biz.ErrCanceled, ctx.Err())
	}
	ends := func(ctx context.Context) error {
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	endsInPanic := func(ctx context.Context) error {
		<-ctx.Done()
		panic("secret")
	}
	calm := func(ctx context.Context) error {
		<-ctx.Done()
		return nil
	}
	succeeds := func(context.Context) error { return nil }
	type outcome struct {
		code   codes.Code
		http   int
		reason string
		status otelcodes.Code // of the span
		level  string         // of the log line; empty: no line
	}
	success := outcome{codes.OK, 200, "", otelcodes.Unset, ""}
	rejected := outcome{codes.InvalidArgument, 400, "INVALID_ARGUMENT", otelcodes.Unset, "DEBUG"}
	corrupt := outcome{codes.Internal, 500, "STORE_DATA_CORRUPT", otelcodes.Error, "ERROR"}
	internal := outcome{codes.Internal, 500, "INTERNAL", otelcodes.Error, "ERROR"}
	canceled := outcome{codes.Canceled, 499, "CANCELED", otelcodes.Unset, "DEBUG"}
	timedOut := outcome{codes.DeadlineExceeded, 499, "CANCELED", otelcodes.Unset, "DEBUG"}
	// The caller sees its own cancellation; podlink records how the handler ended.
	succeededAfterCancel := outcome{codes.Canceled, 200, "", otelcodes.Unset, ""}
	failedAfterCancel := outcome{codes.Canceled, 500, "INTERNAL", otelcodes.Error, "ERROR"}
	for name, row := range map[string]struct {
		method string
		handle func(context.Context) error
		during string // what happens while the call is served; empty: nothing
		outcome
		cause string // part of the line's cause
	}{
		"unary, success":                       {askMethod, succeeds, "", success, ""},
		"unary, the caller's error":            {askMethod, fault, "", rejected, "uid"},
		"unary, domain error":                  {askMethod, domain, "", corrupt, "secret"},
		"unary, another server's error":        {askMethod, foreign, "", internal, "secret"},
		"unary, panic":                         {askMethod, panics, "", internal, "panic: secret"},
		"unary, cancel":                        {askMethod, leaves, "cancel", canceled, "context canceled"},
		"unary, panic after a cancel":          {askMethod, endsInPanic, "cancel", failedAfterCancel, "panic: secret"},
		"unary, drain":                         {askMethod, succeeds, "drain", success, ""},
		"stream, success":                      {watchMethod, succeeds, "", success, ""},
		"stream, the caller's error":           {watchMethod, fault, "", rejected, "uid"},
		"stream, domain error":                 {watchMethod, domain, "", corrupt, "secret"},
		"stream, another server's error":       {watchMethod, foreign, "", internal, "secret"},
		"stream, panic":                        {watchMethod, panics, "", internal, "panic: secret"},
		"stream, cancel":                       {watchMethod, ends, "cancel", canceled, "context canceled"},
		"stream, cancel that the domain names": {watchMethod, leaves, "cancel", canceled, "context canceled"},
		"stream, cancel without an error":      {watchMethod, calm, "cancel", succeededAfterCancel, ""},
		"stream, panic after a cancel":         {watchMethod, endsInPanic, "cancel", failedAfterCancel, "panic: secret"},
		"stream, deadline of the caller":       {watchMethod, ends, "deadline", timedOut, "the caller left"},
		"stream, drain":                        {watchMethod, ends, "drain", canceled, "podlink is draining"},
		"stream, drain without an error":       {watchMethod, calm, "drain", success, ""},
	} {
		t.Run(name, func(t *testing.T) {
			serving := make(chan struct{})
			w := serveObserved(t, testServiceDesc(func(ctx context.Context) error {
				close(serving)
				return row.handle(ctx)
			}))
			limit := time.Minute
			if row.during == "deadline" {
				limit = 200 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "traceparent", traceparent), limit)
			defer cancel()
			go func() {
				<-serving
				switch row.during {
				case "cancel":
					cancel()
				case "drain":
					_ = w.drain.Run(ctx)
				}
			}()
			trailer, err := w.ask(ctx, t, row.method)
			require.Equal(t, row.code, status.Code(err))
			require.NotContains(t, fmt.Sprint(err), "secret")

			span := w.ended(t)
			require.Equal(t, row.method, span.Name())
			require.Equal(t, traceID, span.SpanContext().TraceID().String())
			require.Equal(t, row.status, span.Status().Code)
			require.Equal(t, row.reason, attributes(span)["error.type"])
			require.NotContains(t, fmt.Sprint(span), "secret")

			labels := `kind="grpc",operation="` + row.method + `"`
			seconds := "server_requests_seconds_count"
			if row.method == watchMethod {
				seconds = "server_streams_seconds_count"
			}
			require.Equal(t, []string{
				fmt.Sprintf(`server_requests_code_total{code="%d",%s,reason="%s"} 1`, row.http, labels, row.reason),
				seconds + "{" + labels + "} 1",
			}, w.counted(t, testService))

			levels, causes := w.failures(t)
			if row.level == "" {
				require.Empty(t, levels)
			} else {
				require.Equal(t, []string{row.level + " " + row.method + " " + row.reason}, levels)
				require.Contains(t, causes[0], row.cause)
			}
			if row.method == watchMethod && row.during == "" { // Sampled: by the traceparent above.
				require.Equal(t, []string{"00-" + traceID + "-" + span.SpanContext().SpanID().String() + "-01"}, trailer.Get(traceResponse))
			}
		})
	}
}

// TestHealthWatch: a watch is a stream like any other, while checks are neither counted nor traced.
func TestHealthWatch(t *testing.T) {
	w := serveObserved(t)
	client := grpc_health_v1.NewHealthClient(w.conn)
	checked, err := client.Check(t.Context(), new(grpc_health_v1.HealthCheckRequest))
	require.NoError(t, err)
	require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, checked.GetStatus())
	_, err = client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "x"})
	require.Equal(t, codes.NotFound, status.Code(err), "as in gRPC's health protocol")
	require.Empty(t, w.spans.Ended())
	require.Empty(t, w.counted(t, "grpc.health"))

	watch, err := client.Watch(t.Context(), new(grpc_health_v1.HealthCheckRequest))
	require.NoError(t, err)
	first, err := watch.Recv()
	require.NoError(t, err)
	require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, first.GetStatus())
	require.NoError(t, w.drain.Run(t.Context()))
	last, err := watch.Recv()
	require.NoError(t, err)
	require.Equal(t, grpc_health_v1.HealthCheckResponse_NOT_SERVING, last.GetStatus())
	_, err = watch.Recv()
	require.Equal(t, codes.Canceled, status.Code(err))
	require.Contains(t, err.Error(), "podlink is stopping")
	require.Equal(t, grpc_health_v1.Health_Watch_FullMethodName, w.ended(t).Name())
	const labels = `kind="grpc",operation="/grpc.health.v1.Health/Watch"`
	require.Equal(t, []string{
		`server_requests_code_total{code="499",` + labels + `,reason="CANCELED"} 1`,
		`server_streams_seconds_count{` + labels + `} 1`,
	}, w.counted(t, "grpc.health"))
	levels, _ := w.failures(t)
	require.Equal(t, []string{"DEBUG /grpc.health.v1.Health/Watch CANCELED"}, levels)
}

// TestStreamRejectsUndecodableMessages: the error names the field, as for unary calls.
func TestStreamRejectsUndecodableMessages(t *testing.T) {
	w := serveObserved(t)
	// Both messages have a field with the number 1: a string there, arbitrary bytes here.
	stream := w.open(t.Context(), t, grpc_health_v1.Health_Watch_FullMethodName, wrapperspb.Bytes([]byte("\xff")))
	err := stream.RecvMsg(new(grpc_health_v1.HealthCheckResponse))
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	require.Contains(t, err.Error(), "service must be valid UTF-8")
	require.Equal(t, "INVALID_ARGUMENT", attributes(w.ended(t))["error.type"])
}

// TestBrokenStreamsAreTheCallersFault: a stream without exactly one message, or with one that gRPC does not deliver, is neither
// counted nor logged as a failure of podlink.
func TestBrokenStreamsAreTheCallersFault(t *testing.T) {
	large := &grpc_health_v1.HealthCheckRequest{Service: strings.Repeat("x", maxBodyBytes)}
	small := new(grpc_health_v1.HealthCheckRequest)
	invalid := outcomeOfStream{400, "INVALID_ARGUMENT"}
	for name, row := range map[string]struct {
		send []proto.Message
		outcomeOfStream
	}{
		"no message":         {nil, invalid},
		"two messages":       {[]proto.Message{small, small}, invalid},
		"over the limit":     {[]proto.Message{large}, outcomeOfStream{413, "BODY_TOO_LARGE"}},
		"the second over it": {[]proto.Message{small, large}, outcomeOfStream{413, "BODY_TOO_LARGE"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := serveObserved(t)
			const method = grpc_health_v1.Health_Watch_FullMethodName
			stream, err := w.conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
			require.NoError(t, err)
			for _, message := range row.send {
				if err := stream.SendMsg(message); err != nil {
					require.ErrorIs(t, err, io.EOF, "the server has already answered")
				}
			}
			require.NoError(t, stream.CloseSend())
			require.Error(t, stream.RecvMsg(new(grpc_health_v1.HealthCheckResponse)))

			span := w.ended(t)
			require.Equal(t, otelcodes.Unset, span.Status().Code)
			require.Equal(t, row.reason, attributes(span)["error.type"])
			counted := w.counted(t, method)
			require.NotEmpty(t, counted)
			require.Contains(t, counted[0], fmt.Sprintf(`code="%d"`, row.code))
			require.Contains(t, counted[0], `reason="`+row.reason+`"`)
			levels, _ := w.failures(t)
			require.Equal(t, []string{"DEBUG " + method + " " + row.reason}, levels)
		})
	}
}

// TestCompressedMessages: gRPC's error quotes a header, which may be anything.
func TestCompressedMessages(t *testing.T) {
	stream := serverStream{
		ServerStream: leftStream{err: status.Error(codes.Unimplemented, "no decompressor secret")}, ctx: t.Context(), chain: new(Chain),
	}
	err := stream.RecvMsg(new(emptypb.Empty))
	require.True(t, v1.IsUnsupportedMediaType(err), "%v", err)
	require.NotContains(t, err.Error(), "secret")
}

type outcomeOfStream struct {
	code   int
	reason string
}

// TestCallerThatLeaves: a call of the stream may fail a little before its context ends.
func TestCallerThatLeaves(t *testing.T) {
	for _, code := range []codes.Code{codes.Canceled, codes.DeadlineExceeded, codes.Unavailable} {
		stream := serverStream{ServerStream: leftStream{err: status.Error(code, "gone")}, ctx: t.Context(), chain: new(Chain)}
		require.ErrorIs(t, stream.RecvMsg(new(emptypb.Empty)), biz.ErrCanceled)
		require.ErrorIs(t, stream.SendMsg(new(emptypb.Empty)), biz.ErrCanceled)
	}
	stream := serverStream{ServerStream: leftStream{err: io.EOF}, ctx: t.Context(), chain: new(Chain)}
	require.Equal(t, io.EOF, stream.RecvMsg(new(emptypb.Empty)), "the caller sends no more")
	require.NoError(t, (&serverStream{ServerStream: leftStream{}, ctx: t.Context(), chain: new(Chain)}).SendMsg(new(emptypb.Empty)))
}

// leftStream is a stream whose calls fail with err.
type leftStream struct {
	grpc.ServerStream

	err error
}

func (s leftStream) RecvMsg(any) error { return s.err }
func (s leftStream) SendMsg(any) error { return s.err }

// TestUnknownStreamsAreDenied: outside the chain, as unary calls are.
func TestUnknownStreamsAreDenied(t *testing.T) {
	w := serveObserved(t)
	stream := w.open(t.Context(), t, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", new(emptypb.Empty))
	require.Equal(t, codes.Unimplemented, status.Code(stream.RecvMsg(new(emptypb.Empty))))
	require.Empty(t, w.spans.Ended())
}

// TestStreamErrorBeforeTheEnd: an error that looks like a cancellation is kept while the context has not ended.
func TestStreamErrorBeforeTheEnd(t *testing.T) {
	require.Equal(t, context.Canceled, streamError(t.Context(), newParts(t).drain, context.Canceled))
}
