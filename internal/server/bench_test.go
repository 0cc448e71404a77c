package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/transport"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"github.com/gorilla/mux"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
	"podlink/internal/conf"
	"podlink/internal/service"
	"podlink/internal/telemetry"
)

// memory is a store that answers every Get with the same link, and every Set with a change of it.
type memory struct{ biz.LinkRepo }

func (memory) Get(_ context.Context, key biz.LinkKey) (biz.Link, error) {
	return biz.Link{Key: key, Pod: 7, TTL: biz.Forever, Epoch: 1_763_871_882_483_671}, nil
}

func (memory) Set(_ context.Context, key biz.LinkKey, pod biz.PodID, ttl biz.TTL, _ biz.SetTerms) (biz.LinkChange, error) {
	return biz.LinkChange{Applied: true, Previous: 3, Link: biz.Link{Key: key, Pod: pod, TTL: ttl, Epoch: 1_763_871_882_483_671}}, nil
}

// parts are the dependencies of the listeners.
type parts struct {
	level  *telemetry.LogLevel
	config *conf.Server
	chain  *Chain
	drain  *Drain
	logger log.Logger
	links  *service.LinkService
	fleet  *service.FleetService
}

func newParts(tb testing.TB) parts {
	tb.Helper()
	metrics, err := NewMetrics(nil)
	require.NoError(tb, err)
	config, logger := conf.Default().Server, log.NewStdLogger(io.Discard)
	config.Http.Hosts = []string{"example.com"} // Of httptest's requests.
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))
	chain, closeChain := NewChain(ChainOptions{Server: config, Log: conf.Default().Log, Tracer: tracer, Metrics: metrics, Logger: logger})
	tb.Cleanup(closeChain)
	return parts{
		config: config,
		chain:  chain,
		drain:  NewDrain(config),
		logger: logger,
		level:  telemetry.NewLogLevel("warn"),
		links:  linksOn(memory{}),
		fleet:  service.NewFleetService(nil, nil, nil, nil),
	}
}

// linksOn is the service of links on a store.
func linksOn(store biz.LinkRepo) *service.LinkService {
	domain := telemetry.NewDomain()
	views := biz.NewPodViews(nil, domain)
	return service.NewLinkService(biz.NewLinkUsecase(store, views, biz.Limits{MaxBatch: 1000}, domain), service.NopProblems{})
}

func (p parts) api() API {
	return NewAPI(p.fleet, p.links, service.NewStateService(nil), service.NewWorkloadService(nil))
}

func (p parts) http() http.Handler {
	return NewHTTPServer(p.config, p.api(), p.chain, p.drain, p.logger, ListenerTLS{})
}

// dial serves gRPC in memory, and connects to it.
func (p parts) dial(tb testing.TB) *grpc.ClientConn {
	tb.Helper()
	srv, stop := NewGRPCServer(p.config, p.api(), p.chain, healthyStore{}, p.drain, ListenerTLS{})
	listener := bufconn.Listen(1 << 16)
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	require.NoError(tb, err)
	tb.Cleanup(func() {
		require.NoError(tb, conn.Close())
		stop()
		require.NoError(tb, <-ended)
	})
	return conn
}

// plainHTTP is a Kratos server with the same chain and Kratos' own codecs, to compare with.
func (p parts) plainHTTP() http.Handler {
	srv := khttp.NewServer(khttp.Middleware(p.chain.Unary))
	v1.RegisterLinkServiceHTTPServer(srv, p.links)
	return srv
}

// sink is an http.ResponseWriter that discards the body.
type sink struct {
	header http.Header
	code   int
}

func (s *sink) Header() http.Header            { return s.header }
func (s *sink) Write(text []byte) (int, error) { return len(text), nil }
func (s *sink) WriteHeader(code int)           { s.code = code }

const (
	linkPath = "/v1/namespaces/game/links/user-000042/services/room"
	setBody  = `{"podId": 7, "persistSeconds": 60}`
)

// benchmarkHTTP serves the same request repeatedly, without a connection.
func benchmarkHTTP(b *testing.B, handler http.Handler, method, path, body string) {
	b.Helper()
	b.ReportAllocs()
	request := httptest.NewRequestWithContext(b.Context(), method, path, nil)
	request.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	request.Body = http.NoBody // Servers never see a nil body.
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
		request.ContentLength = int64(len(body))
	}
	reply := &sink{header: make(http.Header)}
	for b.Loop() {
		r := *request // Filters wrap the body; the wrappers must not accumulate.
		if body != "" {
			r.Body = io.NopCloser(strings.NewReader(body))
		}
		handler.ServeHTTP(reply, &r)
	}
	require.Equal(b, http.StatusOK, reply.code)
}

func BenchmarkHTTPGetLinkedPod(b *testing.B) {
	p := newParts(b)
	b.Run("podlink", func(b *testing.B) { benchmarkHTTP(b, p.http(), http.MethodGet, linkPath, "") })
	b.Run("plain", func(b *testing.B) { benchmarkHTTP(b, p.plainHTTP(), http.MethodGet, linkPath, "") })
}

func BenchmarkHTTPSetLinkedPod(b *testing.B) {
	p := newParts(b)
	b.Run("podlink", func(b *testing.B) { benchmarkHTTP(b, p.http(), http.MethodPut, linkPath, setBody) })
	b.Run("plain", func(b *testing.B) { benchmarkHTTP(b, p.plainHTTP(), http.MethodPut, linkPath, setBody) })
}

// BenchmarkGRPCGetLinkedPod is a whole call, client included, over an in-memory connection.
func BenchmarkGRPCGetLinkedPod(b *testing.B) {
	b.ReportAllocs()
	p := newParts(b)
	client := v1.NewLinkServiceClient(p.dial(b))
	request := &v1.GetLinkedPodRequest{Namespace: "game", Uid: "user-000042", Service: "room"}
	for b.Loop() {
		if _, err := client.GetLinkedPod(b.Context(), request); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkGRPCHandler is decoding and the use case of such a call, without transport and chain.
func BenchmarkGRPCHandler(b *testing.B) {
	b.ReportAllocs()
	p := newParts(b)
	raw, err := proto.Marshal(&v1.GetLinkedPodRequest{Namespace: "game", Uid: "user-000042", Service: "room"})
	require.NoError(b, err)
	wire := mem.BufferSlice{mem.SliceBuffer(raw)}
	var handle grpc.MethodHandler
	for _, method := range v1.LinkService_ServiceDesc.Methods {
		if method.MethodName == "GetLinkedPod" {
			handle = deferErrors(nil, "", method.Handler)
		}
	}
	decoder := codec{encoding.GetCodecV2(grpcproto.Name)}
	receive := func(target any) error { return decoder.Unmarshal(wire, target) }
	for b.Loop() {
		if _, err := handle(p.links, b.Context(), receive, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// call is a gRPC transport.Transporter: the fields of Kratos' own are not exported.
type call struct {
	transport.Transporter
	header, reply http.Header
}

func (call) Kind() transport.Kind              { return transport.KindGRPC }
func (call) Operation() string                 { return v1.OperationLinkServiceGetLinkedPod }
func (c call) RequestHeader() transport.Header { return header{c.header} }
func (c call) ReplyHeader() transport.Header   { return header{c.reply} }

type header struct{ http.Header }

func (h header) Keys() []string { return nil }

// BenchmarkChain builds the chain for each request, as Kratos does.
func BenchmarkChain(b *testing.B) {
	p := newParts(b)
	request, reply := &v1.GetLinkedPodRequest{}, &v1.GetLinkedPodReply{}
	ctx := transport.NewServerContext(b.Context(), call{header: http.Header{}, reply: http.Header{}})
	for name, err := range map[string]error{
		"reply": nil, "refused": invalid("uid", "must be valid UTF-8"), "failed": fmt.Errorf("%w: EOF", biz.ErrOutcomeUnknown),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = p.chain.Unary(func(context.Context, any) (any, error) { return reply, err })(ctx, request)
			}
		})
	}
}

func BenchmarkDecodePath(b *testing.B) {
	b.ReportAllocs()
	request := mux.SetURLVars(httptest.NewRequestWithContext(b.Context(), http.MethodGet, linkPath, nil),
		map[string]string{"namespace": "game", "uid": "user-000042", "service": "room"})
	for b.Loop() {
		if err := decodePath(request, new(v1.GetLinkedPodRequest).ProtoReflect()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeQuery(b *testing.B) {
	for name, path := range map[string]string{"none": linkPath, "one": linkPath + "?keepSeconds=60"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			request := httptest.NewRequestWithContext(b.Context(), http.MethodDelete, path, nil)
			for b.Loop() {
				if err := decodeQuery(request, new(v1.RemoveLinkedPodRequest).ProtoReflect()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecodeBody(b *testing.B) {
	b.ReportAllocs()
	body := bytes.NewReader([]byte(setBody))
	request := httptest.NewRequestWithContext(b.Context(), http.MethodPut, linkPath, body)
	request.Header.Set("Content-Type", "application/json")
	for b.Loop() {
		body.Reset([]byte(setBody))
		if err := decodeBody(request, new(v1.SetLinkedPodRequest).ProtoReflect()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeReply(b *testing.B) {
	batch := &v1.BatchGetLinkedPodReply{}
	for pod := range int32(10) {
		batch.Pods = append(batch.Pods, &v1.BatchGetLinkedPodReply_PodUids{
			PodId: pod, Uids: slices.Repeat([]string{"user-000042"}, 100),
		})
	}
	link := &v1.Link{
		Namespace: "game", Uid: "user-000042", Service: "room", PodId: 7, Persistent: true, TtlSeconds: -1, Epoch: 1_763_871_882_483_671,
	}
	w := &sink{header: make(http.Header)}
	encoder := newReplyEncoder()
	for name, reply := range map[string]proto.Message{
		"link": &v1.GetLinkedPodReply{Link: link}, "batch": batch,
		"computed": &v1.ComputeLinkedPodReply{Link: link, Pod: &v1.Pod{PodId: 7, State: "up", Labels: map[string]string{"zone": "a"}}},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := encoder.encode(w, nil, reply); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
