// Package service implements the API's services on the use cases: it converts messages to and from the domain, and domain
// errors to API errors.
package service

import (
	"errors"
	"strconv"

	kerrors "github.com/go-kratos/kratos/v2/errors"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
)

// reasons maps the sentinel errors of the domain to their reasons and public texts. The HTTP code of a reason is in
// api/podlink/v1/error_reason.proto.
var reasons = []struct {
	err     error
	newf    func(format string, args ...any) *kerrors.Error
	message string
}{
	{biz.ErrPodNotFound, v1.ErrorPodNotFound, "this pod has no report"},
	{biz.ErrWorkloadNotFound, v1.ErrorWorkloadNotFound, "the state of this workload was never set"},
	{biz.ErrJobNotFound, v1.ErrorJobNotFound, "there is no such job; jobs disappear a week after their end"},
	{biz.ErrNoAvailablePod, v1.ErrorNoAvailablePod, "no pod of this service takes new links; nothing has changed"},
	{biz.ErrOutcomeUnknown, v1.ErrorOutcomeUnknown, "the store's reply was lost and the call may have been carried out: read, then decide"},
	{biz.ErrCanceled, v1.ErrorCanceled, "the caller left; nothing has changed"},
	{biz.ErrDeadlineExceeded, v1.ErrorDeadlineExceeded, "the store did not answer in time"},
	{biz.ErrStoreFull, v1.ErrorStoreFull, "the store is out of memory; nothing has changed; reads and removals still work"},
	{biz.ErrStoreDataCorrupt, v1.ErrorStoreDataCorrupt, "the store holds data here that podlink did not write; it was left as it is"},
	{biz.ErrIndexDisabled, v1.ErrorIndexDisabled, "this podlink keeps no index of the links: fleet.index is false"},
	{biz.ErrStoreUnavailable, v1.ErrorStoreUnavailable, "the store is unavailable; nothing has changed; it is safe to retry"},
}

// PublicError converts err to the error that the caller gets: a reason, a fixed text and metadata. The cause stays attached
// for the log and is never part of a reply.
func PublicError(err error) *kerrors.Error {
	var public *kerrors.Error
	if errors.As(err, &public) {
		return public
	}
	var invalid *biz.InvalidArgumentError
	if errors.As(err, &invalid) {
		return v1.ErrorInvalidArgument("%s", invalid.Error()).WithMetadata(map[string]string{"field": invalid.Field})
	}
	var mismatch *biz.EpochMismatchError
	if errors.As(err, &mismatch) {
		metadata := linkMetadata(mismatch.Current)
		metadata["claim"] = strconv.FormatInt(int64(mismatch.Current.Claim), 10)
		return v1.ErrorEpochMismatch("%s; nothing has changed", mismatch.Error()).WithMetadata(metadata)
	}
	var superseded *biz.SupersededError
	if errors.As(err, &superseded) {
		return supersededError(superseded)
	}
	var limit *biz.LimitError
	if errors.As(err, &limit) {
		return v1.ErrorLimitExceeded("%s; nothing has changed: remove what is no longer needed, or raise the limit", limit.Error()).
			WithMetadata(map[string]string{"limit": limit.Limit})
	}
	var unconfirmed *biz.UnconfirmedError
	if errors.As(err, &unconfirmed) {
		public := v1.ErrorReplicationUnconfirmed("carried out, but not confirmed by enough replicas of the store in time: " +
			"a failover now may lose it").WithCause(err)
		if unconfirmed.Link != nil {
			public = public.WithMetadata(linkMetadata(*unconfirmed.Link))
		}
		return public
	}
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.newf("%s", r.message).WithCause(err)
		}
	}
	return Internal(err)
}

// supersededError says what the process that was refused has to do.
func supersededError(err *biz.SupersededError) *kerrors.Error {
	advice := "if this process reported before that one, it has to stop"
	if err.Final {
		advice = "this process was replaced for good and has to stop"
	}
	return v1.ErrorSuperseded("%s; nothing has changed: %s", err.Error(), advice).WithMetadata(map[string]string{
		"generation": strconv.FormatInt(int64(err.Generation), 10),
		"final":      strconv.FormatBool(err.Final),
	})
}

// linkMetadata returns the metadata that describes the current link.
func linkMetadata(link biz.Link) map[string]string {
	return map[string]string{
		"pod_id": strconv.Itoa(int(link.Pod)),
		"epoch":  strconv.FormatInt(int64(link.Epoch), 10),
	}
}

// Internal returns the error for any unexpected cause.
func Internal(cause error) *kerrors.Error {
	return v1.ErrorInternal("internal error; the log of podlink has the cause").WithCause(cause)
}
