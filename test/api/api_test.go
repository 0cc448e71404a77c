package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/conf"
	redistest "podlink/test/kit/redis"
)

// via is the transport of a call.
type via string

const (
	overHTTP via = "HTTP"
	overGRPC via = "gRPC"
	// overPlain is HTTP with the uid in the query or in the body, for the RPCs that have such a path.
	overPlain via = "plain HTTP"
)

var (
	transports = []via{overHTTP, overGRPC}
	forms      = []via{overHTTP, overPlain, overGRPC}
)

// rpcs are all methods of the API by name.
var rpcs = func() map[string]protoreflect.MethodDescriptor {
	found := make(map[string]protoreflect.MethodDescriptor)
	for _, method := range v1.Methods() {
		found[string(method.Name())] = method
	}
	return found
}()

// streams reports whether the RPC answers a stream. The tests call it as any other: its answer is then the first message.
func streams(name string) bool { return rpcs[name].IsStreamingServer() }

// mutations are the RPCs that write.
var mutations = []string{
	"SetLinkedPod", "TrySetLinkedPod", "SetLinkedPodIfAbsent", "ComputeLinkedPod", "RemoveLinkedPod",
	"RemoveLinkedPodWithId", "SetServiceState", "CordonPod", "RemoveServiceState", "SetWorkloadState",
	"RemoveWorkloadState", "BatchComputeLinkedPod", "BatchSetLinkedPod", "BatchRemoveLinkedPod",
}

// problem is the JSON of every error.
type problem struct {
	Code     int               `json:"code"`
	Reason   string            `json:"reason"`
	Message  string            `json:"message"`
	Metadata map[string]string `json:"metadata"`
}

// answer is the result of a call.
type answer struct {
	sent   string        // HTTP only: "GET /v1/…"
	status int           // HTTP only
	header http.Header   // HTTP only
	code   codes.Code    // gRPC only
	reply  string        // the reply as JSON, if the call succeeded
	into   proto.Message // the reply, if the call succeeded
	problem
	trace string // the caller's trace id
	took  time.Duration
}

func (a answer) ok() bool { return a.into != nil }

// call calls an RPC with a request in JSON. Over HTTP it builds path, query and body by the proto's annotation, and sends any
// JSON. Over gRPC, a request that doesn't fit the message returns errInexpressible. Any other error means that podlink gave no
// answer.
func (a *testApp) call(ctx context.Context, over via, name, request string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var id [24]byte
	_, _ = rand.Read(id[:])
	trace := hex.EncodeToString(id[:16])
	ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", fmt.Sprintf("00-%s-%x-01", trace, id[16:]))
	start := time.Now()
	var got answer
	var err error
	if over == overGRPC {
		got, err = a.callGRPC(ctx, rpcs[name], request)
	} else {
		got, err = a.callHTTP(ctx, over, rpcs[name], request)
	}
	got.trace, got.took = trace, time.Since(start)
	return got, err
}

// must is call, and fails the test without an answer.
func (a *testApp) must(t testing.TB, over via, name, request string) answer {
	t.Helper()
	got, err := a.call(t.Context(), over, name, request)
	require.NoError(t, err)
	return got
}

// noRedirects returns a redirect instead of following it, since a redirected request loses its body.
var noRedirects = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

var pathVariable = regexp.MustCompile(`\{\w+\}`)

// callHTTP sends the outgoing metadata of ctx as headers.
func (a *testApp) callHTTP(
	ctx context.Context, over via, method protoreflect.MethodDescriptor, request string,
) (answer, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(request), &fields); err != nil {
		return answer{}, err
	}
	verb, template := httpRule(method, over)
	path := pathVariable.ReplaceAllStringFunc(template, func(variable string) string {
		name := method.Input().Fields().ByTextName(strings.Trim(variable, "{}")).JSONName()
		defer delete(fields, name)
		return segment(text(fields[name]))
	})
	var body []byte
	if verb == http.MethodPut || verb == http.MethodPost {
		var err error
		if body, err = json.Marshal(fields); err != nil {
			return answer{}, err
		}
	} else if len(fields) > 0 {
		query := make(url.Values)
		for name, value := range fields {
			query.Set(name, text(value))
		}
		path += "?" + query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, verb, a.http+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	headers, _ := metadata.FromOutgoingContext(ctx)
	for name, values := range headers {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	if len(body) > 0 {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := noRedirects.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	got := answer{sent: verb + " " + path, status: response.StatusCode, header: response.Header}
	read := io.ReadAll
	if method.IsStreamingServer() && got.status == http.StatusOK {
		read = firstOf[got.header.Get("Content-Type")]
	}
	content, err := read(response.Body)
	if err != nil {
		return got, err
	}
	if got.status != http.StatusOK {
		got.problem, err = parseProblem(content)
		return got, err
	}
	got.reply = canonical(content)
	got.into = newMessage(method.Output())
	return got, protojson.Unmarshal(content, got.into)
}

// firstOf returns the first message of a stream, by the media type.
var firstOf = map[string]func(stream io.Reader) ([]byte, error){
	"text/event-stream": firstEvent, "application/x-ndjson": firstLine,
}

func firstLine(stream io.Reader) ([]byte, error) { return bufio.NewReader(stream).ReadBytes('\n') }

// firstEvent returns the data of the first server-sent event.
func firstEvent(stream io.Reader) ([]byte, error) {
	lines := bufio.NewScanner(stream)
	for lines.Scan() {
		if data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data:")); ok {
			return bytes.Clone(data), nil
		}
	}
	return nil, errors.Join(io.ErrUnexpectedEOF, lines.Err())
}

// parseProblem parses an error's JSON, which must have exactly its four keys.
func parseProblem(content []byte) (problem, error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(content, &keys); err != nil {
		return problem{}, fmt.Errorf("%q: %w", content, err)
	}
	for _, key := range []string{"code", "reason", "message", "metadata"} {
		if _, ok := keys[key]; !ok || len(keys) != 4 {
			return problem{}, fmt.Errorf("%q is not code, reason, message and metadata", content)
		}
	}
	var p problem
	return p, json.Unmarshal(content, &p)
}

func httpRule(method protoreflect.MethodDescriptor, over via) (verb, path string) {
	rule := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
	if over == overPlain && len(rule.GetAdditionalBindings()) > 0 {
		rule = rule.GetAdditionalBindings()[0]
	}
	for verb, path := range map[string]string{
		http.MethodGet: rule.GetGet(), http.MethodPut: rule.GetPut(),
		http.MethodPost: rule.GetPost(), http.MethodDelete: rule.GetDelete(),
	} {
		if path != "" {
			return verb, path
		}
	}
	return "", ""
}

// text returns the value of a field as written in a path or a query.
func text(value json.RawMessage) string {
	var s string
	if json.Unmarshal(value, &s) == nil && value[0] == '"' {
		return s
	}
	return string(value)
}

// segment percent-encodes a path segment, including one of dots, which clients and proxies would resolve.
func segment(text string) string {
	if text == "." || text == ".." {
		return strings.ReplaceAll(text, ".", "%2E")
	}
	return url.PathEscape(text)
}

// canonical returns JSON without white space and with sorted keys.
func canonical(content []byte) string {
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return string(content)
	}
	out, _ := json.Marshal(value)
	return string(out)
}

var errInexpressible = fmt.Errorf("gRPC can't express this request")

func newMessage(descriptor protoreflect.MessageDescriptor) proto.Message {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(descriptor.FullName())
	if err != nil {
		return nil
	}
	return kind.New().Interface()
}

func (a *testApp) callGRPC(ctx context.Context, method protoreflect.MethodDescriptor, request string) (answer, error) {
	in, out := newMessage(method.Input()), newMessage(method.Output())
	if protojson.Unmarshal([]byte(request), in) != nil {
		return answer{}, errInexpressible
	}
	if method.IsStreamingServer() {
		return a.firstMessage(ctx, v1.Operation(method), in, out)
	}
	return a.invoke(ctx, v1.Operation(method), in, out)
}

// invoke calls a gRPC method; out is a message.
func (a *testApp) invoke(
	ctx context.Context, method string, in any, out proto.Message, options ...grpc.CallOption,
) (answer, error) {
	return answered(a.grpc.Invoke(ctx, method, in, out, options...), out)
}

// firstMessage calls a gRPC method that answers a stream, and leaves after the first message.
func (a *testApp) firstMessage(ctx context.Context, method string, in any, out proto.Message, options ...grpc.CallOption) (answer, error) {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	stream, err := a.grpc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method, options...)
	if err == nil {
		err = errors.Join(stream.SendMsg(in), stream.CloseSend())
	}
	if err != nil {
		return answer{}, err
	}
	return answered(stream.RecvMsg(out), out)
}

// answered is the answer of a call over gRPC.
func answered(err error, out proto.Message) (answer, error) {
	got := answer{code: status.Code(err)}
	if err == nil {
		content, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(out)
		got.reply, got.into = canonical(content), out
		return got, err
	}
	got.Message = status.Convert(err).Message()
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			got.Reason, got.Metadata = info.GetReason(), info.GetMetadata()
		}
	}
	return got, nil
}

// stores are the kinds of store that podlink runs on.
var stores = map[string]func(t *testing.T) []func(*conf.Bootstrap){
	"embedded": func(*testing.T) []func(*conf.Bootstrap) { return nil },
	"redis": func(t *testing.T) []func(*conf.Bootstrap) {
		return []func(*conf.Bootstrap){onRedis(redistest.Start(t))}
	},
}

// apiStep is a call with its reply.
type apiStep struct{ rpc, path, request, reply string }

// apiSteps are calls made in sequence, with their replies. "NS" is the namespace, "E1", "E2" … are the epochs in order of
// appearance, and "T" is a time close to now. path is the method and path over HTTP.
var apiSteps = []apiStep{
	// A missing link is neither an error nor pod 0.
	{"GetLinkedPod", "GET /v1/namespaces/NS/links/user:42/services/chat", `"uid":"user:42","service":"chat"`,
		`{"link":` + noLink("user:42", "chat") + `}`},
	{"GetLinkedPodIfPersist", "GET /v1/namespaces/NS/links/user:42/services/chat/persistent", `"uid":"user:42","service":"chat"`,
		`{"link":` + noLink("user:42", "chat") + `}`},
	{"ListLinkedServices", "GET /v1/namespaces/NS/links/user:42", `"uid":"user:42"`, `{"links":[]}`},

	// The epoch changes if and only if the pod does.
	{"SetLinkedPod", "PUT /v1/namespaces/NS/links/user:42/services/chat", `"uid":"user:42","service":"chat","podId":3`,
		`{"link":` + link("user:42", "chat", 3, -1, "E1") + `,"previousPodId":-1}`},
	{"SetLinkedPod", "", `"uid":"user:42","service":"chat","podId":3,"persistSeconds":60,"expectedEpoch":"E1"`,
		`{"link":` + link("user:42", "chat", 3, 60, "E1") + `,"previousPodId":3}`},
	{"SetLinkedPod", "", `"uid":"user:42","service":"chat","podId":0,"persistSeconds":-1`,
		`{"link":` + link("user:42", "chat", 0, -1, "E2") + `,"previousPodId":3}`},
	{"GetLinkedPod", "", `"uid":"user:42","service":"chat"`, `{"link":` + link("user:42", "chat", 0, -1, "E2") + `}`},
	{"GetLinkedPodIfPersist", "", `"uid":"user:42","service":"chat"`,
		`{"link":` + link("user:42", "chat", 0, -1, "E2") + `}`},

	{"TrySetLinkedPod", "POST /v1/namespaces/NS/links/user:42/services/chat:trySet", `"uid":"user:42","service":"chat","podId":5`,
		`{"linked":false,"link":` + link("user:42", "chat", 0, -1, "E2") + `,"previousPodId":0}`},
	{"TrySetLinkedPod", "", `"uid":"user:42","service":"chat","podId":0,"persistSeconds":60`,
		`{"linked":true,"link":` + link("user:42", "chat", 0, 60, "E2") + `,"previousPodId":0}`},
	{"GetLinkedPodIfPersist", "", `"uid":"user:42","service":"chat"`, `{"link":` + noLink("user:42", "chat") + `}`},
	{"TrySetLinkedPod", "", `"uid":"user:42","service":"chat","podId":5`,
		`{"linked":true,"link":` + link("user:42", "chat", 5, -1, "E3") + `,"previousPodId":0}`},

	{"SetLinkedPodIfAbsent", "POST /v1/namespaces/NS/links/user:42/services/chat:setIfAbsent", `"uid":"user:42","service":"chat","podId":6`,
		`{"created":false,"link":` + link("user:42", "chat", 5, -1, "E3") + `}`},
	{"SetLinkedPodIfAbsent", "", `"uid":"user:42","service":"arena","podId":6,"persistSeconds":60`,
		`{"created":true,"link":` + link("user:42", "arena", 6, 60, "E4") + `}`},
	{"ListLinkedServices", "", `"uid":"user:42"`,
		`{"links":[` + link("user:42", "arena", 6, 60, "E4") + `,` + link("user:42", "chat", 5, -1, "E3") + `]}`},

	// A claim of a process gives an epoch, once.
	{"SetLinkedPod", "", `"uid":"claimed","service":"chat","podId":5,"claim":"7","expectedEpoch":"0"`,
		`{"link":` + claimed("claimed", "chat", 5, -1, "E5", 7) + `,"previousPodId":-1}`},
	{"SetLinkedPod", "", `"uid":"claimed","service":"chat","podId":5,"claim":"7","expectedEpoch":"0"`,
		`{"link":` + claimed("claimed", "chat", 5, -1, "E5", 7) + `,"previousPodId":5}`},
	{"SetLinkedPod", "", `"uid":"claimed","service":"chat","podId":5,"claim":"8","aboveEpoch":"E5"`,
		`{"link":` + claimed("claimed", "chat", 5, -1, "E6", 8) + `,"previousPodId":5}`},
	{"SetLinkedPodIfAbsent", "", `"uid":"claimed","service":"chat","podId":5,"claim":"9","aboveEpoch":"E6"`,
		`{"created":false,"link":` + claimed("claimed", "chat", 5, -1, "E6", 8) + `}`},
	{"GetLinkedPod", "", `"uid":"claimed","service":"chat"`, `{"link":` + claimed("claimed", "chat", 5, -1, "E6", 8) + `}`},
	{"ListLinkedServices", "", `"uid":"claimed"`, `{"links":[` + claimed("claimed", "chat", 5, -1, "E6", 8) + `]}`},
	{"RemoveLinkedPod", "", `"uid":"claimed","service":"chat"`, `{"removed":true,"previousPodId":5}`},

	// A batch is grouped by pod, with the uids in request order and without duplicates.
	{"SetLinkedPod", "PUT /v1/namespaces/NS/links/a%2Fb/services/chat", `"uid":"a/b","service":"chat","podId":5,"persistSeconds":60`,
		`{"link":` + link("a/b", "chat", 5, 60, "E7") + `,"previousPodId":-1}`},
	{"SetLinkedPod", "", `"uid":"low","service":"chat","podId":2`,
		`{"link":` + link("low", "chat", 2, -1, "E8") + `,"previousPodId":-1}`},
	{"BatchGetLinkedPod", "POST /v1/namespaces/NS/services/chat/links:batchGet",
		`"service":"chat","uids":["user:42","z","a/b","low","z","user:42","y"]`,
		`{"pods":[{"podId":2,"uids":["low"]},{"podId":5,"uids":["user:42","a/b"]}],"unlinkedUids":["z","y"],"problems":[]}`},

	// Removal: now, after keepSeconds, and only from a given pod.
	{"RemoveLinkedPod", "DELETE /v1/namespaces/NS/links/user:42/services/chat?keepSeconds=30",
		`"uid":"user:42","service":"chat","keepSeconds":30`, `{"removed":true,"previousPodId":5}`},
	{"GetLinkedPod", "", `"uid":"user:42","service":"chat"`, `{"link":` + link("user:42", "chat", 5, 30, "E3") + `}`},
	{"RemoveLinkedPod", "DELETE /v1/namespaces/NS/links/user:42/services/chat?expectedEpoch=E3",
		`"uid":"user:42","service":"chat","expectedEpoch":"E3"`, `{"removed":true,"previousPodId":5}`},
	{"RemoveLinkedPod", "DELETE /v1/namespaces/NS/links/user:42/services/chat", `"uid":"user:42","service":"chat"`,
		`{"removed":false,"previousPodId":-1}`},
	{"RemoveLinkedPodWithId", "DELETE /v1/namespaces/NS/links/low/services/chat/pods/0", `"uid":"low","service":"chat","podId":0`,
		`{"removed":false,"link":` + link("low", "chat", 2, -1, "E8") + `}`},
	{"RemoveLinkedPodWithId", "DELETE /v1/namespaces/NS/links/low/services/chat/pods/2?keepSeconds=60",
		`"uid":"low","service":"chat","podId":2,"keepSeconds":60`,
		`{"removed":true,"link":` + link("low", "chat", 2, 60, "E8") + `}`},
	{"RemoveLinkedPodWithId", "", `"uid":"low","service":"chat","podId":2,"keepSeconds":-1`,
		`{"removed":true,"link":` + noLink("low", "chat") + `}`},

	// Pods: the defaults, the previous report, only live pods.
	{"GetServiceState", "GET /v1/namespaces/NS/services/game/pods", `"service":"game"`, `{"pods":[]}`},
	{"SetServiceState", "PUT /v1/namespaces/NS/services/game/pods/10", `"service":"game","podId":10,"state":"up"`,
		`{"applied":true,"storeId":"S","pod":` + pod(10, "up", 0, "READY", 30) + `}`},
	{"SetServiceState", "", `"service":"game","podId":10,"state":"busy","load":7,"routing":"DENY_NEW","ttlSeconds":-1`,
		`{"applied":true,"storeId":"S","pod":` + pod(10, "busy", 7, "DENY_NEW", -1) + `,"previous":` + pod(10, "up", 0, "READY", 30) + `}`},
	{"SetServiceState", "", `"service":"game","podId":9,"state":"{\"ok\": 1}","load":1,"routing":"READY","ttlSeconds":90`,
		`{"applied":true,"storeId":"S","pod":` + pod(9, `{\"ok\": 1}`, 1, "READY", 90) + `}`},
	{"GetServiceState", "GET /v1/namespaces/NS/services/game/pods?liveOnly=true", `"service":"game","liveOnly":true`,
		`{"pods":[` + pod(9, `{\"ok\": 1}`, 1, "READY", 90) + `,` + pod(10, "busy", 7, "DENY_NEW", -1) + `]}`},
	{"GetServicePod", "GET /v1/namespaces/NS/services/game/pods/10", `"service":"game","podId":10`,
		`{"pod":` + pod(10, "busy", 7, "DENY_NEW", -1) + `}`},

	{"ComputeLinkedPod", "POST /v1/namespaces/NS/links/neo/services/game:compute", `"uid":"neo","service":"game"`,
		`{"outcome":"CREATED","link":` + link("neo", "game", 9, -1, "E9") + `,"previousPodId":-1,"pod":` +
			edit(pod(9, `{\"ok\": 1}`, 1, "READY", 90), `"given":"N"`) + `}`},
	{"SetServiceState", "", `"service":"game","podId":9,"state":"going","routing":"SHUTDOWN"`,
		`{"applied":true,"storeId":"S","pod":` + pod(9, "going", 0, "SHUTDOWN", 30) +
			`,"previous":` + edit(pod(9, `{\"ok\": 1}`, 1, "READY", 90), `"given":1`) + `}`},
	{"SetServiceState", "", `"service":"game","podId":11,"state":"up"`,
		`{"applied":true,"storeId":"S","pod":` + pod(11, "up", 0, "READY", 30) + `}`},
	{"ComputeLinkedPod", "", `"uid":"neo","service":"game","persistSeconds":60`,
		`{"outcome":"RELINKED","link":` + link("neo", "game", 11, 60, "E10") + `,"previousPodId":9,"pod":` +
			edit(pod(11, "up", 0, "READY", 30), `"given":"N"`) + `}`},
	{"ComputeLinkedPod", "", `"uid":"neo","service":"game","persistSeconds":90`,
		`{"outcome":"EXISTING","link":` + link("neo", "game", 11, 60, "E10") + `,"previousPodId":11,"pod":` +
			edit(pod(11, "up", 0, "READY", 30), `"given":"N"`) + `}`},
	{"SetLinkedPod", "", `"uid":"early","service":"silent","podId":4`,
		`{"link":` + link("early", "silent", 4, -1, "E11") + `,"previousPodId":-1}`},
	{"ComputeLinkedPod", "", `"uid":"early","service":"silent"`,
		`{"outcome":"EXISTING","link":` + link("early", "silent", 4, -1, "E11") + `,"previousPodId":4}`},

	// A process of a pod has a generation; a late or doubled report of it changes nothing; another one takes over.
	{"SetServiceState", "", `"service":"hall","podId":1,"state":"up","instanceId":"uid:a","sequence":1,"capacity":1,` +
		`"labels":{"zone":"a","disk":"ssd"},"address":"hall-1:9000"`,
		`{"applied":true,"storeId":"S","pod":` + hall + `}`},
	{"SetServiceState", "", `"service":"hall","podId":1,"state":"late","instanceId":"uid:a","sequence":1,"generation":"E12"`,
		`{"applied":false,"storeId":"S","pod":` + hall + `}`},
	{"SetServiceState", "", `"service":"hall","podId":1,"state":"plain"`,
		`{"applied":false,"storeId":"S","pod":` + hall + `}`},
	{"SetServiceState", "", `"service":"hall","podId":1,"state":"up","instanceId":"uid:b","sequence":1,"supersedes":"E12",` +
		`"capacity":1,"labels":{"zone":"a","disk":"ssd"},"address":"hall-1:9000"`,
		`{"applied":true,"storeId":"S","pod":` + newHall + `,"previous":` + hall + `}`},

	// A cordon stays with the pod until it is lifted; the stricter of cordon and report applies.
	{"CordonPod", "POST /v1/namespaces/NS/services/hall/pods/1:cordon", `"service":"hall","podId":1,"cordon":"DENY_NEW","ttlSeconds":600`,
		`{"pod":` + edit(newHall, `"routing":"DENY_NEW","cordon":"DENY_NEW"`) + `}`},
	{"SetServiceState", "", `"service":"hall","podId":1,"state":"up","instanceId":"uid:b","sequence":2,"generation":"E13",` +
		`"capacity":1,"labels":{"zone":"a","disk":"ssd"},"address":"hall-1:9000"`,
		`{"applied":true,"storeId":"S","pod":` + edit(newHall, `"routing":"DENY_NEW","cordon":"DENY_NEW"`) +
			`,"previous":` + edit(newHall, `"routing":"DENY_NEW","cordon":"DENY_NEW"`) + `}`},
	{"CordonPod", "", `"service":"hall","podId":1,"cordon":"READY"`, `{"pod":` + newHall + `}`},

	// A new link: by labels, below the capacity, and not on a pod to avoid, which a temporary link leaves.
	{"SetServiceState", "", `"service":"hall","podId":2,"state":"up","labels":{"zone":"b"}`,
		`{"applied":true,"storeId":"S","pod":` + edit(pod(2, "up", 0, "READY", 30), `"labels":{"zone":"b"}`) + `}`},
	{"ComputeLinkedPod", "", `"uid":"ada","service":"hall","selector":{"zone":"a"},"persistSeconds":60`,
		`{"outcome":"CREATED","link":` + link("ada", "hall", 1, 60, "E14") + `,"previousPodId":-1,"pod":` +
			edit(newHall, `"given":"N"`) + `}`},
	{"GetServicePod", "", `"service":"hall","podId":1`, `{"pod":` + edit(newHall, `"given":1`) + `}`},
	{"ComputeLinkedPod", "", `"uid":"bea","service":"hall"`,
		`{"outcome":"CREATED","link":` + link("bea", "hall", 2, -1, "E15") + `,"previousPodId":-1,"pod":` +
			edit(pod(2, "up", 0, "READY", 30), `"labels":{"zone":"b"},"given":"N"`) + `}`},
	{"ComputeLinkedPod", "", `"uid":"ada","service":"hall","avoidPods":[1],"avoidEpoch":"E13"`,
		`{"outcome":"EXISTING","link":` + link("ada", "hall", 1, 60, "E14") + `,"previousPodId":1,"pod":` +
			edit(newHall, `"given":"N"`) + `}`},
	{"ComputeLinkedPod", "", `"uid":"ada","service":"hall","avoidPods":[1],"avoidEpoch":"E14"`,
		`{"outcome":"RELINKED","link":` + link("ada", "hall", 2, -1, "E16") + `,"previousPodId":1,"pod":` +
			edit(pod(2, "up", 0, "READY", 30), `"labels":{"zone":"b"},"given":"N"`) + `}`},
	{"ComputeLinkedPod", "", `"uid":"ada","service":"hall","avoidPods":[2],"avoidEpoch":"E16"`,
		`{"outcome":"EXISTING","link":` + link("ada", "hall", 2, -1, "E16") + `,"previousPodId":2,"pod":` +
			edit(pod(2, "up", 0, "READY", 30), `"labels":{"zone":"b"},"given":"N"`) + `}`},

	// The store is new, so a link that the caller knows is put back, also on a pod that has not reported.
	{"ComputeLinkedPod", "", `"uid":"eve","service":"hall","known":{"podId":7,"epoch":"E16"}`,
		`{"outcome":"CREATED","link":` + link("eve", "hall", 7, -1, "E17") + `,"previousPodId":-1}`},
	{"ComputeLinkedPod", "", `"uid":"kim","service":"hall","known":{"podId":1,"epoch":"E16"}`,
		`{"outcome":"CREATED","link":` + link("kim", "hall", 1, -1, "E18") + `,"previousPodId":-1,"pod":` +
			edit(newHall, `"given":"N"`) + `}`},

	// The items of a batch succeed and fail by themselves.
	{"BatchSetLinkedPod", "POST /v1/namespaces/NS/services/chat/links:batchSet", `"service":"chat","items":[{"uid":"b/1","podId":1},` +
		`{"uid":"b2","podId":2,"persistSeconds":60,"claim":"7"},{"uid":"b3","podId":3,"expectedEpoch":"5"}]`,
		`{"results":[{"linked":true,"link":` + link("b/1", "chat", 1, -1, "E19") + `,"previousPodId":-1},` +
			`{"linked":true,"link":` + claimed("b2", "chat", 2, 60, "E20", 7) + `,"previousPodId":-1},` +
			`{"linked":false,"link":` + noLink("b3", "chat") + `,"previousPodId":-1,"problem":{"reason":"EPOCH_MISMATCH",` +
			`"message":"the link has another epoch than expected: there is no link; nothing has changed",` +
			`"metadata":{"pod_id":"-1","epoch":"0","claim":"0"}}}]}`},
	{"BatchSetLinkedPod", "", `"service":"chat","items":[{"uid":"b/1","podId":9,"ifAbsent":true},` +
		`{"uid":"b3","podId":3,"ifAbsent":true,"claim":"8","aboveEpoch":"E20"}]`,
		`{"results":[{"linked":false,"link":` + link("b/1", "chat", 1, -1, "E19") + `,"previousPodId":1},` +
			`{"linked":true,"link":` + claimed("b3", "chat", 3, -1, "E21", 8) + `,"previousPodId":-1}]}`},
	{"BatchVerifyLinkedPod", "POST /v1/namespaces/NS/services/chat/links:batchVerify", `"service":"chat","podId":1,"items":[` +
		`{"uid":"b/1","epoch":"E19"},{"uid":"b2","epoch":"E20"},{"uid":"gone","epoch":"E20"}]`,
		`{"links":[` + claimed("b2", "chat", 2, 60, "E20", 7) + `,` + noLink("gone", "chat") + `],"problems":[]}`},
	{"BatchVerifyLinkedPod", "", `"service":"chat","podId":1,"items":[{"uid":"b/1","epoch":"E18"}]`,
		`{"links":[` + link("b/1", "chat", 1, -1, "E19") + `],"problems":[]}`},
	{"BatchRemoveLinkedPod", "POST /v1/namespaces/NS/services/chat/links:batchRemove", `"service":"chat","items":[` +
		`{"uid":"b4","expectedEpoch":"E18"},{"uid":"b2","podId":9},{"uid":"b3","podId":3,"keepSeconds":60},{"uid":"gone"}]`,
		`{"results":[{"uid":"b4","removed":false,"previousPodId":-1,"problem":{"reason":"EPOCH_MISMATCH",` +
			`"message":"the link has another epoch than expected: there is no link; nothing has changed",` +
			`"metadata":{"pod_id":"-1","epoch":"0","claim":"0"}}},{"uid":"b2","removed":false,"previousPodId":2},` +
			`{"uid":"b3","removed":true,"previousPodId":3},{"uid":"gone","removed":false,"previousPodId":-1}]}`},
	{"BatchRemoveLinkedPod", "", `"service":"chat","items":[{"uid":"b/1","expectedEpoch":"E19"},{"uid":"b3"}]`,
		`{"results":[{"uid":"b/1","removed":true,"previousPodId":1},{"uid":"b3","removed":true,"previousPodId":3}]}`},
	{"BatchComputeLinkedPod", "POST /v1/namespaces/NS/services/hall/links:batchCompute", `"service":"hall","items":[{"uid":"ada"},` +
		`{"uid":"zoe"},{"uid":"max","avoidPods":[2]},{"uid":"lea","known":{"podId":8,"epoch":"E16"}}]`,
		`{"results":[{"outcome":"EXISTING","link":` + link("ada", "hall", 2, -1, "E16") + `,"previousPodId":2},` +
			`{"outcome":"CREATED","link":` + link("zoe", "hall", 2, -1, "E22") + `,"previousPodId":-1},` +
			`{"outcome":"OUTCOME_UNSPECIFIED","link":` + noLink("max", "hall") + `,"previousPodId":-1,"problem":{` +
			`"reason":"NO_AVAILABLE_POD","message":"no pod of this service takes new links; nothing has changed","metadata":{}}},` +
			`{"outcome":"CREATED","link":` + link("lea", "hall", 8, -1, "E23") + `,"previousPodId":-1}],"pods":[` +
			edit(pod(2, "up", 0, "READY", 30), `"labels":{"zone":"b"},"given":"N"`) + `]}`},

	{"RemoveServiceState", "DELETE /v1/namespaces/NS/services/game/pods/9", `"service":"game","podId":9`,
		`{"removed":true,"previous":` + pod(9, "going", 0, "SHUTDOWN", 30) + `}`},
	{"RemoveServiceState", "", `"service":"game","podId":9`, `{"removed":false}`},

	{"SetWorkloadState", "PUT /v1/namespaces/NS/workloads/game", `"service":"game","state":"season 2 – open"`,
		`{"workload":` + workload("game", "season 2 – open") + `}`},
	{"GetWorkloadState", "GET /v1/namespaces/NS/workloads/game", `"service":"game"`,
		`{"workload":` + workload("game", "season 2 – open") + `}`},
	{"SetWorkloadState", "", `"service":"chat","state":"closed"`, `{"workload":` + workload("chat", "closed") + `}`},
	{"BatchGetWorkloadState", "POST /v1/namespaces/NS/workloads:batchGet", `"services":["chat","never-set","game","chat"]`,
		`{"states":{"chat":"closed","game":"season 2 – open"}}`},
	{"BatchGetWorkloadState", "", `"services":["never-set"]`, `{"states":{}}`},
	{"RemoveWorkloadState", "DELETE /v1/namespaces/NS/workloads/game", `"service":"game"`,
		`{"removed":true,"previous":` + workload("game", "season 2 – open") + `}`},
	{"RemoveWorkloadState", "", `"service":"game"`, `{"removed":false}`},
	{"BatchGetWorkloadState", "", `"services":["chat","game"]`, `{"states":{"chat":"closed"}}`},
}

func link(uid, service string, pod, ttl int, epoch string) string {
	return claimed(uid, service, pod, ttl, epoch, 0)
}

func claimed(uid, service string, pod, ttl int, epoch string, claim int) string {
	return fmt.Sprintf(`{"namespace":"NS","uid":%q,"service":%q,"podId":%d,"persistent":%t,"ttlSeconds":%d,"epoch":%q,"claim":"%d"}`,
		uid, service, pod, ttl == -1, ttl, epoch, claim)
}

func noLink(uid, service string) string { return link(uid, service, -1, -2, "0") }

func pod(id int, state string, load int, routing string, ttl int) string {
	return fmt.Sprintf(
		`{"podId":%d,"state":"%s","load":%d,"routing":%q,"live":true,"heartbeatMs":"T","ttlSeconds":%d,"instanceId":"",`+
			`"generation":"0","labels":{},"address":"","reportedRouting":%q,"cordon":"READY","given":0,"inDoubt":false}`,
		id, state, load, routing, ttl, routing)
}

// hall is the pod of the process a, and newHall that of b.
var (
	hall = edit(pod(1, "up", 0, "READY", 30), `"instanceId":"uid:a","generation":"E12","capacity":1,`+
		`"labels":{"zone":"a","disk":"ssd"},"address":"hall-1:9000"`)
	newHall = edit(hall, `"instanceId":"uid:b","generation":"E13"`)
)

// edit returns the JSON object with other values of some fields.
func edit(object, fields string) string {
	merged := make(map[string]any)
	for _, content := range []string{object, "{" + fields + "}"} {
		if err := json.Unmarshal([]byte(content), &merged); err != nil {
			panic(err)
		}
	}
	out, _ := json.Marshal(merged)
	return string(out)
}

func workload(service, state string) string {
	return fmt.Sprintf(`{"namespace":"NS","service":%q,"state":%q,"updateMs":"T"}`, service, state)
}

// TestAPI calls every RPC of the contract over both transports and on both stores, and compares its path and its exact
// replies.
func TestAPI(t *testing.T) {
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			a := startApp(t, store(t)...)
			for _, over := range forms {
				t.Run(string(over), func(t *testing.T) { testAPI(t, a, over) })
			}
		})
	}
}

func testAPI(t *testing.T, a *testApp, over via) {
	namespace := "by-" + strings.ToLower(strings.ReplaceAll(string(over), " ", "-"))
	called, pathed := make(map[string]bool), make(map[string]bool)
	epochs := placeholders{}
	for i, step := range slices.Concat(apiSteps, fleetSteps) {
		request := "{" + step.request + "}"
		if rpcs[step.rpc].Input().Fields().ByName("namespace") != nil {
			request = with(t, request, "namespace", strconv.Quote(namespace))
		}
		at := fmt.Sprintf("step %d: %s %s", i, step.rpc, step.request)
		want := canonical([]byte(strings.ReplaceAll(step.reply, `"NS"`, strconv.Quote(namespace))))
		got := a.must(t, over, step.rpc, epochs.fill(request))
		require.True(t, got.ok(), "%s: %+v", at, got)
		reply := epochs.take(t, steady(step.rpc, namespace, got.reply))
		for until := time.Now().Add(10 * time.Second); reply != want && later[step.rpc] && time.Now().Before(until); {
			time.Sleep(10 * time.Millisecond)
			got = a.must(t, over, step.rpc, epochs.fill(request))
			reply = epochs.take(t, steady(step.rpc, namespace, got.reply))
		}
		require.Equal(t, want, reply, at)
		called[step.rpc] = true
		if over == overHTTP && step.path != "" {
			pathed[step.rpc] = true
			require.Equal(t, epochs.fill(strings.ReplaceAll(step.path, "NS", namespace)), got.sent, at)
			media := "application/json"
			switch {
			case step.rpc == "ExportLinks":
				media = "application/x-ndjson"
			case streams(step.rpc):
				media = "text/event-stream"
			}
			require.Equal(t, media, got.header.Get("Content-Type"), at)
		}
	}
	for name := range rpcs {
		require.True(t, called[name], "no step calls %s", name)
		require.True(t, pathed[name] || over != overHTTP, "no step has the path of %s", name)
	}
}

// placeholders are the epochs and generations seen so far, "E1" first.
type placeholders []string

var (
	epochValue = regexp.MustCompile(`"(epoch|generation)":"([1-9]\d*)"`)
	timeValue  = regexp.MustCompile(`"(heartbeatMs|updateMs)":"(\d+)"`)
	storeValue = regexp.MustCompile(`"storeId":"\w+"`)
	tokenValue = regexp.MustCompile(`"token":"[^"]+"`)
	givenValue = regexp.MustCompile(`"given":\d+`)
	epochName  = regexp.MustCompile(`\bE\d+\b`)
)

// fill replaces the names of epochs by the epochs.
func (p *placeholders) fill(text string) string {
	return epochName.ReplaceAllStringFunc(text, func(name string) string {
		n, _ := strconv.Atoi(name[1:])
		return (*p)[n-1]
	})
}

// take replaces epochs, generations, times and ids of the store by their names. New epochs, generations and times must be close
// to now.
func (p *placeholders) take(t *testing.T, reply string) string {
	reply = storeValue.ReplaceAllString(reply, `"storeId":"S"`)
	reply = timeValue.ReplaceAllStringFunc(reply, func(match string) string {
		parts := timeValue.FindStringSubmatch(match)
		ms, err := strconv.ParseInt(parts[2], 10, 64)
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), time.UnixMilli(ms), time.Minute)
		return fmt.Sprintf(`"%s":"T"`, parts[1])
	})
	return epochValue.ReplaceAllStringFunc(reply, func(match string) string {
		parts := epochValue.FindStringSubmatch(match)
		field, value := parts[1], parts[2]
		for i, known := range *p {
			if known == value {
				return fmt.Sprintf(`"%s":"E%d"`, field, i+1)
			}
		}
		number, err := strconv.ParseInt(value, 10, 64)
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), time.UnixMicro(number), time.Minute, "an epoch is the store's clock in µs")
		*p = append(*p, value)
		return fmt.Sprintf(`"%s":"E%d"`, field, len(*p))
	})
}
