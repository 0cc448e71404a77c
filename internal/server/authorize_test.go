package server

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/auth"
)

// TestRightsAreThoseOfTheAPI: the names and numbers of rights are the same in the proto and in policies.
func TestRightsAreThoseOfTheAPI(t *testing.T) {
	for number, name := range v1.Right_name {
		if number != 0 {
			require.Equal(t, strings.ToLower(name), auth.Right(number).String())
		}
	}
	require.Equal(t, auth.Force, auth.Right(len(v1.Right_name)-1))
}

// requestOf returns a new request of a method.
func requestOf(t *testing.T, method protoreflect.MethodDescriptor) proto.Message {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(method.Input().FullName())
	require.NoError(t, err)
	return kind.New().Interface()
}

// TestEveryRequestHasARow: for each rpc it is known what its message needs, and each namespace and service that the message names is
// part of it.
func TestEveryRequestHasARow(t *testing.T) {
	for _, method := range v1.Methods() {
		request := requestOf(t, method)
		named := 0
		for i := range method.Input().Fields().Len() {
			field := method.Input().Fields().Get(i)
			switch field.Name() {
			case "namespace", "service":
				request.ProtoReflect().Set(field, protoreflect.ValueOfString("the "+string(field.Name())))
				named++
			case "services":
				request.ProtoReflect().Mutable(field).List().Append(protoreflect.ValueOfString("the service"))
				named++
			}
		}
		need, known := needOf(leastRight(v1.Operation(method)), request)
		require.True(t, known, "%s has no row in needOf", method.FullName())
		require.Equal(t, named == 0, need.AnyNamespace, "%s names no namespace: say in needOf what it is about", method.FullName())
		if !need.AnyNamespace {
			require.Equal(t, "the namespace", need.Namespace, method.FullName())
		}
		if !need.AnyService && !need.AnyNamespace {
			require.Equal(t, "the service", need.Service+strings.Join(need.Services, ""), method.FullName())
		}
		require.GreaterOrEqual(t, need.Right, leastRight(v1.Operation(method)), method.FullName())
		require.NotEqual(t, auth.None, need.Right, method.FullName())
	}
	_, known := needOf(auth.Read, new(emptypb.Empty))
	require.False(t, known)
}

// podsOf returns pods.
func podsOf(list ...int32) (pods auth.Pods) {
	for _, pod := range list {
		pods.Add(pod)
	}
	return pods
}

// TestMessagesRaiseRights: a message may need more than the least right of its operation.
func TestMessagesRaiseRights(t *testing.T) {
	pod, other, minute, forever := proto.Int32(2), proto.Int32(3), proto.Int32(60), proto.Int32(-1)
	epoch, none := proto.Int64(7), proto.Int64(0)
	type setItem = v1.BatchSetLinkedPodRequest_Item
	type removeItem = v1.BatchRemoveLinkedPodRequest_Item
	sets := func(items ...*setItem) proto.Message { return &v1.BatchSetLinkedPodRequest{Items: items} }
	removals := func(items ...*removeItem) proto.Message { return &v1.BatchRemoveLinkedPodRequest{Items: items} }
	for name, row := range map[string]struct {
		operation string
		message   proto.Message
		need      auth.Need
	}{
		"set": {
			v1.OperationLinkServiceSetLinkedPod, &v1.SetLinkedPodRequest{PodId: pod, PersistSeconds: minute},
			auth.Need{Right: auth.Force, Pods: podsOf(2)},
		},
		"set with an epoch": {
			v1.OperationLinkServiceSetLinkedPod, &v1.SetLinkedPodRequest{PodId: pod, ExpectedEpoch: epoch},
			auth.Need{Right: auth.Bind, Pods: podsOf(2), Persistent: true},
		},
		"set where there is none": {
			v1.OperationLinkServiceSetLinkedPod, &v1.SetLinkedPodRequest{PodId: pod, ExpectedEpoch: none, PersistSeconds: forever},
			auth.Need{Right: auth.Bind, Pods: podsOf(2), Persistent: true},
		},
		"set with a claim and no epoch": {
			v1.OperationLinkServiceSetLinkedPod, &v1.SetLinkedPodRequest{PodId: pod, Claim: 9, AboveEpoch: epoch, PersistSeconds: minute},
			auth.Need{Right: auth.Force, Pods: podsOf(2)},
		},
		"try to set": {
			v1.OperationLinkServiceTrySetLinkedPod, &v1.TrySetLinkedPodRequest{PodId: pod, PersistSeconds: minute},
			auth.Need{Right: auth.Bind, Pods: podsOf(2)},
		},
		"set if absent": {
			v1.OperationLinkServiceSetLinkedPodIfAbsent, &v1.SetLinkedPodIfAbsentRequest{PodId: pod},
			auth.Need{Right: auth.Place, Pods: podsOf(2), Persistent: true},
		},
		"set if absent, with a claim": {
			v1.OperationLinkServiceSetLinkedPodIfAbsent, &v1.SetLinkedPodIfAbsentRequest{PodId: pod, Claim: 9, PersistSeconds: minute},
			auth.Need{Right: auth.Bind, Pods: podsOf(2)},
		},
		"set if absent, above an epoch": {
			v1.OperationLinkServiceSetLinkedPodIfAbsent, &v1.SetLinkedPodIfAbsentRequest{PodId: pod, AboveEpoch: none, PersistSeconds: minute},
			auth.Need{Right: auth.Bind, Pods: podsOf(2)},
		},
		"compute": {
			v1.OperationLinkServiceComputeLinkedPod, &v1.ComputeLinkedPodRequest{AvoidPods: []int32{2}, AvoidEpoch: 7},
			auth.Need{Right: auth.Place, Persistent: true},
		},
		"compute for a minute": {
			v1.OperationLinkServiceComputeLinkedPod, &v1.ComputeLinkedPodRequest{PersistSeconds: minute},
			auth.Need{Right: auth.Place},
		},
		"compute many": {
			v1.OperationLinkServiceBatchComputeLinkedPod, &v1.BatchComputeLinkedPodRequest{PersistSeconds: forever},
			auth.Need{Right: auth.Place, Persistent: true},
		},
		"remove": {v1.OperationLinkServiceRemoveLinkedPod, &v1.RemoveLinkedPodRequest{}, auth.Need{Right: auth.Force}},
		"remove with an epoch": {
			v1.OperationLinkServiceRemoveLinkedPod, &v1.RemoveLinkedPodRequest{ExpectedEpoch: epoch}, auth.Need{Right: auth.Bind},
		},
		"remove with id": {
			v1.OperationLinkServiceRemoveLinkedPodWithId, &v1.RemoveLinkedPodWithIdRequest{PodId: pod},
			auth.Need{Right: auth.Bind, Pods: podsOf(2)},
		},

		"set many, none": {v1.OperationLinkServiceBatchSetLinkedPod, sets(), auth.Need{Right: auth.Place}},
		"set many if absent": {
			v1.OperationLinkServiceBatchSetLinkedPod,
			sets(&setItem{PodId: pod, IfAbsent: true}, &setItem{PodId: pod, IfAbsent: true, PersistSeconds: minute}),
			auth.Need{Right: auth.Place, Pods: podsOf(2), Persistent: true},
		},
		"set many, one with a claim": {
			v1.OperationLinkServiceBatchSetLinkedPod,
			sets(
				&setItem{PodId: pod, IfAbsent: true, PersistSeconds: minute, Claim: 1},
				&setItem{PodId: pod, IfAbsent: true, PersistSeconds: minute},
			),
			auth.Need{Right: auth.Bind, Pods: podsOf(2)},
		},
		"set many, one with an epoch": {
			v1.OperationLinkServiceBatchSetLinkedPod,
			sets(&setItem{PodId: pod, PersistSeconds: minute, ExpectedEpoch: none}, &setItem{PodId: other, IfAbsent: true, PersistSeconds: minute}),
			auth.Need{Right: auth.Bind, Pods: podsOf(2, 3)},
		},
		"set many, one without an epoch": {
			v1.OperationLinkServiceBatchSetLinkedPod,
			sets(&setItem{PodId: pod, ExpectedEpoch: epoch}, &setItem{PodId: pod, PersistSeconds: minute}, &setItem{IfAbsent: true}),
			auth.Need{Right: auth.Force, Pods: podsOf(2), Persistent: true},
		},
		"remove many with an epoch": {
			v1.OperationLinkServiceBatchRemoveLinkedPod, removals(&removeItem{ExpectedEpoch: epoch}, &removeItem{PodId: pod}),
			auth.Need{Right: auth.Bind, Pods: podsOf(2)},
		},
		"remove many, one without": {
			v1.OperationLinkServiceBatchRemoveLinkedPod, removals(&removeItem{PodId: pod}, &removeItem{PodId: other}, &removeItem{}),
			auth.Need{Right: auth.Force, Pods: podsOf(2, 3)},
		},

		"report": {
			v1.OperationStateServiceSetServiceState, &v1.SetServiceStateRequest{PodId: pod, TtlSeconds: minute},
			auth.Need{Right: auth.Report, Pods: podsOf(2)},
		},
		"report for the usual time": {
			v1.OperationStateServiceSetServiceState, &v1.SetServiceStateRequest{PodId: pod},
			auth.Need{Right: auth.Report, Pods: podsOf(2)},
		},
		"report for ever": {
			v1.OperationStateServiceSetServiceState, &v1.SetServiceStateRequest{PodId: pod, TtlSeconds: forever},
			auth.Need{Right: auth.Operate, Pods: podsOf(2)},
		},
		"read another pod": {v1.OperationStateServiceGetServicePod, &v1.GetServicePodRequest{PodId: other}, auth.Need{Right: auth.Read}},
		"verify": {
			v1.OperationLinkServiceBatchVerifyLinkedPod, &v1.BatchVerifyLinkedPodRequest{PodId: other}, auth.Need{Right: auth.Read},
		},
		"cordon": {v1.OperationStateServiceCordonPod, &v1.CordonPodRequest{PodId: pod}, auth.Need{Right: auth.Operate}},
		"forget": {v1.OperationStateServiceRemoveServiceState, &v1.RemoveServiceStateRequest{PodId: pod}, auth.Need{Right: auth.Operate}},
	} {
		need, known := needOf(leastRight(row.operation), row.message)
		require.True(t, known, name)
		require.Equal(t, row.need, need, name)
	}
}

// TestEveryOperationHasARightOrIsForeign: of what the gRPC listener serves, only what is listed here has no right.
func TestEveryOperationHasARightOrIsForeign(t *testing.T) {
	p := newParts(t)
	srv, stop := NewGRPCServer(p.config, p.api(), p.chain, new(switchedStore), p.drain, ListenerTLS{})
	defer stop()
	without := make(map[string]bool)
	for service, info := range srv.GetServiceInfo() {
		for _, method := range info.Methods {
			operation := "/" + service + "/" + method.Name
			past := strings.HasPrefix(service, "grpc.channelz.") || strings.HasPrefix(service, "kratos.api.") // Never served: callGuard.
			if !past && leastRight(operation) == auth.None {
				without[operation] = foreign[operation]
			}
		}
	}
	require.Equal(t, map[string]bool{
		"/grpc.health.v1.Health/Watch": true,  // takes a caller who is known
		"/grpc.health.v1.Health/Check": false, // open, past the chain
		"/grpc.health.v1.Health/List":  false, // takes a caller who is known, past the chain
	}, without)
}

// policyOf returns the access of guests under a policy.
func accessOf(t *testing.T, rules string) *Access {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.yaml")
	require.NoError(t, os.WriteFile(path, []byte(rules), 0o600))
	policy, err := auth.NewPolicy(auth.PolicyOptions{Path: path})
	require.NoError(t, err)
	return NewAccess(guests{}, policy, 1e6, nil)
}

const roomPolicy = `
rules:
  - {who: ["token:reader"], role: reader, namespaces: [game], services: [room]}
  - {who: ["token:room"], role: pod, namespaces: [game], services: [room], pod_name: "room-{ordinal}"}
  - {who: ["token:operator"], role: operator, namespaces: [game], services: [room]}
`

// TestAuthorize: the grant is in the context of the use case, and of a refusal the right that was needed.
func TestAuthorize(t *testing.T) {
	access := accessOf(t, roomPolicy)
	get := func(namespace string) *v1.GetLinkedPodRequest {
		return &v1.GetLinkedPodRequest{Namespace: namespace, Service: "room"}
	}
	set := &v1.SetLinkedPodRequest{Namespace: "game", Uid: "u", Service: "room", PodId: proto.Int32(2), ExpectedEpoch: proto.Int64(7)}
	call := &auth.Call{Context: t.Context(), Identity: auth.Identity{Name: "token:room", Pod: "room-2"}}
	require.NoError(t, access.authorize(call, v1.OperationLinkServiceSetLinkedPod, set))
	require.Equal(t, auth.Bind, call.Grant.Right)
	require.Equal(t, "rules[1]", call.Grant.Rule)
	require.EqualValues(t, 2, *call.Grant.Own)

	for name, row := range map[string]struct {
		who       auth.Identity
		operation string
		message   any
		right     auth.Right
	}{
		"another pod":       {auth.Identity{Name: "token:room", Pod: "room-3"}, v1.OperationLinkServiceSetLinkedPod, set, auth.Bind},
		"no pod":            {auth.Identity{Name: "token:room"}, v1.OperationLinkServiceSetLinkedPod, set, auth.Bind},
		"a reader":          {auth.Identity{Name: "token:reader"}, v1.OperationLinkServiceSetLinkedPod, set, auth.Bind},
		"no name":           {auth.Identity{}, v1.OperationLinkServiceGetLinkedPod, get("game"), auth.Read},
		"another namespace": {auth.Identity{Name: "token:reader"}, v1.OperationLinkServiceGetLinkedPod, get("g"), auth.Read},
		"no message":        {auth.Identity{Name: "token:operator"}, v1.OperationLinkServiceGetLinkedPod, nil, auth.Read},
		"another message":   {auth.Identity{Name: "token:operator"}, v1.OperationLinkServiceGetLinkedPod, new(emptypb.Empty), auth.Read},
		"no operation":      {auth.Identity{Name: "token:operator"}, "/podlink.v1.LinkService/Unknown", set, auth.Bind},
	} {
		call := &auth.Call{Context: t.Context(), Identity: row.who}
		err := access.authorize(call, row.operation, row.message)
		if name == "no operation" { // The message alone may not grant what its operation does not.
			require.Error(t, err)
		}
		require.True(t, v1.IsPermissionDenied(err), "%s: %v", name, err)
		public := kerrors.FromError(err)
		method := row.operation[strings.LastIndexByte(row.operation, '/')+1:]
		require.Equal(t, map[string]string{"operation": method, "right": row.right.String()}, public.Metadata, name)
		require.Contains(t, public.Message, method, name)
		require.NotContains(t, public.Message, "rules[", name)
		require.Equal(t, auth.Grant{Right: row.right}, call.Grant, name)
	}

	require.True(t, v1.IsUnauthenticated(access.authorize(t.Context(), v1.OperationLinkServiceSetLinkedPod, set)), "nobody is known")
	require.NoError(t, (*Access)(nil).authorize(t.Context(), v1.OperationLinkServiceSetLinkedPod, set), "auth.mode off")
}

// oneMessage is a stream that receives messages, one after the other, and counts those that it sends.
type oneMessage struct {
	grpc.ServerStream

	requests []proto.Message
	sent     int
}

// RecvMsg implements grpc.ServerStream.
func (s *oneMessage) RecvMsg(target any) error {
	proto.Merge(target.(deferredMessage).message, s.requests[0])
	s.requests = s.requests[1:]
	return nil
}

// SendMsg implements grpc.ServerStream.
func (s *oneMessage) SendMsg(any) error {
	s.sent++
	return nil
}

// TestStreamsAreAuthorized by their first message, before which nothing is sent.
func TestStreamsAreAuthorized(t *testing.T) {
	access := accessOf(t, roomPolicy)
	open := func(access *Access, who string, services ...string) (*serverStream, *oneMessage, *auth.Call) {
		wire := new(oneMessage)
		for _, service := range services {
			wire.requests = append(wire.requests, &v1.GetServiceStateRequest{Namespace: "game", Service: service})
		}
		call := &auth.Call{Context: t.Context(), Identity: auth.Identity{Name: who}}
		var ctx context.Context = call
		if access == nil {
			ctx = t.Context()
		}
		return &serverStream{
			ServerStream: wire, ctx: ctx, chain: &Chain{access: access, watches: newWatchLimit(1, nil)}, decoding: decodingFrom(ctx),
			operation: v1.OperationStateServiceGetServiceState,
		}, wire, call
	}
	receive := func(s *serverStream) error { return s.RecvMsg(new(v1.GetServiceStateRequest)) }

	stream, wire, call := open(access, "token:reader", "room", "other")
	require.NoError(t, receive(stream))
	require.NoError(t, stream.SendMsg(new(v1.GetServiceStateReply)))
	require.Equal(t, 1, wire.sent)
	require.Equal(t, "rules[0]", call.Grant.Rule)
	require.NoError(t, receive(stream), "the first message has decided")

	stream, wire, _ = open(access, "token:reader", "other")
	require.True(t, v1.IsPermissionDenied(stream.SendMsg(new(v1.GetServiceStateReply))), "nothing was asked for yet")
	require.True(t, v1.IsPermissionDenied(receive(stream)))
	require.True(t, v1.IsPermissionDenied(stream.SendMsg(new(v1.GetServiceStateReply))))
	require.Zero(t, wire.sent)

	stream, _, _ = open(nil, "", "other")
	require.NoError(t, stream.SendMsg(new(v1.GetServiceStateReply)), "auth.mode off")
	require.NoError(t, receive(stream))
}

func BenchmarkAuthorize(b *testing.B) {
	b.ReportAllocs()
	path := filepath.Join(b.TempDir(), "policy.yaml")
	require.NoError(b, os.WriteFile(path, []byte(roomPolicy), 0o600))
	policy, err := auth.NewPolicy(auth.PolicyOptions{Path: path})
	require.NoError(b, err)
	access := NewAccess(guests{}, policy, 1e6, nil)
	for name, row := range map[string]struct {
		who       auth.Identity
		operation string
		message   any
	}{
		"read": {
			auth.Identity{Name: "token:reader"}, v1.OperationLinkServiceGetLinkedPod,
			&v1.GetLinkedPodRequest{Namespace: "game", Uid: "user-000042", Service: "room"},
		},
		"set by a pod": {
			auth.Identity{Name: "token:room", Pod: "room-2"}, v1.OperationLinkServiceSetLinkedPod,
			&v1.SetLinkedPodRequest{Namespace: "game", Uid: "u", Service: "room", PodId: proto.Int32(2), ExpectedEpoch: proto.Int64(7)},
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			call := &auth.Call{Context: b.Context(), Identity: row.who}
			for b.Loop() {
				if err := access.authorize(call, row.operation, row.message); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
