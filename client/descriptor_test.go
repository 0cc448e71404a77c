package client

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	v1 "podlink/api/podlink/v1"
)

// reads are the calls that change nothing, by docs/api.md.
var reads = map[string]bool{
	"GetLinkedPod": true, "GetLinkedPodIfPersist": true, "BatchGetLinkedPod": true, "ListLinkedServices": true,
	"BatchVerifyLinkedPod": true, "GetServiceState": true, "GetServicePod": true, "GetWorkloadState": true, "BatchGetWorkloadState": true,
	"ListNamespaces": true, "ListServices": true, "ListPodLinks": true, "CountPodLinks": true, "WatchLinks": true,
	"ListJobs": true, "GetJob": true, "WatchJob": true,
}

// hostile are uids that are allowed, and that a path, a query or a template would take for something else.
var hostile = map[string]string{
	"a colon":                "user:42",
	"a verb":                 "alice:compute",
	"a slash":                "a/b",
	"slashes around":         "//a//",
	"a template":             "{x}",
	"a variable of the path": "{service}",
	"an emoji":               "🙂",
	"a dot":                  ".",
	"two dots":               "..",
	"three dots":             "...",
	"the way up":             "../../x",
	"a space":                "a b",
	"a space at the end":     "a ",
	"an encoded slash":       "%2F",
	"a lonely percent":       "100%",
	"a query":                "?x=1&y",
	"a fragment":             "#",
	"a plus":                 "+",
	"a semicolon":            "a;b",
	"a backslash":            `a\b`,
	"quotes":                 `"'<>`,
	"a comma":                "a,b",
	"256 bytes":              strings.Repeat("é", 128),
}

// TestEveryOperationIsKnown: each call of the API, how it goes over HTTP, and whether it may be repeated at will.
func TestEveryOperationIsKnown(t *testing.T) {
	count := 0
	for _, service := range v1.Services() {
		for i := range service.Methods().Len() {
			count++
			name := string(service.Methods().Get(i).Name())
			t.Run(name, func(t *testing.T) {
				op, ok := operations["/"+string(service.FullName())+"/"+name]
				require.True(t, ok)
				require.Equal(t, reads[name], op.reads, "a read")
				require.True(t, strings.HasPrefix(op.template+"/", "/v1/namespaces/"), op.template)
				require.Contains(t, []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete}, op.method)
				require.Equal(t, op.method == http.MethodPut || op.method == http.MethodPost, op.body, "a body")
				requirePlainFields(t, string(service.FullName())+"."+name, op)
			})
		}
	}
	require.Equal(t, 33, count)
	require.Len(t, operations, count)
}

// requirePlainFields: what stands in a path or a query is one text, number or bool; the client knows no other spelling.
func requirePlainFields(t *testing.T, name string, op operation) {
	t.Helper()
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	require.NoError(t, err)
	fields := found.(protoreflect.MethodDescriptor).Input().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if op.body && !strings.Contains(op.template, "{"+string(field.Name())+"}") {
			continue
		}
		require.NotEqual(t, protoreflect.Repeated, field.Cardinality(), field.Name())
		require.Contains(t, []protoreflect.Kind{
			protoreflect.StringKind, protoreflect.Int32Kind, protoreflect.Int64Kind, protoreflect.BoolKind,
		}, field.Kind(), field.Name())
	}
}

// TestPath: what a request looks like over HTTP.
func TestPath(t *testing.T) {
	for name, row := range map[string]struct {
		method  string
		request proto.Message
		want    string
	}{
		"a path": {
			"LinkService/GetLinkedPod", &v1.GetLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "room"},
			"/v1/namespaces/game/links/alice/services/room",
		},
		"pod 0 is a pod": {
			"StateService/GetServicePod", &v1.GetServicePodRequest{Namespace: "game", Service: "room", PodId: proto.Int32(0)},
			"/v1/namespaces/game/services/room/pods/0",
		},
		"a query": {
			"LinkService/RemoveLinkedPod",
			&v1.RemoveLinkedPodRequest{
				Namespace: "game", Uid: "a/b", Service: "room", KeepSeconds: proto.Int32(60), ExpectedEpoch: proto.Int64(1795408649067639),
			},
			"/v1/namespaces/game/links/a%2Fb/services/room?expectedEpoch=1795408649067639&keepSeconds=60",
		},
		"epoch 0 is an epoch": {
			"LinkService/RemoveLinkedPod",
			&v1.RemoveLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "room", ExpectedEpoch: proto.Int64(0)},
			"/v1/namespaces/game/links/alice/services/room?expectedEpoch=0",
		},
		"false is a value": {
			"StateService/GetServiceState", &v1.GetServiceStateRequest{Namespace: "game", Service: "room", LiveOnly: proto.Bool(false)},
			"/v1/namespaces/game/services/room/pods?liveOnly=false",
		},
		"the rest goes into the body": {
			"LinkService/TrySetLinkedPod",
			&v1.TrySetLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "room", PodId: proto.Int32(1), PersistSeconds: proto.Int32(5)},
			"/v1/namespaces/game/links/alice/services/room:trySet",
		},
	} {
		t.Run(name, func(t *testing.T) {
			path, err := operations["/podlink.v1."+row.method].path(row.request)
			require.NoError(t, err)
			require.Equal(t, row.want, path)
		})
	}
}

// TestUIDIsOneSegment: whatever the uid is, and it is not one that clients and proxies take away.
func TestUIDIsOneSegment(t *testing.T) {
	for name, uid := range hostile {
		t.Run(name, func(t *testing.T) {
			path, err := operations["/podlink.v1.LinkService/ListLinkedServices"].path(&v1.ListLinkedServicesRequest{Namespace: "game", Uid: uid})
			require.NoError(t, err)
			segment, ok := strings.CutPrefix(path, "/v1/namespaces/game/links/")
			require.True(t, ok, path)
			require.NotContains(t, segment, "/")
			require.NotContains(t, []string{".", ".."}, segment)
			seen, err := url.Parse("http://podlink" + path)
			require.NoError(t, err)
			require.Equal(t, "/v1/namespaces/game/links/"+uid, seen.Path)
			require.Empty(t, seen.RawQuery)
			require.Empty(t, seen.Fragment)
		})
	}
}
