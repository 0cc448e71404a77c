package biz

import (
	"context"
	"time"
)

// JobLeaseTTL is how long the lease of a job lasts without a Save: after it another process takes the job over.
const JobLeaseTTL = 5 * time.Second

// JobKind is what a job does.
type JobKind string

// The kinds of jobs.
const (
	// Relocate cordons a pod, and moves the links to it to other pods.
	Relocate JobKind = "RELOCATE"
	// Release makes the links to a pod temporary that its earlier processes have claimed.
	Release JobKind = "RELEASE"
	// RemoveAll removes the links, pods and workloads of a service, or of all services of a namespace.
	RemoveAll JobKind = "REMOVE"
	// Verify compares the links of a service, or of a namespace, with the index and the pods.
	Verify JobKind = "VERIFY"
)

// JobState is how far a job is.
type JobState string

// The states of jobs.
const (
	JobPending   JobState = "PENDING"
	JobRunning   JobState = "RUNNING"
	JobDone      JobState = "DONE"
	JobCancelled JobState = "CANCELLED"
	JobFailed    JobState = "FAILED"
)

// Ended reports whether the state is final.
func (s JobState) Ended() bool { return s != JobPending && s != JobRunning }

// JobKey identifies a job.
type JobKey struct {
	Namespace, ID string
}

// JobSpec is what a job has to do.
type JobSpec struct {
	Kind    JobKind
	Service string // "": all services of the namespace
	Pod     PodID  // NoPod: none
	Rate    int32  // steps a second; 0: as many as podlink allows
	DryRun  bool   // nothing is changed, and Done counts what would be
	Reason  string // for people

	Grace  int32      // Relocate: seconds in which links may end by themselves
	Keep   int32      // Release: how long the links last, in seconds
	Below  Generation // Release: links with a claim below it
	Repair bool       // Verify: the index is repaired
}

// Job is a job that was asked for.
type Job struct {
	Key       JobKey
	Spec      JobSpec
	CreatedBy string
	State     JobState
	Progress  JobProgress

	// Times by the store's clock, in ms since 1970; 0: not yet.
	CreateMs, StartMs, EndMs int64
	NowMs                    int64 // when the job was read; set by Take
}

// JobProgress is what the job has done.
type JobProgress struct {
	Seen    int64 // links that it has looked at; one that it meets again counts again
	Done    int64 // links that it has changed
	Skipped int64 // links that were not, or no longer, to be changed
	Failed  int64 // steps that have failed; the job tries each again, as far as that can help
	Faults  JobFaults
	Note    string // what it waits for; "": nothing
	Error   string // why it has failed; "": it has not
	Cursor  string // where it goes on
}

// JobFaults are how many faults a Verify has found.
type JobFaults struct {
	EntriesWithoutLink int64 // entries of the index whose link does not exist, or is to another pod
	LinksWithoutEntry  int64 // links that the index lacks
	LinksWithoutPod    int64 // links to a pod that has no report
	ForeignFields      int64 // fields of links that podlink did not write
	KeysWithoutExpiry  int64 // keys with temporary links only that do not expire
}

// JobLease is the right to run a job. A later lease has a greater number.
type JobLease int64

// JobRepo stores jobs. Mutations must satisfy the rules of LinkRepo.
type JobRepo interface {
	// Create stores the job, of which it uses key, spec and creator, as JobPending. If there is one with the key, it must change
	// nothing. It returns the stored job. It must return *LimitError if too many jobs have not ended.
	Create(ctx context.Context, job Job) (Job, error)
	// Get must return ErrJobNotFound for a job that was never created, or has ended more than a week ago.
	Get(ctx context.Context, key JobKey) (Job, error)
	// List returns at most n jobs of the namespace after a position, the latest first, each with its position. "" is before the
	// latest. It may omit jobs that were created more than 30 days ago.
	List(ctx context.Context, namespace, after string, n int) ([]ListedJob, error)
	// Cancel ends a pending job as JobCancelled. For a running one it notes that it is to be cancelled, of which Save tells. It must not
	// change a job that has ended.
	Cancel(ctx context.Context, key JobKey) (Job, error)
	// Unfinished returns the jobs that have not ended, the oldest first. It may return some that have.
	Unfinished(ctx context.Context) ([]JobKey, error)
	// Take gives the caller the lease of a job for JobLeaseTTL, if it has not ended and nobody has its lease. It must return
	// ErrJobTaken if somebody has, and ErrJobNotFound if the job does not exist or has ended. The job is JobRunning then.
	Take(ctx context.Context, key JobKey) (Job, JobLease, error)
	// Save stores the state and the progress, and renews the lease for JobLeaseTTL; with JobPending it ends the lease, so that another
	// process can take it at once, and the job stays JobRunning. It must return ErrLeaseLost, and change nothing, if there was a later
	// lease or the job has ended. cancel is set if the job is to be cancelled.
	Save(ctx context.Context, key JobKey, lease JobLease, state JobState, progress JobProgress) (cancel bool, err error)
}

// ListedJob is a job of a list.
type ListedJob struct {
	Job
	At string // its position
}

// KeyScanner reads what is stored, as it is: also what podlink did not write.
type KeyScanner interface {
	// ScanKeys returns the keys of links in a part of the store, at most about n, and the token of the next part, "" after the last one.
	// It walks, and fails, as IndexRepo.ScanLinks does.
	ScanKeys(ctx context.Context, token string, n int) (keys []StoredLinks, next string, err error)
	// Indexed returns for each of the uids whether the index of the pod has an entry of it that is not uncertain. A pod that is not among
	// IndexRepo.IndexedPods has none.
	Indexed(ctx context.Context, key ServiceKey, pod PodID, uids []string) ([]bool, error)
}

// StoredLinks is the key with all links of a uid.
type StoredLinks struct {
	Namespace, UID string
	Links          []Link   // the live ones
	Foreign        []string // the services whose fields podlink did not write; "": the key itself
	Unending       bool     // all links are temporary, and the key does not expire
}
