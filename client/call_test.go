package client

import (
	"context"
	"errors"
	"net"
	"strconv"
	"testing"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// transports are the transports, by their names in the rows: whether it is HTTP.
var transports = map[string]bool{"gRPC": false, "HTTP": true}

// overBoth runs the test over both transports.
func overBoth(t *testing.T, test func(t *testing.T, http bool)) {
	t.Helper()
	for name, http := range transports {
		t.Run(name, func(t *testing.T) { test(t, http) })
	}
}

// atItsEnd returns the error of a call that is repeated until its time is over. The end may fall into an attempt, whose answer then
// is unknown: such a call is made again, until it has the wanted error. Without one it is made once.
func atItsEnd(want error, call func() error) (err error) {
	for range 20 {
		if err = call(); want == nil || errors.Is(err, want) {
			break
		}
	}
	return err
}

// dialed returns a client, which is closed with the test. Its calls have the time that they need on a busy machine, unless the test
// says otherwise.
func dialed(t *testing.T, target string, o Options) *Client {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = soon
	}
	c, err := New(target, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// waitConnected waits until podlink answers a client whose calls have little time.
func waitConnected(t *testing.T, c *Client) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, err := readLink(t.Context(), c)
		return err == nil
	}, soon, time.Millisecond)
}

// addr is where podlink listens for that transport.
func addr(p *podlinktest.Process, http bool) string {
	if http {
		return p.HTTP
	}
	return p.GRPC
}

// apiCall is a call of the API, whichever.
type apiCall func(ctx context.Context, c *Client) (proto.Message, error)

// calling makes a call of a method of the client and a request.
func calling[Request any, Reply proto.Message](
	method func(*Client, context.Context, Request, ...grpc.CallOption) (Reply, error), request Request,
) apiCall {
	return func(ctx context.Context, c *Client) (proto.Message, error) { return method(c, ctx, request) }
}

// A read and a mutation for where any would do.
var (
	readLink = calling((*Client).GetLinkedPod, &v1.GetLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "room"})
	setLink  = calling((*Client).SetLinkedPod, &v1.SetLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "room", PodId: proto.Int32(3)})
)

// requireAnswer compares a reply with what it should be, where 1 replaces each epoch, time and rest of a life, "id" the
// store's id, and "text" what is wrong with an item.
func requireAnswer(t *testing.T, want, got proto.Message) {
	t.Helper()
	got = proto.Clone(got)
	blur(got.ProtoReflect())
	requireEqual(t, want, got)
}

func requireEqual(t *testing.T, want, got proto.Message) {
	t.Helper()
	require.True(t, proto.Equal(want, got), "want %v\n got %v", want, got)
}

func blur(message protoreflect.Message) {
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.Kind() == protoreflect.MessageKind && field.IsList():
			for i := range value.List().Len() {
				blur(value.List().Get(i).Message())
			}
		case field.Kind() == protoreflect.MessageKind && !field.IsMap():
			blur(value.Message())
		case field.Name() == "epoch" && value.Int() > 0, field.Name() == "heartbeat_ms", field.Name() == "update_ms":
			message.Set(field, protoreflect.ValueOfInt64(1))
		case field.FullName() == "podlink.v1.Problem.message":
			message.Set(field, protoreflect.ValueOfString("text"))
		case field.Name() == "store_id":
			message.Set(field, protoreflect.ValueOfString("id"))
		case field.FullName() == "podlink.v1.Link.ttl_seconds" && value.Int() > 0:
			message.Set(field, protoreflect.ValueOfInt32(1))
		}
		return true
	})
}

// TestEveryCall: all calls work over both transports, and answer the same.
func TestEveryCall(t *testing.T) {
	lasting := func(uid string, pod int32) *v1.Link {
		return &v1.Link{Namespace: "game", Uid: uid, Service: "room", PodId: pod, Persistent: true, TtlSeconds: -1, Epoch: 1}
	}
	passing := func(uid string, pod int32) *v1.Link {
		return &v1.Link{Namespace: "game", Uid: uid, Service: "room", PodId: pod, TtlSeconds: 1, Epoch: 1}
	}
	none := func(uid string) *v1.Link {
		return &v1.Link{Namespace: "game", Uid: uid, Service: "room", PodId: -1, TtlSeconds: -2}
	}
	up := &v1.Pod{State: "up", Load: 5, Live: true, HeartbeatMs: 1, TtlSeconds: 3600}
	given := proto.CloneOf(up)
	given.Given = 1 // erin
	drains := &v1.Pod{
		PodId: 1, State: "drains", Routing: v1.Routing_DENY_NEW, ReportedRouting: v1.Routing_DENY_NEW, Live: true, HeartbeatMs: 1, TtlSeconds: -1,
	}
	cordoned := proto.CloneOf(drains)
	cordoned.Routing, cordoned.Cordon = v1.Routing_SHUTDOWN, v1.Routing_SHUTDOWN
	steps := []struct {
		name string
		call apiCall
		want proto.Message
	}{
		{
			"SetServiceState", calling((*Client).SetServiceState, &v1.SetServiceStateRequest{
				Namespace: "game", Service: "room", PodId: proto.Int32(0), State: "up", Load: proto.Int32(5), TtlSeconds: proto.Int32(3600),
			}), &v1.SetServiceStateReply{Pod: up, Applied: true, StoreId: "id"},
		},
		{
			"SetServiceState", calling((*Client).SetServiceState, &v1.SetServiceStateRequest{
				Namespace: "game", Service: "room", PodId: proto.Int32(1), State: "drains", Routing: v1.Routing_DENY_NEW.Enum(), TtlSeconds: proto.Int32(-1),
			}), &v1.SetServiceStateReply{Pod: drains, Applied: true, StoreId: "id"},
		},
		{
			"GetServiceState", calling((*Client).GetServiceState, &v1.GetServiceStateRequest{Namespace: "game", Service: "room", LiveOnly: proto.Bool(true)}),
			&v1.GetServiceStateReply{Pods: []*v1.Pod{up, drains}},
		},
		{
			"GetServicePod", calling((*Client).GetServicePod, &v1.GetServicePodRequest{Namespace: "game", Service: "room", PodId: proto.Int32(0)}),
			&v1.GetServicePodReply{Pod: up},
		},
		{
			"SetLinkedPod", calling((*Client).SetLinkedPod, &v1.SetLinkedPodRequest{
				Namespace: "game", Uid: "alice", Service: "room", PodId: proto.Int32(0), ExpectedEpoch: proto.Int64(0),
			}), &v1.SetLinkedPodReply{Link: lasting("alice", 0), PreviousPodId: -1},
		},
		{
			"TrySetLinkedPod", calling((*Client).TrySetLinkedPod, &v1.TrySetLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "room", PodId: proto.Int32(1)}),
			&v1.TrySetLinkedPodReply{Linked: false, Link: lasting("alice", 0), PreviousPodId: 0},
		},
		{
			"SetLinkedPodIfAbsent", calling((*Client).SetLinkedPodIfAbsent, &v1.SetLinkedPodIfAbsentRequest{
				Namespace: "game", Uid: "bob", Service: "room", PodId: proto.Int32(1), PersistSeconds: proto.Int32(3600),
			}), &v1.SetLinkedPodIfAbsentReply{Created: true, Link: passing("bob", 1)},
		},
		{
			"ComputeLinkedPod", calling((*Client).ComputeLinkedPod, &v1.ComputeLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "room"}),
			&v1.ComputeLinkedPodReply{Outcome: v1.ComputeLinkedPodReply_EXISTING, Link: lasting("alice", 0), PreviousPodId: 0, Pod: up},
		},
		{
			"SetLinkedPod", calling((*Client).SetLinkedPod, &v1.SetLinkedPodRequest{Namespace: "game", Uid: "carol", Service: "room", PodId: proto.Int32(0)}),
			&v1.SetLinkedPodReply{Link: lasting("carol", 0), PreviousPodId: -1},
		},
		{
			"GetLinkedPod", calling((*Client).GetLinkedPod, &v1.GetLinkedPodRequest{Namespace: "game", Uid: "bob", Service: "room"}),
			&v1.GetLinkedPodReply{Link: passing("bob", 1)},
		},
		{
			"GetLinkedPodIfPersist", calling((*Client).GetLinkedPodIfPersist, &v1.GetLinkedPodIfPersistRequest{Namespace: "game", Uid: "bob", Service: "room"}),
			&v1.GetLinkedPodIfPersistReply{Link: none("bob")},
		},
		{
			"BatchGetLinkedPod", calling((*Client).BatchGetLinkedPod, &v1.BatchGetLinkedPodRequest{
				Namespace: "game", Service: "room", Uids: []string{"alice", "nobody", "carol", "bob", "alice"},
			}), &v1.BatchGetLinkedPodReply{
				Pods:         []*v1.BatchGetLinkedPodReply_PodUids{{PodId: 0, Uids: []string{"alice", "carol"}}, {PodId: 1, Uids: []string{"bob"}}},
				UnlinkedUids: []string{"nobody"},
			},
		},
		{
			"BatchSetLinkedPod", calling((*Client).BatchSetLinkedPod, &v1.BatchSetLinkedPodRequest{
				Namespace: "game", Service: "room", Items: []*v1.BatchSetLinkedPodRequest_Item{
					{Uid: "dave", PodId: proto.Int32(0), PersistSeconds: proto.Int32(3600)},
					{Uid: "alice", PodId: proto.Int32(1), IfAbsent: true},
					{Uid: "nobody", PodId: proto.Int32(1), ExpectedEpoch: proto.Int64(7)},
				},
			}), &v1.BatchSetLinkedPodReply{Results: []*v1.BatchSetLinkedPodReply_Result{
				{Linked: true, Link: passing("dave", 0), PreviousPodId: -1},
				{Linked: false, Link: lasting("alice", 0), PreviousPodId: 0},
				{Link: none("nobody"), PreviousPodId: -1, Problem: &v1.Problem{
					Reason: "EPOCH_MISMATCH", Message: "text", Metadata: map[string]string{"pod_id": "-1", "epoch": "0", "claim": "0"},
				}},
			}},
		},
		{
			"BatchComputeLinkedPod", calling((*Client).BatchComputeLinkedPod, &v1.BatchComputeLinkedPodRequest{
				Namespace: "game", Service: "room", PersistSeconds: proto.Int32(3600),
				Items: []*v1.BatchComputeLinkedPodRequest_Item{{Uid: "erin"}, {Uid: "alice"}},
			}), &v1.BatchComputeLinkedPodReply{Results: []*v1.BatchComputeLinkedPodReply_Result{
				{Outcome: v1.ComputeLinkedPodReply_CREATED, Link: passing("erin", 0), PreviousPodId: -1},
				{Outcome: v1.ComputeLinkedPodReply_EXISTING, Link: lasting("alice", 0), PreviousPodId: 0},
			}, Pods: []*v1.Pod{up}},
		},
		{
			"BatchVerifyLinkedPod", calling((*Client).BatchVerifyLinkedPod, &v1.BatchVerifyLinkedPodRequest{
				Namespace: "game", Service: "room", PodId: proto.Int32(0),
				Items: []*v1.BatchVerifyLinkedPodRequest_Item{{Uid: "alice", Epoch: 1}, {Uid: "nobody", Epoch: 1}},
			}), &v1.BatchVerifyLinkedPodReply{Links: []*v1.Link{lasting("alice", 0), none("nobody")}},
		},
		{
			"BatchRemoveLinkedPod", calling((*Client).BatchRemoveLinkedPod, &v1.BatchRemoveLinkedPodRequest{
				Namespace: "game", Service: "room", Items: []*v1.BatchRemoveLinkedPodRequest_Item{{Uid: "erin", PodId: proto.Int32(0)}, {Uid: "nobody"}},
			}), &v1.BatchRemoveLinkedPodReply{Results: []*v1.BatchRemoveLinkedPodReply_Result{
				{Uid: "erin", Removed: true, PreviousPodId: 0}, {Uid: "nobody", PreviousPodId: -1},
			}},
		},
		{
			"ListLinkedServices", calling((*Client).ListLinkedServices, &v1.ListLinkedServicesRequest{Namespace: "game", Uid: "bob"}),
			&v1.ListLinkedServicesReply{Links: []*v1.Link{passing("bob", 1)}},
		},
		{
			"RemoveLinkedPod", calling((*Client).RemoveLinkedPod, &v1.RemoveLinkedPodRequest{
				Namespace: "game", Uid: "alice", Service: "room", KeepSeconds: proto.Int32(3600),
			}), &v1.RemoveLinkedPodReply{Removed: true, PreviousPodId: 0},
		},
		{
			"RemoveLinkedPodWithId", calling((*Client).RemoveLinkedPodWithId, &v1.RemoveLinkedPodWithIdRequest{
				Namespace: "game", Uid: "alice", Service: "room", PodId: proto.Int32(0), KeepSeconds: proto.Int32(60),
			}), &v1.RemoveLinkedPodWithIdReply{Removed: true, Link: passing("alice", 0)},
		},
		{
			"SetWorkloadState", calling((*Client).SetWorkloadState, &v1.SetWorkloadStateRequest{Namespace: "game", Service: "room", State: "rolling-update"}),
			&v1.SetWorkloadStateReply{Workload: &v1.Workload{Namespace: "game", Service: "room", State: "rolling-update", UpdateMs: 1}},
		},
		{
			"GetWorkloadState", calling((*Client).GetWorkloadState, &v1.GetWorkloadStateRequest{Namespace: "game", Service: "room"}),
			&v1.GetWorkloadStateReply{Workload: &v1.Workload{Namespace: "game", Service: "room", State: "rolling-update", UpdateMs: 1}},
		},
		{
			"BatchGetWorkloadState", calling((*Client).BatchGetWorkloadState, &v1.BatchGetWorkloadStateRequest{Namespace: "game", Services: []string{"room", "chat"}}),
			&v1.BatchGetWorkloadStateReply{States: map[string]string{"room": "rolling-update"}},
		},
		{
			"RemoveWorkloadState", calling((*Client).RemoveWorkloadState, &v1.RemoveWorkloadStateRequest{Namespace: "game", Service: "room"}),
			&v1.RemoveWorkloadStateReply{Removed: true, Previous: &v1.Workload{Namespace: "game", Service: "room", State: "rolling-update", UpdateMs: 1}},
		},
		{
			"CordonPod", calling((*Client).CordonPod, &v1.CordonPodRequest{
				Namespace: "game", Service: "room", PodId: proto.Int32(1), Cordon: v1.Routing_SHUTDOWN.Enum(),
			}), &v1.CordonPodReply{Pod: cordoned},
		},
		{
			"RemoveServiceState", calling((*Client).RemoveServiceState, &v1.RemoveServiceStateRequest{Namespace: "game", Service: "room", PodId: proto.Int32(0)}),
			&v1.RemoveServiceStateReply{Removed: true, Previous: given},
		},
	}
	names := map[string]bool{}
	for _, step := range steps {
		names[step.name] = true
	}
	fleet := v1.FleetService_ServiceDesc // For operators: a Client does not have it.
	require.Len(t, names, len(operations)-len(fleet.Methods)-len(fleet.Streams), "every call")
	overBoth(t, func(t *testing.T, http bool) {
		c := dialed(t, addr(start(t), http), Options{HTTP: http})
		for _, step := range steps {
			got, err := step.call(t.Context(), c)
			require.NoError(t, err, step.name)
			requireAnswer(t, step.want, got)
		}
	})
}

// TestHostileUIDs: both transports reach the very same uid, whatever it is made of.
func TestHostileUIDs(t *testing.T) {
	p := start(t)
	clients := map[string]*Client{}
	for name, http := range transports {
		clients[name] = dialed(t, addr(p, http), Options{HTTP: http})
	}
	for name, uid := range hostile {
		for setter, remover := range map[string]string{"gRPC": "HTTP", "HTTP": "gRPC"} {
			t.Run(name+" set over "+setter, func(t *testing.T) {
				made, err := clients[setter].SetLinkedPod(t.Context(), &v1.SetLinkedPodRequest{
					Namespace: "game", Uid: uid, Service: "room", PodId: proto.Int32(3), ExpectedEpoch: proto.Int64(0),
				})
				require.NoError(t, err)
				require.Equal(t, uid, made.GetLink().GetUid())
				for via, c := range clients {
					got, err := c.GetLinkedPod(t.Context(), &v1.GetLinkedPodRequest{Namespace: "game", Uid: uid, Service: "room"})
					require.NoError(t, err, via)
					requireEqual(t, made.GetLink(), got.GetLink())
					all, err := c.ListLinkedServices(t.Context(), &v1.ListLinkedServicesRequest{Namespace: "game", Uid: uid})
					require.NoError(t, err, via)
					requireEqual(t, &v1.ListLinkedServicesReply{Links: []*v1.Link{made.GetLink()}}, all)
					batch, err := c.BatchGetLinkedPod(t.Context(), &v1.BatchGetLinkedPodRequest{Namespace: "game", Service: "room", Uids: []string{uid}})
					require.NoError(t, err, via)
					require.Equal(t, []string{uid}, batch.GetPods()[0].GetUids(), via)
					computed, err := c.ComputeLinkedPod(t.Context(), &v1.ComputeLinkedPodRequest{Namespace: "game", Uid: uid, Service: "room"})
					require.NoError(t, err, via)
					require.Equal(t, v1.ComputeLinkedPodReply_EXISTING, computed.GetOutcome(), via)
				}
				removed, err := clients[remover].RemoveLinkedPodWithId(t.Context(), &v1.RemoveLinkedPodWithIdRequest{
					Namespace: "game", Uid: uid, Service: "room", PodId: proto.Int32(3),
				})
				require.NoError(t, err)
				require.True(t, removed.GetRemoved())
				again, err := clients[remover].RemoveLinkedPod(t.Context(), &v1.RemoveLinkedPodRequest{Namespace: "game", Uid: uid, Service: "room"})
				require.NoError(t, err)
				require.False(t, again.GetRemoved())
			})
		}
	}
}

// wantError is what the error of a call should be.
type wantError struct {
	is       error
	metadata map[string]string
}

// requireError also looks at what every error has to keep: code and reason of its kind, a message, and no cause in it.
func requireError(t *testing.T, want wantError, err error) {
	t.Helper()
	require.ErrorIs(t, err, want.is)
	for _, other := range packageErrors {
		require.Equal(t, errors.Is(want.is, other), errors.Is(err, other), "%v is %v", err, other)
	}
	public := new(kerrors.Error)
	require.ErrorAs(t, err, &public)
	require.NotEmpty(t, public.GetMessage())
	for _, private := range []string{"127.0.0.1", "localhost", "redis", "dial", "tcp", "rpc error", "http://", "connection", "context "} {
		require.NotContains(t, public.GetMessage(), private)
	}
	for key, value := range want.metadata {
		require.Equal(t, value, public.GetMetadata()[key], key)
	}
}

// TestErrors: what podlink answers, for errors.Is, with its metadata and the same message over both transports.
func TestErrors(t *testing.T) {
	p := start(t)
	nobody := &v1.RemoveLinkedPodRequest{Namespace: "game", Uid: "nobody", Service: "room", ExpectedEpoch: proto.Int64(7)}
	for name, row := range map[string]struct {
		call apiCall
		want wantError
	}{
		"no pod": {
			calling((*Client).SetLinkedPod, &v1.SetLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "room"}),
			wantError{ErrInvalidArgument, map[string]string{"field": "pod_id"}},
		},
		"no pod in the path": {
			calling((*Client).GetServicePod, &v1.GetServicePodRequest{Namespace: "game", Service: "room"}),
			wantError{ErrInvalidArgument, map[string]string{"field": "pod_id"}},
		},
		"no such routing": {
			calling((*Client).SetServiceState, &v1.SetServiceStateRequest{
				Namespace: "game", Service: "room", PodId: proto.Int32(0), State: "up", Routing: v1.Routing(99).Enum(),
			}),
			wantError{ErrInvalidArgument, map[string]string{"field": "routing"}},
		},
		"a bad uid of a batch": {
			calling((*Client).BatchGetLinkedPod, &v1.BatchGetLinkedPodRequest{Namespace: "game", Service: "room", Uids: []string{"alice", "\n"}}),
			wantError{ErrInvalidArgument, map[string]string{"field": "uids[1]"}},
		},
		"a service that is a verb": {
			calling((*Client).SetLinkedPodIfAbsent, &v1.SetLinkedPodIfAbsentRequest{
				Namespace: "game", Uid: "alice", Service: "room:compute", PodId: proto.Int32(0),
			}),
			wantError{ErrInvalidArgument, map[string]string{"field": "service"}},
		},
		"a namespace that is the way up": {
			calling((*Client).ListLinkedServices, &v1.ListLinkedServicesRequest{Namespace: "..", Uid: "alice"}),
			wantError{ErrInvalidArgument, map[string]string{"field": "namespace"}},
		},
		"a read of a uid that is not UTF-8": {
			calling((*Client).GetLinkedPod, &v1.GetLinkedPodRequest{Namespace: "game", Uid: "\xff", Service: "room"}),
			wantError{ErrInvalidArgument, map[string]string{"field": "uid"}},
		},
		"a uid of a batch that is not UTF-8": {
			calling((*Client).BatchGetLinkedPod, &v1.BatchGetLinkedPodRequest{Namespace: "game", Service: "room", Uids: []string{"alice", "\xff"}}),
			wantError{ErrInvalidArgument, map[string]string{"field": "uids[1]"}},
		},
		"a state that is not UTF-8": {
			calling((*Client).SetWorkloadState, &v1.SetWorkloadStateRequest{Namespace: "game", Service: "room", State: "\xff"}),
			wantError{ErrInvalidArgument, map[string]string{"field": "state"}},
		},
		"a label that is not UTF-8": {
			calling((*Client).SetServiceState, &v1.SetServiceStateRequest{
				Namespace: "game", Service: "room", PodId: proto.Int32(0), State: "up", Labels: map[string]string{"zone": "\xff"},
			}),
			wantError{ErrInvalidArgument, map[string]string{"field": "labels"}},
		},
		"a selector that is not UTF-8": {
			calling((*Client).ComputeLinkedPod, &v1.ComputeLinkedPodRequest{
				Namespace: "game", Uid: "alice", Service: "room", Selector: map[string]string{"\xff": "a"},
			}),
			wantError{ErrInvalidArgument, map[string]string{"field": "selector"}},
		},
		"a pod that never reported": {
			calling((*Client).GetServicePod, &v1.GetServicePodRequest{Namespace: "game", Service: "room", PodId: proto.Int32(9)}),
			wantError{is: ErrPodNotFound},
		},
		"a workload that was never set": {
			calling((*Client).GetWorkloadState, &v1.GetWorkloadStateRequest{Namespace: "game", Service: "room"}),
			wantError{is: ErrWorkloadNotFound},
		},
		"another epoch, and no link": {
			calling((*Client).RemoveLinkedPod, nobody), wantError{ErrEpochMismatch, map[string]string{"pod_id": "-1", "epoch": "0"}},
		},
		"a claim of an old process": {
			func(ctx context.Context, c *Client) (proto.Message, error) {
				set := &v1.SetLinkedPodRequest{Namespace: "game", Uid: "claimed", Service: "room", PodId: proto.Int32(0), Claim: 8}
				if _, err := c.SetLinkedPod(ctx, set); err != nil {
					return nil, err
				}
				set.Claim = 7
				return c.SetLinkedPod(ctx, set)
			},
			wantError{ErrSuperseded, map[string]string{"generation": "8", "final": "false"}},
		},
		"no pod to choose": {
			calling((*Client).ComputeLinkedPod, &v1.ComputeLinkedPodRequest{Namespace: "game", Uid: "alice", Service: "room"}),
			wantError{is: ErrNoAvailablePod},
		},
	} {
		t.Run(name, func(t *testing.T) {
			said := map[string]string{}
			overBoth(t, func(t *testing.T, http bool) {
				_, err := row.call(t.Context(), dialed(t, addr(p, http), Options{HTTP: http}))
				requireError(t, row.want, err)
				said[kerrors.FromError(err).GetMessage()] = t.Name()
			})
			require.Len(t, said, 1, "both transports say the same")
		})
	}
}

// TestNothingIsMissing: a required field that is left out is named, also where it would stand in a path.
func TestNothingIsMissing(t *testing.T) {
	p := start(t)
	for field, row := range map[string]apiCall{
		"namespace": calling((*Client).SetLinkedPod, &v1.SetLinkedPodRequest{Uid: "alice", Service: "room", PodId: proto.Int32(0)}),
		"uid":       calling((*Client).SetLinkedPod, &v1.SetLinkedPodRequest{Namespace: "game", Service: "room", PodId: proto.Int32(0)}),
		"service":   calling((*Client).GetLinkedPod, &v1.GetLinkedPodRequest{Namespace: "game", Uid: "alice"}),
		"pod_id":    calling((*Client).RemoveServiceState, &v1.RemoveServiceStateRequest{Namespace: "game", Service: "room"}),
		"state":     calling((*Client).SetWorkloadState, &v1.SetWorkloadStateRequest{Namespace: "game", Service: "room"}),
	} {
		t.Run(field, func(t *testing.T) {
			overBoth(t, func(t *testing.T, http bool) {
				_, err := row(t.Context(), dialed(t, addr(p, http), Options{HTTP: http}))
				requireError(t, wantError{ErrInvalidArgument, map[string]string{"field": field}}, err)
			})
		})
	}
}

// TestEpochMismatchNamesTheLink: so that the caller can decide again.
func TestEpochMismatchNamesTheLink(t *testing.T) {
	overBoth(t, func(t *testing.T, http bool) {
		c := dialed(t, addr(start(t), http), Options{HTTP: http})
		made, err := setLink(t.Context(), c)
		require.NoError(t, err)
		epoch := made.(*v1.SetLinkedPodReply).GetLink().GetEpoch()
		_, err = c.SetLinkedPod(t.Context(), &v1.SetLinkedPodRequest{
			Namespace: "game", Uid: "alice", Service: "room", PodId: proto.Int32(4), ExpectedEpoch: proto.Int64(epoch - 1),
		})
		requireError(t, wantError{ErrEpochMismatch, map[string]string{"pod_id": "3", "epoch": strconv.FormatInt(epoch, 10)}}, err)
		_, err = c.SetLinkedPod(t.Context(), &v1.SetLinkedPodRequest{
			Namespace: "game", Uid: "alice", Service: "room", PodId: proto.Int32(4), ExpectedEpoch: proto.Int64(epoch),
		})
		require.NoError(t, err)
	})
}

// TestStoreErrors: what podlink answers when its store has a fault.
func TestStoreErrors(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		env   []string
		fault func(t *testing.T, redis *redistest.Server)
		call  apiCall
		want  wantError
	}{
		"killed, a read":     {fault: func(_ *testing.T, r *redistest.Server) { r.Kill() }, call: readLink, want: wantError{is: ErrStoreUnavailable}},
		"killed, a mutation": {fault: func(_ *testing.T, r *redistest.Server) { r.Kill() }, call: setLink, want: wantError{is: ErrStoreUnavailable}},
		"full": {
			fault: func(t *testing.T, r *redistest.Server) {
				require.NoError(t, r.Client(t).ConfigSet(t.Context(), "maxmemory", "1").Err())
			}, call: setLink, want: wantError{is: ErrStoreFull},
		},
		"hangs": {fault: func(_ *testing.T, r *redistest.Server) { r.Pause() }, call: setLink, want: wantError{is: ErrOutcomeUnknown}},
		"no replica": {
			env: []string{"PODLINK_DATA_REDIS_WAIT_REPLICAS=1"}, fault: func(*testing.T, *redistest.Server) {},
			call: setLink, want: wantError{ErrReplicationUnconfirmed, map[string]string{"pod_id": "3"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, http bool) {
				redis := redistest.Start(t)
				p := start(t, append(podlinktest.OnRedis("standalone", redis.Addr()), row.env...)...)
				p.WaitReady(t)
				row.fault(t, redis)
				// Longer than podlink's own time for it, in one attempt; but a store that is unavailable is tried as long as that lasts.
				timeout := attempts * 2 * time.Second
				if errors.Is(row.want.is, ErrStoreUnavailable) {
					timeout /= 4
				}
				c := dialed(t, addr(p, http), Options{HTTP: http, Timeout: timeout})
				call := func() error {
					_, err := row.call(t.Context(), c)
					return err
				}
				switch {
				case errors.Is(row.want.is, ErrStoreUnavailable):
					requireError(t, row.want, atItsEnd(row.want.is, call))
				case errors.Is(row.want.is, ErrOutcomeUnknown):
					err := call()
					for range 10 { // Over a connection that it has not used before, podlink sends nothing to a store that hangs.
						if !errors.Is(err, ErrStoreUnavailable) {
							break
						}
						redis.Resume()
						p.WaitReady(t)
						_, err = setLink(t.Context(), dialed(t, addr(p, http), Options{HTTP: http, Timeout: time.Minute}))
						require.NoError(t, err)
						row.fault(t, redis)
						err = call()
					}
					requireError(t, row.want, err)
				default:
					requireError(t, row.want, call())
				}
			})
		})
	}
}

// TestCallsReachAPodlinkThatIsNotReady: it is not ready because its store may evict links, and serves all the same.
func TestCallsReachAPodlinkThatIsNotReady(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, http bool) {
		redis := redistest.Start(t)
		p := start(t, podlinktest.OnRedis("standalone", redis.Addr())...)
		p.WaitReady(t)
		c := dialed(t, addr(p, http), Options{HTTP: http, Timeout: time.Minute})
		_, err := setLink(t.Context(), c)
		require.NoError(t, err)
		require.NoError(t, redis.Client(t).ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err())
		health, err := grpc_health_v1.NewHealthClient(p.Conn(t)).Watch(t.Context(), new(grpc_health_v1.HealthCheckRequest))
		require.NoError(t, err)
		for status := grpc_health_v1.HealthCheckResponse_UNKNOWN; status != grpc_health_v1.HealthCheckResponse_NOT_SERVING; {
			change, err := health.Recv()
			require.NoError(t, err)
			status = change.GetStatus()
		}
		for _, each := range []*Client{c, dialed(t, addr(p, http), Options{HTTP: http, Timeout: time.Minute})} {
			begin := time.Now()
			_, err = readLink(t.Context(), each)
			require.NoError(t, err)
			require.Less(t, time.Since(begin), 30*time.Second)
		}
	})
}

// TestOptions: what New refuses, and that it does not wait for podlink.
func TestOptions(t *testing.T) {
	for name, row := range map[string]struct {
		target  string
		options Options
	}{
		"a negative timeout":           {"127.0.0.1:9000", Options{Timeout: -time.Second}},
		"no target":                    {"", Options{}},
		"discovery without a registry": {"discovery:///podlink", Options{}},
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, http bool) {
				row.options.HTTP = http
				_, err := New(row.target, row.options)
				require.ErrorContains(t, err, "podlink: ")
			})
		})
	}
}

// TestDefaultTimeout is what a client has that is given none.
func TestDefaultTimeout(t *testing.T) {
	overBoth(t, func(t *testing.T, http bool) {
		c, err := New("127.0.0.1:9000", Options{HTTP: http})
		require.NoError(t, err)
		require.Equal(t, DefaultTimeout, c.timeout)
		require.NoError(t, c.Close())
	})
}

// TestTargets: how podlink may be named.
func TestTargets(t *testing.T) {
	p := start(t)
	_, port, err := net.SplitHostPort(p.GRPC)
	require.NoError(t, err)
	for name, row := range map[string]struct {
		target string
		http   bool
	}{
		"gRPC, an address": {p.GRPC, false},
		"gRPC, a name":     {"localhost:" + port, false},
		"gRPC, dns":        {"dns:///localhost:" + port, false},
		"HTTP, an address": {p.HTTP, true},
		"HTTP, a URL":      {"http://" + p.HTTP, true},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readLink(t.Context(), dialed(t, row.target, Options{HTTP: row.http}))
			require.NoError(t, err)
		})
	}
}

// TestCallsAfterClose fail at once, although podlink is there.
func TestCallsAfterClose(t *testing.T) {
	overBoth(t, func(t *testing.T, http bool) {
		c, err := New(addr(start(t), http), Options{HTTP: http, Timeout: time.Hour})
		require.NoError(t, err)
		_, err = setLink(t.Context(), c)
		require.NoError(t, err)
		require.NoError(t, c.Close())
		for _, call := range []apiCall{readLink, setLink} {
			_, err = call(t.Context(), c)
			requireError(t, wantError{is: ErrUnavailable}, err)
			require.ErrorContains(t, err, "the client is closed")
		}
	})
}

// TestManyCallsAtOnce: a client is safe for concurrent use.
func TestManyCallsAtOnce(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, http bool) {
		c := dialed(t, addr(start(t, unhurried...), http), Options{HTTP: http, Timeout: time.Minute})
		const callers, each = 16, 20
		done := make(chan error, callers)
		for i := range callers {
			go func() {
				for j := range each {
					uid := strconv.Itoa(i) + "/" + strconv.Itoa(j)
					reply, err := c.SetLinkedPod(t.Context(), &v1.SetLinkedPodRequest{
						Namespace: "game", Uid: uid, Service: "room", PodId: proto.Int32(int32(i)),
					})
					if err == nil && reply.GetLink().GetUid() != uid {
						err = errors.New("another caller's answer: " + reply.GetLink().GetUid())
					}
					if err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
		}
		for range callers {
			require.NoError(t, <-done)
		}
	})
}
