package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2"
	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/middleware"
	"github.com/go-kratos/kratos/v2/transport"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/app"
	"podlink/internal/audit"
	"podlink/internal/biz"
	"podlink/internal/conf"
	"podlink/internal/server"
	"podlink/internal/service"
	"podlink/internal/telemetry"
	"podlink/test/kit/logwatch"
	redistest "podlink/test/kit/redis"
)

// public has the HTTP status and the gRPC code that the contract promises for each reason.
var public = map[v1.ErrorReason]struct {
	http int
	grpc codes.Code // OK if HTTP only
}{
	v1.ErrorReason_INVALID_ARGUMENT:        {http.StatusBadRequest, codes.InvalidArgument},
	v1.ErrorReason_POD_NOT_FOUND:           {http.StatusNotFound, codes.NotFound},
	v1.ErrorReason_WORKLOAD_NOT_FOUND:      {http.StatusNotFound, codes.NotFound},
	v1.ErrorReason_EPOCH_MISMATCH:          {http.StatusConflict, codes.Aborted},
	v1.ErrorReason_NO_AVAILABLE_POD:        {http.StatusServiceUnavailable, codes.Unavailable},
	v1.ErrorReason_STORE_UNAVAILABLE:       {http.StatusServiceUnavailable, codes.Unavailable},
	v1.ErrorReason_STORE_FULL:              {http.StatusServiceUnavailable, codes.Unavailable},
	v1.ErrorReason_OUTCOME_UNKNOWN:         {http.StatusGatewayTimeout, codes.DeadlineExceeded},
	v1.ErrorReason_DEADLINE_EXCEEDED:       {http.StatusGatewayTimeout, codes.DeadlineExceeded},
	v1.ErrorReason_CANCELED:                {499, codes.Canceled},
	v1.ErrorReason_STORE_DATA_CORRUPT:      {http.StatusInternalServerError, codes.Internal},
	v1.ErrorReason_NOT_FOUND:               {http.StatusNotFound, codes.OK},
	v1.ErrorReason_METHOD_NOT_ALLOWED:      {http.StatusMethodNotAllowed, codes.OK},
	v1.ErrorReason_UNSUPPORTED_MEDIA_TYPE:  {http.StatusUnsupportedMediaType, codes.OK},
	v1.ErrorReason_BODY_TOO_LARGE:          {http.StatusRequestEntityTooLarge, codes.OK},
	v1.ErrorReason_INTERNAL:                {http.StatusInternalServerError, codes.Internal},
	v1.ErrorReason_REPLICATION_UNCONFIRMED: {http.StatusGatewayTimeout, codes.DeadlineExceeded},
	v1.ErrorReason_SUPERSEDED:              {http.StatusConflict, codes.Aborted},
	v1.ErrorReason_LIMIT_EXCEEDED:          {http.StatusTooManyRequests, codes.ResourceExhausted},
	v1.ErrorReason_INDEX_DISABLED:          {http.StatusNotImplemented, codes.Unimplemented},
	v1.ErrorReason_JOB_NOT_FOUND:           {http.StatusNotFound, codes.NotFound},
}

// ofDoors are the reasons of callers that podlink refuses: test/e2e causes them.
var ofDoors = []v1.ErrorReason{
	v1.ErrorReason_UNAUTHENTICATED, v1.ErrorReason_PERMISSION_DENIED, v1.ErrorReason_RATE_LIMITED, v1.ErrorReason_NOT_READY,
}

// provocation is a real fault that causes a reason.
type provocation struct {
	name         string
	reason       v1.ErrorReason
	rpc, request string
	// start starts podlink on the server and sets up the fault, for one call.
	start    func(t *testing.T, redis *redistest.Server) *testApp
	metadata map[string]string // must match exactly
	cause    string            // must be part of a 5xx's log line
	redis    []string          // arguments of redis-server
}

// onStore starts podlink on the server and then applies the changes to the server.
func onStore(then ...func(t *testing.T, redis *redistest.Server)) func(t *testing.T, redis *redistest.Server) *testApp {
	return func(t *testing.T, redis *redistest.Server) *testApp {
		a := startApp(t, onRedis(redis))
		for _, f := range then {
			f(t, redis)
		}
		return a
	}
}

func killed(_ *testing.T, redis *redistest.Server) { redis.Kill() }

func paused(t *testing.T, redis *redistest.Server) {
	redis.Pause()
	t.Cleanup(redis.Resume)
}

func full(t *testing.T, redis *redistest.Server) {
	require.NoError(t, redis.Client(t).ConfigSet(t.Context(), "maxmemory", "1").Err())
}

// holding stores a hash.
func holding(key string, values ...any) func(t *testing.T, redis *redistest.Server) {
	return func(t *testing.T, redis *redistest.Server) {
		require.NoError(t, redis.Client(t).HSet(t.Context(), key, values...).Err())
	}
}

// manyServices links u1 for as many services as a uid may have.
func manyServices(t *testing.T, redis *redistest.Server) {
	for i := range 256 {
		holding("podlink:link:ns:u1", fmt.Sprintf("service-%d", i), "7 5 0")(t, redis)
	}
}

// losing starts podlink behind a proxy that drops the server's next reply.
func losing(t *testing.T, redis *redistest.Server) *testApp {
	proxy := redistest.NewProxy(t, redis.Addr())
	a := startApp(t, onRedis(redis), func(c *conf.Bootstrap) { c.Data.Redis.Addrs = []string{proxy.Addr()} })
	proxy.LoseReplies(1)
	return a
}

// withoutReplicas starts a podlink that waits for a replica, on a server with a link but no replica.
func withoutReplicas(t *testing.T, redis *redistest.Server) *testApp {
	a := startApp(t, onRedis(redis), func(c *conf.Bootstrap) {
		c.Data.Redis.WaitReplicas = 1
		c.Data.Redis.WaitTimeout = durationpb.New(20 * time.Millisecond)
	})
	holding("podlink:link:ns:u1", "svc", "7 5 0")(t, redis)
	return a
}

// withoutIndex starts a podlink that keeps no index.
func withoutIndex(t *testing.T, redis *redistest.Server) *testApp {
	return startApp(t, onRedis(redis), func(c *conf.Bootstrap) { c.Fleet.Index = false })
}

// withReports starts a podlink on a store with reports of two pods.
func withReports(fields string, prepare ...func(*testing.T, *redistest.Server)) func(*testing.T, *redistest.Server) *testApp {
	return func(t *testing.T, redis *redistest.Server) *testApp {
		a := onStore(prepare...)(t, redis)
		report(t, a, "svc", 1, fields)
		report(t, a, "svc", 2, fields)
		return a
	}
}

// holdingPod puts a foreign value in the place of pod 1.
func holdingPod(t *testing.T, server *redistest.Server) {
	member := redis.Z{Score: -3, Member: "secret"}
	require.NoError(t, server.Client(t).ZAdd(t.Context(), "podlink:service:ns:svc", member).Err())
}

// panicking starts a podlink whose services have nil use cases: every valid call panics.
func panicking(t *testing.T, redis *redistest.Server) *testApp {
	return startWired(t, func(
		config *conf.Bootstrap, level *telemetry.LogLevel, _ *telemetry.LogQueue, _ *audit.Log, logger log.Logger,
	) (*kratos.App, func(), error) {
		c := config.GetServer()
		store, cleanup, err := app.OpenStore(config.GetData(), nil, logger)
		if err != nil {
			return nil, nil, err
		}
		metrics, err := server.NewMetrics(server.Collectors{store.Metrics})
		if err != nil {
			return nil, nil, err
		}
		drain := server.NewDrain(c)
		traces := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))
		chain, closeChain := server.NewChain(server.ChainOptions{
			Server: c, Log: config.GetLog(), Tracer: traces, Metrics: metrics, Logger: logger,
		})
		api := server.NewAPI(service.NewFleetService(nil, nil, nil, nil), service.NewLinkService(nil, service.NopProblems{}),
			service.NewStateService(nil), service.NewWorkloadService(nil))
		grpcServer, stop := server.NewGRPCServer(c, api, chain, store.Health, drain, server.ListenerTLS{})
		podlink := kratos.New(
			kratos.Logger(logger), kratos.StopTimeout(c.GetStop().GetTimeout().AsDuration()), kratos.BeforeStop(drain.Run),
			kratos.Server(store.Health, server.NewHTTPServer(c, api, chain, drain, logger, server.ListenerTLS{}), grpcServer,
				server.NewAdminServer(server.AdminOptions{
					Server: c, Connections: server.NewConnections(c, nil), Store: store.Health, Drain: drain, Metrics: metrics, Level: level,
					Logger: logger,
				})))
		return podlink, func() { stop(); closeChain(); cleanup() }, nil
	}, onRedis(redis))
}

const (
	staleSet    = `{"namespace":"ns","uid":"u1","service":"svc","podId":1,"expectedEpoch":"4"}`
	staleRemove = `{"namespace":"ns","uid":"u1","service":"svc","expectedEpoch":"4"}`
)

var provocations = []provocation{
	{
		name: "text that is too long", reason: v1.ErrorReason_INVALID_ARGUMENT, start: onStore(), metadata: map[string]string{"field": "uid"},
		rpc: "ListLinkedServices", request: `{"namespace":"ns","uid":"` + strings.Repeat("u", 257) + `"}`,
	},
	{
		name: "pod that never reported", reason: v1.ErrorReason_POD_NOT_FOUND, start: onStore(),
		rpc: "GetServicePod", request: good["GetServicePod"],
	},
	{
		name: "workload never set", reason: v1.ErrorReason_WORKLOAD_NOT_FOUND, start: onStore(),
		rpc: "GetWorkloadState", request: good["GetWorkloadState"],
	},
	{
		name: "a newer owner", reason: v1.ErrorReason_EPOCH_MISMATCH, start: onStore(holding("podlink:link:ns:u1", "svc", "7 5 0")),
		rpc: "SetLinkedPod", request: staleSet, metadata: map[string]string{"pod_id": "7", "epoch": "5", "claim": "0"},
	},
	{
		name: "a newer process", reason: v1.ErrorReason_EPOCH_MISMATCH, start: onStore(holding("podlink:link:ns:u1", "svc", "1 5 0 9")),
		rpc: "SetLinkedPod", request: staleSet, metadata: map[string]string{"pod_id": "1", "epoch": "5", "claim": "9"},
	},
	{
		name: "a claim of an old process", reason: v1.ErrorReason_SUPERSEDED,
		start: onStore(holding("podlink:link:ns:u1", "svc", "1 5 0 4503599627370495")),
		rpc:   "SetLinkedPod", request: `{"namespace":"ns","uid":"u1","service":"svc","podId":1,"claim":"4503599627370494"}`,
		metadata: map[string]string{"generation": "4503599627370495", "final": "false"},
	},
	{
		name: "a link too many", reason: v1.ErrorReason_LIMIT_EXCEEDED, start: onStore(manyServices),
		rpc: "TrySetLinkedPod", request: good["TrySetLinkedPod"], metadata: map[string]string{"limit": "limits.max_services"},
	},
	{
		name: "a new link too many", reason: v1.ErrorReason_LIMIT_EXCEEDED,
		start: withReports(``, manyServices),
		rpc:   "ComputeLinkedPod", request: good["ComputeLinkedPod"], metadata: map[string]string{"limit": "limits.max_services"},
	},
	{
		name: "an epoch far ahead", reason: v1.ErrorReason_INVALID_ARGUMENT, start: onStore(),
		metadata: map[string]string{"field": "above_epoch"},
		rpc:      "SetLinkedPodIfAbsent", request: `{"namespace":"ns","uid":"u1","service":"svc","podId":1,"aboveEpoch":"9007199254740990"}`,
	},
	{
		name: "no owner", reason: v1.ErrorReason_EPOCH_MISMATCH, start: onStore(),
		rpc: "RemoveLinkedPod", request: staleRemove, metadata: map[string]string{"pod_id": "-1", "epoch": "0", "claim": "0"},
	},
	{
		name: "service that never reported", reason: v1.ErrorReason_NO_AVAILABLE_POD, start: onStore(),
		rpc: "ComputeLinkedPod", request: good["ComputeLinkedPod"], cause: "no pod of the service",
	},
	{
		name: "pods that all leave", reason: v1.ErrorReason_NO_AVAILABLE_POD, cause: "no pod of the service",
		start: withReports(`,"routing":"DENY_NEW"`),
		rpc:   "ComputeLinkedPod", request: good["ComputeLinkedPod"],
	},
	{
		name: "mutation of a store that is down", reason: v1.ErrorReason_STORE_UNAVAILABLE, start: onStore(killed),
		rpc: "SetLinkedPod", request: good["SetLinkedPod"], cause: "connection refused",
	},
	{
		name: "read of a store that is down", reason: v1.ErrorReason_STORE_UNAVAILABLE, start: onStore(killed),
		rpc: "GetLinkedPod", request: good["GetLinkedPod"], cause: "connection refused",
	},
	{
		name: "link in a full store", reason: v1.ErrorReason_STORE_FULL, start: onStore(full),
		rpc: "SetLinkedPod", request: good["SetLinkedPod"], cause: "OOM",
	},
	{
		name: "report in a full store", reason: v1.ErrorReason_STORE_FULL, start: onStore(full),
		rpc: "SetServiceState", request: good["SetServiceState"], cause: "OOM",
	},
	{
		name: "workload in a full store", reason: v1.ErrorReason_STORE_FULL, start: onStore(full),
		rpc: "SetWorkloadState", request: good["SetWorkloadState"], cause: "OOM",
	},
	{
		name: "lost reply", reason: v1.ErrorReason_OUTCOME_UNKNOWN, start: losing,
		rpc: "SetLinkedPod", request: good["SetLinkedPod"], cause: "EOF",
	},
	{
		name: "stalled mutation", reason: v1.ErrorReason_OUTCOME_UNKNOWN, start: onStore(paused),
		rpc: "RemoveLinkedPod", request: good["RemoveLinkedPod"], cause: "i/o timeout",
	},
	{
		name: "link that no replica confirms", reason: v1.ErrorReason_REPLICATION_UNCONFIRMED, start: withoutReplicas,
		rpc: "RemoveLinkedPod", request: good["RemoveLinkedPod"], cause: "0 of 1 replicas within 20ms",
		metadata: map[string]string{"pod_id": "-1", "epoch": "0"},
	},
	{
		name: "report that no replica confirms", reason: v1.ErrorReason_REPLICATION_UNCONFIRMED, start: withoutReplicas,
		rpc: "SetServiceState", request: good["SetServiceState"], cause: "0 of 1 replicas within 20ms",
	},
	{
		name: "stalled read", reason: v1.ErrorReason_DEADLINE_EXCEEDED, start: onStore(paused),
		rpc: "GetLinkedPod", request: good["GetLinkedPod"], cause: "the read timed out: ",
	},
	{
		name: "foreign type", reason: v1.ErrorReason_STORE_DATA_CORRUPT, cause: "WRONGTYPE",
		start: onStore(func(t *testing.T, redis *redistest.Server) {
			require.NoError(t, redis.Client(t).Set(t.Context(), "podlink:link:ns:u1", "secret", 0).Err())
		}),
		rpc: "GetLinkedPod", request: good["GetLinkedPod"],
	},
	{
		name: "foreign value", reason: v1.ErrorReason_STORE_DATA_CORRUPT, start: onStore(holdingPod),
		rpc: "GetServicePod", request: good["GetServicePod"], cause: "CORRUPT",
	},
	{
		name: "panic", reason: v1.ErrorReason_INTERNAL, start: panicking,
		rpc: "GetLinkedPod", request: good["GetLinkedPod"], cause: "nil pointer",
	},
	{
		name: "a job that never was", reason: v1.ErrorReason_JOB_NOT_FOUND, start: onStore(),
		rpc: "GetJob", request: good["GetJob"],
	},
	{
		name: "list without an index", reason: v1.ErrorReason_INDEX_DISABLED, start: withoutIndex,
		rpc: "ListPodLinks", request: good["ListPodLinks"],
	},
	{
		// EVALSHA is unknown to Redis, and its error quotes the key, which contains the uid.
		name: "unexpected reply", reason: v1.ErrorReason_INTERNAL, start: onStore(), redis: []string{"--rename-command", "EVALSHA", "hidden"},
		rpc: "SetLinkedPod", request: good["SetLinkedPod"], cause: "unknown command",
	},
}

// TestReasons causes every reason over both transports. Code, reason, text and metadata are those of the contract and the same
// on both. The cause is only in the log, on a line with the caller's trace id.
func TestReasons(t *testing.T) {
	provoked := make(map[v1.ErrorReason]bool)
	for _, p := range provocations {
		provoked[p.reason] = true
		t.Run(p.reason.String()+"/"+p.name, func(t *testing.T) {
			var first answer
			for i, over := range transports {
				redis := redistest.Start(t, p.redis...)
				a := p.start(t, redis)
				got := a.must(t, over, p.rpc, p.request)
				requireProblem(t, got, p.reason, string(over))
				require.Len(t, got.Metadata, len(p.metadata))
				for key, value := range p.metadata {
					require.Equal(t, value, got.Metadata[key], key)
				}
				requireNoLeak(t, got.problem, redis.Addr())
				a.requireLogged(t, got.trace, over, p)
				if i == 0 {
					first = got
				}
				require.Equal(t, first.Message, got.Message)
			}
		})
	}
	for _, row := range httpRows { // TestHostileHTTP sends them.
		provoked[row.reason] = true
	}
	provoked[v1.ErrorReason_CANCELED] = true // TestCallersThatLeave
	for number, name := range v1.ErrorReason_name {
		reason := v1.ErrorReason(number)
		require.NotEqual(t, slices.Contains(ofDoors, reason), provoked[reason], "no test causes %s", name)
	}
}

// leaks matches what is for operators only: addresses, files, commands, and texts of the driver and the runtime.
var leaks = regexp.MustCompile(`(?i)redis|lua|script|evalsha|podlink:|wrongtype|noscript|\boom\b|\btcp\b|\bdial\b|\beof\b|i/o|` +
	`refused|unknown command|goroutine|runtime|nil pointer|panic|\.go\b|context|secret|127\.0\.0\.1|localhost|:\d{3,}|(^|[\s"(])/\w`)

// requireNoLeak fails if the problem contains a leak or the address's port.
func requireNoLeak(t testing.TB, p problem, addr string) {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	text := p.Message
	for key, value := range p.Metadata {
		text += "\n" + key + "\n" + value
	}
	require.NotRegexp(t, leaks, text)
	require.NotContains(t, text, port)
}

// requireLogged checks the request's log line: an ERROR with the cause for a 5xx other than 501, otherwise a DEBUG line.
func (a *testApp) requireLogged(t testing.TB, trace string, over via, p provocation) {
	t.Helper()
	line := a.logLine(trace)
	require.NotNil(t, line, "no line has the caller's trace id")
	require.Equal(t, "request failed", line["msg"])
	require.Equal(t, p.reason.String(), line["reason"])
	require.EqualValues(t, public[p.reason].http, line["code"])
	require.Equal(t, strings.ToLower(string(over)), line["transport"])
	require.Contains(t, line["operation"], p.rpc)
	if code := public[p.reason].http; code < 500 || code == http.StatusNotImplemented {
		require.Equal(t, "DEBUG", line["level"])
		return
	}
	require.Equal(t, "ERROR", line["level"])
	require.NotEmpty(t, p.cause, "a 5xx needs a cause")
	require.Contains(t, line["cause"], p.cause)
}

// logLine returns the first log line with the trace id, or nil.
func (a *testApp) logLine(trace string) map[string]any {
	for text := range strings.Lines(a.log.String()) {
		var line map[string]any
		if strings.Contains(text, trace) && json.Unmarshal([]byte(text), &line) == nil && line["trace_id"] == trace {
			return line
		}
	}
	return nil
}

// TestFullStore: reads and removals work on a full store, including removals with keepSeconds.
func TestFullStore(t *testing.T) {
	redis := redistest.Start(t)
	a := startApp(t, onRedis(redis))
	client := redis.Client(t)
	check := func(name, request string) {
		for _, over := range transports {
			require.NoError(t, client.ConfigSet(t.Context(), "maxmemory", "0").Err())
			for _, setup := range []string{"SetLinkedPod", "SetServiceState", "SetWorkloadState"} {
				require.True(t, a.must(t, over, setup, good[setup]).ok(), "with free memory")
			}
			full(t, redis)
			got := a.must(t, over, name, request)
			requireAnswered(t, got, name, over)
			require.Equal(t, strings.HasPrefix(name, "Remove"), strings.Contains(got.reply, `"removed":true`))
		}
	}
	for name, request := range good {
		if !slices.Contains(mutations, name) || strings.HasPrefix(name, "Remove") {
			check(name, request)
		}
	}
	check("RemoveLinkedPod", with(t, good["RemoveLinkedPod"], "keepSeconds", "60"))
	check("RemoveLinkedPodWithId", with(t, good["RemoveLinkedPodWithId"], "keepSeconds", "60"))
}

// TestCallersThatLeave: after the caller has left, a read is logged as CANCELED, and a mutation that was sent as
// OUTCOME_UNKNOWN.
func TestCallersThatLeave(t *testing.T) {
	for _, over := range transports {
		for name, reason := range map[string]v1.ErrorReason{
			"GetLinkedPod": v1.ErrorReason_CANCELED, "SetLinkedPod": v1.ErrorReason_OUTCOME_UNKNOWN,
		} {
			a := onStore(paused)(t, redistest.Start(t))
			ctx, cancel := context.WithCancel(t.Context())
			left := time.AfterFunc(100*time.Millisecond, cancel)
			got, err := a.call(ctx, over, name, good[name])
			left.Stop()
			cancel()
			require.True(t, errors.Is(err, context.Canceled) || got.code == codes.Canceled, "%v %v", err, got)
			require.Eventually(t, func() bool { return a.logLine(got.trace) != nil }, 5*time.Second, 10*time.Millisecond)
			line := a.logLine(got.trace)
			require.Equal(t, reason.String(), line["reason"], "%s over %s: %v", name, over, line)
			require.EqualValues(t, public[reason].http, line["code"])
		}
	}
}

// overNothing is a transport.Transporter without a network.
type overNothing struct{ transport.Transporter }

func (overNothing) Kind() transport.Kind            { return transport.KindGRPC }
func (overNothing) Operation() string               { return v1.OperationLinkServiceGetLinkedPod }
func (overNothing) RequestHeader() transport.Header { return carrier{} }
func (overNothing) ReplyHeader() transport.Header   { return carrier{} }

// carrier is a transport.Header that stays empty.
type carrier struct{}

func (carrier) Get(string) string      { return "" }
func (carrier) Set(string, string)     {}
func (carrier) Add(string, string)     {}
func (carrier) Keys() []string         { return nil }
func (carrier) Values(string) []string { return nil }

// TestChain: any error behind the chain becomes an error of the API, including those that no Redis can cause.
func TestChain(t *testing.T) {
	metrics, err := server.NewMetrics(nil)
	require.NoError(t, err)
	for name, row := range map[string]struct {
		handle middleware.Handler
		reason v1.ErrorReason
		logged string
	}{
		"caller has left": {
			func(ctx context.Context, _ any) (any, error) {
				ctx, cancel := context.WithCancel(ctx)
				cancel()
				return nil, fmt.Errorf("%w: secret: %w", biz.ErrCanceled, ctx.Err())
			}, v1.ErrorReason_CANCELED, "secret",
		},
		"unknown error": {
			func(context.Context, any) (any, error) {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("10.1.2.3:6379: secret")}
			}, v1.ErrorReason_INTERNAL, "10.1.2.3:6379: secret",
		},
		"file error": {
			func(context.Context, any) (any, error) {
				_, err := os.Open("/secret/path")
				return nil, err
			}, v1.ErrorReason_INTERNAL, "/secret/path",
		},
		"gRPC error of a dependency": {
			func(context.Context, any) (any, error) { return nil, status.Error(codes.NotFound, "secret") },
			v1.ErrorReason_INTERNAL, "secret",
		},
		"panic with a text":   {func(context.Context, any) (any, error) { panic("secret") }, v1.ErrorReason_INTERNAL, "panic: secret"},
		"panic with an error": {func(context.Context, any) (any, error) { panic(errors.New("secret")) }, v1.ErrorReason_INTERNAL, "secret"},
		"panic with nil":      {func(context.Context, any) (any, error) { panic(nil) }, v1.ErrorReason_INTERNAL, "panic"},
	} {
		t.Run(name, func(t *testing.T) {
			lines := new(logwatch.Log)
			logger := telemetry.NewLogger(&conf.Log{Format: "json"}, telemetry.NewLogLevel("debug"), lines)
			traces := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))
			chain, closeChain := server.NewChain(server.ChainOptions{
				Server: conf.Default().Server, Log: &conf.Log{}, Tracer: traces, Metrics: metrics, Logger: logger,
			})
			t.Cleanup(closeChain)
			_, err := chain.Unary(row.handle)(transport.NewServerContext(t.Context(), overNothing{}), nil)
			got := kerrors.FromError(err)
			require.Equal(t, row.reason.String(), got.Reason)
			require.EqualValues(t, public[row.reason].http, got.Code)
			require.Equal(t, public[row.reason].grpc, status.Code(err))
			requireNoLeak(t, problem{Message: got.Message, Metadata: got.Metadata}, "10.1.2.3:6379")
			require.Contains(t, lines.String(), row.logged)
		})
	}
}
