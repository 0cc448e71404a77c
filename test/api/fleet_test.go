package api

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/conf"
)

// fleetSteps go on where apiSteps end: who is on a pod, and what there is.
var fleetSteps = []apiStep{
	{"ListPodLinks", "GET /v1/namespaces/NS/services/deck/pods/1/links", `"service":"deck","podId":1`,
		`{"links":[],"nextPageToken":"","complete":true}`},
	{"CountPodLinks", "GET /v1/namespaces/NS/services/deck/links:count", `"service":"deck"`,
		`{"counts":[],"complete":true,"approximate":false}`},
	{"WatchLinks", "GET /v1/namespaces/NS/services/deck/links:watch?podId=1&uid=ann", `"service":"deck","podId":1,"uid":"ann"`,
		`{"changes":[],"resync":"START","token":"K"}`},

	{"SetServiceState", "", `"service":"deck","podId":1,"state":"up","load":3,"capacity":10`,
		`{"applied":true,"storeId":"S","pod":` + edit(pod(1, "up", 3, "READY", 30), `"capacity":10`) + `}`},
	{"SetServiceState", "", `"service":"deck","podId":2,"state":"up","load":4,"capacity":20`,
		`{"applied":true,"storeId":"S","pod":` + edit(pod(2, "up", 4, "READY", 30), `"capacity":20`) + `}`},
	{"CordonPod", "", `"service":"deck","podId":2,"cordon":"DENY_NEW"`,
		`{"pod":` + edit(pod(2, "up", 4, "DENY_NEW", 30), `"capacity":20,"cordon":"DENY_NEW","reportedRouting":"READY"`) + `}`},
	{"BatchSetLinkedPod", "", `"service":"deck","items":[{"uid":"ann","podId":1},{"uid":"ben","podId":1,"persistSeconds":600,"claim":"7"},` +
		`{"uid":"cat/1","podId":2}]`,
		`{"results":[{"linked":true,"link":` + link("ann", "deck", 1, -1, "E24") + `,"previousPodId":-1},` +
			`{"linked":true,"link":` + claimed("ben", "deck", 1, 600, "E25", 7) + `,"previousPodId":-1},` +
			`{"linked":true,"link":` + link("cat/1", "deck", 2, -1, "E26") + `,"previousPodId":-1}]}`},
	{"CountPodLinks", "", `"service":"deck"`,
		`{"counts":[{"podId":1,"links":"2"},{"podId":2,"links":"1"}],"complete":true,"approximate":true}`},
	{"ListPodLinks", "", `"service":"deck","podId":1`,
		`{"links":[` + link("ann", "deck", 1, -1, "E24") + `,` + claimed("ben", "deck", 1, 600, "E25", 7) +
			`],"nextPageToken":"","complete":true}`},
	{"ListServices", "GET /v1/namespaces/NS/services", ``, `{"services":[` + strings.Join([]string{
		summary("arena", 0, 0, 1, `"capacity":"0"`), summary("chat", 0, 0, 2, `"capacity":"0"`),
		summary("deck", 2, 7, 3, `"capacity":"30","cordoned":1`), summary("game", 2, 7, 1, ``), summary("hall", 2, 0, 6, ``),
		summary("silent", 0, 0, 1, `"capacity":"0"`),
	}, ",") + `],"nextPageToken":""}`},
	{"ListNamespaces", "GET /v1/namespaces", ``,
		`{"namespaces":[{"namespace":"NS","services":["arena","chat","deck","game","hall","silent"]}],"nextPageToken":""}`},

	{"ExportLinks", "GET /v1/namespaces/NS/links:export?service=deck", `"service":"deck"`,
		`{"links":[` + link("ann", "deck", 1, -1, "E24") + `,` + claimed("ben", "deck", 1, 600, "E25", 7) + `,` +
			link("cat/1", "deck", 2, -1, "E26") + `],"restart":"RESTART_UNSPECIFIED","token":"","done":true}`},

	// A link is in the list of the pod that it is to, also after it has moved, and in none after its removal.
	{"SetLinkedPod", "", `"uid":"ann","service":"deck","podId":2`,
		`{"link":` + link("ann", "deck", 2, -1, "E27") + `,"previousPodId":1}`},
	{"RemoveLinkedPod", "", `"uid":"cat/1","service":"deck"`, `{"removed":true,"previousPodId":2}`},
	{"ListPodLinks", "", `"service":"deck","podId":1`,
		`{"links":[` + claimed("ben", "deck", 1, 600, "E25", 7) + `],"nextPageToken":"","complete":true}`},
	{"ListPodLinks", "", `"service":"deck","podId":2`,
		`{"links":[` + link("ann", "deck", 2, -1, "E27") + `],"nextPageToken":"","complete":true}`},
	{"CountPodLinks", "", `"service":"deck"`,
		`{"counts":[{"podId":1,"links":"1"},{"podId":2,"links":"1"}],"complete":true,"approximate":true}`},

	// A job is done in the background.
	{"CreateJob", "POST /v1/namespaces/NS/jobs", `"kind":"VERIFY","service":"deck","reason":"a step","requestId":"check:1"`,
		`{"job":` + verifyJob("PENDING", 0, ``) + `}`},
	{"GetJob", "GET /v1/namespaces/NS/jobs/" + verifyID, `"job":"` + verifyID + `"`,
		`{"job":` + verifyJob("DONE", 2, `"startTime":"T","endTime":"T"`) + `}`},
	{"CreateJob", "", `"kind":"VERIFY","service":"deck","reason":"a step","requestId":"check:1"`,
		`{"job":` + verifyJob("DONE", 2, `"startTime":"T","endTime":"T"`) + `}`},
	{"ListJobs", "GET /v1/namespaces/NS/jobs", ``,
		`{"jobs":[` + verifyJob("DONE", 2, `"startTime":"T","endTime":"T"`) + `],"nextPageToken":""}`},
	{"WatchJob", "GET /v1/namespaces/NS/jobs/" + verifyID + ":watch", `"job":"` + verifyID + `"`,
		`{"job":` + verifyJob("DONE", 2, `"startTime":"T","endTime":"T"`) + `}`},
	{"CancelJob", "POST /v1/namespaces/NS/jobs/" + verifyID + ":cancel", `"job":"` + verifyID + `"`,
		`{"job":` + verifyJob("DONE", 2, `"startTime":"T","endTime":"T"`) + `}`},
}

// verifyID is the id of a job with the request_id check:1.
const verifyID = "kcmuxhxovlsmx7kjefmn3tmavm"

// verifyJob is the job of the steps, in that state.
func verifyJob(state string, seen int, fields string) string {
	return edit(fmt.Sprintf(`{"namespace":"NS","id":%q,"kind":"VERIFY","service":"deck","state":%q,"seen":"%d","done":"0","skipped":"%d",`+
		`"failed":"0","faults":{"entriesWithoutLink":"0","linksWithoutEntry":"0","linksWithoutPod":"0","foreignFields":"0",`+
		`"keysWithoutExpiry":"0"},"rate":0,"dryRun":false,"reason":"a step","createdBy":"","createTime":"T","note":"","error":"",`+
		`"graceSeconds":0,"keepSeconds":0,"belowGeneration":"0","repair":false}`, verifyID, state, seen, seen), fields)
}

var jobTimes = regexp.MustCompile(`"(createTime|startTime|endTime)":"[^"]+"`)

func summary(service string, live, load, links int, fields string) string {
	return edit(fmt.Sprintf(`{"service":%q,"live":%d,"inDoubt":0,"dead":0,"cordoned":0,"load":"%d","links":"%d"}`,
		service, live, load, links), fields)
}

// later has the RPCs that answer what there was a moment ago: their steps are repeated until the reply is the expected one.
var later = map[string]bool{"ListNamespaces": true, "ListServices": true, "ListPodLinks": true, "CountPodLinks": true, "GetJob": true}

// ttlValue is what has passed of ten minutes until an export is asked for.
var ttlValue = regexp.MustCompile(`"ttlSeconds":5\d\d`)

// steady returns the reply without what differs from run to run: reservations up to a second old, the order of links, tokens of
// watches, and the namespaces of other tests.
func steady(rpc, namespace, reply string) string {
	switch {
	case strings.HasSuffix(rpc, "ComputeLinkedPod"):
		return givenValue.ReplaceAllString(reply, `"given":"N"`)
	case strings.HasSuffix(rpc, "Job"), strings.HasSuffix(rpc, "Jobs"):
		return jobTimes.ReplaceAllString(reply, `"$1":"T"`)
	case rpc == "WatchLinks":
		return tokenValue.ReplaceAllString(reply, `"token":"K"`)
	case rpc != "ListPodLinks" && rpc != "ListNamespaces" && rpc != "ExportLinks":
		return reply
	}
	if rpc == "ExportLinks" {
		reply = ttlValue.ReplaceAllString(reply, `"ttlSeconds":600`)
	}
	var parsed map[string]any
	if err := json.Unmarshal([]byte(reply), &parsed); err != nil {
		return reply
	}
	if links, ok := parsed["links"].([]any); ok {
		slices.SortFunc(links, func(a, b any) int { return cmp.Compare(textOf(a, "uid"), textOf(b, "uid")) })
	}
	if namespaces, ok := parsed["namespaces"].([]any); ok {
		parsed["namespaces"] = slices.DeleteFunc(namespaces, func(one any) bool { return textOf(one, "namespace") != namespace })
	}
	out, _ := json.Marshal(parsed)
	return string(out)
}

// textOf returns a text of a JSON object.
func textOf(object any, field string) string {
	fields, _ := object.(map[string]any)
	found, _ := fields[field].(string)
	return found
}

// page is a page of a list: what it has, by names.
type page struct {
	names    []string
	next     string
	complete bool
}

func pageOf(t require.TestingT, got answer) page {
	require.NotNil(t, got.into, "%+v", got.problem)
	var p page
	switch r := got.into.(type) {
	case *v1.ListPodLinksReply:
		p = page{next: r.GetNextPageToken(), complete: r.GetComplete()}
		for _, link := range r.GetLinks() {
			p.names = append(p.names, link.GetUid())
		}
	case *v1.ListServicesReply:
		p.next = r.GetNextPageToken()
		for _, service := range r.GetServices() {
			p.names = append(p.names, service.GetService())
		}
	case *v1.ListNamespacesReply:
		p.next = r.GetNextPageToken()
		for _, namespace := range r.GetNamespaces() {
			p.names = append(p.names, namespace.GetNamespace())
		}
	}
	return p
}

// walk reads a list in pages of the size, one transport after the other, and returns what it has found.
func (a *testApp) walk(t *testing.T, size int, rpc, request string) (names []string, complete bool) {
	t.Helper()
	token := ""
	for pages := 0; ; pages++ {
		require.Less(t, pages, 10_000, "the walk does not end")
		asked := with(t, with(t, request, "pageSize", strconv.Itoa(size)), "pageToken", strconv.Quote(token))
		one := pageOf(t, a.must(t, transports[pages%len(transports)], rpc, asked))
		require.LessOrEqual(t, len(one.names), size)
		require.LessOrEqual(t, len(one.next), 4096)
		names = append(names, one.names...)
		if one.next == "" {
			return names, one.complete
		}
		token = one.next
	}
}

// TestListsInPages: pages of every size have everything, and a page may be asked for over either transport.
func TestListsInPages(t *testing.T) {
	const links = 1500
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			a := startApp(t, store(t)...)
			uid := func(i int) string { return fmt.Sprintf("u-%04d", i) }
			for from := 0; from < links; from += 500 {
				items := make([]string, 500)
				for i := range items {
					items[i] = fmt.Sprintf(`{"uid":%q,"podId":%d}`, uid(from+i), (from+i)%3/2) // Two of three are on pod 0.
				}
				set := `{"namespace":"game","service":"room","items":[` + strings.Join(items, ",") + `]}`
				require.True(t, a.must(t, overGRPC, "BatchSetLinkedPod", set).ok())
			}
			for i := range 7 {
				for _, namespace := range []string{"game", fmt.Sprintf("game-%d", i)} {
					set := fmt.Sprintf(`{"namespace":%q,"uid":"ann","service":"service-%d","podId":1}`, namespace, i)
					require.True(t, a.must(t, overHTTP, "SetLinkedPod", set).ok())
				}
			}
			var onPod0 []string
			for i := range links {
				if i%3/2 == 0 {
					onPod0 = append(onPod0, uid(i))
				}
			}
			require.EventuallyWithT(t, func(c *assert.CollectT) {
				counts, ok := a.must(t, overGRPC, "CountPodLinks", `{"namespace":"game","service":"room"}`).into.(*v1.CountPodLinksReply)
				require.True(c, ok)
				require.True(c, counts.GetComplete())
				require.Len(c, counts.GetCounts(), 2)
				require.EqualValues(c, len(onPod0), counts.GetCounts()[0].GetLinks())
				require.EqualValues(c, links-len(onPod0), counts.GetCounts()[1].GetLinks())
				all := pageOf(c, a.must(t, overHTTP, "ListNamespaces", `{}`))
				require.Len(c, all.names, 8)
			}, 20*time.Second, 20*time.Millisecond)
			for _, size := range []int{1, 7, 100, 1000} {
				namespaces, _ := a.walk(t, size, "ListNamespaces", `{}`)
				require.Equal(t, []string{"game", "game-0", "game-1", "game-2", "game-3", "game-4", "game-5", "game-6"}, namespaces, size)
				services, _ := a.walk(t, size, "ListServices", `{"namespace":"game"}`)
				require.Equal(t, []string{
					"room", "service-0", "service-1", "service-2", "service-3", "service-4", "service-5", "service-6",
				}, services, size)
				if size == 1 {
					continue // A thousand calls.
				}
				uids, complete := a.walk(t, size, "ListPodLinks", `{"namespace":"game","service":"room","podId":0}`)
				slices.Sort(uids)
				require.Equal(t, onPod0, slices.Compact(uids), "each is on at least one page of %d", size)
				require.True(t, complete, size)
			}
			usual := pageOf(t, a.must(t, overHTTP, "ListPodLinks", `{"namespace":"game","service":"room","podId":0}`))
			require.LessOrEqual(t, len(usual.names), 100, "without a size")
			require.NotEmpty(t, usual.next)
		})
	}
}

// TestTokensOfOtherLists: a token is for the list that has given it, with the same fields.
func TestTokensOfOtherLists(t *testing.T) {
	a := startApp(t)
	for _, uid := range []string{"ann", "ben", "cat"} {
		for _, service := range []string{"hall", "room"} {
			set := fmt.Sprintf(`{"namespace":"game","uid":%q,"service":%q,"podId":1}`, uid, service)
			require.True(t, a.must(t, overHTTP, "SetLinkedPod", set).ok())
		}
	}
	first := `{"namespace":"game","service":"room","podId":1,"pageSize":1}`
	var token string
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		token = pageOf(c, a.must(t, overHTTP, "ListPodLinks", first)).next
		require.NotEmpty(c, token)
	}, 10*time.Second, 10*time.Millisecond)
	for name, request := range map[string]string{
		"another service":   `{"namespace":"game","service":"hall","podId":1}`,
		"another namespace": `{"namespace":"other","service":"room","podId":1}`,
		"another pod":       `{"namespace":"game","service":"room","podId":2}`,
	} {
		for _, over := range transports {
			requireInvalid(t, a.must(t, over, "ListPodLinks", with(t, request, "pageToken", strconv.Quote(token))), "page_token", name)
		}
	}
	for _, over := range transports {
		requireInvalid(t, a.must(t, over, "ListServices", with(t, `{"namespace":"game"}`, "pageToken", strconv.Quote(token))), "page_token", "")
		got := a.must(t, over, "ListPodLinks", with(t, first, "pageToken", strconv.Quote(token)))
		require.True(t, got.ok(), "%+v", got.problem)
	}
}

// TestIndexDisabled: a podlink without an index says so, and does all else, watches included.
func TestIndexDisabled(t *testing.T) {
	a := startApp(t, func(c *conf.Bootstrap) { c.Fleet.Index = false })
	for name, request := range good {
		for _, over := range transports {
			require.True(t, a.must(t, over, "SetServiceState", good["SetServiceState"]).ok())
			require.True(t, a.must(t, over, "SetLinkedPod", good["SetLinkedPod"]).ok())
			require.True(t, a.must(t, over, "SetWorkloadState", good["SetWorkloadState"]).ok())
			got := a.must(t, over, name, request)
			switch name {
			case "ListNamespaces", "ListServices", "ListPodLinks", "CountPodLinks", "CreateJob":
				requireProblem(t, got, v1.ErrorReason_INDEX_DISABLED, name)
			default:
				requireAnswered(t, got, name, over)
			}
		}
	}
	require.NotContains(t, a.log.String(), `"level":"ERROR"`, "it is as configured")
}
