package server

import (
	"context"
	"strings"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"google.golang.org/grpc/health/grpc_health_v1"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/auth"
)

// foreign has the operations of other protocols, which can't have our option for a right: who is known may call them. Health/Check does
// not come here: it is open, as /healthz and /readyz are.
var foreign = map[string]bool{grpc_health_v1.Health_Watch_FullMethodName: true}

// authorize decides whether the caller may do what a decoded message asks for, and sets the grant of the call in ctx. With
// auth.mode off there is no policy, and nothing to decide.
func (a *Access) authorize(ctx context.Context, operation string, message any) error {
	if a == nil {
		return nil
	}
	return a.allow(auth.From(ctx), operation, leastRight(operation), message)
}

// allow is authorize for a call, and the least right that its operation needs.
func (a *Access) allow(call *auth.Call, operation string, least auth.Right, message any) error {
	if call == nil {
		return errUnauthenticated // No caller is known, so none is allowed.
	}
	if least == auth.None && foreign[operation] {
		return nil
	}
	need, known := needOf(least, message)
	var err error
	if known && least != auth.None {
		if call.Grant, err = a.policy.Decide(call.Identity, need); err == nil {
			return nil
		}
	}
	call.Grant = auth.Grant{Right: need.Right} // For the audit log.
	a.metrics.Refused(RefusedByPolicy)
	return permissionDenied(operation, need.Right).WithCause(err)
}

// leastRight returns the right in the option of an operation; none if it has no option.
func leastRight(operation string) auth.Right { return auth.Right(v1.RightOf(operation)) }

// permissionDenied is the error of a call that the policy does not allow. It is the same for what the caller may not see and for what
// does not exist.
func permissionDenied(operation string, right auth.Right) *kerrors.Error {
	method := operation[strings.LastIndexByte(operation, '/')+1:]
	return v1.ErrorPermissionDenied("%s needs the right %s here; nothing has changed", method, right).
		WithMetadata(map[string]string{"operation": method, "right": right.String()})
}

// needOf returns what a message needs: the least right of its operation, or a greater one that the message raises it to. It returns
// false for a message that has no row here.
func needOf(least auth.Right, message any) (auth.Need, bool) {
	need := auth.Need{Right: least}
	switch r := message.(type) {
	case *v1.GetLinkedPodRequest:
		within(&need, r)
	case *v1.GetLinkedPodIfPersistRequest:
		within(&need, r)
	case *v1.BatchGetLinkedPodRequest:
		within(&need, r)
	case *v1.BatchVerifyLinkedPodRequest:
		within(&need, r)
	case *v1.ListLinkedServicesRequest:
		need.Namespace, need.AnyService = r.GetNamespace(), true

	case *v1.ListNamespacesRequest:
		need.AnyNamespace = true
	case *v1.ListServicesRequest:
		need.Namespace, need.AnyService = r.GetNamespace(), true
	case *v1.ListPodLinksRequest:
		within(&need, r)
	case *v1.CountPodLinksRequest:
		within(&need, r)
	case *v1.WatchLinksRequest:
		within(&need, r)
	case *v1.ExportLinksRequest:
		within(&need, r) // Without a service it needs a rule for all services: an export that lacks some would look complete.

	case *v1.CreateJobRequest:
		within(&need, r) // A job about a whole namespace names no service: it is for rules about all of them.
		creates(&need, r)
	case *v1.ListJobsRequest:
		need.Namespace, need.AnyService = r.GetNamespace(), true
	case *v1.GetJobRequest: // Only the job knows its service: what the grant does not show is not found.
		need.Namespace, need.AnyService = r.GetNamespace(), true
	case *v1.CancelJobRequest:
		need.Namespace, need.AnyService = r.GetNamespace(), true
	case *v1.WatchJobRequest:
		need.Namespace, need.AnyService = r.GetNamespace(), true

	case *v1.ComputeLinkedPodRequest:
		within(&need, r)
		need.Persistent = persistent(r.PersistSeconds)
	case *v1.BatchComputeLinkedPodRequest:
		within(&need, r)
		need.Persistent = persistent(r.PersistSeconds)

	case *v1.SetLinkedPodRequest:
		within(&need, r)
		sets(&need, r.PodId, r.PersistSeconds, r.ExpectedEpoch)
	case *v1.SetLinkedPodIfAbsentRequest:
		within(&need, r)
		setsIfAbsent(&need, r.PodId, r.PersistSeconds, r.GetClaim(), r.AboveEpoch)
	case *v1.BatchSetLinkedPodRequest:
		within(&need, r)
		for _, item := range r.GetItems() {
			if item.GetIfAbsent() {
				setsIfAbsent(&need, item.PodId, item.PersistSeconds, item.GetClaim(), item.AboveEpoch)
			} else {
				sets(&need, item.PodId, item.PersistSeconds, item.ExpectedEpoch)
			}
		}
	case *v1.TrySetLinkedPodRequest:
		within(&need, r)
		names(&need, r.PodId)
		need.Persistent = persistent(r.PersistSeconds)

	case *v1.RemoveLinkedPodRequest:
		within(&need, r)
		removes(&need, nil, r.ExpectedEpoch)
	case *v1.RemoveLinkedPodWithIdRequest:
		within(&need, r)
		names(&need, r.PodId)
	case *v1.BatchRemoveLinkedPodRequest:
		within(&need, r)
		for _, item := range r.GetItems() {
			removes(&need, item.PodId, item.ExpectedEpoch)
		}

	case *v1.SetServiceStateRequest:
		within(&need, r)
		names(&need, r.PodId)
		if r.GetTtlSeconds() == -1 {
			raise(&need, auth.Operate) // Nothing would show that the pod is dead.
		}
	case *v1.GetServiceStateRequest:
		within(&need, r)
	case *v1.GetServicePodRequest:
		within(&need, r)
	case *v1.CordonPodRequest:
		within(&need, r)
	case *v1.RemoveServiceStateRequest:
		within(&need, r)

	case *v1.SetWorkloadStateRequest:
		within(&need, r)
	case *v1.GetWorkloadStateRequest:
		within(&need, r)
	case *v1.RemoveWorkloadStateRequest:
		within(&need, r)
	case *v1.BatchGetWorkloadStateRequest:
		need.Namespace, need.Services = r.GetNamespace(), r.GetServices()
	default:
		return need, false
	}
	return need, true
}

// within is for a message about one service.
func within(need *auth.Need, r interface {
	GetNamespace() string
	GetService() string
},
) {
	need.Namespace, need.Service = r.GetNamespace(), r.GetService()
}

func raise(need *auth.Need, right auth.Right) { need.Right = max(need.Right, right) }

// names is for a pod that a message reports, or links users to. Without one the message is malformed, which is not for the policy.
func names(need *auth.Need, pod *int32) {
	if pod != nil {
		need.Pods.Add(*pod)
	}
}

// persistent reports whether a link with that persist_seconds does not expire.
func persistent(seconds *int32) bool { return seconds == nil || *seconds == -1 }

// sets is for SetLinkedPod: without an expected epoch it takes the link from whoever has it.
func sets(need *auth.Need, pod, seconds *int32, expected *int64) {
	names(need, pod)
	need.Persistent = need.Persistent || persistent(seconds)
	raise(need, auth.Bind)
	if expected == nil {
		raise(need, auth.Force)
	}
}

// setsIfAbsent is for SetLinkedPodIfAbsent: a claim and an epoch that the new one must exceed are for pods.
func setsIfAbsent(need *auth.Need, pod, seconds *int32, claim int64, above *int64) {
	names(need, pod)
	need.Persistent = need.Persistent || persistent(seconds)
	if claim != 0 || above != nil {
		raise(need, auth.Bind)
	}
}

// removes is for RemoveLinkedPod, or with a pod for RemoveLinkedPodWithId.
func removes(need *auth.Need, pod *int32, expected *int64) {
	names(need, pod)
	if pod == nil && expected == nil {
		raise(need, auth.Force)
	}
}

// creates is for CreateJob: a pod may release its own links, and nothing more.
func creates(need *auth.Need, r *v1.CreateJobRequest) {
	switch r.GetKind() {
	case v1.Job_RELEASE:
		names(need, r.PodId)
	case v1.Job_REMOVE:
		raise(need, auth.Force)
	default:
		raise(need, auth.Operate)
	}
}
