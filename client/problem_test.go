package client

import (
	"context"
	"slices"
	"testing"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
)

// constructors make podlink's errors: the generated code, one by one.
var constructors = map[v1.ErrorReason]func(string, ...any) *kerrors.Error{
	v1.ErrorReason_INTERNAL: v1.ErrorInternal, v1.ErrorReason_INVALID_ARGUMENT: v1.ErrorInvalidArgument,
	v1.ErrorReason_POD_NOT_FOUND: v1.ErrorPodNotFound, v1.ErrorReason_WORKLOAD_NOT_FOUND: v1.ErrorWorkloadNotFound,
	v1.ErrorReason_EPOCH_MISMATCH: v1.ErrorEpochMismatch, v1.ErrorReason_NO_AVAILABLE_POD: v1.ErrorNoAvailablePod,
	v1.ErrorReason_STORE_UNAVAILABLE: v1.ErrorStoreUnavailable, v1.ErrorReason_STORE_FULL: v1.ErrorStoreFull,
	v1.ErrorReason_OUTCOME_UNKNOWN: v1.ErrorOutcomeUnknown, v1.ErrorReason_DEADLINE_EXCEEDED: v1.ErrorDeadlineExceeded,
	v1.ErrorReason_CANCELED: v1.ErrorCanceled, v1.ErrorReason_STORE_DATA_CORRUPT: v1.ErrorStoreDataCorrupt,
	v1.ErrorReason_UNAUTHENTICATED: v1.ErrorUnauthenticated, v1.ErrorReason_PERMISSION_DENIED: v1.ErrorPermissionDenied,
	v1.ErrorReason_RATE_LIMITED: v1.ErrorRateLimited, v1.ErrorReason_NOT_FOUND: v1.ErrorNotFound,
	v1.ErrorReason_METHOD_NOT_ALLOWED: v1.ErrorMethodNotAllowed, v1.ErrorReason_UNSUPPORTED_MEDIA_TYPE: v1.ErrorUnsupportedMediaType,
	v1.ErrorReason_BODY_TOO_LARGE: v1.ErrorBodyTooLarge, v1.ErrorReason_REPLICATION_UNCONFIRMED: v1.ErrorReplicationUnconfirmed,
	v1.ErrorReason_SUPERSEDED: v1.ErrorSuperseded, v1.ErrorReason_LIMIT_EXCEEDED: v1.ErrorLimitExceeded,
	v1.ErrorReason_NOT_READY: v1.ErrorNotReady, v1.ErrorReason_INDEX_DISABLED: v1.ErrorIndexDisabled,
	v1.ErrorReason_JOB_NOT_FOUND: v1.ErrorJobNotFound,
}

// ofWholeCalls are the reasons why podlink refuses a call before it looks at its items. Those of a call say what to do, too.
var ofWholeCalls = []string{"UNAUTHENTICATED", "PERMISSION_DENIED", "RATE_LIMITED", reasonNotReady}

// TestProblemIsTheCallsError: an item's problem is the error that a call for the item alone returns, over both transports and for
// each reason: its code, which HTTP and gRPC can tell, its message and its metadata.
func TestProblemIsTheCallsError(t *testing.T) {
	t.Parallel()
	require.Len(t, constructors, len(v1.ErrorReason_name))
	for reason, constructor := range constructors {
		answer := constructor("what is wrong with %s", "it").WithMetadata(map[string]string{"field": "uid"})
		problem := problemError(&v1.Problem{Reason: reason.String(), Message: answer.GetMessage(), Metadata: answer.GetMetadata()})
		require.Equal(t, answer.Error(), problem.Error())
		if slices.Contains(ofWholeCalls, reason.String()) {
			continue
		}
		t.Run(reason.String(), func(t *testing.T) {
			overBoth(t, func(t *testing.T, http bool) {
				s := served(t, http, nil, func(context.Context) error { return answer })
				o := Options{HTTP: http}
				if reason == v1.ErrorReason_STORE_UNAVAILABLE || reason == v1.ErrorReason_NOT_READY {
					o.Timeout = hangTimeout
				}
				c := dialed(t, s.addr, o)
				err := atItsEnd(problem, func() error {
					_, err := setLink(t.Context(), c)
					return err
				})
				require.ErrorIs(t, err, problem)
				require.Equal(t, kerrors.FromError(problem).GetCode(), kerrors.FromError(err).GetCode())
				require.Equal(t, kerrors.FromError(problem).GetMessage(), kerrors.FromError(err).GetMessage())
				require.Equal(t, kerrors.FromError(problem).GetMetadata(), kerrors.FromError(err).GetMetadata())
			})
		})
	}
	require.NoError(t, problemError(nil))
	require.EqualValues(t, kerrors.UnknownCode, kerrors.Code(problemError(&v1.Problem{Reason: "OF_A_NEWER_PODLINK"})))
}
