package api

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	_ "net/http/pprof" // Handlers that podlink must not serve.
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	v1 "podlink/api/podlink/v1"
)

const (
	linkPath     = "/v1/namespaces/ns/links/u1/services/svc"
	podPath      = "/v1/namespaces/ns/services/svc/pods/3"
	workloadPath = "/v1/namespaces/ns/workloads/svc"
	batchPath    = "/v1/namespaces/ns/services/svc/links:batchGet"
	plainPath    = "/v1/namespaces/ns/link?uid=u1&service=svc"
	plainSetPath = "/v1/namespaces/ns/links:set"

	invalid     = v1.ErrorReason_INVALID_ARGUMENT
	notFound    = v1.ErrorReason_NOT_FOUND
	wrongMethod = v1.ErrorReason_METHOD_NOT_ALLOWED
	wrongMedia  = v1.ErrorReason_UNSUPPORTED_MEDIA_TYPE
	tooLarge    = v1.ErrorReason_BODY_TOO_LARGE
)

// defaultMux makes http.DefaultServeMux answer every path.
var defaultMux = sync.OnceFunc(func() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "http.DefaultServeMux") })
})

// httpRow is a raw request. Without a header the Content-Type is application/json.
type httpRow struct {
	name, method, path, header, body string

	reason v1.ErrorReason
	field  string // of INVALID_ARGUMENT; the Allow header of METHOD_NOT_ALLOWED
}

var httpRows = []httpRow{
	// Bodies that are not one JSON object.
	{"cut short", "PUT", linkPath, "", `{"podId":1`, invalid, "body"},
	{"only a brace", "PUT", linkPath, "", `{`, invalid, "body"},
	{"a brace too many", "PUT", linkPath, "", `{"podId":1}}`, invalid, "body"},
	{"trailing garbage", "PUT", linkPath, "", `{"podId":1} x`, invalid, "body"},
	{"two objects", "PUT", linkPath, "", `{"podId":1}{"podId":2}`, invalid, "body"},
	{"trailing comma", "PUT", linkPath, "", `{"podId":1,}`, invalid, "body"},
	{"a comment", "PUT", linkPath, "", `{"podId":1/*x*/}`, invalid, "body"},
	{"no quotes", "PUT", linkPath, "", `{podId:1}`, invalid, "body"},
	{"single quotes", "PUT", linkPath, "", `{'podId':1}`, invalid, "body"},
	{"leading zero", "PUT", linkPath, "", `{"podId":01}`, invalid, "body"},
	{"NaN", "PUT", linkPath, "", `{"podId":NaN}`, invalid, "body"},
	{"an array", "PUT", linkPath, "", `[{"podId":1}]`, invalid, "body"},
	{"an empty array", "PUT", linkPath, "", `[]`, invalid, "body"},
	{"null", "PUT", linkPath, "", `null`, invalid, "body"},
	{"a string", "PUT", linkPath, "", `"podId"`, invalid, "body"},
	{"a number", "PUT", linkPath, "", `1`, invalid, "body"},
	{"blanks", "PUT", linkPath, "", "  \n", invalid, "body"},
	{"a NUL", "PUT", linkPath, "", "\x00", invalid, "body"},
	{"a byte order mark", "PUT", linkPath, "", "\ufeff" + `{"podId":1}`, invalid, "body"},
	{"UTF-16", "PUT", linkPath, "", "{\x00\"\x00p\x00", invalid, "body"},
	{"deep arrays", "PUT", linkPath, "", strings.Repeat("[", 200_000), invalid, "body"},
	{"deep objects", "PUT", linkPath, "", strings.Repeat(`{"podId":`, 50_000), invalid, "body"},
	{"deep value", "PUT", linkPath, "", `{"podId":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`, invalid, "pod_id"},
	{"a chunk that is none", "PUT", linkPath, "Content-Type: application/json\r\nTransfer-Encoding: chunked", "x\r\n", invalid, "body"},

	// Fields that are missing, unknown, repeated, or contradict the path. A missing pod is never pod 0.
	{"no body", "PUT", linkPath, "Content-Type: application/json\r\nContent-Length: 0", "", invalid, "pod_id"},
	{"empty object", "PUT", linkPath, "", `{}`, invalid, "pod_id"},
	{"no state", "PUT", podPath, "", `{}`, invalid, "state"},
	{"unknown field", "PUT", linkPath, "", `{"podId":1,"bogus":1}`, invalid, "bogus"},
	{"unknown field of a pod", "PUT", podPath, "", `{"state":"up","healthy":true}`, invalid, "healthy"},
	{"unknown field of a batch", "POST", batchPath, "", `{"uids":["u1"],"uid":"u1"}`, invalid, "uid"},
	{"unknown field without a name", "PUT", linkPath, "", `{"podId":1,"":2}`, invalid, `""`},
	{"unknown field without a name alone", "PUT", linkPath, "", `{"":1}`, invalid, `""`},
	{"unknown field without a name, null", "PUT", linkPath, "", `{"podId":1,"":null}`, invalid, `""`},
	{"unknown field named by blanks", "PUT", linkPath, "", `{"podId":1," ":2}`, invalid, `" "`},
	{"unknown field with a blank", "PUT", linkPath, "", `{"podId":1,"podId ":2}`, invalid, `"podId "`},
	{"unknown field with a control", "PUT", linkPath, "", `{"podId":1,"\u0000":2}`, invalid, `"\x00"`},
	{"unknown field that can't be seen", "PUT", linkPath, "", `{"podId":1,"\u200b":2}`, invalid, `"\u200b"`},
	{"field of another request", "PUT", linkPath, "", `{"podId":1,"keepSeconds":2}`, invalid, "keepSeconds"},
	{"field in capitals", "PUT", linkPath, "", `{"PodId":1}`, invalid, "PodId"},
	{"a type", "PUT", linkPath, "", `{"podId":1,"@type":"x"}`, invalid, "@type"},
	{"field twice", "PUT", linkPath, "", `{"podId":1,"podId":2}`, invalid, "pod_id"},
	{"field twice alike", "PUT", linkPath, "", `{"podId":1,"podId":1}`, invalid, "pod_id"},
	{"field in both spellings", "PUT", linkPath, "", `{"podId":1,"pod_id":2}`, invalid, "pod_id"},
	{"field escaped and not", "PUT", linkPath, "", `{"podId":1,"\u0070odId":2}`, invalid, "pod_id"},
	{"state twice", "PUT", workloadPath, "", `{"state":"a","state":"b"}`, invalid, "state"},
	{"another namespace", "PUT", linkPath, "", `{"podId":1,"namespace":"other"}`, invalid, "namespace"},
	{"another uid", "PUT", linkPath, "", `{"podId":1,"uid":"u2"}`, invalid, "uid"},
	{"another service", "POST", linkPath + ":compute", "", `{"service":"svc2"}`, invalid, "service"},
	{"another pod", "PUT", podPath, "", `{"podId":4,"state":"up"}`, invalid, "pod_id"},
	{"pod 0 and path 3", "PUT", podPath, "", `{"podId":0,"state":"up"}`, invalid, "pod_id"},
	{"pod 0 and path 3, snake", "PUT", podPath, "", `{"pod_id":0,"state":"up"}`, invalid, "pod_id"},
	{"namespace is a number", "PUT", linkPath, "", `{"podId":1,"namespace":1}`, invalid, "namespace"},
	{"uid is an array", "PUT", linkPath, "", `{"podId":1,"uid":["u1"]}`, invalid, "uid"},
	{"service is an object", "PUT", linkPath, "", `{"podId":1,"service":{}}`, invalid, "service"},
	{"uid is not UTF-8", "PUT", linkPath, "", "{\"podId\":1,\"uid\":\"\xff\xfe\"}", invalid, "uid"},
	{"state is not UTF-8", "PUT", podPath, "", "{\"state\":\"\xc0\xaf\"}", invalid, "state"},
	{"state is half a surrogate pair", "PUT", workloadPath, "", `{"state":"\ud800"}`, invalid, "state"},
	{"a uid of a batch is not UTF-8", "POST", batchPath, "", "{\"uids\":[\"u1\",\"\xff\"]}", invalid, "uids"},
	{"name is not UTF-8", "PUT", linkPath, "", "{\"podId\":1,\"\xff\":1}", invalid, "\ufffd"},

	// null is not absence: where it is a caller's mistake, an unconditional change would be the result.
	{"null epoch", "PUT", linkPath, "", `{"podId":1,"expectedEpoch":null}`, invalid, "expected_epoch"},
	{"null epoch, snake", "PUT", linkPath, "", `{"podId":1,"expected_epoch" : null }`, invalid, "expected_epoch"},
	{"null epoch, escaped", "PUT", linkPath, "", `{"podId":1,"\u0065xpectedEpoch":null}`, invalid, "expected_epoch"},
	{"null epoch before one", "PUT", linkPath, "", `{"podId":1,"expectedEpoch":null,"expectedEpoch":"0"}`, invalid, "expected_epoch"},
	{"null epoch after one", "PUT", linkPath, "", `{"podId":1,"expectedEpoch":"0","expectedEpoch":null}`, invalid, "expected_epoch"},
	{"null persistence", "PUT", linkPath, "", `{"podId":1,"persistSeconds":null}`, invalid, "persist_seconds"},
	{"null persistence of a choice", "POST", linkPath + ":compute", "", `{"persistSeconds":null}`, invalid, "persist_seconds"},
	{"null uid beside the path", "PUT", linkPath, "", `{"podId":1,"uid":null}`, invalid, "uid"},
	{"null pod", "PUT", linkPath, "", `{"podId":null}`, invalid, "pod_id"},
	{"null load", "PUT", podPath, "", `{"state":"up","load":null}`, invalid, "load"},
	{"null ttl", "PUT", podPath, "", `{"state":"up","ttlSeconds":null}`, invalid, "ttl_seconds"},
	{"null routing", "PUT", podPath, "", `{"state":"up","routing":null}`, invalid, "routing"},
	{"null uids", "POST", batchPath, "", `{"uids":null}`, invalid, "uids"},

	// Queries.
	{"parameter without a name", "GET", linkPath + "?=1", "", "", invalid, `""`},
	{"pod in query and body", "PUT", linkPath + "?podId=2", "", `{"podId":1}`, invalid, "pod_id"},
	{"pod in query alone", "PUT", linkPath + "?podId=2", "", `{}`, invalid, "pod_id"},
	{"persistence in query", "PUT", linkPath + "?persist_seconds=5", "", `{"podId":1}`, invalid, "persist_seconds"},
	{"namespace in query", "PUT", linkPath + "?namespace=other", "", `{"podId":1}`, invalid, "namespace"},
	{"same namespace in query", "PUT", linkPath + "?namespace=ns", "", `{"podId":1}`, invalid, "namespace"},
	{"unknown in query of PUT", "PUT", linkPath + "?x=1", "", `{"podId":1}`, invalid, "x"},
	{"namespace in query of GET", "GET", linkPath + "?namespace=other", "", "", invalid, "namespace"},
	{"pod in query of DELETE", "DELETE", linkPath + "/pods/1?pod_id=2", "", "", invalid, "pod_id"},
	{"unknown in query of GET", "GET", linkPath + "?x=1", "", "", invalid, "x"},
	{"unknown without a value", "GET", linkPath + "?x", "", "", invalid, "x"},
	{"parameter of another request", "GET", linkPath + "?keepSeconds=1", "", "", invalid, "keepSeconds"},
	{"parameter twice", "DELETE", linkPath + "?keepSeconds=1&keepSeconds=1", "", "", invalid, "keep_seconds"},
	{"parameter in both spellings", "DELETE", linkPath + "?keepSeconds=1&keep_seconds=2", "", "", invalid, "keep_seconds"},
	{"parameter without a value", "DELETE", linkPath + "?keepSeconds=", "", "", invalid, "keep_seconds"},
	{"parameter null", "DELETE", linkPath + "?keepSeconds=null", "", "", invalid, "keep_seconds"},
	{"parameter with a blank", "DELETE", linkPath + "?keepSeconds=+1", "", "", invalid, "keep_seconds"},
	{"parameter in hex", "DELETE", linkPath + "?expectedEpoch=0x1", "", "", invalid, "expected_epoch"},
	{"semicolons", "DELETE", linkPath + "?keepSeconds=1;expectedEpoch=1", "", "", invalid, "query"},
	{"not percent-encoded", "GET", linkPath + "?x=%zz", "", "", invalid, "query"},

	// Paths without the uid.
	{"plain, unknown parameter", "GET", plainPath + "&x=1", "", "", invalid, "x"},
	{"plain, namespace in query", "GET", plainPath + "&namespace=ns", "", "", invalid, "namespace"},
	{"plain, uid twice", "GET", plainPath + "&uid=u2", "", "", invalid, "uid"},
	{"plain, no uid", "GET", "/v1/namespaces/ns/link?service=svc", "", "", invalid, "uid"},
	{"plain, no service", "GET", "/v1/namespaces/ns/link?uid=u1", "", "", invalid, "service"},
	{"plain, uid is not UTF-8", "GET", "/v1/namespaces/ns/link?uid=%ff&service=svc", "", "", invalid, "uid"},
	{"plain, body with GET", "GET", plainPath, "", `{}`, invalid, "body"},
	{"plain list, no uid", "GET", "/v1/namespaces/ns/links", "", "", invalid, "uid"},
	{"plain list, service", "GET", "/v1/namespaces/ns/links?uid=u1&service=svc", "", "", invalid, "service"},
	{"plain set, no body", "POST", plainSetPath, "Content-Type: application/json\r\nContent-Length: 0", "", invalid, "uid"},
	{"plain set, uid in query", "POST", plainSetPath + "?uid=u1", "", `{"service":"svc","podId":1}`, invalid, "uid"},
	{
		"plain set, another namespace", "POST", plainSetPath, "",
		`{"namespace":"other","uid":"u1","service":"svc","podId":1}`, invalid, "namespace",
	},
	{"plain set, no namespace", "POST", plainSetPath, "", `{"namespace":"","uid":"u1","service":"svc","podId":1}`, invalid, "namespace"},
	{
		"plain set, null epoch", "POST", plainSetPath, "",
		`{"uid":"u1","service":"svc","podId":1,"expectedEpoch":null}`, invalid, "expected_epoch",
	},
	{"plain set, null uid", "POST", plainSetPath, "", `{"uid":null,"service":"svc","podId":1}`, invalid, "uid"},
	{"plain set, unknown field", "POST", plainSetPath, "", `{"uid":"u1","service":"svc","podId":1,"bogus":1}`, invalid, "bogus"},
	{
		"plain set, a form", "POST", plainSetPath, "Content-Type: application/x-www-form-urlencoded",
		"uid=u1&service=svc&podId=1", wrongMedia, "",
	},
	{"plain set, 2 MiB", "POST", plainSetPath, "", `{"uid":"` + strings.Repeat("u", 2<<20) + `"}`, tooLarge, ""},
	{"plain set by PUT", "PUT", plainSetPath, "", `{"uid":"u1","service":"svc","podId":1}`, wrongMethod, "POST"},
	{"plain link by DELETE", "DELETE", plainPath, "", "", wrongMethod, "GET"},
	{"plain, unknown verb", "POST", "/v1/namespaces/ns/links:drop", "", `{"uid":"u1","service":"svc"}`, notFound, ""},
	{"plain, verb of a path", "POST", "/v1/namespaces/ns/links/u1:set", "", `{"service":"svc","podId":1}`, wrongMethod, "GET"},

	// Bodies of methods without one.
	{"body with GET", "GET", linkPath, "", `{}`, invalid, "body"},
	{"body with DELETE", "DELETE", linkPath, "", `{"keepSeconds":60}`, invalid, "body"},
	{"chunks with DELETE", "DELETE", linkPath, "Transfer-Encoding: chunked", "2\r\n{}\r\n0\r\n\r\n", invalid, "body"},

	// Content types other than JSON in UTF-8.
	{"no Content-Type", "PUT", linkPath, "X-None: 1", `{"podId":1}`, wrongMedia, ""},
	{"empty Content-Type", "PUT", linkPath, "Content-Type:", `{"podId":1}`, wrongMedia, ""},
	{"YAML", "PUT", linkPath, "Content-Type: application/x-yaml", "podId: 1", wrongMedia, ""},
	{"YAML, short", "PUT", linkPath, "Content-Type: application/yaml", "podId: 1", wrongMedia, ""},
	{"XML", "PUT", linkPath, "Content-Type: application/xml", "<podId>1</podId>", wrongMedia, ""},
	{"a form", "PUT", linkPath, "Content-Type: application/x-www-form-urlencoded", "podId=1", wrongMedia, ""},
	{"parts", "PUT", linkPath, "Content-Type: multipart/form-data; boundary=x", "--x--", wrongMedia, ""},
	{"protobuf", "PUT", linkPath, "Content-Type: application/x-protobuf", " \x01", wrongMedia, ""},
	{"plain text", "PUT", linkPath, "Content-Type: text/plain", `{"podId":1}`, wrongMedia, ""},
	{"something like JSON", "PUT", linkPath, "Content-Type: application/jsonp", `{"podId":1}`, wrongMedia, ""},
	{"Latin 1", "PUT", linkPath, "Content-Type: application/json; charset=latin1", `{"podId":1}`, wrongMedia, ""},
	{"malformed type", "PUT", linkPath, "Content-Type: application/json; charset", `{"podId":1}`, wrongMedia, ""},
	{"gzip", "PUT", linkPath, "Content-Type: application/json\r\nContent-Encoding: gzip", "\x1f\x8b\x08\x00", wrongMedia, ""},
	{"deflate", "PUT", linkPath, "Content-Type: application/json\r\nContent-Encoding: deflate", `{"podId":1}`, wrongMedia, ""},

	// Bodies that are too large.
	{"1 MiB and a byte", "PUT", linkPath, "", `{"podId":1}` + strings.Repeat(" ", 1<<20-10), tooLarge, ""},
	{"2 MiB", "PUT", podPath, "", `{"state":"` + strings.Repeat("s", 2<<20) + `"}`, tooLarge, ""},
	{
		"2 MiB in chunks", "PUT", linkPath, "Content-Type: application/json\r\nTransfer-Encoding: chunked",
		"200000\r\n" + strings.Repeat("x", 2<<20) + "\r\n0\r\n\r\n", tooLarge, "",
	},

	// Identifiers that are not UTF-8, or that look like two.
	{"namespace is not UTF-8", "GET", "/v1/namespaces/%ff/links/u1/services/svc", "", "", invalid, "namespace"},
	{"uid is not UTF-8 in the path", "PUT", "/v1/namespaces/ns/links/%ff%fe/services/svc", "", `{"podId":1}`, invalid, "uid"},
	{"uid is overlong UTF-8", "PUT", "/v1/namespaces/ns/links/%c0%af/services/svc", "", `{"podId":1}`, invalid, "uid"},
	{"uid is a surrogate", "PUT", "/v1/namespaces/ns/links/%ed%a0%80/services/svc", "", `{"podId":1}`, invalid, "uid"},
	{"service is not UTF-8", "PUT", "/v1/namespaces/ns/services/%ff/pods/3", "", `{"state":"up"}`, invalid, "service"},
	{"workload is not UTF-8", "PUT", "/v1/namespaces/ns/workloads/%80", "", `{"state":"up"}`, invalid, "service"},
	{"pod is not UTF-8", "DELETE", linkPath + "/pods/%ff", "", "", invalid, "pod_id"},
	{"another tenant by a slash", "PUT", "/v1/namespaces/ns%2F..%2Fother/links/u1/services/svc", "", `{"podId":1}`, invalid, "namespace"},
	{"another tenant by a colon", "PUT", "/v1/namespaces/other:u1/links/u1/services/svc", "", `{"podId":1}`, invalid, "namespace"},
	{"another tenant by dots", "PUT", "/v1/namespaces/%2E%2E/links/u1/services/svc", "", `{"podId":1}`, invalid, "namespace"},
	{"a verb with PUT", "PUT", linkPath + ":trySet", "", `{"podId":1}`, invalid, "service"},
	{"a verb with GET", "GET", linkPath + ":compute", "", "", invalid, "service"},
	{"an unknown verb with DELETE", "DELETE", linkPath + ":drop", "", "", invalid, "service"},

	// Unknown paths. A redirect would lose the body.
	{"root", "GET", "/", "", "", notFound, ""},
	{"unknown", "GET", "/v2/namespaces", "", "", notFound, ""},
	{"unknown with a body", "POST", "/v1/links", "", `{"podId":1}`, notFound, ""},
	{"in capitals", "PUT", "/V1/namespaces/ns/links/u1/services/svc", "", `{"podId":1}`, notFound, ""},
	{"pprof", "GET", "/debug/pprof/", "", "", notFound, ""},
	{"pprof by POST", "POST", "/debug/pprof/symbol", "", "x", notFound, ""},
	{"pprof by name", "GET", "/debug/pprof/cmdline", "", "", notFound, ""},
	{"vars", "GET", "/debug/vars", "", "", notFound, ""},
	{"metrics", "GET", "/metrics", "", "", notFound, ""},
	{"health", "GET", "/healthz", "", "", notFound, ""},
	{"trailing slash", "PUT", linkPath + "/", "", `{"podId":1}`, notFound, ""},
	{"double slash", "PUT", "/v1//namespaces/ns/links/u1/services/svc", "", `{"podId":1}`, notFound, ""},
	{"leading double slash", "PUT", "/" + linkPath, "", `{"podId":1}`, notFound, ""},
	{"empty uid", "PUT", "/v1/namespaces/ns/links//services/svc", "", `{"podId":1}`, notFound, ""},
	{"parent", "PUT", "/v1/namespaces/other/../ns/links/u1/services/svc", "", `{"podId":1}`, notFound, ""},
	{"parent of the root", "PUT", "/.." + linkPath, "", `{"podId":1}`, notFound, ""},
	{"itself", "PUT", "/v1/./namespaces/ns/links/u1/services/svc", "", `{"podId":1}`, notFound, ""},
	{"a slash of a uid that is not encoded", "PUT", "/v1/namespaces/ns/links/a/b/services/svc", "", `{"podId":1}`, notFound, ""},
	{"path encoded as a whole", "PUT", "/v1%2Fnamespaces%2Fns%2Flinks%2Fu1%2Fservices%2Fsvc", "", `{"podId":1}`, notFound, ""},

	// Methods that a path does not have.
	{"POST of a link", "POST", linkPath, "", `{"podId":1}`, wrongMethod, "DELETE, GET, PUT"},
	{"PATCH of a link", "PATCH", linkPath, "", `{"podId":1}`, wrongMethod, "DELETE, GET, PUT"},
	{"HEAD of a link", "HEAD", linkPath, "", "", wrongMethod, "DELETE, GET, PUT"},
	{"OPTIONS of a link", "OPTIONS", linkPath, "", "", wrongMethod, "DELETE, GET, PUT"},
	{"TRACE of a link", "TRACE", linkPath, "", "", wrongMethod, "DELETE, GET, PUT"},
	{"a made-up method", "FLUSHALL", linkPath, "", "", wrongMethod, "DELETE, GET, PUT"},
	{"method in small letters", "put", linkPath, "", `{"podId":1}`, wrongMethod, "DELETE, GET, PUT"},
	{"GET of a batch", "GET", batchPath, "", "", wrongMethod, "POST"},
	{"POST of a workload", "POST", workloadPath, "", `{"state":"up"}`, wrongMethod, "DELETE, GET, PUT"},
	{"DELETE of a uid", "DELETE", "/v1/namespaces/ns/links/u1", "", "", wrongMethod, "GET"},
	{"POST of a pod", "POST", podPath, "", `{"state":"up"}`, wrongMethod, "DELETE, GET, PUT"},
	{"method override", "POST", linkPath, "X-HTTP-Method-Override: PUT", `{"podId":1}`, wrongMethod, "DELETE, GET, PUT"},
}

// exchange sends a raw request to podlink's HTTP port and returns the response.
func (x *target) exchange(t testing.TB, method, request string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(x.http, "http://"))
	require.NoError(t, err)
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	var sending sync.WaitGroup
	sending.Go(func() { _, _ = io.WriteString(conn, request) }) // podlink may answer and close before it has read everything.
	defer sending.Wait()
	defer conn.Close()
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response, string(body)
}

func (r httpRow) bytes() string {
	header := r.header
	if header == "" && r.body != "" {
		header = "Content-Type: application/json"
	}
	if r.body != "" && !strings.Contains(header, "Transfer-Encoding") {
		header += fmt.Sprintf("\r\nContent-Length: %d", len(r.body))
	}
	lines := []string{r.method + " " + r.path + " HTTP/1.1", "Host: localhost", "Connection: close"}
	if header != "" {
		lines = append(lines, header)
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + r.body
}

func TestHostileHTTP(t *testing.T) {
	defaultMux()
	x := newTarget(t)
	for _, row := range httpRows {
		t.Run(row.name, func(t *testing.T) {
			response, body := x.exchange(t, row.method, row.bytes())
			got := answer{status: response.StatusCode, header: response.Header}
			if row.method == http.MethodHead {
				require.Empty(t, body)
				require.Equal(t, public[row.reason].http, got.status)
			} else {
				var err error
				got.problem, err = parseProblem([]byte(body))
				require.NoError(t, err)
			}
			switch {
			case row.method == http.MethodHead:
			case row.reason == invalid:
				requireInvalid(t, got, row.field, body)
			default:
				requireProblem(t, got, row.reason, body)
			}
			if row.reason == wrongMethod {
				require.Equal(t, row.field, response.Header.Get("Allow"))
			}
			x.unchanged(t, row.name)
		})
	}
	t.Logf("%d rows", len(httpRows))
	x.calm(t)
}

// edgeRows are unusual requests that are accepted.
var edgeRows = []httpRow{
	{name: "charset", method: "PUT", path: linkPath, header: "Content-Type: Application/JSON; charset=UTF-8", body: `{"podId":1}`},
	{
		name: "no compression", method: "PUT", path: linkPath,
		header: "Content-Type: application/json\r\nContent-Encoding: identity", body: `{"podId":1}`,
	},
	{name: "names of protobuf", method: "PUT", path: linkPath, body: `{"pod_id":1,"persist_seconds":-1}`},
	{name: "blanks around", method: "PUT", path: linkPath, body: "\r\n\t {\"podId\" : 1 } \n"},
	{name: "exactly 1 MiB", method: "PUT", path: linkPath, body: `{"podId":1}` + strings.Repeat(" ", 1<<20-11)},
	{
		name: "chunks", method: "PUT", path: linkPath,
		header: "Content-Type: application/json\r\nTransfer-Encoding: chunked", body: "b\r\n{\"podId\":1}\r\n0\r\n\r\n",
	},
	{name: "body that agrees with the path", method: "PUT", path: linkPath, body: `{"namespace":"ns","uid":"u1","service":"svc","podId":1}`},
	{name: "pod 0 in path and body", method: "PUT", path: "/v1/namespaces/ns/services/svc/pods/0", body: `{"podId":0,"state":"up"}`},
	{name: "nothing to say", method: "POST", path: linkPath + ":compute"},
	{name: "verb that is encoded", method: "POST", path: linkPath + "%3AtrySet", body: `{"podId":1}`},
	{name: "path that is encoded", method: "PUT", path: "/v1/namespaces/%6e%73/links/%75%31/services/sv%63", body: `{"podId":1}`},
	{name: "UTF-8 that is not encoded", method: "PUT", path: "/v1/namespaces/ns/links/ä😀{x}|/services/svc", body: `{"podId":1}`},
	{name: "a state that says null", method: "PUT", path: "/v1/namespaces/ns/services/svc/pods/0", body: `{"state":"null: \"x\":null"}`},
	{name: "empty query", method: "GET", path: linkPath + "?"},
	{
		name: "query with a name of protobuf", method: "DELETE", path: linkPath + "?keep_seconds=5&expectedEpoch=0",
		reason: v1.ErrorReason_EPOCH_MISMATCH,
	},
	{name: "another Accept", method: "GET", path: linkPath, header: "Accept: application/x-protobuf, text/html\r\nAccept-Encoding: br"},
}

func TestEdgeHTTP(t *testing.T) {
	x := newTarget(t)
	for _, row := range edgeRows {
		t.Run(row.name, func(t *testing.T) {
			response, body := x.exchange(t, row.method, row.bytes())
			require.Equal(t, "application/json", response.Header.Get("Content-Type"))
			if row.reason != 0 {
				require.Equal(t, public[row.reason].http, response.StatusCode, body)
				return
			}
			require.Equal(t, http.StatusOK, response.StatusCode, body)
		})
	}
	// The link of u1 is unchanged. The link of the strange uid and pod 0 are new, and podlink notes the link.
	now := keyspace(t, x.client)
	for _, own := range []string{"podlink:link:ns:ä😀{x}|", "podlink:service:ns:svc", "podlink:feed:ns:svc", "podlink:index:ns:svc:1"} {
		require.Contains(t, now, own)
		delete(now, own)
		delete(x.before, own)
	}
	require.Equal(t, x.before, now)
	x.calm(t)
}

// TestNotHTTP: requests that the HTTP library rejects before podlink sees them get a 4xx, not always as JSON.
func TestNotHTTP(t *testing.T) {
	x := newTarget(t)
	put := "PUT " + linkPath + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
	for name, request := range map[string]string{
		"2 MiB of headers":         put + "X-Large: " + strings.Repeat("x", 2<<20) + "\r\n\r\n",
		"2 MiB of many headers":    put + strings.Repeat("X-Many: 0123456789\r\n", 2<<20/20) + "\r\n",
		"2 MiB of path":            "GET /v1/" + strings.Repeat("x", 2<<20) + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"path that is no URL":      "GET /%zz HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"NUL in the path":          "GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"no Host":                  "GET " + linkPath + " HTTP/1.1\r\n\r\n",
		"header without a colon":   put + "bogus\r\n\r\n",
		"header with a NUL":        put + "X: \x00\r\n\r\n",
		"negative length":          put + "Content-Length: -1\r\n\r\n",
		"two lengths":              put + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
		"length that is no number": put + "Content-Length: many\r\n\r\n",
		"a TLS handshake":          "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n",
		"noise":                    "\xde\xad\xbe\xef\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			response, body := x.exchange(t, http.MethodPut, request)
			require.GreaterOrEqual(t, response.StatusCode, 400, body)
			require.Less(t, response.StatusCode, 500, body)
			x.unchanged(t, name)
		})
	}
	x.calm(t)
}

// wire is a gRPC codec that sends raw bytes.
type wire struct{}

func (wire) Marshal(v any) ([]byte, error)      { return v.([]byte), nil }
func (wire) Unmarshal(data []byte, v any) error { return proto.Unmarshal(data, v.(proto.Message)) }
func (wire) Name() string                       { return "proto" }

// subtype is wire with another content subtype.
type subtype struct {
	wire
	name string
}

func (s subtype) Name() string { return s.name }

// encode returns the request in protobuf's wire format.
func encode(t testing.TB, method protoreflect.MethodDescriptor, request string) []byte {
	t.Helper()
	in := newMessage(method.Input())
	require.NoError(t, protojson.Unmarshal([]byte(request), in))
	content, err := proto.Marshal(in)
	require.NoError(t, err)
	return content
}

func bytesField(number protowire.Number, content string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), content)
}

func TestHostileGRPC(t *testing.T) {
	x := newTarget(t)
	const setLink = "/podlink.v1.LinkService/SetLinkedPod"
	refused := func(t *testing.T, method string, content []byte, field string) {
		t.Helper()
		got, err := x.invoke(t.Context(), method, content, new(emptypb.Empty), grpc.ForceCodec(wire{}))
		require.NoError(t, err)
		requireInvalid(t, got, field, method)
		x.unchanged(t, method)
	}
	t.Run("text that is not UTF-8", func(t *testing.T) {
		for name, method := range rpcs {
			full := fmt.Sprintf("/%s/%s", method.Parent().FullName(), name)
			fields := method.Input().Fields()
			for i := range fields.Len() {
				if field := fields.Get(i); field.Kind() == protoreflect.StringKind {
					for _, text := range []string{"\xff\xfe", "ok\xc0\xaf", "\xed\xa0\x80"} {
						content := append(encode(t, method, good[name]), bytesField(field.Number(), text)...)
						refused(t, full, content, string(field.Name()))
					}
				}
			}
		}
	})
	method := rpcs["SetLinkedPod"]
	whole, podless := encode(t, method, good["SetLinkedPod"]), encode(t, method, with(t, good["SetLinkedPod"], "podId", absent))
	for name, row := range map[string]struct {
		content []byte
		field   string
	}{
		"nothing":                {nil, "namespace"},
		"noise":                  {[]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), "body"},
		"JSON":                   {[]byte(good["SetLinkedPod"]), "body"},
		"cut short":              {whole[:len(whole)-1], "body"},
		"field 0":                {append(whole[:len(whole):len(whole)], 0, 0), "body"},
		"an end without a start": {append(whole[:len(whole):len(whole)], 0x0c), "body"},
		"length beyond the end":  {append(whole[:len(whole):len(whole)], 0x0a, 0xff, 0xff, 0xff, 0xff, 0x07), "body"},
		"no pod":                 {podless, "pod_id"},
		"pod of another type":    {append(podless[:len(podless):len(podless)], bytesField(4, "1")...), "pod_id"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, setLink, row.content, row.field) })
	}
	for _, name := range []string{"json", "xml", "x"} {
		// Kratos registers a JSON codec that drops unknown fields.
		t.Run("content subtype "+name, func(t *testing.T) {
			request := []byte(`{"namespace":"ns","uid":"u1","service":"svc","podId":9,"bogus":1}`)
			got, err := x.invoke(t.Context(), setLink, request, new(emptypb.Empty), grpc.ForceCodec(subtype{name: name}))
			require.NoError(t, err)
			require.Contains(t, []codes.Code{codes.InvalidArgument, codes.Unimplemented}, got.code, got)
			x.unchanged(t, name)
		})
	}
	t.Run("2 MiB", func(t *testing.T) {
		got, err := x.invoke(t.Context(), setLink, bytesField(2, strings.Repeat("u", 2<<20)), new(emptypb.Empty), grpc.ForceCodec(wire{}))
		require.NoError(t, err)
		require.Equal(t, codes.ResourceExhausted, got.code)
		x.unchanged(t, "2 MiB")
	})
	for _, method := range []string{
		"/grpc.channelz.v1.Channelz/GetServers", "/grpc.channelz.v1.Channelz/GetTopChannels", "/grpc.channelz.v1.Channelz/GetServer",
		"/kratos.api.Metadata/ListServices", "/kratos.api.Metadata/GetServiceDesc",
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
		"/podlink.v1.LinkService/FlushAll", "/podlink.v1.AdminService/Stop", "/x/y",
	} {
		t.Run("denied "+method, func(t *testing.T) {
			got, err := x.invoke(t.Context(), method, []byte(nil), new(emptypb.Empty), grpc.ForceCodec(wire{}))
			require.NoError(t, err)
			require.Equal(t, codes.Unimplemented, got.code)
		})
	}
	t.Run("health of an unknown service", func(t *testing.T) {
		got, err := x.invoke(t.Context(), "/grpc.health.v1.Health/Check", bytesField(1, "x"), new(emptypb.Empty), grpc.ForceCodec(wire{}))
		require.NoError(t, err)
		require.Equal(t, codes.NotFound, got.code)
	})
	x.calm(t)
}

// TestStalledCallers: a connection that stalls is answered or closed within 10 s. Other callers are served meanwhile, and no
// mutation is half-applied.
func TestStalledCallers(t *testing.T) {
	x := newTarget(t)
	api, admin := strings.TrimPrefix(x.http, "http://"), strings.TrimPrefix(x.admin, "http://")
	head := "PUT " + linkPath + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
	var stalled sync.WaitGroup
	for name, row := range map[string]struct{ addr, sent string }{
		"half a body":                   {api, head + "Content-Length: 100\r\n\r\n" + `{"podId":9`},
		"a body shorter than announced": {api, head + "Content-Length: 100\r\n\r\n" + `{"podId":9}`},
		"half a chunk":                  {api, head + "Transfer-Encoding: chunked\r\n\r\n64\r\n" + `{"podId":9`},
		"half the headers":              {api, head + "X-Slow: "},
		"half a line":                   {api, "PU"},
		"nothing":                       {api, ""},
		"half to admin":                 {admin, "GET /readyz HTTP/1.1\r\n"},
		"nothing to gRPC":               {x.grpc.Target(), ""},
	} {
		conn, err := net.Dial("tcp", row.addr)
		require.NoError(t, err)
		_, err = io.WriteString(conn, row.sent)
		require.NoError(t, err)
		start := time.Now()
		require.NoError(t, conn.SetReadDeadline(start.Add(10*time.Second)))
		stalled.Go(func() {
			defer conn.Close()
			got, err := io.ReadAll(conn)
			t.Logf("%s: after %s %.26q", name, time.Since(start).Round(time.Millisecond), got)
			assert.NoError(t, err, "%s: the connection is still open", name)
			if strings.HasPrefix(string(got), "HTTP/") {
				assert.Contains(t, string(got), "HTTP/1.1 4", name)
			}
		})
	}
	x.alive(t) // Meanwhile.
	stalled.Wait()
	x.unchanged(t, "after all")
	x.calm(t)
}
