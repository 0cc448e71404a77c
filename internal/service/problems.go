package service

import (
	"context"

	kerrors "github.com/go-kratos/kratos/v2/errors"

	v1 "podlink/api/podlink/v1"
)

// Problems records the items of batches that failed: the reply has no cause, and the request did not fail.
type Problems interface {
	// Problem is called for each item that failed, with the error that a call for it alone would return, and the context of the
	// request.
	Problem(ctx context.Context, problem *kerrors.Error)
}

// NopProblems ignores all problems.
type NopProblems struct{}

// Problem implements Problems.
func (NopProblems) Problem(context.Context, *kerrors.Error) {}

// HasProblems reports whether replies of the operation may have problems of single items.
func HasProblems(operation string) bool {
	switch operation {
	case v1.OperationLinkServiceBatchComputeLinkedPod, v1.OperationLinkServiceBatchGetLinkedPod,
		v1.OperationLinkServiceBatchRemoveLinkedPod, v1.OperationLinkServiceBatchSetLinkedPod,
		v1.OperationLinkServiceBatchVerifyLinkedPod:
		return true
	default:
		return false
	}
}

// problem returns the problem of an item, nil if it has none.
func (s *LinkService) problem(ctx context.Context, err error) *v1.Problem {
	if err == nil {
		return nil
	}
	public := PublicError(err)
	s.problems.Problem(ctx, public)
	return &v1.Problem{Reason: public.Reason, Message: public.Message, Metadata: public.Metadata}
}

// problemOf returns the problem of a uid.
func (s *LinkService) problemOf(ctx context.Context, uid string, err error) *v1.BatchGetLinkedPodReply_Problem {
	problem := s.problem(ctx, err)
	return &v1.BatchGetLinkedPodReply_Problem{
		Uid: uid, Reason: problem.GetReason(), Message: problem.GetMessage(), Metadata: problem.GetMetadata(),
	}
}
