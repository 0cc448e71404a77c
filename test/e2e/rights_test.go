package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	v1 "podlink/api/podlink/v1"
)

// rightsOf has the rights of each role. A pod has report, place and bind for itself.
var rightsOf = map[string]string{
	"reader":   "read",
	"caller":   "read place",
	"binder":   "read place bind",
	"pod":      "read place bind report",
	"operator": "read place bind report operate force",
	"admin":    "read place bind report operate force",
}

// request is a row of the matrix: a request of an rpc, and what it needs.
type request struct {
	name    string // what the message has that others of the rpc have not
	rpc     string
	message string // about the service chat of the namespace game, and pod 2 where it names one
	right   string
	// reading: the message names no pod that changes, or none at all. forever: it may make a link that does not expire.
	reading, forever bool
}

// requests are the rows of the matrix: each rpc, and each message that raises its right.
var requests = []request{
	{"", "GetLinkedPod", `{"uid":"u"}`, "read", true, false},
	{"", "GetLinkedPodIfPersist", `{"uid":"u"}`, "read", true, false},
	{"", "BatchGetLinkedPod", `{"uids":["u","v"]}`, "read", true, false},
	{"", "BatchVerifyLinkedPod", `{"podId":2,"items":[{"uid":"u","epoch":"7"}]}`, "read", true, false},
	{"of another pod", "BatchVerifyLinkedPod", `{"podId":3,"items":[{"uid":"u"}]}`, "read", true, false},
	{"", "GetServiceState", `{}`, "read", true, false},
	{"", "GetServicePod", `{"podId":2}`, "read", true, false},
	{"", "GetWorkloadState", `{}`, "read", true, false},
	{"", "BatchGetWorkloadState", `{"services":["chat"]}`, "read", true, false},

	{"", "ComputeLinkedPod", `{"uid":"u"}`, "place", true, true},
	{"for a minute", "ComputeLinkedPod", `{"uid":"u","persistSeconds":60}`, "place", true, false},
	{"of a link that is known", "ComputeLinkedPod", `{"uid":"w","persistSeconds":60,"known":{"podId":3,"epoch":"7"}}`, "place", true, false},
	{"", "BatchComputeLinkedPod", `{"items":[{"uid":"u"}]}`, "place", true, true},
	{"for a minute", "BatchComputeLinkedPod", `{"persistSeconds":60,"items":[{"uid":"u"},{"uid":"v"}]}`, "place", true, false},
	{"", "SetLinkedPodIfAbsent", `{"uid":"u","podId":2,"persistSeconds":60}`, "place", false, false},
	{"for ever", "SetLinkedPodIfAbsent", `{"uid":"u","podId":2,"persistSeconds":-1}`, "place", false, true},
	{"with a claim", "SetLinkedPodIfAbsent", `{"uid":"u","podId":2,"persistSeconds":60,"claim":"7"}`, "bind", false, false},
	{"above an epoch", "SetLinkedPodIfAbsent", `{"uid":"u","podId":2,"persistSeconds":60,"aboveEpoch":"0"}`, "bind", false, false},
	{"if absent", "BatchSetLinkedPod", `{"items":[{"uid":"u","podId":2,"persistSeconds":60,"ifAbsent":true}]}`, "place", false, false},

	{"", "TrySetLinkedPod", `{"uid":"u","podId":2,"persistSeconds":60}`, "bind", false, false},
	{"for ever", "TrySetLinkedPod", `{"uid":"u","podId":2}`, "bind", false, true},
	{"", "RemoveLinkedPodWithId", `{"uid":"u","podId":2}`, "bind", false, false},
	{"with an epoch", "SetLinkedPod", `{"uid":"u","podId":2,"persistSeconds":60,"expectedEpoch":"7"}`, "bind", false, false},
	{"with a claim and an epoch", "SetLinkedPod", `{"uid":"u","podId":2,"expectedEpoch":"7","claim":"7","aboveEpoch":"7"}`,
		"bind", false, true},
	{"with an epoch", "RemoveLinkedPod", `{"uid":"u","expectedEpoch":"7"}`, "bind", true, false},
	{"with an epoch", "BatchSetLinkedPod", `{"items":[{"uid":"u","podId":2,"persistSeconds":60,"expectedEpoch":"7"},` +
		`{"uid":"v","podId":2,"persistSeconds":60,"ifAbsent":true}]}`, "bind", false, false},
	{"with a claim", "BatchSetLinkedPod", `{"items":[{"uid":"u","podId":2,"claim":"7","ifAbsent":true}]}`, "bind", false, true},
	{"with an epoch", "BatchRemoveLinkedPod",
		`{"items":[{"uid":"u","expectedEpoch":"7"},{"uid":"v","keepSeconds":9,"expectedEpoch":"0"}]}`, "bind", true, false},
	{"with id", "BatchRemoveLinkedPod", `{"items":[{"uid":"u","podId":2},{"uid":"v","expectedEpoch":"7"}]}`, "bind", false, false},

	{"", "SetServiceState", `{"podId":2,"state":"up","ttlSeconds":30}`, "report", false, false},
	{"for the usual time", "SetServiceState", `{"podId":2,"state":"up"}`, "report", false, false},

	{"for ever", "SetServiceState", `{"podId":2,"state":"up","ttlSeconds":-1}`, "operate", false, false},
	{"", "CordonPod", `{"podId":2,"cordon":"READY"}`, "operate", false, false},
	{"", "RemoveServiceState", `{"podId":2}`, "operate", false, false},
	{"", "SetWorkloadState", `{"state":"up"}`, "operate", true, false},
	{"", "RemoveWorkloadState", `{}`, "operate", true, false},

	{"", "SetLinkedPod", `{"uid":"u","podId":2,"persistSeconds":60}`, "force", false, false},
	{"with a claim", "SetLinkedPod", `{"uid":"u","podId":2,"persistSeconds":60,"claim":"7"}`, "force", false, false},
	{"", "RemoveLinkedPod", `{"uid":"u","keepSeconds":9}`, "force", true, false},
	{"one without an epoch", "BatchSetLinkedPod", `{"items":[{"uid":"u","podId":2,"persistSeconds":60,"expectedEpoch":"7"},` +
		`{"uid":"v","podId":2,"persistSeconds":60}]}`, "force", false, false},
	{"one without an epoch", "BatchRemoveLinkedPod", `{"items":[{"uid":"u","podId":2},{"uid":"v"}]}`, "force", false, false},

	{"", "ListPodLinks", `{"podId":2}`, "read", true, false},
	{"of another pod", "ListPodLinks", `{"podId":3}`, "read", true, false},
	{"", "CountPodLinks", `{}`, "read", true, false},
	{"", "WatchLinks", `{}`, "read", true, false},
	{"of another pod", "WatchLinks", `{"podId":3,"uid":"u"}`, "read", true, false},
	{"", "ExportLinks", `{}`, "operate", true, false},

	{"of its own pod", "CreateJob", `{"kind":"RELEASE","podId":2,"keepSeconds":60,"belowGeneration":"7","dryRun":true}`, "bind", false, false},
	{"", "CreateJob", `{"kind":"VERIFY"}`, "operate", true, false},
	{"", "CreateJob", `{"kind":"RELOCATE","podId":2,"dryRun":true}`, "operate", true, false},
	{"", "CreateJob", `{"kind":"REMOVE","confirm":"chat","dryRun":true}`, "force", true, false},

	// These name no service, or no namespace: who sees one of the namespace, or of any, is not denied.
	{"", "ListLinkedServices", `{"uid":"u"}`, "read", true, false},
	{"", "ListServices", `{}`, "read", true, false},
	{"", "ListJobs", `{}`, "read", true, false},
	{"", "GetJob", `{"job":"none"}`, "read", true, false},
	{"", "CancelJob", `{"job":"none"}`, "operate", true, false},
	{"", "WatchJob", `{"job":"none"}`, "read", true, false},
	{"", "ListNamespaces", `{}`, "read", true, false},
}

// seenBy has the callers of other services that a list of all of them takes.
var seenBy = map[string][]string{
	"ListLinkedServices": {"admin-of-another"}, "ListServices": {"admin-of-another"}, "ListJobs": {"admin-of-another"},
	"GetJob": {"admin-of-another"}, "CancelJob": {"admin-of-another"}, "WatchJob": {"admin-of-another"},
	"ListNamespaces": {"admin-of-another", "admin-elsewhere"},
}

// outcome is what the matrix has in a cell.
func (r request) outcome(who identity) string {
	switch {
	case who.kind == "" || who.unknown:
		return v1.ErrorReason_UNAUTHENTICATED.String()
	case slices.Contains(seenBy[r.rpc], who.name):
		return ""
	case who.elsewhere, !slices.Contains(strings.Fields(rightsOf[who.role]), r.right),
		who.temporary && r.forever, who.gentle && r.right == "force",
		who.role == "pod" && !r.reading && who.pod != "chat-2":
		return v1.ErrorReason_PERMISSION_DENIED.String()
	default:
		return ""
	}
}

// TestRights is the matrix: every rpc, from the descriptors, and every message that needs another right than the rpc, by every
// identity, over both transports, on a real podlink.
func TestRights(t *testing.T) {
	t.Parallel()
	// A podlink names the holders of certificates by their SPIFFE ids, or by their DNS names.
	for name, columns := range map[string][]identity{"SPIFFE": identities, "DNS": identitiesOfDNS} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testRights(t, columns)
		})
	}
}

func testRights(t *testing.T, columns []identity) {
	p := startGuarded(t, columns)
	methods, covered := make(map[string]protoreflect.MethodDescriptor), make(map[string]bool)
	for _, method := range v1.Methods() {
		methods[string(method.Name())] = method
	}
	admin := p.caller("admin")
	must := func(rpc, text string) proto.Message {
		t.Helper()
		reply, err := admin.overGRPC(methods[rpc], text)
		require.NoError(t, err)
		return reply
	}
	// setUp makes what the calls are about, and tell says what of it there is.
	setUp := func() {
		must("SetServiceState", `{"podId":2,"state":"up","ttlSeconds":600}`)
		must("SetWorkloadState", `{"state":"up"}`)
		must("SetLinkedPod", `{"uid":"u","podId":2}`)
		must("BatchRemoveLinkedPod", `{"items":[{"uid":"v"},{"uid":"w"}]}`)
	}
	tell := func() string {
		var told []string
		for _, uid := range []string{"u", "v", "w"} {
			link := must("GetLinkedPod", `{"uid":"`+uid+`"}`).(*v1.GetLinkedPodReply).GetLink()
			told = append(told, fmt.Sprint(link.GetPodId(), link.GetEpoch(), link.GetPersistent(), link.GetClaim()))
		}
		for _, pod := range must("GetServiceState", `{}`).(*v1.GetServiceStateReply).GetPods() {
			told = append(told, fmt.Sprint(pod.GetPodId(), pod.GetHeartbeatMs(), pod.GetCordon(), pod.GetGiven()))
		}
		workload := must("GetWorkloadState", `{}`).(*v1.GetWorkloadStateReply).GetWorkload()
		return strings.Join(append(told, fmt.Sprint(workload.GetUpdateMs())), "; ")
	}
	setUp()
	before, cells := tell(), 0
	for _, row := range requests {
		method := methods[row.rpc]
		require.NotNil(t, method, row.rpc)
		covered[row.rpc] = true
		for _, who := range columns {
			calling, want := p.caller(who.name), row.outcome(who)
			for transport, call := range map[string]func() error{
				"gRPC": func() error {
					_, err := calling.overGRPC(method, row.message)
					return err
				},
				"HTTP": func() error { return calling.overHTTP(method, row.message) },
			} {
				cell := strings.Join([]string{row.rpc, row.name, who.name, transport}, "/")
				err := call()
				cells++
				reason := ""
				if err != nil {
					reason = kerrors.Reason(err)
				}
				if want == "" {
					require.NotContains(t, refusals, reason, "%s: %v", cell, err)
					setUp()
					before = tell()
					continue
				}
				require.Equal(t, want, reason, "%s: %v", cell, err)
				if reason == "PERMISSION_DENIED" {
					require.Contains(t, err.Error(), row.rpc, cell)
					require.NotContains(t, err.Error(), "rules[", cell)
				}
				require.Equal(t, before, tell(), "%s: a refused call changes nothing", cell)
			}
		}
	}
	for name := range methods {
		require.True(t, covered[name], "%s has no row in the matrix", name)
	}
	t.Logf("%d cells", cells)
}

// refusals are the reasons of calls that were not carried out, for who called or for how the test has called.
var refusals = []string{"UNAUTHENTICATED", "PERMISSION_DENIED", "RATE_LIMITED", "INVALID_ARGUMENT", "NOT_READY", "INTERNAL"}

// TestPodsChangeTheirOwnLinksOnly: a pod that knows the epoch of another pod's link can't take it or end it, and is told whose it is.
func TestPodsChangeTheirOwnLinksOnly(t *testing.T) {
	t.Parallel()
	p := startGuarded(t, identities)
	links, as := v1.NewLinkServiceClient(p.caller("admin").conn), p.as
	owner, another := as("pod"), as("another-pod") // pods 2 and 3
	two, three, minute := proto.Int32(2), proto.Int32(3), proto.Int32(60)
	link := func(uid string) *v1.Link {
		reply, err := links.GetLinkedPod(owner, &v1.GetLinkedPodRequest{Namespace: "game", Uid: uid, Service: "chat"})
		require.NoError(t, err)
		return reply.GetLink()
	}
	ifAbsent := func(ctx context.Context, uid string, pod *int32) *v1.SetLinkedPodIfAbsentReply {
		reply, err := links.SetLinkedPodIfAbsent(ctx, &v1.SetLinkedPodIfAbsentRequest{
			Namespace: "game", Uid: uid, Service: "chat", PodId: pod, Claim: 9, AboveEpoch: proto.Int64(1),
		})
		require.NoError(t, err)
		return reply
	}
	mismatches := func(err error, current *v1.Link) {
		t.Helper()
		require.True(t, v1.IsEpochMismatch(err), "%v", err)
		metadata := kerrors.FromError(err).Metadata
		require.Equal(t, fmt.Sprint(current.GetPodId()), metadata["pod_id"])
		require.Equal(t, fmt.Sprint(current.GetEpoch()), metadata["epoch"])
	}

	// A pod makes a link where there is none by SetLinkedPodIfAbsent only.
	_, err := links.SetLinkedPod(owner, &v1.SetLinkedPodRequest{
		Namespace: "game", Uid: "alice", Service: "chat", PodId: two, ExpectedEpoch: proto.Int64(0),
	})
	mismatches(err, &v1.Link{PodId: -1})
	tried, err := links.TrySetLinkedPod(owner, &v1.TrySetLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "chat", PodId: two})
	require.NoError(t, err)
	require.False(t, tried.GetLinked())
	require.EqualValues(t, -1, link("alice").GetPodId())
	require.True(t, ifAbsent(owner, "alice", two).GetCreated())
	alice := link("alice")

	// Another pod can't take it, nor end it, whatever epoch it expects.
	require.False(t, ifAbsent(another, "alice", three).GetCreated())
	for _, epoch := range []int64{alice.GetEpoch(), 0, 7} {
		_, err = links.SetLinkedPod(another, &v1.SetLinkedPodRequest{
			Namespace: "game", Uid: "alice", Service: "chat", PodId: three, ExpectedEpoch: &epoch, Claim: 9, AboveEpoch: &epoch,
		})
		mismatches(err, alice)
		_, err = links.RemoveLinkedPod(another, &v1.RemoveLinkedPodRequest{
			Namespace: "game", Uid: "alice", Service: "chat", ExpectedEpoch: &epoch, KeepSeconds: minute,
		})
		mismatches(err, alice)
	}
	tried, err = links.TrySetLinkedPod(another, &v1.TrySetLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "chat", PodId: three})
	require.NoError(t, err)
	require.False(t, tried.GetLinked())
	require.EqualValues(t, 2, tried.GetLink().GetPodId())
	removed, err := links.RemoveLinkedPodWithId(another, &v1.RemoveLinkedPodWithIdRequest{
		Namespace: "game", Uid: "alice", Service: "chat", PodId: three,
	})
	require.NoError(t, err)
	require.False(t, removed.GetRemoved())
	set, err := links.BatchSetLinkedPod(another, &v1.BatchSetLinkedPodRequest{
		Namespace: "game", Service: "chat", Items: []*v1.BatchSetLinkedPodRequest_Item{
			{Uid: "alice", PodId: three, ExpectedEpoch: &alice.Epoch}, {Uid: "bob", PodId: three, IfAbsent: true, Claim: 9},
		},
	})
	require.NoError(t, err)
	require.Equal(t, "EPOCH_MISMATCH", set.GetResults()[0].GetProblem().GetReason())
	require.True(t, set.GetResults()[1].GetLinked(), "each item by itself")
	ended, err := links.BatchRemoveLinkedPod(another, &v1.BatchRemoveLinkedPodRequest{
		Namespace: "game", Service: "chat", Items: []*v1.BatchRemoveLinkedPodRequest_Item{
			{Uid: "alice", ExpectedEpoch: &alice.Epoch}, {Uid: "bob", ExpectedEpoch: proto.Int64(link("bob").GetEpoch())},
			{Uid: "carol", PodId: three},
		},
	})
	require.NoError(t, err)
	require.Equal(t, "EPOCH_MISMATCH", ended.GetResults()[0].GetProblem().GetReason())
	require.True(t, ended.GetResults()[1].GetRemoved())
	require.False(t, ended.GetResults()[2].GetRemoved())
	require.True(t, proto.Equal(alice, link("alice")), "nothing has changed")

	// Its own pod claims it, keeps it, takes it again and ends it. The epoch that it expects stays what it is.
	claimed, err := links.SetLinkedPod(owner, &v1.SetLinkedPodRequest{
		Namespace: "game", Uid: "alice", Service: "chat", PodId: two, ExpectedEpoch: &alice.Epoch, Claim: 10, AboveEpoch: &alice.Epoch,
	})
	require.NoError(t, err)
	require.Greater(t, claimed.GetLink().GetEpoch(), alice.GetEpoch())
	_, err = links.RemoveLinkedPod(owner, &v1.RemoveLinkedPodRequest{
		Namespace: "game", Uid: "alice", Service: "chat", ExpectedEpoch: &alice.Epoch,
	})
	mismatches(err, claimed.GetLink()) // A process that was replaced.
	_, err = links.RemoveLinkedPod(owner, &v1.RemoveLinkedPodRequest{
		Namespace: "game", Uid: "alice", Service: "chat", ExpectedEpoch: &claimed.Link.Epoch, KeepSeconds: minute,
	})
	require.NoError(t, err)
	tried, err = links.TrySetLinkedPod(owner, &v1.TrySetLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "chat", PodId: two})
	require.NoError(t, err)
	require.True(t, tried.GetLinked())
	removed, err = links.RemoveLinkedPodWithId(owner, &v1.RemoveLinkedPodWithIdRequest{
		Namespace: "game", Uid: "alice", Service: "chat", PodId: two,
	})
	require.NoError(t, err)
	require.True(t, removed.GetRemoved())
}

// TestServicesThatACallerSees: a list has only what the caller may see, and a namespace that it may not see is as one that does not
// exist.
func TestServicesThatACallerSees(t *testing.T) {
	t.Parallel()
	p := startGuarded(t, identities)
	conn, as := p.caller("admin").conn, p.as
	links, workloads := v1.NewLinkServiceClient(conn), v1.NewWorkloadServiceClient(conn)
	for _, service := range []string{"chat", "lobby", "room"} {
		_, err := links.SetLinkedPod(as("admin"), &v1.SetLinkedPodRequest{
			Namespace: "game", Uid: "alice", Service: service, PodId: proto.Int32(2),
		})
		require.NoError(t, err)
	}
	list := func(ctx context.Context, namespace string) ([]string, error) {
		var services []string
		reply, err := links.ListLinkedServices(ctx, &v1.ListLinkedServicesRequest{Namespace: namespace, Uid: "alice"})
		for _, link := range reply.GetLinks() {
			services = append(services, link.GetService())
		}
		return services, err
	}
	for who, want := range map[string][]string{
		"admin": {"chat", "lobby", "room"}, "admin-of-another": {"room"}, "reader": {"chat"}, "pod": {"chat"},
	} {
		got, err := list(as(who), "game")
		require.NoError(t, err, who)
		require.Equal(t, want, got, who)
	}
	fleet := v1.NewFleetServiceClient(conn)
	_, err := links.SetLinkedPod(as("admin"), &v1.SetLinkedPodRequest{
		Namespace: "other", Uid: "alice", Service: "den", PodId: proto.Int32(2),
	})
	require.NoError(t, err)
	for who, want := range map[string]map[string][]string{
		"admin": {"game": {"chat", "lobby", "room"}, "other": {"den"}}, "admin-of-another": {"game": {"room"}}, "reader": {"game": {"chat"}},
		"pod": {"game": {"chat"}}, "admin-elsewhere": {"other": {"den"}},
	} {
		require.EventuallyWithT(t, func(c *assert.CollectT) { // podlink notes new services a moment later.
			got := make(map[string][]string)
			all, err := fleet.ListNamespaces(as(who), new(v1.ListNamespacesRequest))
			require.NoError(c, err, who)
			for _, one := range all.GetNamespaces() {
				got[one.GetNamespace()] = one.GetServices()
			}
			require.Equal(c, want, got, who)
			for namespace, services := range want {
				var listed []string
				reply, err := fleet.ListServices(as(who), &v1.ListServicesRequest{Namespace: namespace})
				require.NoError(c, err, who)
				for _, one := range reply.GetServices() {
					listed = append(listed, one.GetService())
				}
				require.Equal(c, services, listed, who)
			}
		}, 10*time.Second, 10*time.Millisecond)
	}
	// Nor does a token name what the caller may not see.
	page, err := fleet.ListNamespaces(as("admin-of-another"), &v1.ListNamespacesRequest{PageSize: 1})
	require.NoError(t, err)
	require.Empty(t, page.GetNextPageToken())
	_, unlisted := fleet.ListServices(as("reader"), &v1.ListServicesRequest{Namespace: "other"})
	require.True(t, v1.IsPermissionDenied(unlisted), "%v", unlisted)

	_, unseen := list(as("admin-elsewhere"), "game")
	_, missing := list(as("admin-elsewhere"), "no-such-namespace")
	require.True(t, v1.IsPermissionDenied(unseen), "%v", unseen)
	require.Equal(t, missing.Error(), unseen.Error())

	_, err = workloads.BatchGetWorkloadState(as("reader"), &v1.BatchGetWorkloadStateRequest{Namespace: "game", Services: []string{"chat"}})
	require.NoError(t, err)
	_, err = workloads.BatchGetWorkloadState(as("reader"), &v1.BatchGetWorkloadStateRequest{
		Namespace: "game", Services: []string{"chat", "room"},
	})
	require.True(t, v1.IsPermissionDenied(err), "a batch is refused whole: %v", err)
}
