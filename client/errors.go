package client

import (
	"errors"
	"strconv"

	kerrors "github.com/go-kratos/kratos/v2/errors"

	v1 "podlink/api/podlink/v1"
)

// What podlink answers, for errors.Is. The error itself is a Kratos error: its message says more, and so may its metadata.
//
// An answer that is not podlink's, as a proxy's 403, is returned as it came where it proves that nothing was carried out.
var (
	// ErrInvalidArgument: the request is malformed, too large to be sent, or can't be encoded; metadata "field" names the field if
	// it is one.
	ErrInvalidArgument error = v1.ErrorInvalidArgument("the request is malformed")
	// ErrPodNotFound: the pod has no report.
	ErrPodNotFound error = v1.ErrorPodNotFound("the pod has no report")
	// ErrWorkloadNotFound: the workload's state was never set.
	ErrWorkloadNotFound error = v1.ErrorWorkloadNotFound("the workload's state was never set")
	// ErrEpochMismatch: expected_epoch is not the link's epoch. Nothing has changed.
	ErrEpochMismatch error = v1.ErrorEpochMismatch("the link has another epoch")
	// ErrSuperseded: another process has taken over the pod; metadata "generation" is that of the other, and "final" is "true" if
	// this one was replaced for good. Nothing has changed.
	ErrSuperseded error = v1.ErrorSuperseded("another process has taken over the pod")
	// ErrLimitExceeded: a count is at its limit; metadata "limit" names podlink's setting. Nothing has changed.
	ErrLimitExceeded error = v1.ErrorLimitExceeded("a limit is reached")
	// ErrNoAvailablePod: no pod takes new links. Nothing has changed.
	ErrNoAvailablePod error = v1.ErrorNoAvailablePod("no pod takes new links")
	// ErrStoreUnavailable: podlink can't use its store. The call was not carried out.
	ErrStoreUnavailable error = v1.ErrorStoreUnavailable("podlink's store is unavailable")
	// ErrStoreFull: podlink's store is out of memory. The call was not carried out.
	ErrStoreFull error = v1.ErrorStoreFull("podlink's store is full")
	// ErrOutcomeUnknown: the answer to a mutation was lost, or is not podlink's: it may or may not have been carried out. Read, then
	// decide.
	ErrOutcomeUnknown error = v1.ErrorOutcomeUnknown("the answer was lost: the change may or may not have been made")
	// ErrReplicationUnconfirmed: the change was carried out, but might be lost if podlink's store fails over now.
	ErrReplicationUnconfirmed error = v1.ErrorReplicationUnconfirmed("too few replicas have confirmed the change")
	// ErrDeadlineExceeded: podlink was reached, but a read ran out of time.
	ErrDeadlineExceeded error = v1.ErrorDeadlineExceeded("podlink did not answer in time")
	// ErrUnauthenticated: podlink does not know who calls: Options has no TokenFile, Token or client certificate, or podlink refuses
	// them, or they failed before the call was sent. The message says which. Nothing has changed.
	ErrUnauthenticated error = v1.ErrorUnauthenticated("the credentials are missing or not valid")
	// ErrPermissionDenied: podlink's policy does not permit the call to this caller. Nothing has changed.
	ErrPermissionDenied error = v1.ErrorPermissionDenied("the credentials do not permit this call")
	// ErrRateLimited: this caller has exceeded its rate limit; metadata "retry_after_ms" is when to try again. Nothing has changed.
	ErrRateLimited error = v1.ErrorRateLimited("the rate limit is exceeded")
	// ErrCanceled: the caller left before podlink answered; nothing was carried out.
	ErrCanceled error = v1.ErrorCanceled("the caller left")
)

// What this package answers by itself.
var (
	// ErrUnavailable: podlink can't be reached, or the client is closed. Nothing was carried out.
	ErrUnavailable error = kerrors.New(503, "PODLINK_UNAVAILABLE", "podlink does not answer")
	// ErrWrongPod is a Guard's: the pod does not hold the user. Metadata "namespace", "service" and "uid" name the link, "pod_id" and
	// "epoch" are the link's (-1 and 0: there is none, or it is not known), and "refused_by" is the pod that answers. Nothing was
	// carried out.
	ErrWrongPod error = kerrors.New(409, "WRONG_POD", "this pod does not hold the user")
	// ErrLinkUncertain is a Guard's: podlink has not said whose the user is, and the pod can't know by itself. The metadata is that of
	// ErrWrongPod, but "pod_id" is the pod that answers, and "epoch" the one that it knows; 0: none. Nothing was carried out.
	ErrLinkUncertain error = kerrors.New(503, "LINK_UNCERTAIN", "podlink does not answer, so this pod can't know whether it holds the user")
	// ErrUIDRequired is a Guard's: the request names no user, and its operation is not one of AgentOptions.Public. Nothing was carried
	// out.
	ErrUIDRequired error = kerrors.New(400, "UID_REQUIRED", "the request names no user")
	// ErrUIDMismatch is a Guard's: what AgentOptions.UID and Match find in the request differs, or a message of a stream names another
	// user than the ones before. Nothing was carried out.
	ErrUIDMismatch error = kerrors.New(400, "UID_MISMATCH", "the request names two users")
	// ErrPodUnreachable is a Router's: the pod that holds the user could not be called in time. Metadata "pod_id" says which.
	// Nothing was carried out.
	ErrPodUnreachable error = kerrors.New(503, "POD_UNREACHABLE", "the pod that holds the user can't be reached")
)

// errMiswired is the error of a call that has gone to any pod.
var errMiswired error = kerrors.New(500, "ROUTER_MISWIRED", "the client has the router's Middleware or StreamInterceptor, but not its "+
	"NodeFilter (WithNodeFilter): the call has gone to any pod")

// errClosed is why a call of a closed client is ErrUnavailable.
var errClosed = errors.New("the client is closed")

// malformed is what podlink would answer to a request that can't be sent to it.
func malformed(field, how string) error {
	return withCause(v1.ErrorInvalidArgument("%s %s", field, how), nil, "field", field)
}

// withCause returns the error with a cause, and with metadata in pairs of name and value.
func withCause(err, cause error, metadata ...string) error {
	e := kerrors.FromError(err).WithCause(cause)
	for i := 0; i+1 < len(metadata); i += 2 {
		e.Metadata[metadata[i]] = metadata[i+1]
	}
	return e
}

// The metadata of ErrWrongPod and ErrLinkUncertain, beside MetadataPodID.
const (
	metadataNamespace = "namespace"
	metadataService   = "service"
	metadataUID       = "uid"
	metadataEpoch     = "epoch"
	metadataRefusedBy = "refused_by"
)

func number[T int32 | int64](n T) string { return strconv.FormatInt(int64(n), 10) }
