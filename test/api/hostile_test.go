package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	v1 "podlink/api/podlink/v1"
	redistest "podlink/test/kit/redis"
)

// good has a valid request for every RPC.
var good = map[string]string{
	"SetLinkedPod":          `{"namespace":"ns","uid":"u1","service":"svc","podId":1}`,
	"TrySetLinkedPod":       `{"namespace":"ns","uid":"u1","service":"svc","podId":1}`,
	"SetLinkedPodIfAbsent":  `{"namespace":"ns","uid":"u1","service":"svc","podId":1}`,
	"ComputeLinkedPod":      `{"namespace":"ns","uid":"u1","service":"svc"}`,
	"GetLinkedPod":          `{"namespace":"ns","uid":"u1","service":"svc"}`,
	"GetLinkedPodIfPersist": `{"namespace":"ns","uid":"u1","service":"svc"}`,
	"BatchGetLinkedPod":     `{"namespace":"ns","service":"svc","uids":["u1"]}`,
	"RemoveLinkedPod":       `{"namespace":"ns","uid":"u1","service":"svc"}`,
	"RemoveLinkedPodWithId": `{"namespace":"ns","uid":"u1","service":"svc","podId":1}`,
	"ListLinkedServices":    `{"namespace":"ns","uid":"u1"}`,
	"SetServiceState":       `{"namespace":"ns","service":"svc","podId":1,"state":"up"}`,
	"GetServiceState":       `{"namespace":"ns","service":"svc"}`,
	"GetServicePod":         `{"namespace":"ns","service":"svc","podId":1}`,
	"CordonPod":             `{"namespace":"ns","service":"svc","podId":1,"cordon":"READY"}`,
	"RemoveServiceState":    `{"namespace":"ns","service":"svc","podId":1}`,
	"SetWorkloadState":      `{"namespace":"ns","service":"svc","state":"open"}`,
	"GetWorkloadState":      `{"namespace":"ns","service":"svc"}`,
	"RemoveWorkloadState":   `{"namespace":"ns","service":"svc"}`,
	"BatchGetWorkloadState": `{"namespace":"ns","services":["svc"]}`,
	"BatchComputeLinkedPod": `{"namespace":"ns","service":"svc","items":[{"uid":"u1"}]}`,
	"BatchSetLinkedPod":     `{"namespace":"ns","service":"svc","items":[{"uid":"u1","podId":1}]}`,
	"BatchRemoveLinkedPod":  `{"namespace":"ns","service":"svc","items":[{"uid":"u1"}]}`,
	"BatchVerifyLinkedPod":  `{"namespace":"ns","service":"svc","podId":1,"items":[{"uid":"u1","epoch":"1"}]}`,
	"ListNamespaces":        `{}`,
	"ListServices":          `{"namespace":"ns"}`,
	"ListPodLinks":          `{"namespace":"ns","service":"svc","podId":1}`,
	"CountPodLinks":         `{"namespace":"ns","service":"svc"}`,
	"WatchLinks":            `{"namespace":"ns","service":"svc"}`,
	"ExportLinks":           `{"namespace":"ns","service":"svc"}`,
	"CreateJob":             `{"namespace":"ns","service":"svc","podId":1,"kind":"RELOCATE","dryRun":true}`,
	"ListJobs":              `{"namespace":"ns"}`,
	"GetJob":                `{"namespace":"ns","job":"none"}`,
	"CancelJob":             `{"namespace":"ns","job":"none"}`,
	"WatchJob":              `{"namespace":"ns","job":"none"}`,
}

// with returns the request with a field set to a JSON value, or without the field if the value is absent.
func with(t testing.TB, request, field, value string) string {
	t.Helper()
	var fields map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(request), &fields))
	fields[field] = json.RawMessage(value)
	if value == absent {
		delete(fields, field)
	}
	out, err := json.Marshal(fields)
	require.NoError(t, err)
	return string(out)
}

// absent marks a missing field in the tables.
const absent = ""

func quoted(texts ...string) []string {
	for i, text := range texts {
		content, _ := json.Marshal(text)
		texts[i] = string(content)
	}
	return texts
}

func list(n int, entry func(i int) string) string {
	entries := make([]string, n)
	for i := range entries {
		entries[i] = strconv.Quote(entry(i))
	}
	return "[" + strings.Join(entries, ",") + "]"
}

// badName has invalid names. A namespace and a service are 1 to 128 of A-Z a-z 0-9 . _ -, the first and last alphanumeric.
var badName = quoted("", "-a", "a-", ".a", "a.", "_a", "a_", "-", ".", "..", "a:b", ":a", "a:trySet", "a/b", "/", "../a",
	"a{b", "a}b", "{x}", "a b", " a", "a*", "a?b", "a#b", "a%", "%2F", "a%2Fb", "a\x00b", "a\nb", "a\r\nb", "a\x7fb", "ä",
	"😀", "a\u0301", "ａ", strings.Repeat("n", 129), strings.Repeat("n", 4096))

// badUID has invalid uids. A uid is 1 to 256 bytes of UTF-8 without control characters.
var badUID = quoted("", "a\x00b", "\x00", "a\nb", "a\tb", "\x1b[31m", "a\x7f", "a\u0085b", "\u009f",
	strings.Repeat("u", 257), strings.Repeat("ä", 128)+"u", strings.Repeat("😀", 65), strings.Repeat("u", 4096))

var notNumber = []string{`1.5`, `-0.5`, `1e30`, `"1.5"`, `"abc"`, `""`, `" 1"`, `"0x1"`, `true`, `[]`, `[1]`, `{}`, `"NaN"`, `"Infinity"`}

// notInt32 has invalid values for fields of 32 bits.
var notInt32 = append([]string{
	`2147483648`, `-2147483649`, `4294967296`, `1e10`, `9223372036854775808`, `"99999999999999999999"`,
}, notNumber...)

var badDuration = append([]string{`0`, `-2`, `-2147483648`}, notInt32...)

// badCounter has invalid generations and sequences. The request has no instance_id, so that any but 0 is one.
var badCounter = append([]string{`-1`, `1`, `4503599627370496`, `"9223372036854775808"`, `-9223372036854775809`}, notNumber...)

// badLabels has invalid labels, of any number.
var badLabels = []string{
	`1`, `"a"`, `[]`, `["a"]`, `{"a":1}`, `{"a":null}`, `{"a":["b"]}`, `{"":"x"}`, `{"a:b":"x"}`, `{"-a":"x"}`, `{"a b":"x"}`, `{"é":"x"}`,
	`{"a":"b\u0000"}`, `{"a":"b\n"}`, `{"a":"\u0085"}`, `{"a":"` + strings.Repeat("v", 129) + `"}`, `{"` + strings.Repeat("n", 129) + `":"x"}`,
}

// labels returns n labels.
func labels(n int) string {
	pairs := make([]string, n)
	for i := range pairs {
		pairs[i] = fmt.Sprintf(`"l%d":"v"`, i)
	}
	return "{" + strings.Join(pairs, ",") + "}"
}

// badToken has texts that are no token of a list or a watch, badPageToken and badResumeToken also some that could be one of the other.
var (
	badToken = append([]string{`[]`, `{}`},
		quoted("x", "=", "a b", "%", "...", "1.2.3", "\x00", "😀", "../..", strings.Repeat("A", 5000))...)

	badPageToken   = append(quoted("AAAA", "true", "1.2.", "-1.2.3", "."), badToken...)
	badResumeToken = append(quoted("AQ", "AQAAAA", "AR"), badToken...) // A later podlink's is like none.
)

// filters are optional fields of single RPCs: without them the call is about all. They have the bad values of the others, save for
// those that are absent, empty or null.
var filters = map[string]bool{"WatchLinks.pod_id": true, "WatchLinks.uid": true, "ExportLinks.service": true}

// badValuesOf returns the bad values of a field.
func badValuesOf(t *testing.T, field protoreflect.FieldDescriptor) []string {
	t.Helper()
	values, ok := badValues[string(field.Name())]
	require.True(t, ok, "badValues has nothing for %s", field.FullName())
	rpc := strings.TrimSuffix(string(field.Parent().Name()), "Request")
	if !filters[rpc+"."+string(field.Name())] {
		return values
	}
	return slices.DeleteFunc(slices.Clone(values), func(value string) bool { return value == absent || value == `""` || value == `null` })
}

// badFlag has invalid values for a field that is true or false.
var badFlag = []string{`0`, `1`, `"yes"`, `"TRUE"`, `"1"`, `""`, `[]`, `{}`}

// badValues are JSON values that are INVALID_ARGUMENT, by the name of the field. In a path every value is text, so fields of a
// path have strings only.
var badValues = map[string][]string{
	"namespace":       append([]string{absent}, badName...),
	"service":         append([]string{absent}, badName...),
	"uid":             append([]string{absent}, badUID...),
	"pod_id":          append([]string{absent, `null`, `-1`, `-2147483648`}, notInt32...),
	"persist_seconds": badDuration,
	"ttl_seconds":     badDuration,
	"keep_seconds":    append([]string{`-2`, `-2147483648`}, notInt32...),
	"expected_epoch": append([]string{
		`-1`, `9007199254740991`, `"9223372036854775807"`, `"9223372036854775808"`, `-9223372036854775809`,
	}, notNumber...),
	"claim": append([]string{`-1`, `"4503599627370496"`, `"9223372036854775808"`, `-9223372036854775809`}, notNumber...),
	"above_epoch": append([]string{
		`-1`, `"9007199254740990"`, `"9007199254740991"`, `"9223372036854775807"`, `"9223372036854775808"`, `-9223372036854775809`,
	}, notNumber...),
	"load":      append([]string{`-1`, `-2147483648`}, notInt32...),
	"routing":   {`3`, `-1`, `2147483648`, `1.5`, `"DRAINING"`, `"ready"`, `""`, `"0"`, `true`, `[]`, `{}`},
	"live_only": badFlag,
	"state": append([]string{absent, `null`, `1`, `true`, `[]`, `{}`, `"\ud800"`}, quoted("", "a\x00b", "a\nb", "\x7f", "\u0085",
		strings.Repeat("s", 1025), strings.Repeat("ä", 512)+"s")...),
	"instance_id": append([]string{`1`, `true`, `[]`, `{}`}, quoted("a b", "a/b", "é", "a\n", "a\x00", "{a}", strings.Repeat("i", 129))...),
	"sequence":    badCounter,
	"generation":  badCounter,
	"supersedes":  badCounter,
	"capacity":    append([]string{`-1`, `-2147483648`}, notInt32...),
	"labels":      append([]string{labels(17)}, badLabels...),
	"selector":    append([]string{labels(9)}, badLabels...),
	"address": append([]string{`1`, `true`, `[]`, `{}`}, quoted("pod-0", ":80", "pod-0:", "pod-0:0", "pod-0:65536", "pod-0:http", "pod-0:-1",
		"http://pod-0:80", "pod 0:80", "a\n:80", "[::1]", "::1:80", "pod-0:80/x", "é:80", strings.Repeat("h", 253)+":80")...),
	"cordon": {
		absent, `null`, `3`, `-1`, `2147483648`, `1.5`, `"DRAINING"`, `"ready"`, `""`, `"0"`, `true`, `[]`, `{}`,
	},
	"avoid_pods": {
		`1`, `"1"`, `{}`, `[-1]`, `[null]`, `["a"]`, `[1.5]`, `[2147483648]`, `[[1]]`, `[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]`,
	},
	"avoid_epoch": append([]string{`-1`, `"9223372036854775808"`, `-9223372036854775809`}, notNumber...),
	"known": {
		`1`, `"1"`, `true`, `[]`, `{}`, `{"podId":1}`, `{"epoch":"1"}`, `{"podId":-1,"epoch":"1"}`, `{"podId":1,"epoch":"0"}`,
		`{"podId":1,"epoch":-1}`, `{"podId":"x","epoch":1}`, `{"podId":1,"epoch":1,"uid":"u1"}`, `{"podId":null,"epoch":1}`,
		`{"podId":2147483648,"epoch":1}`, `{"podId":1,"epoch":9223372036854775808}`,
	},
	"uids": {
		absent, `null`, `[]`, `"u1"`, `1`, `{}`, `[1]`, `[null]`, `[["u1"]]`, `[{}]`, `[""]`, `["u1","a\u0000b"]`, `["u1","\ud800"]`,
		list(1001, strconv.Itoa), list(1001, func(int) string { return "u1" }), list(1, func(int) string { return strings.Repeat("u", 257) }),
	},
	"items":        badItems(),
	"page_size":    append([]string{`-1`, `1001`, `2147483647`, `-2147483648`}, notInt32...),
	"page_token":   badPageToken,
	"resume_token": badResumeToken,
	"job":          append([]string{absent}, badName...),
	"kind":         {absent, `null`, `0`, `5`, `-1`, `1.5`, `"MOVE"`, `"relocate"`, `""`, `true`, `[]`, `{}`},
	"rate":         append([]string{`-1`, `2001`, `2147483647`}, notInt32...),
	"dry_run":      badFlag,
	"repair":       append([]string{`true`}, badFlag...),
	"reason": append([]string{`1`, `true`, `[]`, `{}`, `"\ud800"`}, quoted("a\x00b", "a\nb", "\x7f", "\u0085",
		strings.Repeat("r", 257))...),
	"request_id":       append([]string{`1`, `true`, `[]`, `{}`}, quoted("a b", "a/b", "é", "a\n", "{a}", strings.Repeat("i", 129))...),
	"grace_seconds":    append([]string{`-1`, `86401`, `2147483647`}, notInt32...),
	"below_generation": append([]string{`-1`, `1`, `"9223372036854775808"`, `-9223372036854775809`}, notNumber...),
	"confirm":          append([]string{`1`, `true`, `[]`, `{}`}, quoted("svc", "ns", "a b")...),
	"services": {
		absent, `null`, `[]`, `"svc"`, `1`, `{}`, `[1]`, `[null]`, `[["svc"]]`, `[""]`, `["svc","a:b"]`, `["svc","a/b"]`,
		list(1001, strconv.Itoa), list(1, func(int) string { return strings.Repeat("s", 129) }),
	},
}

// badItems has lists of items that are invalid for every batch: by themselves, or because of a bad value of a field, which may
// also be one that the items do not have.
func badItems() []string {
	item := func(fields string) string { return `{"podId":1,"epoch":1,` + fields + `}` }
	many := func(n int, uid func(i int) string) string {
		items := make([]string, n)
		for i := range items {
			items[i] = item(`"uid":` + strconv.Quote(uid(i)))
		}
		return "[" + strings.Join(items, ",") + "]"
	}
	all := []string{
		absent, `null`, `[]`, `"u1"`, `1`, `{}`, `[1]`, `["u1"]`, `[null]`, `[[]]`, `[{}]`, `[{"uid":null}]`, `[{"uid":1}]`, `[{"uid":["u1"]}]`,
		many(1001, strconv.Itoa), many(2, func(int) string { return "u1" }), many(1, func(int) string { return strings.Repeat("u", 257) }),
	}
	for field, values := range map[string][]string{
		"uid": badUID, "podId": {`-1`, `1.5`, `2147483648`}, "persistSeconds": {`0`, `-2`, `"x"`}, "claim": {`-1`, `1.5`},
		"expectedEpoch": {`-1`, `9007199254740991`, `"x"`}, "aboveEpoch": {`-1`, `"x"`}, "ifAbsent": {`1`, `"yes"`},
		"keepSeconds": {`-2`, `"x"`}, "epoch": {`-1`, `"x"`}, "avoidPods": {`[-1]`, `1`}, "avoidEpoch": {`-1`},
		"known": {`{}`, `{"podId":null,"epoch":1}`, `{"podId":1}`, `[]`}, "namespace": {`"ns"`}, "x": {`1`},
	} {
		for _, value := range values {
			fields := strconv.Quote(field) + ":" + value
			if field != "uid" {
				fields += `,"uid":"u9"`
			}
			all = append(all, `[{"uid":"u8"},{`+fields+`}]`)
		}
	}
	return all
}

// thousandItems has as many items as a batch may have, with long uids and the same further fields.
func thousandItems(fields string) string {
	items := make([]string, 1000)
	for i := range items {
		items[i] = fmt.Sprintf(`{"uid":"%s%d"%s}`, strings.Repeat("u", 252), 1000+i, fields)
	}
	return "[" + strings.Join(items, ",") + "]"
}

// ofPodlink reports whether podlink writes the key by itself, without a call: leases, and what it knows of other podlinks.
func ofPodlink(key string) bool {
	return key == "podlink:writers" || key == "podlink:fleet" || strings.HasPrefix(key, "podlink:lease:")
}

// keyspace returns every key of the Redis that calls may write, with its content and whether it has a TTL.
func keyspace(t testing.TB, client *redis.Client) map[string]string {
	t.Helper()
	ctx := context.Background()
	var keys []string
	for scan := client.Scan(ctx, 0, "*", 1000).Iterator(); scan.Next(ctx); {
		if !ofPodlink(scan.Val()) {
			keys = append(keys, scan.Val())
		}
	}
	dumps, ttls := make(map[string]*redis.StringCmd), make(map[string]*redis.DurationCmd)
	_, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, key := range keys {
			dumps[key], ttls[key] = pipe.Dump(ctx, key), pipe.PTTL(ctx, key)
		}
		return nil
	})
	require.NoError(t, err)
	content := make(map[string]string, len(keys))
	for key, dump := range dumps {
		content[key] = fmt.Sprintf("%x, expires: %t", dump.Val(), ttls[key].Val() > 0)
	}
	return content
}

// target is a podlink on a Redis with data of several tenants.
type target struct {
	*testApp
	client *redis.Client
	before map[string]string
}

func newTarget(t testing.TB) *target {
	t.Helper()
	server := redistest.Start(t)
	x := &target{testApp: startApp(t, onRedis(server)), client: server.Client(t)}
	for _, namespace := range []string{"ns", "other"} {
		for _, change := range []struct{ rpc, field, value string }{
			{"SetLinkedPod", "persistSeconds", `-1`},
			{"SetLinkedPod", "service", `"svc2"`},
			{"SetLinkedPod", "uid", `"u2"`},
			{"TrySetLinkedPod", "uid", `"u3"`},
			{"SetServiceState", "load", `5`},
			{"SetServiceState", "podId", `3`},
			{"SetWorkloadState", "state", `"open"`},
		} {
			request := with(t, with(t, good[change.rpc], change.field, change.value), "namespace", strconv.Quote(namespace))
			if change.rpc == "TrySetLinkedPod" {
				request = with(t, request, "persistSeconds", "3600")
			}
			require.True(t, x.must(t, overHTTP, change.rpc, request).ok(), request)
		}
	}
	require.NoError(t, x.client.Set(t.Context(), "another-application", "value", 0).Err())
	x.settle(t)
	return x
}

// settle waits until podlink has noted the changes in the index and the feeds, and takes what Redis has then as the state before.
func (x *target) settle(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool {
		x.before = keyspace(t, x.client)
		if len(x.before) != 12+1+2*3*2 { // The services, and of each of both: a feed, the pods with an index, and one such pod.
			return false
		}
		for _, namespace := range []string{"ns", "other"} {
			if x.client.HLen(context.Background(), "podlink:index:"+namespace+":svc:1").Val() != 3 {
				return false
			}
		}
		time.Sleep(200 * time.Millisecond) // Ten flushes.
		return maps.Equal(x.before, keyspace(t, x.client))
	}, 20*time.Second, 20*time.Millisecond)
}

// unchanged fails if the content of Redis has changed since the start.
func (x *target) unchanged(t testing.TB, at string) {
	t.Helper()
	require.Equal(t, x.before, keyspace(t, x.client), at)
}

// alive fails if podlink doesn't serve or has panicked.
func (x *target) alive(t testing.TB) {
	t.Helper()
	status, body := x.do(t, http.MethodGet, linkPath, "")
	require.Equal(t, http.StatusOK, status, body)
	require.True(t, x.must(t, overGRPC, "GetLinkedPod", good["GetLinkedPod"]).ok())
	require.NotContains(t, x.log.String(), "panic")
}

// calm is alive, and fails if podlink logged an ERROR: callers must not be able to cause one.
func (x *target) calm(t testing.TB) {
	t.Helper()
	x.alive(t)
	require.NotContains(t, x.log.String(), `"level":"ERROR"`)
}

// requireAnswered checks that a good request is answered: of a job that never was with JOB_NOT_FOUND, and without pods no job moves links.
func requireAnswered(t testing.TB, got answer, name string, over via) {
	t.Helper()
	switch name {
	case "CreateJob":
		requireProblem(t, got, v1.ErrorReason_NO_AVAILABLE_POD, name)
	case "GetJob", "CancelJob", "WatchJob":
		requireProblem(t, got, v1.ErrorReason_JOB_NOT_FOUND, name)
	default:
		require.True(t, got.ok(), "%s over %s: %+v", name, over, got.problem)
	}
}

// requireInvalid checks for an INVALID_ARGUMENT that names the field or one of its entries.
func requireInvalid(t testing.TB, got answer, field, at string) {
	t.Helper()
	requireProblem(t, got, v1.ErrorReason_INVALID_ARGUMENT, at)
	named, _, _ := strings.Cut(got.Metadata["field"], "[")
	named, _, _ = strings.Cut(named, ".")
	require.Equal(t, field, named, at)
	require.Contains(t, got.Message, named, at)
}

// requireProblem checks for the reason with its code, in the shape of every error.
func requireProblem(t testing.TB, got answer, reason v1.ErrorReason, at string) {
	t.Helper()
	want, ok := public[reason]
	require.True(t, ok, reason)
	require.Equal(t, reason.String(), got.Reason, "%s: %+v", at, got)
	require.NotEmpty(t, got.Message, at)
	if got.status == 0 {
		require.Equal(t, want.grpc, got.code, at)
		return
	}
	require.Equal(t, want.http, got.status, at)
	require.Equal(t, want.http, got.Code, at)
	require.NotNil(t, got.Metadata, at)
	require.Equal(t, "application/json", got.header.Get("Content-Type"), at)
}

// TestHostileFields: for every bad value in every field of every RPC, the answer names the field and Redis is unchanged.
func TestHostileFields(t *testing.T) {
	x := newTarget(t)
	rows, overBoth := 0, 0
	for name, method := range rpcs {
		for i := range method.Input().Fields().Len() {
			field := method.Input().Fields().Get(i)
			values := badValuesOf(t, field)
			t.Run(name+"/"+string(field.Name()), func(t *testing.T) {
				for _, value := range values {
					request := with(t, good[name], field.JSONName(), value)
					rows++
					for _, over := range forms {
						_, path := httpRule(method, over)
						if _, main := httpRule(method, overHTTP); over == overPlain && path == main {
							continue
						}
						inPath := strings.Contains(path, "{"+string(field.Name())+"}")
						at := fmt.Sprintf("%s over %s with %s = %.80s", name, over, field.Name(), value)
						got, err := x.call(t.Context(), over, name, request)
						if errors.Is(err, errInexpressible) {
							continue
						}
						require.NoError(t, err, at)
						switch {
						case over != overGRPC && inPath && (value == absent || value == `""`) && !strings.Contains(path, "{"+string(field.Name())+"}:watch"):
							// The path doesn't exist then, or is another one with other methods. That of WatchJob is GetJob's, of the job ":watch".
							require.Contains(t, []int{http.StatusNotFound, http.StatusMethodNotAllowed}, got.status, at)
						default:
							requireInvalid(t, got, string(field.Name()), at)
						}
						if over == overGRPC {
							overBoth++
						}
						x.unchanged(t, at)
					}
				}
			})
		}
	}
	t.Logf("%d rows over HTTP, %d of them over gRPC", rows, overBoth)
	x.calm(t)
}

// TestNullInItems: a field of an item that is null by mistake is not taken for absent, which could mean an unconditional change.
func TestNullInItems(t *testing.T) {
	x := newTarget(t)
	for rpc, fields := range map[string][]string{
		"BatchSetLinkedPod":     {"podId", "persistSeconds", "expectedEpoch", "claim", "aboveEpoch", "ifAbsent"},
		"BatchRemoveLinkedPod":  {"keepSeconds", "expectedEpoch", "podId"},
		"BatchComputeLinkedPod": {"avoidPods", "avoidEpoch"},
		"BatchVerifyLinkedPod":  {"epoch"},
	} {
		for _, field := range fields {
			items := strings.Replace(good[rpc], `"items":[`, `"items":[{"uid":"u8","`+field+`":null},`, 1)
			got := x.must(t, overHTTP, rpc, items)
			requireInvalid(t, got, "items", items)
			require.True(t, strings.HasPrefix(got.Metadata["field"], "items[0]."), got.Metadata["field"])
			x.unchanged(t, items)
		}
	}
	x.calm(t)
}

// TestEdgeFields: the extreme values that the contract allows are accepted.
func TestEdgeFields(t *testing.T) {
	x := newTarget(t)
	name := strconv.Quote(strings.Repeat("n", 128))
	uid := strconv.Quote(strings.Repeat("😀", 64))
	for _, row := range []struct{ rpc, field, value string }{
		{"SetLinkedPod", "namespace", name},
		{"SetLinkedPod", "service", name},
		{"SetLinkedPod", "service", `"0.a_b-C9"`},
		{"SetLinkedPod", "uid", uid},
		{"SetLinkedPod", "podId", `2147483647`},
		{"SetLinkedPod", "podId", `"7"`}, // protojson accepts quoted numbers.
		{"SetLinkedPod", "persistSeconds", `2147483647`},
		{"SetLinkedPod", "persistSeconds", `1`},
		{"TrySetLinkedPod", "persistSeconds", `2147483647`},
		{"SetLinkedPodIfAbsent", "persistSeconds", `2147483647`},
		{"SetLinkedPod", "claim", `"4503599627370495"`},
		{"SetLinkedPod", "claim", `0`},
		{"SetLinkedPodIfAbsent", "claim", `"4503599627370495"`},
		{"SetLinkedPodIfAbsent", "aboveEpoch", `"1700000000000000"`},
		{"SetLinkedPod", "aboveEpoch", `0`},
		{"ComputeLinkedPod", "persistSeconds", `2147483647`},
		{"RemoveLinkedPod", "keepSeconds", `2147483647`},
		{"RemoveLinkedPod", "keepSeconds", `0`},
		{"RemoveLinkedPod", "keepSeconds", `-1`},
		{"RemoveLinkedPodWithId", "keepSeconds", `2147483647`},
		{"RemoveLinkedPodWithId", "keepSeconds", `-1`},
		{"SetServiceState", "load", `2147483647`},
		{"SetServiceState", "ttlSeconds", `2147483647`},
		{"SetServiceState", "ttlSeconds", `-1`},
		{"SetServiceState", "ttlSeconds", `1`},
		{"SetServiceState", "capacity", `0`},
		{"SetServiceState", "capacity", `2147483647`},
		{"SetServiceState", "labels", labels(16)},
		{"SetServiceState", "labels", `{"a":"","0.a_b-C9":"😀 x"}`},
		{"SetServiceState", "address", `"[2001:db8::1]:9000"`},
		{"SetServiceState", "address", `"chat-0.chat.game.svc.cluster.local:65535"`},
		{"SetServiceState", "instanceId", `""`},
		{"CordonPod", "cordon", `"SHUTDOWN"`},
		{"CordonPod", "cordon", `1`},
		{"CordonPod", "ttlSeconds", `2147483647`},
		{"CordonPod", "cordon", `"READY"`},
		{"ComputeLinkedPod", "avoidPods", `[0,2,4,5,6,7,8,9,10,11,12,13,14,15,16,2147483647]`},
		{"ComputeLinkedPod", "avoidPods", `["7"]`},
		{"ComputeLinkedPod", "avoidEpoch", `"9007199254740990"`},
		{"ComputeLinkedPod", "selector", `{}`},
		{"ComputeLinkedPod", "selector", labels(8)},
		{"ComputeLinkedPod", "known", `{"podId":0,"epoch":"1"}`},
		{"SetServiceState", "podId", `2147483647`},
		{"SetServiceState", "state", strconv.Quote(strings.Repeat("😀", 256))},
		{"GetServiceState", "liveOnly", `true`},
		{"GetServiceState", "liveOnly", `false`},
		{"SetWorkloadState", "state", `"{\"a\":\"b c\"}"`},
		{"BatchGetLinkedPod", "uids", list(1000, strconv.Itoa)},
		{"BatchGetLinkedPod", "uids", list(1000, func(i int) string { return strings.Repeat("u", 252) + strconv.Itoa(1000+i) })},
		{"BatchGetWorkloadState", "services", list(1000, strconv.Itoa)},
		{"BatchComputeLinkedPod", "items", thousandItems(``)},
		{"BatchComputeLinkedPod", "items", thousandItems(`,"known":{"podId":0,"epoch":"1"},"avoidPods":[0,2147483647],"avoidEpoch":"1"`)},
		{"BatchSetLinkedPod", "items", thousandItems(`,"podId":2147483647,"persistSeconds":2147483647,"claim":"4503599627370495"`)},
		{"BatchVerifyLinkedPod", "items", thousandItems(`,"epoch":"9007199254740990"`)},
		{"BatchRemoveLinkedPod", "items", thousandItems(`,"keepSeconds":2147483647`)},
		{"ListNamespaces", "pageSize", `1000`},
		{"ListServices", "pageSize", `1`},
		{"ListPodLinks", "pageSize", `0`},
		{"ListPodLinks", "pageToken", `""`},
		{"ListPodLinks", "podId", `2147483647`},
		{"WatchLinks", "podId", `0`},
		{"WatchLinks", "podId", `2147483647`},
		{"WatchLinks", "uid", uid},
		{"ExportLinks", "service", absent},
		{"ExportLinks", "service", `""`},
		{"ExportLinks", "resumeToken", `""`},
	} {
		for _, over := range transports {
			got := x.must(t, over, row.rpc, with(t, good[row.rpc], row.field, row.value))
			require.True(t, got.ok(), "%s over %s with %s = %.80s: %+v", row.rpc, over, row.field, row.value, got.problem)
		}
	}
	got := x.must(t, overGRPC, "SetLinkedPod", with(t, good["SetLinkedPod"], "persistSeconds", "2147483647"))
	require.EqualValues(t, 2147483647, got.into.(*v1.SetLinkedPodReply).GetLink().GetTtlSeconds())
	x.calm(t)
}

// strangeUIDs are valid and all different.
var strangeUIDs = []string{
	"user:42", "user%3A42", "a/b", "a%2Fb", "a%252Fb", "/", "//", "a//b", "a/../b", "../b", "b", ".", "..", "...", "%2E", "%2e%2e",
	"%", "%25", "%zz", "{x}", "{uid}", "x", ":", ":trySet", "%3AtrySet", "a:compute", "services", "links", "persistent", "?x=1", "x?",
	"#", "a#b", "+", " ", "a b", "a+b", "a%20b", "&", "=", ";", "a;b=1", ",", "a,b", `\`, `a\b`, `"`, `'`, "<b>", "*", "a*", "[a]",
	"😀", "é", "e\u0301", "Ä", "ä", "\u2028", "\u200b", "\ufeff", "\u202ea", "\ufffd", "$1", "${HOME}", "%s", "%d", "nil", "null", "-1", "0",
	strings.Repeat("u", 256), strings.Repeat("u", 255),
}

// TestStrangeUIDs links each uid over one transport and reads it over the other: no two are the same.
func TestStrangeUIDs(t *testing.T) {
	x := newTarget(t)
	all, _ := json.Marshal(strangeUIDs)
	for i, over := range transports {
		back := transports[1-i]
		for pod, uid := range strangeUIDs {
			request := with(t, fmt.Sprintf(`{"namespace":"strange","service":"via%s"}`, over), "uid", quoted(uid)[0])
			pod := int32(pod)
			got := x.must(t, over, "SetLinkedPodIfAbsent", with(t, request, "podId", strconv.Itoa(int(pod))))
			require.True(t, got.ok(), "%q: %+v", uid, got.problem)
			require.True(t, got.into.(*v1.SetLinkedPodIfAbsentReply).GetCreated(), "%q is confused with another uid", uid)
			for _, reader := range []via{over, back} {
				link := x.must(t, reader, "GetLinkedPod", request).into.(*v1.GetLinkedPodReply).GetLink()
				require.Equal(t, uid, link.GetUid())
				require.Equal(t, pod, link.GetPodId(), "%q", uid)
				listed := x.must(t, reader, "ListLinkedServices", with(t, request, "service", absent))
				require.Len(t, listed.into.(*v1.ListLinkedServicesReply).GetLinks(), i+1, "%q", uid)
			}
		}
		batch := fmt.Sprintf(`{"namespace":"strange","service":"via%s","uids":%s}`, over, all)
		pods := x.must(t, back, "BatchGetLinkedPod", batch).into.(*v1.BatchGetLinkedPodReply).GetPods()
		require.Len(t, pods, len(strangeUIDs))
		for pod, uid := range strangeUIDs {
			require.Equal(t, []string{uid}, pods[pod].GetUids())
		}
	}
	keys := x.client.Keys(t.Context(), "podlink:link:strange:*").Val()
	require.Len(t, keys, len(strangeUIDs))
	for _, uid := range strangeUIDs {
		require.Contains(t, keys, "podlink:link:strange:"+uid)
		request := with(t, `{"namespace":"strange","service":"viaHTTP"}`, "uid", quoted(uid)[0])
		require.True(t, x.must(t, overHTTP, "RemoveLinkedPod", request).into.(*v1.RemoveLinkedPodReply).GetRemoved(), "%q", uid)
	}
	x.calm(t)
}

// wrongTypes store values of types that podlink doesn't use.
var wrongTypes = map[string]func(ctx context.Context, client *redis.Client, key string) error{
	"a string": func(ctx context.Context, c *redis.Client, key string) error { return c.Set(ctx, key, "1 1 0", 0).Err() },
	"a list":   func(ctx context.Context, c *redis.Client, key string) error { return c.RPush(ctx, key, "1 1 0").Err() },
	"a set":    func(ctx context.Context, c *redis.Client, key string) error { return c.SAdd(ctx, key, "1 1 0").Err() },
	"a sorted set": func(ctx context.Context, c *redis.Client, key string) error {
		return c.ZAdd(ctx, key, redis.Z{Member: "svc"}).Err()
	},
	"a stream with a TTL": func(ctx context.Context, c *redis.Client, key string) error {
		if err := c.XAdd(ctx, &redis.XAddArgs{Stream: key, Values: []string{"svc", "1 1 0"}}).Err(); err != nil {
			return err
		}
		return c.Expire(ctx, key, time.Hour).Err()
	},
}

// foreignKeys are the keys of the good requests, with values that podlink never writes there. The tests of internal/data have
// more.
var foreignKeys = []struct {
	key     string
	users   []string // the RPCs that read the value
	content []map[string]string
}{
	{
		"podlink:link:ns:u1",
		[]string{
			"SetLinkedPod", "TrySetLinkedPod", "SetLinkedPodIfAbsent", "ComputeLinkedPod", "GetLinkedPod", "GetLinkedPodIfPersist",
			"BatchGetLinkedPod", "RemoveLinkedPod", "RemoveLinkedPodWithId", "ListLinkedServices",
			"BatchComputeLinkedPod", "BatchSetLinkedPod", "BatchRemoveLinkedPod", "BatchVerifyLinkedPod",
		},
		[]map[string]string{
			{"svc": ""}, {"svc": "x"}, {"svc": "1 5"}, {"svc": "1 5 0 0"}, {"svc": "-1 5 0"}, {"svc": "-0 5 0"}, {"svc": "\xff 5 0"},
			{"svc": "1 9007199254740993 0"}, {"svc": "1 5 0 4503599627370496"},
		},
	},
	{
		"podlink:index:ns:svc:1", []string{"ListPodLinks"},
		[]map[string]string{{"u1": ""}, {"u1": "x"}, {"u1": "0"}, {"u1": "-1"}, {"u1": "9007199254740993"}, {"u1": "5 x"}, {"\xff": "5"}},
	},
	{
		"podlink:workload:ns:svc",
		[]string{"SetWorkloadState", "GetWorkloadState", "BatchGetWorkloadState", "RemoveWorkloadState"},
		[]map[string]string{{"state": "open"}, {"update_ms": "1700000000000"}, {"state": "\xff\xfe", "update_ms": "1700000000000"}},
	},
}

// foreignSets are sets with members that podlink never writes.
var foreignSets = []struct {
	key     string
	users   []string // the RPCs that read the set
	members []string
}{
	{"podlink:services", []string{"ListNamespaces", "ListServices"}, []string{"", "x", ":", "ns:", ":svc", "ns:\xff", "ns:s vc"}},
	{"podlink:services", []string{"ListNamespaces"}, []string{"n s:svc"}},
	{"podlink:indexed:ns:svc", []string{"CountPodLinks"}, []string{"", "x", "-1", "01", "2147483648"}},
}

// foreignPods are members of the key of a service's pods that podlink never writes, by the part of the key that they replace.
var foreignPods = []struct {
	what    string
	score   float64
	users   []string // the RPCs that read the part
	members []string
}{
	{
		"a report", -3, []string{"SetServiceState", "GetServiceState", "GetServicePod", "CordonPod", "RemoveServiceState"},
		[]string{"", "x", "2 0 0 0 0 -1 30 1700000000000 0 0 0 * * 0 up - -", "1 0 0 0 0 -1 30 1700000000000 0 0 0 * * 0 \xff\xfe - -"},
	},
	{
		"the numbers of the service", -1, []string{"SetServiceState", "GetServiceState", "ComputeLinkedPod", "BatchComputeLinkedPod"},
		[]string{"", "x", "-1 0 1700000000000 30000 0 0 0 0"},
	},
}

// itemProblem returns the problem of the only item of a batch; nil if it has none, or if it is no batch of links.
func itemProblem(reply proto.Message) interface {
	GetReason() string
	GetMessage() string
} {
	switch r := reply.(type) {
	case *v1.BatchGetLinkedPodReply:
		return r.GetProblems()[0]
	case *v1.BatchVerifyLinkedPodReply:
		return r.GetProblems()[0]
	case *v1.BatchComputeLinkedPodReply:
		return r.GetResults()[0].GetProblem()
	case *v1.BatchSetLinkedPodReply:
		return r.GetResults()[0].GetProblem()
	case *v1.BatchRemoveLinkedPodReply:
		return r.GetResults()[0].GetProblem()
	default:
		return nil
	}
}

// TestForeignKeys: data that podlink did not write is STORE_DATA_CORRUPT, and the key is left unchanged.
func TestForeignKeys(t *testing.T) {
	server := redistest.Start(t)
	x := &target{testApp: startApp(t, onRedis(server)), client: server.Client(t)}
	ctx, calls := context.Background(), 0
	check := func(t *testing.T, users []string, write func() error) {
		for _, name := range users {
			for _, over := range transports {
				at := name + " over " + string(over)
				require.NoError(t, x.client.FlushDB(ctx).Err())
				require.NoError(t, write())
				x.before = keyspace(t, x.client)
				require.Len(t, x.before, 1)
				got := x.must(t, over, name, good[name])
				assert.Equal(t, x.before, keyspace(t, x.client), at)
				calls++
				if found := itemProblem(got.into); found != nil { // One uid does not fail a batch.
					got = answer{problem: problem{Reason: found.GetReason(), Message: found.GetMessage()}, code: codes.Internal}
				}
				requireProblem(t, got, v1.ErrorReason_STORE_DATA_CORRUPT, at)
			}
		}
	}
	for _, foreign := range foreignKeys {
		for _, hash := range foreign.content {
			t.Run(fmt.Sprintf("%s %q", foreign.key, hash), func(t *testing.T) {
				check(t, foreign.users, func() error { return x.client.HSet(ctx, foreign.key, hash).Err() })
			})
		}
		for what, write := range wrongTypes {
			t.Run(foreign.key+" is "+what, func(t *testing.T) {
				check(t, foreign.users, func() error { return write(ctx, x.client, foreign.key) })
			})
		}
	}
	for _, foreign := range foreignSets {
		for _, member := range foreign.members {
			t.Run(fmt.Sprintf("%s has %q", foreign.key, member), func(t *testing.T) {
				check(t, foreign.users, func() error { return x.client.SAdd(ctx, foreign.key, member).Err() })
			})
		}
		for what, write := range wrongTypes {
			if what != "a set" {
				t.Run(foreign.key+" is "+what, func(t *testing.T) {
					check(t, foreign.users, func() error { return write(ctx, x.client, foreign.key) })
				})
			}
		}
	}
	const pods = "podlink:service:ns:svc"
	for _, foreign := range foreignPods {
		for _, member := range foreign.members {
			t.Run(fmt.Sprintf("%s of %s is %q", foreign.what, pods, member), func(t *testing.T) {
				check(t, foreign.users, func() error {
					members := []redis.Z{{Score: foreign.score, Member: member}}
					if foreign.score != -1 { // Without these numbers, no pod has ever reported.
						members = append(members, redis.Z{Score: -1, Member: "0 0 1700000000000 30000 0 0 0 0"})
					}
					return x.client.ZAdd(ctx, pods, members...).Err()
				})
			})
		}
	}
	for what, write := range wrongTypes {
		if what == "a sorted set" {
			what, write = "a hash", func(ctx context.Context, c *redis.Client, key string) error {
				return c.HSet(ctx, key, "1", "0 0 0 -1 1700000000000 up").Err()
			}
		}
		t.Run(pods+" is "+what, func(t *testing.T) {
			check(t, append(foreignPods[0].users, "ComputeLinkedPod", "BatchComputeLinkedPod"), func() error { return write(ctx, x.client, pods) })
		})
	}
	t.Logf("%d calls", calls)
	require.NoError(t, x.client.FlushDB(ctx).Err())
	x.alive(t)
}
