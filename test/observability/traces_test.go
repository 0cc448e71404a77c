package observability

import (
	"context"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	v1 "podlink/api/podlink/v1"
	otlptest "podlink/test/kit/otlp"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

const secretUID = "uid-nobody-sees"

// exportTo returns the environment of a podlink that exports its traces to the receiver without delay.
func exportTo(receiver *otlptest.Receiver, ratio string) []string {
	return []string{"PODLINK_TRACE_ENDPOINT=" + receiver.Addr, "PODLINK_TRACE_SAMPLING_RATIO=" + ratio, "OTEL_BSP_SCHEDULE_DELAY=50"}
}

// callHTTP calls the API, with a trace context unless it is empty, and returns the status and the reply's headers.
func callHTTP(t *testing.T, p *podlinktest.Process, method, path, body, traceparent string) (int, http.Header) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.HTTP+path, strings.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	if traceparent != "" {
		request.Header.Set("Traceparent", traceparent)
		request.Header.Set("Baggage", "user="+secretUID)
		request.Header.Set("Tracestate", "vendor="+secretUID)
	}
	response, _ := send(t, request)
	return response.StatusCode, response.Header
}

// send sends the request without following redirects, and returns the response with its body.
func send(t *testing.T, request *http.Request) (*http.Response, string) {
	t.Helper()
	response, err := http.DefaultTransport.RoundTrip(request)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response, string(body)
}

// spanWant is an expected span, with the name of its parent, an earlier span in the list.
type spanWant struct {
	name, under, kind, failure string
	attributes                 map[string]string
}

// TestTraceOfCompute: each call, successful or not, makes a trace under the caller's trace id, with spans for the request, the
// decision and every call to Redis.
func TestTraceOfCompute(t *testing.T) {
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	patched, err := podlinktest.Build(t.TempDir(), podlinktest.Patch{
		File: "internal/biz/compute.go",
		Old:  "\tfor {\n\t\tvar entry podEntry\n",
		New:  "\tif key.Service == \"panics\" {\n\t\tpanic(key.UID)\n\t}\n\tfor {\n\t\tvar entry podEntry\n",
	})
	require.NoError(t, err)
	receiver := otlptest.Start(t)
	env := append(exportTo(receiver, "0"), podlinktest.OnRedis("standalone", redistest.Start(t).Addr())...)
	p := podlinktest.Start(t, patched, env...)
	for service, routing := range map[string]string{"takes": "READY", "full": "DENY_NEW", "closed": "SHUTDOWN"} {
		code, _ := callHTTP(t, p, http.MethodPut, "/v1/namespaces/game/services/"+service+"/pods/3", `{"state":"up","routing":"`+routing+`"}`, "")
		require.Equal(t, http.StatusOK, code)
	}

	const operation = "podlink.v1.LinkService/ComputeLinkedPod"
	request := func(attributes map[string]string, failure string) spanWant {
		attributes["rpc.method"] = operation
		return spanWant{"/" + operation, "", "SPAN_KIND_SERVER", failure, attributes}
	}
	overHTTP := map[string]string{
		"http.request.method": "POST",
		"http.route":          "/v1/namespaces/{namespace}/links/{uid}/services/{service}:compute",
	}
	with := func(more ...string) map[string]string {
		all := maps.Clone(overHTTP)
		for i := 0; i < len(more); i += 2 {
			all[more[i]] = more[i+1]
		}
		return all
	}
	decision := func(service, outcome, attempts, failure string) spanWant {
		return spanWant{"LinkUsecase.Compute", "/" + operation, "SPAN_KIND_INTERNAL", failure, map[string]string{
			"podlink.namespace": "game", "podlink.service": service, "podlink.outcome": outcome, "podlink.attempts": attempts,
		}}
	}
	redis := func(command, kind, status string) spanWant {
		attributes := map[string]string{"db.system.name": "redis", "podlink.key_kind": kind}
		if status != "" {
			attributes["db.response.status_code"] = status
		}
		return spanWant{command, "LinkUsecase.Compute", "SPAN_KIND_CLIENT", "", attributes}
	}
	view := redis("read", "service", "") // The read of the pods, at the same time as the link is set.
	for name, row := range map[string]struct {
		service, traceID string
		code             int
		overGRPC         bool
		want             []spanWant
	}{
		"success": {
			service: "takes", traceID: "11111111111111111111111111111111", code: http.StatusOK,
			want: []spanWant{
				request(with(), ""), decision("takes", "created", "int_value:1", ""), redis("HGET", "link", ""),
				redis("statefulReservePod", "service", "RESERVED"), redis("statefulComputeLinkIfAbsent", "link", "LINKED"),
				view,
			},
		},
		"NO_AVAILABLE_POD": {
			service: "full", traceID: "22222222222222222222222222222222", code: http.StatusServiceUnavailable,
			want: []spanWant{
				request(with("error.type", "NO_AVAILABLE_POD"), "NO_AVAILABLE_POD"),
				decision("full", "no_available_pod", "int_value:1", "no_available_pod"), redis("HGET", "link", ""),
				redis("statefulReservePod", "service", "NONE"),
			},
		},
		"panic": {
			service: "panics", traceID: "33333333333333333333333333333333", code: http.StatusInternalServerError,
			want: []spanWant{
				request(with("error.type", "INTERNAL"), "INTERNAL"), decision("panics", "failed", "int_value:0", "failed"),
				redis("HGET", "link", ""),
			},
		},
		"over gRPC": {
			service: "closed", traceID: "44444444444444444444444444444444", overGRPC: true,
			want: []spanWant{
				request(map[string]string{"rpc.system.name": "grpc", "error.type": "NO_AVAILABLE_POD"}, "NO_AVAILABLE_POD"),
				decision("closed", "no_available_pod", "int_value:1", "no_available_pod"), redis("HGET", "link", ""),
				redis("statefulReservePod", "service", "NONE"),
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			const caller = "00f067aa0ba902b7"
			traceparent := "00-" + row.traceID + "-" + caller + "-01"
			var answered string // traceresponse
			if row.overGRPC {
				ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", traceparent,
					"baggage", "user="+secretUID, "tracestate", "vendor="+secretUID)
				answered = computeOverGRPC(ctx, t, p, row.service)
			} else {
				code, header := callHTTP(t, p, http.MethodPost,
					"/v1/namespaces/game/links/"+secretUID+"/services/"+row.service+":compute", "{}", traceparent)
				require.Equal(t, row.code, code)
				answered = header.Get("Traceresponse")
			}
			spans := receiver.Trace(t, row.traceID, len(row.want))
			require.Equal(t, "00-"+row.traceID+"-"+spans[0].ID+"-01", answered)
			ids := map[string]string{"": caller}
			for _, want := range row.want {
				i := slices.IndexFunc(spans, func(s otlptest.Span) bool { return s.Name == want.name })
				require.NotEqual(t, -1, i, want.name)
				got := spans[i]
				require.Equal(t, want, spanWant{got.Name, want.under, got.Kind, got.Error, got.Attributes})
				require.Equal(t, ids[want.under], got.Parent, "%s is under %q", got.Name, want.under)
				require.Zero(t, got.Events, "an event would contain a panic's text")
				require.False(t, got.End.Before(got.Start))
				ids[got.Name] = got.ID
			}
		})
	}
	require.NotContains(t, receiver.Text(), secretUID)
	require.Equal(t, "podlink", receiver.Resource()["service.name"])
	require.Equal(t, podlinktest.Version, receiver.Resource()["service.version"])
	require.Zero(t, p.Stop(t))
}

// computeOverGRPC makes a call that must fail, and returns its traceresponse.
func computeOverGRPC(ctx context.Context, t *testing.T, p *podlinktest.Process, service string) string {
	t.Helper()
	var header metadata.MD
	_, err := v1.NewLinkServiceClient(p.Conn(t)).ComputeLinkedPod(ctx, &v1.ComputeLinkedPodRequest{
		Namespace: "game", Uid: secretUID, Service: service,
	}, grpc.Header(&header))
	require.Error(t, err)
	require.Len(t, header.Get("traceresponse"), 1)
	return header.Get("traceresponse")[0]
}

// TestLastSpansAreSentAtTheEnd: the stop flushes spans that wait in a batch.
func TestLastSpansAreSentAtTheEnd(t *testing.T) {
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	receiver := otlptest.Start(t)
	p := podlinktest.Start(t, binary, append(exportTo(receiver, "1"), "OTEL_BSP_SCHEDULE_DELAY=600000")...)
	code, _ := callHTTP(t, p, http.MethodGet, "/v1/namespaces/game/links/"+secretUID+"/services/room", "", "")
	require.Equal(t, http.StatusOK, code)
	require.Empty(t, receiver.All())
	require.Zero(t, p.Stop(t))
	require.Len(t, receiver.All(), 2, "the request and the call to Redis")
}
