package service

import (
	"context"
	"errors"
	"testing"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
)

// recorded keeps the problems.
type recorded struct{ problems []*kerrors.Error }

func (r *recorded) Problem(_ context.Context, problem *kerrors.Error) {
	r.problems = append(r.problems, problem)
}

// TestProblemIsTheErrorOfACall: an item's problem has the reason, the text and the metadata that a call for it alone would return,
// without the cause, which is recorded.
func TestProblemIsTheErrorOfACall(t *testing.T) {
	for name, row := range domainErrors {
		seen := new(recorded)
		s := &LinkService{problems: seen}
		public := PublicError(row.err)
		problem := s.problem(t.Context(), row.err)
		require.Equal(t, row.reason.String(), problem.GetReason(), name)
		require.Equal(t, public.Message, problem.GetMessage(), name)
		require.Equal(t, public.Metadata, problem.GetMetadata(), name)
		require.Len(t, seen.problems, 1, name)
	}
	seen := new(recorded)
	s := &LinkService{problems: seen}
	problem := s.problemOf(t.Context(), "alice", errors.New("the secret cause"))
	require.Equal(t, "alice", problem.GetUid())
	require.Equal(t, v1.ErrorReason_INTERNAL.String(), problem.GetReason())
	require.NotContains(t, problem.GetMessage(), "secret")
	require.ErrorContains(t, seen.problems[0].Unwrap(), "the secret cause")
	require.Nil(t, s.problem(t.Context(), nil))
	require.Len(t, seen.problems, 1)
}

// TestEveryBatchHasProblems: the operations whose items may have problems are known to the metrics.
func TestEveryBatchHasProblems(t *testing.T) {
	for _, method := range v1.Methods() {
		fields := method.Output().Fields()
		has := fields.ByName("problems") != nil
		if results := fields.ByName("results"); results != nil {
			has = has || results.Message().Fields().ByName("problem") != nil
		}
		require.Equal(t, has, HasProblems(v1.Operation(method)), method.FullName())
	}
}

// twoLinks is a LinkRepo whose batches have one link and one failure.
type twoLinks struct{ biz.LinkRepo }

func (twoLinks) BatchSet(_ context.Context, key biz.ServiceKey, items []biz.SetItem) []biz.ChangeResult {
	results := make([]biz.ChangeResult, len(items))
	for i, item := range items {
		link := biz.LinkKey{Namespace: key.Namespace, UID: item.UID, Service: key.Service}
		results[i].LinkChange = biz.LinkChange{Previous: biz.NoPod, Link: biz.NoLink(link)}
	}
	results[0].LinkChange = biz.LinkChange{
		Applied: true, Previous: 4, Link: biz.Link{Key: results[0].Link.Key, Pod: items[0].Pod, TTL: items[0].TTL, Epoch: 7},
	}
	results[1].Err = biz.ErrOutcomeUnknown
	return results
}

// TestItemsOfABatch: each item has its result or its problem, in the order of the request.
func TestItemsOfABatch(t *testing.T) {
	seen := new(recorded)
	s := NewLinkService(biz.NewLinkUsecase(twoLinks{}, nil, biz.Limits{MaxBatch: 2}, biz.NopObserver{}), seen)
	pod := int32(1)
	reply, err := s.BatchSetLinkedPod(t.Context(), &v1.BatchSetLinkedPodRequest{
		Namespace: "game", Service: "room", Items: []*v1.BatchSetLinkedPodRequest_Item{{Uid: "a", PodId: &pod}, {Uid: "b", PodId: &pod}},
	})
	require.NoError(t, err)
	done, failed := reply.GetResults()[0], reply.GetResults()[1]
	require.True(t, done.GetLinked())
	require.EqualValues(t, 4, done.GetPreviousPodId())
	require.EqualValues(t, 1, done.GetLink().GetPodId())
	require.Nil(t, done.GetProblem())
	require.False(t, failed.GetLinked())
	require.Equal(t, "b", failed.GetLink().GetUid())
	require.EqualValues(t, -1, failed.GetLink().GetPodId(), "never pod 0")
	require.Equal(t, v1.ErrorReason_OUTCOME_UNKNOWN.String(), failed.GetProblem().GetReason())
	require.Len(t, seen.problems, 1)
}
