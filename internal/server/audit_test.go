package server

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/transport"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/audit"
	"podlink/internal/auth"
	"podlink/internal/conf"
	"podlink/test/kit/logwatch"
)

// audited returns a chain with an audit log, and a function that closes the log and returns its records.
func audited(tb testing.TB, o audit.Options) (*Chain, func() []map[string]any) {
	tb.Helper()
	out := new(logwatch.Log)
	o.Out, o.PlainUIDs = out, true
	l, err := audit.New(o)
	require.NoError(tb, err)
	metrics, err := NewMetrics(nil)
	require.NoError(tb, err)
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))
	chain, closeChain := NewChain(ChainOptions{
		Server: conf.Default().Server, Log: conf.Default().Log, Tracer: tracer, Metrics: metrics, Audit: l,
		Logger: log.NewStdLogger(new(logwatch.Log)),
	})
	tb.Cleanup(closeChain)
	closeLog := sync.OnceValue(func() (records []map[string]any) {
		require.NoError(tb, l.Close(context.Background()))
		for line := range strings.Lines(out.String()) {
			var record map[string]any
			require.NoError(tb, json.Unmarshal([]byte(line), &record))
			delete(record, "time")
			records = append(records, record)
		}
		return records
	})
	tb.Cleanup(func() { closeLog() })
	return chain, closeLog
}

// operation is a transport of a call of that operation.
type operation struct {
	call
	name string
}

func (o operation) Operation() string { return o.name }

// callOf returns the context of a call of an operator over gRPC.
func callOf(ctx context.Context, name string, right auth.Right, headers ...string) context.Context {
	t := operation{call{header: http.Header{}, reply: http.Header{}}, name}
	for i := 0; i < len(headers); i += 2 {
		t.header.Set(headers[i], headers[i+1])
	}
	return transport.NewServerContext(&auth.Call{
		Context: ctx, Identity: auth.Identity{Name: "spiffe://example.org/operator"}, Peer: netip.MustParseAddrPort("192.0.2.7:4711"),
		Grant: auth.Grant{Right: right, Rule: "rules[0]"},
	}, t)
}

// TestEveryMutationIsAudited: an rpc that may change something has a row, others have none.
func TestEveryMutationIsAudited(t *testing.T) {
	want := make(map[string]bool)
	for _, method := range v1.Methods() {
		options, _ := method.Options().(*descriptorpb.MethodOptions)
		if options.GetIdempotencyLevel() != descriptorpb.MethodOptions_NO_SIDE_EFFECTS {
			want[v1.Operation(method)] = true
		}
	}
	require.NotEmpty(t, want)
	for name := range want {
		require.Contains(t, mutations, name, "which fields of its reply say that it changed something? A row in mutations says it")
	}
	for name := range mutations {
		require.Contains(t, want, name, "it has no side effects")
	}
}

// TestRowsTakeTheirMessages: a row for other messages would record nothing.
func TestRowsTakeTheirMessages(t *testing.T) {
	for _, method := range v1.Methods() {
		changes, ok := mutations[v1.Operation(method)]
		if !ok {
			continue
		}
		recorded := 0
		changes(audit.Record{Right: auth.Force}, filled(t, method.Input()), filled(t, method.Output()), func(audit.Record) { recorded++ })
		require.Equal(t, 1, recorded, method.Name())
	}
}

// filled returns a message whose fields are set: numbers and enums to 1, and one element in each list.
func filled(t *testing.T, descriptor protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(descriptor.FullName())
	require.NoError(t, err)
	m := kind.New()
	for i := range descriptor.Fields().Len() {
		field := descriptor.Fields().Get(i)
		if field.Name() == "problem" || field.IsMap() {
			continue
		}
		value := protoreflect.ValueOfString("x")
		switch field.Kind() {
		case protoreflect.BoolKind:
			value = protoreflect.ValueOfBool(true)
		case protoreflect.Int32Kind:
			value = protoreflect.ValueOfInt32(1)
		case protoreflect.Int64Kind:
			value = protoreflect.ValueOfInt64(1)
		case protoreflect.EnumKind:
			value = protoreflect.ValueOfEnum(1)
		case protoreflect.MessageKind:
			value = protoreflect.ValueOfMessage(filled(t, field.Message()).ProtoReflect())
		default:
		}
		if field.IsList() {
			m.Mutable(field).List().Append(value)
			continue
		}
		m.Set(field, value)
	}
	return m.Interface()
}

// TestWhatOperatorsChangeIsAudited: by default what needed operate or force, and of whom, by which rule and why.
func TestWhatOperatorsChangeIsAudited(t *testing.T) {
	chain, records := audited(t, audit.Options{})
	set := chain.Unary(func(context.Context, any) (any, error) {
		return &v1.SetLinkedPodReply{Link: &v1.Link{Uid: "anna", PodId: 2, Epoch: 9}, PreviousPodId: 0}, nil
	})
	get := chain.Unary(func(context.Context, any) (any, error) { return &v1.GetLinkedPodReply{}, nil })
	request := &v1.SetLinkedPodRequest{Namespace: "game", Service: "room", Uid: "anna"}
	for right := auth.None; right <= auth.Force; right++ {
		_, err := set(callOf(t.Context(), v1.OperationLinkServiceSetLinkedPod, right, reasonHeader, "node broken\n",
			"Traceparent", traceparent, "Authorization", "Bearer secret"), request)
		require.NoError(t, err)
		_, err = get(callOf(t.Context(), v1.OperationLinkServiceGetLinkedPod, right), &v1.GetLinkedPodRequest{Uid: "anna"})
		require.NoError(t, err)
	}
	record := func(right string) map[string]any {
		return map[string]any{
			"msg": "audit", "event": "change", "trace_id": traceID, "identity": "spiffe://example.org/operator",
			"peer": "192.0.2.7:4711", "operation": v1.OperationLinkServiceSetLinkedPod, "right": right, "rule": "rules[0]",
			"namespace": "game", "service": "room", "uid": "anna", "pod": 2.0, "previous_pod": 0.0, "epoch": 9.0,
			"outcome": "moved", "reason": "node broken\n",
		}
	}
	require.Equal(t, []map[string]any{record("operate"), record("force")}, records())
}

// TestReportsThatSayNothingNewAreNotAudited, unless an operator sends them: the load decides where new users go.
func TestReportsThatSayNothingNewAreNotAudited(t *testing.T) {
	pod := func(change func(*v1.Pod)) *v1.Pod {
		p := &v1.Pod{PodId: 1, State: "up", Load: 3, Live: true, TtlSeconds: 15, Labels: map[string]string{"a": "b"}}
		change(p)
		return p
	}
	same := func(*v1.Pod) {}
	for name, row := range map[string]struct {
		right         auth.Right
		pod, previous *v1.Pod
		applied, want bool
	}{
		"a heartbeat":             {auth.Report, pod(same), pod(same), true, false},
		"another load":            {auth.Report, pod(func(p *v1.Pod) { p.Load = 4; p.HeartbeatMs = 5; p.Given = 6 }), pod(same), true, false},
		"an operator's heartbeat": {auth.Operate, pod(same), pod(same), true, true},
		"not applied":             {auth.Operate, pod(same), pod(same), false, false},
		"the first":               {auth.Report, pod(same), nil, true, true},
		"alive again":             {auth.Report, pod(same), pod(func(p *v1.Pod) { p.Live = false }), true, true},
		"another routing":         {auth.Report, pod(func(p *v1.Pod) { p.ReportedRouting = v1.Routing_SHUTDOWN }), pod(same), true, true},
		"another state":           {auth.Report, pod(func(p *v1.Pod) { p.State = "down" }), pod(same), true, true},
		"another ttl":             {auth.Report, pod(func(p *v1.Pod) { p.TtlSeconds = -1 }), pod(same), true, true},
		"another process":         {auth.Report, pod(func(p *v1.Pod) { p.InstanceId = "x" }), pod(same), true, true},
		"another generation":      {auth.Report, pod(func(p *v1.Pod) { p.Generation = 1 }), pod(same), true, true},
		"a capacity of 0":         {auth.Report, pod(func(p *v1.Pod) { p.Capacity = proto.Int32(0) }), pod(same), true, true},
		"another address":         {auth.Report, pod(func(p *v1.Pod) { p.Address = "a:1" }), pod(same), true, true},
		"another label":           {auth.Report, pod(func(p *v1.Pod) { p.Labels = map[string]string{"a": "c"} }), pod(same), true, true},
	} {
		t.Run(name, func(t *testing.T) {
			chain, records := audited(t, audit.Options{AllMutations: true})
			_, err := chain.Unary(func(context.Context, any) (any, error) {
				return &v1.SetServiceStateReply{Pod: row.pod, Previous: row.previous, Applied: row.applied}, nil
			})(callOf(t.Context(), v1.OperationStateServiceSetServiceState, row.right), &v1.SetServiceStateRequest{PodId: proto.Int32(1)})
			require.NoError(t, err)
			require.Equal(t, row.want, len(records()) == 1)
		})
	}
}

// TestRefusalsAreAudited: who was refused what, and why, over both kinds of transport.
func TestRefusalsAreAudited(t *testing.T) {
	cause := errors.New("the token has expired")
	for name, row := range map[string]struct {
		err  error
		want map[string]any // nil: no record
	}{
		"not authenticated": {v1.ErrorUnauthenticated("valid credentials are required").WithCause(cause), map[string]any{
			"outcome": "UNAUTHENTICATED", "detail": "the token has expired",
		}},
		"not permitted": {v1.ErrorPermissionDenied("SetLinkedPod is not permitted"), map[string]any{
			"outcome": "PERMISSION_DENIED", "detail": "SetLinkedPod is not permitted",
		}},
		"too often":         {v1.ErrorRateLimited("too many calls"), map[string]any{"outcome": "RATE_LIMITED", "detail": "too many calls"}},
		"not valid":         {invalid("uid", "is required"), nil},
		"too many services": {v1.ErrorLimitExceeded("too many"), nil}, // A 429 about a link, not about the caller.
		"other pod":         {v1.ErrorEpochMismatch("no"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			chain, records := audited(t, audit.Options{})
			_, err := chain.Unary(func(context.Context, any) (any, error) { return nil, row.err })(
				callOf(t.Context(), v1.OperationLinkServiceSetLinkedPod, auth.Force, reasonHeader, "curious"),
				&v1.SetLinkedPodRequest{Namespace: "game", Service: "room", Uid: "anna", PodId: proto.Int32(0)})
			require.Error(t, err)
			if row.want == nil {
				require.Empty(t, records())
				return
			}
			require.Len(t, records(), 1)
			for key, value := range map[string]any{
				"event": "refusal", "identity": "spiffe://example.org/operator", "peer": "192.0.2.7:4711", "namespace": "game",
				"service": "room", "uid": "anna", "pod": 0.0, "right": "force", "reason": "curious", "count": 1.0,
				"operation": v1.OperationLinkServiceSetLinkedPod, "outcome": row.want["outcome"], "detail": row.want["detail"],
			} {
				require.Equal(t, value, records()[0][key], key)
			}
		})
	}
	t.Run("of a path that does not exist", func(t *testing.T) {
		chain, records := audited(t, audit.Options{})
		reply := httptest.NewRecorder()
		request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/admin?token=secret", http.NoBody)
		rejectVia(chain)(reply, request, v1.ErrorUnauthenticated("valid credentials are required"))
		require.Equal(t, http.StatusUnauthorized, reply.Code)
		require.Len(t, records(), 1)
		require.Equal(t, request.RemoteAddr, records()[0]["peer"])
		require.Equal(t, "unknown", records()[0]["operation"])
	})
}

// TestLevelChangesAreAudited.
func TestLevelChangesAreAudited(t *testing.T) {
	p := newParts(t)
	chain, records := audited(t, audit.Options{})
	admin := newAdmin(t, p, chain.audit)
	for _, body := range []string{`{"level":"nonsense"}`, `{"level":"debug"}`} {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/loglevel", strings.NewReader(body))
		request.Host = "localhost"
		request.Header.Set(reasonHeader, "looking for a fault")
		admin.server.Handler.ServeHTTP(httptest.NewRecorder(), request)
	}
	require.Equal(t, []map[string]any{{
		"msg": "audit", "event": "event", "peer": "192.0.2.1:1234", "operation": "loglevel", "outcome": "changed",
		"detail": "warn to debug", "reason": "looking for a fault",
	}}, records())
}

// TestRefusedPagesAreAudited: what a web page of a foreign name or origin asks of the admin listener is in the audit log, without its text.
func TestRefusedPagesAreAudited(t *testing.T) {
	for name, row := range map[string]struct {
		host   string
		header http.Header
		detail string
	}{
		"a foreign name":   {"evil.example", nil, "the Host of the request is not a name of this listener"},
		"a foreign origin": {"localhost", http.Header{"Sec-Fetch-Site": {"cross-site"}}, "the request is from a web page of another origin"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParts(t)
			chain, records := audited(t, audit.Options{})
			admin := newAdmin(t, p, chain.audit)
			request := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/loglevel", strings.NewReader(`{"level":"debug"}`))
			request.Host = row.host
			maps.Copy(request.Header, row.header)
			reply := httptest.NewRecorder()
			admin.server.Handler.ServeHTTP(reply, request)
			require.Equal(t, http.StatusForbidden, reply.Code)
			require.Len(t, records(), 1)
			record := records()[0]
			for key, value := range map[string]any{
				"event": "refusal", "operation": "loglevel", "outcome": "PERMISSION_DENIED", "peer": "192.0.2.1:1234",
			} {
				require.Equal(t, value, record[key], key)
			}
			require.Contains(t, record["detail"], row.detail)
			require.NotContains(t, record["detail"], "evil")
		})
	}
}

// TestAuditCostsNothingWhenOff: a call allocates as much as without the hook.
func TestAuditCostsNothingWhenOff(t *testing.T) {
	p := newParts(t)
	ctx := callOf(t.Context(), v1.OperationLinkServiceSetLinkedPod, auth.Force)
	tr, _ := transport.FromServerContext(ctx)
	m := messages{&v1.SetLinkedPodRequest{}, &v1.SetLinkedPodReply{}}
	require.Zero(t, testing.AllocsPerRun(100, func() { p.chain.record(ctx, tr, m, nil) }))
	read := messages{&v1.GetLinkedPodRequest{}, &v1.GetLinkedPodReply{}}
	chain, _ := audited(t, audit.Options{AllMutations: true})
	ctx = callOf(t.Context(), v1.OperationLinkServiceGetLinkedPod, auth.Read)
	tr, _ = transport.FromServerContext(ctx)
	require.Zero(t, testing.AllocsPerRun(100, func() { chain.record(ctx, tr, read, nil) }), "a read with the audit log on")
}

// BenchmarkAudit measures what a mutation costs more, by what is recorded.
func BenchmarkAudit(b *testing.B) {
	for name, row := range map[string]struct {
		right auth.Right
		o     audit.Options
	}{
		"operators, of a caller":    {auth.Bind, audit.Options{}},
		"operators, of an operator": {auth.Force, audit.Options{}},
		"all":                       {auth.Bind, audit.Options{AllMutations: true}},
	} {
		b.Run(name, func(b *testing.B) {
			row.o.Out = nowhere{}
			l, err := audit.New(row.o)
			require.NoError(b, err)
			defer l.Close(context.Background())
			chain := &Chain{audit: l}
			ctx := callOf(b.Context(), v1.OperationLinkServiceSetLinkedPod, row.right)
			tr, _ := transport.FromServerContext(ctx)
			m := messages{
				&v1.SetLinkedPodRequest{Namespace: "game", Service: "room", Uid: "user-000042"},
				&v1.SetLinkedPodReply{Link: &v1.Link{PodId: 7, Epoch: time.Now().UnixMicro()}},
			}
			b.ReportAllocs()
			for b.Loop() {
				chain.record(ctx, tr, m, nil)
			}
		})
	}
}

type nowhere struct{}

func (nowhere) Write(lines []byte) (int, error) { return len(lines), nil }
