package biz

import (
	"errors"
	"fmt"
)

// The errors of this package and of its repos. They are told apart with errors.Is; whatever wraps them is for the log
// only and never reaches a caller.
var (
	// ErrPodNotFound: the pod has never reported.
	ErrPodNotFound = errors.New("the pod has never reported")
	// ErrWorkloadNotFound: the workload's state was never set.
	ErrWorkloadNotFound = errors.New("the workload's state was never set")
	// ErrNoAvailablePod: no pod of the service takes new links; nothing has changed.
	ErrNoAvailablePod = errors.New("no pod of the service takes new links")
	// ErrStoreUnavailable: the call was not carried out; repeating it is safe.
	ErrStoreUnavailable = errors.New("the store is unavailable")
	// ErrStoreFull: the store is out of memory; the call was not carried out.
	ErrStoreFull = errors.New("the store is out of memory")
	// ErrOutcomeUnknown: the reply of a mutation was lost; it may or may not have been carried out.
	ErrOutcomeUnknown = errors.New("the reply of the store was lost")
	// ErrDeadlineExceeded: a read ran out of time.
	ErrDeadlineExceeded = errors.New("the read ran out of time")
	// ErrCanceled: the caller left before the call was sent to the store.
	ErrCanceled = errors.New("the caller left")
	// ErrStoreDataCorrupt: a key holds what podlink did not write; it was left as it is.
	ErrStoreDataCorrupt = errors.New("the store holds data that podlink did not write")
)

// InvalidArgumentError says which field of a request is malformed, and what it should be.
type InvalidArgumentError struct {
	Field  string // as the API spells it in protobuf: "pod_id"
	Detail string // completes "<field> …": "must be 0 … 2147483647"
}

// Error implements error.
func (e *InvalidArgumentError) Error() string { return e.Field + " " + e.Detail }

// UnconfirmedError says that a mutation was carried out, but that fewer replicas of the store than asked for have
// confirmed it in time: should the store fail over now, the mutation may be lost.
type UnconfirmedError struct {
	Link  *Link // what stands after the mutation; nil when it was not on a link
	Cause error // what the replicas have answered, for the log
}

// Error implements error.
func (e *UnconfirmedError) Error() string {
	return "carried out, but not confirmed by replicas: " + e.Cause.Error()
}

// Unwrap returns the cause.
func (e *UnconfirmedError) Unwrap() error { return e.Cause }

// EpochMismatchError says that a link's epoch is not the expected one; nothing has changed.
type EpochMismatchError struct {
	Current Link // what stands
}

// Error implements error.
func (e *EpochMismatchError) Error() string {
	if !e.Current.Exists() {
		return "the link has another epoch than expected: there is no link"
	}
	return fmt.Sprintf("the link has another epoch than expected: it is to pod %d with epoch %d", e.Current.Pod, e.Current.Epoch)
}
