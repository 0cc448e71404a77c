//go:build faults

package faults

import (
	"context"
	"fmt"
	"strconv"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

const (
	namespace = "faults"
	// noEpoch is the expected epoch of an unconditional operation.
	noEpoch = -1
	// noPod and gone are the pod and the seconds of an absent link; forever is the seconds of a persistent one.
	noPod   = -1
	gone    = -2
	forever = -1
	// clientTimeout is the clients' deadline. It is much longer than podlink's, so that podlink's is the one measured.
	clientTimeout = 10 * time.Second
)

// kind is a method of the LinkService.
type kind string

const (
	set          kind = "SetLinkedPod"
	trySet       kind = "TrySetLinkedPod"
	setIfAbsent  kind = "SetLinkedPodIfAbsent"
	compute      kind = "ComputeLinkedPod"
	remove       kind = "RemoveLinkedPod"
	removeWithID kind = "RemoveLinkedPodWithId"
	get          kind = "GetLinkedPod"
	getPersist   kind = "GetLinkedPodIfPersist"
	list         kind = "ListLinkedServices"
)

func (k kind) reads() bool { return k == get || k == getPersist || k == list }

// operation is a method and its arguments; a method ignores those that it does not have.
type operation struct {
	kind         kind
	uid, service string
	pod          int32
	seconds      int32 // persist_seconds; of a removal, keep_seconds
	expected     int64 // expected_epoch; noEpoch for none
	claim        int64 // of a set, if absent or not; 0 for none
}

// link is a link in a reply.
type link struct {
	pod, seconds int32
	epoch, claim int64
}

// outcome is what a client knows about the effect of its call.
type outcome string

const (
	acknowledged outcome = "acknowledged" // executed, or declined as the contract says
	refused      outcome = "refused"      // certainly not executed
	unknown      outcome = "unknown"      // may or may not have been executed
	wrong        outcome = "wrong"        // an error that no fault justifies
)

// answer is the reply or the error that a client received.
type answer struct {
	outcome outcome
	reason  string // of an error
	message string // of an error

	applied  bool   // linked, created or removed
	computed string // outcome of a ComputeLinkedPod
	previous *int32 // nil: not in the reply
	link     *link  // the link after the call; nil: not in the reply
	links    map[string]link

	generation int64 // of a SUPERSEDED
}

// call is a call and its answer. Its times are since the start of the run.
type call struct {
	operation
	answer
	client, podlink int
	begin, end      time.Duration
}

// outcomeOf returns the outcome of a call that failed with the reason.
func outcomeOf(k kind, reason string) outcome {
	switch reason {
	case "EPOCH_MISMATCH", "SUPERSEDED", "NO_AVAILABLE_POD":
		return acknowledged
	case "STORE_UNAVAILABLE", "STORE_FULL", "CANCELED":
		return refused
	case "OUTCOME_UNKNOWN", "REPLICATION_UNCONFIRMED":
		if !k.reads() {
			return unknown
		}
	case "DEADLINE_EXCEEDED":
		if k.reads() {
			return refused
		}
	}
	return wrong
}

// perform calls podlink. An error without a reason is not from podlink: the connection broke, or the client's deadline
// passed.
func perform(conn *grpc.ClientConn, op operation) answer {
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	a, err := send(ctx, v1.NewLinkServiceClient(conn), op)
	if err == nil {
		a.outcome = acknowledged
		return a
	}
	failure := kerrors.FromError(err)
	a = answer{outcome: outcomeOf(op.kind, failure.Reason), reason: failure.Reason, message: failure.Message}
	switch failure.Reason {
	case "EPOCH_MISMATCH":
		a.link = mismatched(failure.Metadata)
	case "SUPERSEDED":
		a.generation, _ = strconv.ParseInt(failure.Metadata["generation"], 10, 64) // 0 is wrong: the model says so.
	}
	return a
}

// mismatched returns the link in the metadata of an EPOCH_MISMATCH, without its seconds; nil if there is none.
func mismatched(metadata map[string]string) *link {
	pod, err := strconv.ParseInt(metadata["pod_id"], 10, 32)
	if err != nil {
		return nil
	}
	epoch, err := strconv.ParseInt(metadata["epoch"], 10, 64)
	if err != nil {
		return nil
	}
	claim, err := strconv.ParseInt(metadata["claim"], 10, 64)
	if err != nil {
		return nil
	}
	return &link{pod: int32(pod), epoch: epoch, claim: claim}
}

func send(ctx context.Context, links v1.LinkServiceClient, op operation) (answer, error) {
	switch op.kind {
	case set:
		reply, err := links.SetLinkedPod(ctx, &v1.SetLinkedPodRequest{
			Namespace: namespace, Uid: op.uid, Service: op.service, PodId: &op.pod, PersistSeconds: &op.seconds,
			ExpectedEpoch: op.expectedEpoch(), Claim: op.claim,
		})
		return answer{applied: true, previous: proto.Int32(reply.GetPreviousPodId()), link: linkOf(reply.GetLink())}, err
	case trySet:
		reply, err := links.TrySetLinkedPod(ctx, &v1.TrySetLinkedPodRequest{
			Namespace: namespace, Uid: op.uid, Service: op.service, PodId: &op.pod, PersistSeconds: &op.seconds,
		})
		return answer{
			applied: reply.GetLinked(), previous: proto.Int32(reply.GetPreviousPodId()), link: linkOf(reply.GetLink()),
		}, err
	case setIfAbsent:
		reply, err := links.SetLinkedPodIfAbsent(ctx, &v1.SetLinkedPodIfAbsentRequest{
			Namespace: namespace, Uid: op.uid, Service: op.service, PodId: &op.pod, PersistSeconds: &op.seconds, Claim: op.claim,
		})
		return answer{applied: reply.GetCreated(), link: linkOf(reply.GetLink())}, err
	case compute:
		reply, err := links.ComputeLinkedPod(ctx, &v1.ComputeLinkedPodRequest{
			Namespace: namespace, Uid: op.uid, Service: op.service, PersistSeconds: &op.seconds,
		})
		return answer{
			applied:  reply.GetOutcome() != v1.ComputeLinkedPodReply_EXISTING,
			computed: reply.GetOutcome().String(),
			previous: proto.Int32(reply.GetPreviousPodId()), link: linkOf(reply.GetLink()),
		}, err
	case remove:
		reply, err := links.RemoveLinkedPod(ctx, &v1.RemoveLinkedPodRequest{
			Namespace: namespace, Uid: op.uid, Service: op.service, KeepSeconds: &op.seconds,
			ExpectedEpoch: op.expectedEpoch(),
		})
		return answer{applied: reply.GetRemoved(), previous: proto.Int32(reply.GetPreviousPodId())}, err
	case removeWithID:
		reply, err := links.RemoveLinkedPodWithId(ctx, &v1.RemoveLinkedPodWithIdRequest{
			Namespace: namespace, Uid: op.uid, Service: op.service, PodId: &op.pod, KeepSeconds: &op.seconds,
		})
		return answer{applied: reply.GetRemoved(), link: linkOf(reply.GetLink())}, err
	default:
		return read(ctx, links, op)
	}
}

func read(ctx context.Context, links v1.LinkServiceClient, op operation) (answer, error) {
	switch op.kind {
	case get:
		reply, err := links.GetLinkedPod(ctx, &v1.GetLinkedPodRequest{
			Namespace: namespace, Uid: op.uid, Service: op.service,
		})
		return answer{link: linkOf(reply.GetLink())}, err
	case getPersist:
		reply, err := links.GetLinkedPodIfPersist(ctx, &v1.GetLinkedPodIfPersistRequest{
			Namespace: namespace, Uid: op.uid, Service: op.service,
		})
		return answer{link: linkOf(reply.GetLink())}, err
	case list:
		reply, err := links.ListLinkedServices(ctx, &v1.ListLinkedServicesRequest{Namespace: namespace, Uid: op.uid})
		a := answer{links: make(map[string]link)}
		for _, listed := range reply.GetLinks() {
			a.links[listed.GetService()] = *linkOf(listed)
		}
		return a, err
	default:
		return answer{}, fmt.Errorf("unknown method: %s", op.kind)
	}
}

func (op operation) expectedEpoch() *int64 {
	if op.expected == noEpoch {
		return nil
	}
	return &op.expected
}

func linkOf(l *v1.Link) *link {
	return &link{pod: l.GetPodId(), seconds: l.GetTtlSeconds(), epoch: l.GetEpoch(), claim: l.GetClaim()}
}
