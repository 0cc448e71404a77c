package observability

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	v1 "podlink/api/podlink/v1"
	consultest "podlink/test/kit/consul"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

const (
	secretPassword  = "password-nobody-sees"
	secretToken     = "token-nobody-sees"
	secretState     = "state-nobody-sees"
	secretNamespace = "namespace-nobody-sees" // not in metrics; the log and traces may have it
	secretService   = "service-nobody-sees"   // likewise
)

// scripted is a podlink on a password-protected Redis behind a proxy, for a load in which calls fail in every way.
type scripted struct {
	*podlinktest.Process
	server *redistest.Server
	redis  *redis.Client
	proxy  *redistest.Proxy
	conn   *grpc.ClientConn
}

// startScripted starts podlink with its most verbose log.
func startScripted(t *testing.T, env ...string) scripted {
	t.Helper()
	server := redistest.Start(t, "--requirepass", secretPassword)
	proxy := redistest.NewProxy(t, server.Addr())
	registry := consultest.Start(t)
	registry.RequireToken("another-token") // podlink's token is refused.
	p := podlinktest.Start(t, binary, append(append([]string{
		"PODLINK_DATA_REDIS_PASSWORD=" + secretPassword,
		"PODLINK_REGISTRY_TYPE=consul", "PODLINK_REGISTRY_ADDRS=" + registry.Addr, "PODLINK_REGISTRY_TOKEN=" + secretToken,
		"PODLINK_LOG_LEVEL=debug", "PODLINK_LOG_REPEAT_INTERVAL=0s", "PODLINK_LOG_SLOW_REQUEST=1us",
	}, podlinktest.OnRedis("standalone", proxy.Addr())...), env...)...)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	return scripted{p, server, server.Client(t), proxy, p.Conn(t)}
}

const (
	namespacePath = "/v1/namespaces/" + secretNamespace
	linkPath      = namespacePath + "/links/" + secretUID + "/services/" + secretService
	servicePath   = namespacePath + "/services/" + secretService
)

// httpCalls call every operation, except streams.
var httpCalls = []struct{ method, path, body string }{
	{http.MethodPut, servicePath + "/pods/1", `{"state":"` + secretState + `"}`},
	{http.MethodPut, linkPath, `{"podId":1}`},
	{http.MethodPost, linkPath + ":trySet", `{"podId":1}`},
	{http.MethodPost, linkPath + ":setIfAbsent", `{"podId":1}`},
	{http.MethodPost, linkPath + ":compute", `{}`},
	{http.MethodGet, linkPath, ""},
	{http.MethodGet, linkPath + "/persistent", ""},
	{http.MethodPost, servicePath + "/links:batchGet", `{"uids":["` + secretUID + `","other"]}`},
	{http.MethodPost, servicePath + "/links:batchCompute", `{"items":[{"uid":"` + secretUID + `"},{"uid":"other"}]}`},
	{http.MethodPost, servicePath + "/links:batchVerify", `{"podId":1,"items":[{"uid":"` + secretUID + `","epoch":"1"}]}`},
	{
		http.MethodPost, servicePath + "/links:batchSet",
		`{"items":[{"uid":"` + secretUID + `","podId":1,"expectedEpoch":"5"},{"uid":"other","podId":1}]}`,
	},
	{http.MethodPost, servicePath + "/links:batchRemove", `{"items":[{"uid":"` + secretUID + `","expectedEpoch":"5"},{"uid":"other"}]}`},
	{http.MethodGet, namespacePath + "/links/" + secretUID, ""},
	{http.MethodDelete, linkPath + "/pods/1?keepSeconds=60", ""},
	{http.MethodGet, linkPath, ""},
	{http.MethodDelete, linkPath, ""},
	{http.MethodGet, servicePath + "/pods", ""},
	{http.MethodGet, servicePath + "/pods/1", ""},
	{http.MethodPost, servicePath + "/pods/1:cordon", `{"cordon":"DENY_NEW"}`},
	{http.MethodGet, "/v1/namespaces", ""},
	{http.MethodGet, namespacePath + "/services", ""},
	{http.MethodGet, servicePath + "/pods/1/links", ""},
	{http.MethodGet, servicePath + "/links:count", ""},
	{http.MethodPost, namespacePath + "/jobs", `{"kind":"VERIFY","requestId":"check"}`},
	{http.MethodGet, namespacePath + "/jobs", ""},
	{http.MethodGet, namespacePath + "/jobs/none", ""},
	{http.MethodPost, namespacePath + "/jobs/none:cancel", "{}"},
	{http.MethodDelete, servicePath + "/pods/1", ""},
	{http.MethodPut, namespacePath + "/workloads/" + secretService, `{"state":"` + secretState + `"}`},
	{http.MethodGet, namespacePath + "/workloads/" + secretService, ""},
	{http.MethodPost, namespacePath + "/workloads:batchGet", `{"services":["` + secretService + `"]}`},
	{http.MethodDelete, namespacePath + "/workloads/" + secretService, ""},
}

// wrongCalls are invalid. This test doesn't check their answers.
var wrongCalls = []struct{ method, path, body string }{
	{http.MethodPut, linkPath, `{"podId":1,"` + secretUID + `":1}`},
	{http.MethodPut, linkPath, `{"podId":"` + secretUID + `"}`},
	{http.MethodPut, linkPath, `{"podId":1,"expectedEpoch":"5"}`},
	{http.MethodPut, linkPath, `{"podId":1,"uid":"another-` + secretUID + `"}`},
	{http.MethodPut, linkPath, secretUID},
	{http.MethodPut, linkPath, strings.Repeat(secretUID, 100_000)},
	{http.MethodPut, namespacePath + "/links/" + secretUID + "%00/services/room", `{"podId":1}`},
	{http.MethodGet, "/v1/namespaces/" + secretUID + "!/links/u/services/room", ""},
	{http.MethodGet, linkPath + "?" + secretUID + "=1", ""},
	{http.MethodPatch, linkPath, ""},
	{http.MethodGet, "/" + secretUID, ""},
	{"X" + strings.ToUpper(strings.ReplaceAll(secretUID, "-", "")), linkPath, ""},
	{http.MethodGet, servicePath + "/pods/77", ""},
	{http.MethodGet, namespacePath + "/workloads/absent", ""},
}

// callAll makes every call over HTTP and every operation over gRPC, and ignores the results.
func (s scripted) callAll(t *testing.T) {
	t.Helper()
	for _, call := range httpCalls {
		callHTTP(t, s.Process, call.method, call.path, call.body, "")
	}
	for _, method := range v1.Methods() {
		if method.IsStreamingServer() {
			s.stream(t, method)
			continue
		}
		_ = s.conn.Invoke(t.Context(), v1.Operation(method), filled(method.Input()), dynamicpb.NewMessage(method.Output()))
	}
}

// streamPaths are the paths of the streams.
var streamPaths = map[protoreflect.Name]string{
	"WatchLinks":  servicePath + "/links:watch?uid=" + secretUID,
	"ExportLinks": namespacePath + "/links:export?service=" + secretService,
	"WatchJob":    namespacePath + "/jobs/none:watch",
}

// stream opens a stream over both transports, and leaves after a moment: without the store no message of a watch comes.
func (s scripted) stream(t *testing.T, method protoreflect.MethodDescriptor) {
	t.Helper()
	ctx, leave := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer leave()
	stream, err := s.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, v1.Operation(method))
	require.NoError(t, err)
	if stream.SendMsg(filled(method.Input())) == nil && stream.CloseSend() == nil {
		for stream.RecvMsg(dynamicpb.NewMessage(method.Output())) == nil {
		}
	}
	leaving, leave := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer leave()
	path, known := streamPaths[method.Name()]
	require.True(t, known, method.Name())
	request, err := http.NewRequestWithContext(leaving, http.MethodGet, "http://"+s.HTTP+path, http.NoBody)
	require.NoError(t, err)
	if response, err := http.DefaultTransport.RoundTrip(request); err == nil {
		_, _ = io.Copy(io.Discard, response.Body)
		require.NoError(t, response.Body.Close())
	}
}

// filled returns a request with the same names as in httpCalls.
func filled(kind protoreflect.MessageDescriptor) *dynamicpb.Message {
	values := map[protoreflect.Name]protoreflect.Value{
		"namespace": protoreflect.ValueOfString(secretNamespace), "uid": protoreflect.ValueOfString(secretUID),
		"service": protoreflect.ValueOfString(secretService), "state": protoreflect.ValueOfString(secretState),
		"pod_id": protoreflect.ValueOfInt32(1),
	}
	message := dynamicpb.NewMessage(kind)
	for i := range kind.Fields().Len() {
		field := kind.Fields().Get(i)
		if value, ok := values[field.Name()]; ok {
			message.Set(field, value)
		}
		if field.Name() == "uids" || field.Name() == "services" {
			message.Mutable(field).List().Append(protoreflect.ValueOfString(secretUID))
		}
		if field.Name() == "items" {
			message.Mutable(field).List().Append(protoreflect.ValueOfMessage(filled(field.Message())))
		}
	}
	return message
}

// run is the load: calls that succeed, calls that are refused, and calls that fail for every fault of Redis.
func (s scripted) run(t *testing.T) {
	t.Helper()
	s.WaitReady(t)
	s.callAll(t)
	for _, call := range wrongCalls {
		callHTTP(t, s.Process, call.method, call.path, call.body, "")
	}
	ctx := t.Context()
	configure := func(key, value string) {
		t.Helper()
		require.NoError(t, s.redis.ConfigSet(ctx, key, value).Err())
	}

	s.proxy.LoseReplies(1000) // OUTCOME_UNKNOWN
	s.callAll(t)
	s.proxy.LoseReplies(0)

	configure("maxmemory", "1") // STORE_FULL
	s.callAll(t)
	configure("maxmemory", "0")

	configure("min-replicas-to-write", "1") // Refused, so the outcome is known.
	s.callAll(t)
	configure("min-replicas-to-write", "0")

	for _, key := range []string{
		"link:" + secretNamespace + ":" + secretUID,
		"service:" + secretNamespace + ":" + secretService, "workload:" + secretNamespace + ":" + secretService,
	} { // STORE_DATA_CORRUPT
		require.NoError(t, s.redis.Del(ctx, "podlink:"+key).Err())
		require.NoError(t, s.redis.HSet(ctx, "podlink:"+key, secretService, secretUID, "1", secretState, "state", secretState).Err())
	}
	s.callAll(t)
	require.NoError(t, s.redis.FlushAll(ctx).Err())

	// NO_AVAILABLE_POD for a new link, and a link to a pod in doubt.
	callHTTP(t, s.Process, http.MethodPut, servicePath+"/pods/1", `{"state":"up","ttlSeconds":1}`, "")
	callHTTP(t, s.Process, http.MethodPost, linkPath+":compute", "{}", "")
	callHTTP(t, s.Process, http.MethodPut, linkPath+"2", `{"podId":1,"persistSeconds":1}`, "")
	time.Sleep(2200 * time.Millisecond)
	callHTTP(t, s.Process, http.MethodPost, linkPath+":compute", "{}", "")
	callHTTP(t, s.Process, http.MethodGet, linkPath+"2", "", "") // An expired link, whose field still exists.

	s.proxy.Cut() // DEADLINE_EXCEEDED, OUTCOME_UNKNOWN
	callHTTP(t, s.Process, http.MethodGet, linkPath, "", "")
	callHTTP(t, s.Process, http.MethodPut, linkPath, `{"podId":1}`, "")
	s.proxy.Mend()

	s.server.Kill() // STORE_UNAVAILABLE
	s.callAll(t)
	s.server.Restart()
	s.WaitReady(t)
	s.callAll(t)
}
