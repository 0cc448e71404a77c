package api

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
)

// behindProxy returns podlink behind a reverse proxy that decodes the path, as nginx does for `proxy_pass http://podlink/`: it
// routes by the decoded path, and encodes it again without the caller's %2F.
func behindProxy(t *testing.T, a *testApp) *testApp {
	t.Helper()
	podlink, err := url.Parse(a.http)
	require.NoError(t, err)
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(podlink)
		r.Out.URL.RawPath = ""
	}})
	t.Cleanup(proxy.Close)
	through := *a
	through.http = proxy.URL
	return &through
}

// TestDecodingProxy: with the uid outside the path, no uid is taken for another one behind a proxy that decodes the path. With
// the uid in the path, the links of "alice/services/chat" are a link of alice.
func TestDecodingProxy(t *testing.T) {
	a := startApp(t)
	through := behindProxy(t, a)
	require.True(t, a.must(t, overHTTP, "SetLinkedPod", `{"namespace":"ns","uid":"alice","service":"chat","podId":7}`).ok())
	const list = "/v1/namespaces/ns/links/alice%2Fservices%2Fchat"
	_, direct := a.do(t, http.MethodGet, list, "")
	require.Equal(t, `{"links":[]}`, canonical([]byte(direct)))
	_, proxied := through.do(t, http.MethodGet, list, "")
	require.Contains(t, proxied, `"alice"`, "the proxy decodes the path")

	for pod, uid := range append([]string{"alice/services/chat", "alice/services/chat/persistent"}, strangeUIDs...) {
		request := with(t, `{"namespace":"ns","service":"chat"}`, "uid", quoted(uid)[0])
		number := fmt.Sprint(pod)
		must := func(name, request string) answer {
			t.Helper()
			got := through.must(t, overPlain, name, request)
			require.True(t, got.ok(), "%s of %q: %+v", name, uid, got.problem)
			return got
		}
		set := must("SetLinkedPodIfAbsent", with(t, request, "podId", number)).into.(*v1.SetLinkedPodIfAbsentReply)
		require.True(t, set.GetCreated(), "%q is confused with another uid", uid)
		must("TrySetLinkedPod", with(t, request, "podId", number))
		must("SetLinkedPod", with(t, request, "podId", number))
		must("ComputeLinkedPod", request)
		link := must("GetLinkedPod", request).into.(*v1.GetLinkedPodReply).GetLink()
		require.Equal(t, uid, link.GetUid())
		require.EqualValues(t, pod, link.GetPodId())
		listed := must("ListLinkedServices", with(t, request, "service", absent)).into.(*v1.ListLinkedServicesReply).GetLinks()
		require.Len(t, listed, 1, "%q", uid)
		require.Equal(t, uid, listed[0].GetUid())
		require.Equal(t, set.GetLink().GetEpoch(), listed[0].GetEpoch(), "the same link")
	}
	removed := through.must(t, overPlain, "RemoveLinkedPod", `{"namespace":"ns","uid":"alice/services/chat","service":"chat"}`)
	require.True(t, removed.into.(*v1.RemoveLinkedPodReply).GetRemoved())
	alice := a.must(t, overGRPC, "GetLinkedPod", `{"namespace":"ns","uid":"alice","service":"chat"}`)
	require.EqualValues(t, 7, alice.into.(*v1.GetLinkedPodReply).GetLink().GetPodId())
}

// TestPlainPaths: the paths without the uid, and that a call has the same operation in metrics, traces and log by either path.
func TestPlainPaths(t *testing.T) {
	a := startApp(t)
	paths := map[string]string{
		"SetLinkedPod": "POST /v1/namespaces/ns/links:set", "TrySetLinkedPod": "POST /v1/namespaces/ns/links:trySet",
		"SetLinkedPodIfAbsent": "POST /v1/namespaces/ns/links:setIfAbsent", "ComputeLinkedPod": "POST /v1/namespaces/ns/links:compute",
		"RemoveLinkedPod": "POST /v1/namespaces/ns/links:remove", "GetLinkedPod": "GET /v1/namespaces/ns/link?service=svc&uid=u1",
		"ListLinkedServices": "GET /v1/namespaces/ns/links?uid=u1",
	}
	for name, method := range rpcs {
		_, main := httpRule(method, overHTTP)
		_, plain := httpRule(method, overPlain)
		require.Equal(t, paths[name] != "", main != plain, name)
	}
	for name, path := range paths {
		require.Equal(t, path, a.must(t, overPlain, name, good[name]).sent)
		invalid := with(t, good[name], "uid", `"a\u0000b"`)
		got := a.must(t, overPlain, name, invalid)
		requireInvalid(t, got, "uid", name)
		var line map[string]any
		require.Eventually(t, func() bool { line = a.logLine(got.trace); return line != nil }, 10*time.Second, 10*time.Millisecond)
		require.Equal(t, v1.Operation(rpcs[name]), line["operation"])
	}
}
