package biz

import (
	"errors"
	"fmt"
)

// The errors of this package and of its repos. Match them with errors.Is. Text that wraps them is for the log only and
// never reaches a caller.
var (
	// ErrPodNotFound: the pod has no report.
	ErrPodNotFound = errors.New("the pod has no report")
	// ErrWorkloadNotFound: the state of the workload was never set.
	ErrWorkloadNotFound = errors.New("the workload's state was never set")
	// ErrNoAvailablePod: no pod of the service takes new links; nothing has changed.
	ErrNoAvailablePod = errors.New("no pod of the service takes new links")
	// ErrStoreUnavailable: the call was not executed; it is safe to retry.
	ErrStoreUnavailable = errors.New("the store is unavailable")
	// ErrStoreFull: the store is out of memory; the call was not executed.
	ErrStoreFull = errors.New("the store is out of memory")
	// ErrOutcomeUnknown: the reply to a mutation was lost; it may or may not have been executed.
	ErrOutcomeUnknown = errors.New("the reply of the store was lost")
	// ErrDeadlineExceeded: a read timed out.
	ErrDeadlineExceeded = errors.New("the read timed out")
	// ErrCanceled: the caller canceled the call before it was sent to the store.
	ErrCanceled = errors.New("the caller left")
	// ErrStoreDataCorrupt: a key holds a value that podlink did not write; it was left unchanged.
	ErrStoreDataCorrupt = errors.New("the store holds data that podlink did not write")
	// ErrJobNotFound: there is no job with this id.
	ErrJobNotFound = errors.New("there is no such job")
	// ErrIndexDisabled: this podlink keeps no index of the links by pod, which the call needs.
	ErrIndexDisabled = errors.New("this podlink keeps no index")
)

// InvalidArgumentError names the malformed field of a request and its rule.
type InvalidArgumentError struct {
	Field  string // its protobuf name: "pod_id"
	Detail string // completes "<field> …": "must be 0 … 2147483647"
}

// Error implements error.
func (e *InvalidArgumentError) Error() string { return e.Field + " " + e.Detail }

// UnconfirmedError is the error of a mutation that was executed, but confirmed by too few replicas of the store in time.
// If the store fails over now, the mutation may be lost.
type UnconfirmedError struct {
	Link  *Link // the link after the mutation; nil if the mutation was not of a link
	Cause error // for the log
}

// Error implements error.
func (e *UnconfirmedError) Error() string {
	return "executed, but not confirmed by replicas: " + e.Cause.Error()
}

// Unwrap returns the cause.
func (e *UnconfirmedError) Unwrap() error { return e.Cause }

// EpochMismatchError is the error of a mutation whose expected epoch is not that of the link; nothing has changed.
type EpochMismatchError struct {
	Current Link // the current link; NoLink if there is none
}

// Error implements error.
func (e *EpochMismatchError) Error() string {
	if !e.Current.Exists() {
		return "the link has another epoch than expected: there is no link"
	}
	return fmt.Sprintf("the link has another epoch than expected: it is to pod %d with epoch %d", e.Current.Pod, e.Current.Epoch)
}

// SupersededError is the error of a report or a claim of a process whose pod another process has taken over; nothing has
// changed.
type SupersededError struct {
	Generation Generation // the stored one
	Final      bool       // the process was replaced for good
}

// Error implements error.
func (e *SupersededError) Error() string {
	return fmt.Sprintf("another process has taken over the pod with generation %d", e.Generation)
}

// LimitError is the error of a mutation that would exceed a limit; nothing has changed.
type LimitError struct {
	Limit string // the setting: "limits.max_pods"
}

// Error implements error.
func (e *LimitError) Error() string { return e.Limit + " is reached" }

// ErrScanMoved is the error of IndexRepo.ScanLinks when the store has changed so that the walk may have missed links: begin again.
var ErrScanMoved = errors.New("the store has changed during the walk over all links")

// ErrJobTaken is the error of JobRepo.Take when another process runs the job.
var ErrJobTaken = errors.New("another process runs the job")

// ErrLeaseLost is the error of JobRepo.Save when another process may run the job, or the job has ended.
var ErrLeaseLost = errors.New("the lease of the job was lost")
