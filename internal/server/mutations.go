package server

import (
	"fmt"
	"maps"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/audit"
	"podlink/internal/auth"
)

// mutation passes on a record of each change that a call has made: of is what they have in common. A batch has a record for each
// item that changed something, so that one search finds all that was done to a uid.
type mutation func(of audit.Record, request, reply any, pass func(audit.Record))

// mutations are the operations that change something, with what in their replies says so.
var mutations = map[string]mutation{
	v1.LinkService_SetLinkedPod_FullMethodName: typed(func(
		of audit.Record, _ *v1.SetLinkedPodRequest, reply *v1.SetLinkedPodReply, pass func(audit.Record),
	) {
		pass(linked(of, reply.GetLink(), reply.GetPreviousPodId()))
	}),
	v1.LinkService_TrySetLinkedPod_FullMethodName: typed(func(
		of audit.Record, _ *v1.TrySetLinkedPodRequest, reply *v1.TrySetLinkedPodReply, pass func(audit.Record),
	) {
		if reply.GetLinked() {
			pass(linked(of, reply.GetLink(), reply.GetPreviousPodId()))
		}
	}),
	v1.LinkService_SetLinkedPodIfAbsent_FullMethodName: typed(func(
		of audit.Record, _ *v1.SetLinkedPodIfAbsentRequest, reply *v1.SetLinkedPodIfAbsentReply, pass func(audit.Record),
	) {
		if reply.GetCreated() {
			pass(linked(of, reply.GetLink(), noPod))
		}
	}),
	v1.LinkService_ComputeLinkedPod_FullMethodName: typed(func(
		of audit.Record, _ *v1.ComputeLinkedPodRequest, reply *v1.ComputeLinkedPodReply, pass func(audit.Record),
	) {
		if computed(reply.GetOutcome()) {
			pass(linked(of, reply.GetLink(), reply.GetPreviousPodId()))
		}
	}),
	v1.LinkService_RemoveLinkedPod_FullMethodName: typed(func(
		of audit.Record, request *v1.RemoveLinkedPodRequest, reply *v1.RemoveLinkedPodReply, pass func(audit.Record),
	) {
		if reply.GetRemoved() {
			of.Epoch = request.GetExpectedEpoch()
			pass(unlinked(of, request.GetKeepSeconds(), reply.GetPreviousPodId()))
		}
	}),
	v1.LinkService_RemoveLinkedPodWithId_FullMethodName: typed(func(
		of audit.Record, request *v1.RemoveLinkedPodWithIdRequest, reply *v1.RemoveLinkedPodWithIdReply, pass func(audit.Record),
	) {
		if reply.GetRemoved() {
			of.Epoch = reply.GetLink().GetEpoch()
			pass(unlinked(of, request.GetKeepSeconds(), request.GetPodId()))
		}
	}),
	v1.LinkService_BatchComputeLinkedPod_FullMethodName: typed(func(
		of audit.Record, request *v1.BatchComputeLinkedPodRequest, reply *v1.BatchComputeLinkedPodReply, pass func(audit.Record),
	) {
		for i, result := range reply.GetResults() {
			of.UID = request.GetItems()[i].GetUid()
			switch {
			case uncertain[result.GetProblem().GetReason()]:
				pass(unsure(of, result.GetProblem(), 0))
			case computed(result.GetOutcome()):
				pass(linked(of, result.GetLink(), result.GetPreviousPodId()))
			}
		}
	}),
	v1.LinkService_BatchSetLinkedPod_FullMethodName: typed(func(
		of audit.Record, request *v1.BatchSetLinkedPodRequest, reply *v1.BatchSetLinkedPodReply, pass func(audit.Record),
	) {
		for i, result := range reply.GetResults() {
			item := request.GetItems()[i]
			of.UID = item.GetUid()
			switch {
			case uncertain[result.GetProblem().GetReason()]:
				pass(unsure(of, result.GetProblem(), audit.PodOf(item.GetPodId())))
			case result.GetLinked():
				pass(linked(of, result.GetLink(), result.GetPreviousPodId()))
			}
		}
	}),
	v1.LinkService_BatchRemoveLinkedPod_FullMethodName: typed(func(
		of audit.Record, request *v1.BatchRemoveLinkedPodRequest, reply *v1.BatchRemoveLinkedPodReply, pass func(audit.Record),
	) {
		for i, result := range reply.GetResults() {
			item := request.GetItems()[i]
			of.UID, of.Epoch = item.GetUid(), item.GetExpectedEpoch()
			switch {
			case uncertain[result.GetProblem().GetReason()]:
				pass(unsure(of, result.GetProblem(), 0))
			case result.GetRemoved():
				pass(unlinked(of, item.GetKeepSeconds(), result.GetPreviousPodId()))
			}
		}
	}),
	v1.StateService_SetServiceState_FullMethodName: typed(func(
		of audit.Record, _ *v1.SetServiceStateRequest, reply *v1.SetServiceStateReply, pass func(audit.Record),
	) {
		pod := reply.GetPod()
		if !reply.GetApplied() || of.Right < auth.Operate && !newsOf(pod, reply.GetPrevious()) {
			return
		}
		of.Pod, of.Outcome = audit.PodOf(pod.GetPodId()), "reported"
		of.Detail = fmt.Sprintf("routing %s, load %d, ttl %d", pod.GetReportedRouting(), pod.GetLoad(), pod.GetTtlSeconds())
		pass(of)
	}),
	v1.StateService_CordonPod_FullMethodName: typed(func(
		of audit.Record, request *v1.CordonPodRequest, reply *v1.CordonPodReply, pass func(audit.Record),
	) {
		of.Pod, of.Outcome, of.Detail = audit.PodOf(reply.GetPod().GetPodId()), "cordoned", "cordon "+request.GetCordon().String()
		if request.GetTtlSeconds() > 0 {
			of.Detail += fmt.Sprintf(", ttl %d", request.GetTtlSeconds())
		}
		pass(of)
	}),
	v1.StateService_RemoveServiceState_FullMethodName: typed(func(
		of audit.Record, request *v1.RemoveServiceStateRequest, reply *v1.RemoveServiceStateReply, pass func(audit.Record),
	) {
		if reply.GetRemoved() {
			of.Pod, of.Outcome = audit.PodOf(request.GetPodId()), "removed"
			pass(of)
		}
	}),
	v1.FleetService_CreateJob_FullMethodName: typed(func(
		of audit.Record, request *v1.CreateJobRequest, reply *v1.CreateJobReply, pass func(audit.Record),
	) {
		of.Outcome, of.Detail = "created", fmt.Sprintf("job %s %s", reply.GetJob().GetId(), request.GetKind())
		if request.PodId != nil {
			of.Pod = audit.PodOf(request.GetPodId())
		}
		pass(of)
	}),
	v1.FleetService_CancelJob_FullMethodName: typed(func(
		of audit.Record, _ *v1.CancelJobRequest, reply *v1.CancelJobReply, pass func(audit.Record),
	) {
		of.Outcome, of.Detail = "cancelled", "job "+reply.GetJob().GetId()
		pass(of)
	}),
	v1.WorkloadService_SetWorkloadState_FullMethodName: typed(func(
		of audit.Record, _ *v1.SetWorkloadStateRequest, _ *v1.SetWorkloadStateReply, pass func(audit.Record),
	) {
		of.Outcome = "set"
		pass(of)
	}),
	v1.WorkloadService_RemoveWorkloadState_FullMethodName: typed(func(
		of audit.Record, _ *v1.RemoveWorkloadStateRequest, reply *v1.RemoveWorkloadStateReply, pass func(audit.Record),
	) {
		if reply.GetRemoved() {
			of.Outcome = "removed"
			pass(of)
		}
	}),
}

// typed returns the mutation of an operation with these messages.
func typed[Q, R any](changes func(of audit.Record, request Q, reply R, pass func(audit.Record))) mutation {
	return func(of audit.Record, request, reply any, pass func(audit.Record)) {
		q, isRequest := request.(Q)
		r, isReply := reply.(R)
		if isRequest && isReply {
			changes(of, q, r, pass)
		}
	}
}

// noPod is the ordinal of no pod, in the API.
const noPod = -1

// linked is the record of a link that was made, or made again, for the pod that has it now.
func linked(of audit.Record, link *v1.Link, previous int32) audit.Record {
	of.Pod, of.PreviousPod, of.Epoch = audit.PodOf(link.GetPodId()), audit.PodOf(previous), link.GetEpoch()
	switch previous {
	case noPod:
		of.Outcome = "created"
	case link.GetPodId():
		of.Outcome = "kept"
	default:
		of.Outcome = "moved"
	}
	return of
}

// unlinked is the record of a link that was removed, or left for some seconds.
func unlinked(of audit.Record, keep, previous int32) audit.Record {
	of.PreviousPod, of.Outcome = audit.PodOf(previous), "removed"
	if keep > 0 {
		of.Pod, of.Outcome = of.PreviousPod, "expires"
	}
	return of
}

// unsure is the record of an item of a batch that was perhaps changed.
func unsure(of audit.Record, problem *v1.Problem, pod audit.Pod) audit.Record {
	of.Pod, of.Outcome = pod, problem.GetReason()
	return of
}

// computed reports whether a compute has made or moved a link.
func computed(outcome v1.ComputeLinkedPodReply_Outcome) bool {
	return outcome == v1.ComputeLinkedPodReply_CREATED || outcome == v1.ComputeLinkedPodReply_RELINKED
}

// newsOf reports whether a pod's report says more than that it lives and how loaded it is: pods report every few seconds.
func newsOf(pod, previous *v1.Pod) bool {
	return previous == nil || !previous.GetLive() ||
		pod.GetReportedRouting() != previous.GetReportedRouting() || pod.GetTtlSeconds() != previous.GetTtlSeconds() ||
		pod.GetInstanceId() != previous.GetInstanceId() || pod.GetGeneration() != previous.GetGeneration() ||
		pod.GetCapacity() != previous.GetCapacity() || (pod.Capacity == nil) != (previous.Capacity == nil) ||
		pod.GetAddress() != previous.GetAddress() || pod.GetState() != previous.GetState() ||
		!maps.Equal(pod.GetLabels(), previous.GetLabels())
}
