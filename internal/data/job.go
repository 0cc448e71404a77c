package data

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"podlink/internal/biz"
	"podlink/internal/rdb"
)

const (
	// maxJobs is the setting of JobLimits.MaxJobs.
	maxJobs = "limits.max_jobs"
	// creationMs is how long a queued job may take until it exists. Later it never will: its podlink has died.
	creationMs = 60_000
)

type jobRepo struct {
	store
	maxJobs int
}

// JobLimits are the limits on stored jobs.
type JobLimits struct {
	MaxJobs int // that have not ended
}

// NewJobRepo returns the repo of the jobs in the store.
func NewJobRepo(runner *rdb.Runner, keys Keyspace, limits JobLimits) biz.JobRepo {
	return jobRepo{store{runner, keys}, limits.MaxJobs}
}

// Create implements biz.JobRepo. The queue comes first: a job that is not in it would never run. A job that is there and was not
// created is dropped by whoever finds it.
func (r jobRepo) Create(ctx context.Context, job biz.Job) (biz.Job, error) {
	spec, err := encodeSpec(job.Spec)
	if err != nil {
		return biz.Job{}, err
	}
	reply, err := r.run(ctx, scriptQueueJob, r.keys.jobQueue(), queued(job.Key), r.maxJobs)
	if err != nil {
		return biz.Job{}, notCreated(err)
	}
	if reply.Status() == "LIMITED" {
		return biz.Job{}, &biz.LimitError{Limit: maxJobs}
	}
	reply, err = r.run(ctx, scriptCreateJob, r.keys.job(job.Key), spec, job.CreatedBy)
	if err != nil {
		return biz.Job{}, err
	}
	created, _, err := jobReply(reply, job.Key)
	if err != nil {
		return biz.Job{}, err
	}
	r.list(ctx, created)
	return created, unconfirmed(reply, nil)
}

// notCreated is the error of a step before the one that creates.
func notCreated(err error) error {
	if errors.Is(err, biz.ErrOutcomeUnknown) {
		return fmt.Errorf("%w: %v", biz.ErrStoreUnavailable, err) //nolint:errorlint // The class changes on purpose.
	}
	return err
}

// list puts a job into the list of its namespace. It may fail: whoever takes the job lists it again.
func (r jobRepo) list(ctx context.Context, job biz.Job) {
	_, _ = r.run(ctx, scriptListJob, r.keys.jobs(job.Key.Namespace), listed(job))
}

// unqueue drops a job from the queue that was there for so long. It may fail: whoever finds it drops it again.
func (r jobRepo) unqueue(ctx context.Context, key biz.JobKey, forMs int) {
	_, _ = r.run(ctx, scriptUnqueueJob, r.keys.jobQueue(), queued(key), forMs)
}

// queued is the member of the queue for a job.
func queued(key biz.JobKey) string { return key.Namespace + ":" + key.ID }

// listed is the member of the list for a job: sorted by time.
func listed(job biz.Job) string { return fmt.Sprintf("%013d-%s", job.CreateMs, job.Key.ID) }

// Get implements biz.JobRepo.
func (r jobRepo) Get(ctx context.Context, key biz.JobKey) (biz.Job, error) {
	jobs, err := r.read(ctx, []biz.JobKey{key})
	if err != nil {
		return biz.Job{}, err
	}
	if jobs[0] == nil {
		return biz.Job{}, biz.ErrJobNotFound
	}
	return *jobs[0], nil
}

// jobFields are the fields of a job's hash, in the order of a described job after the time of the call.
var jobFields = []any{"created", "started", "ended", "lease", "state", "spec", "by", "progress"}

// read returns the jobs with the keys, nil for one that does not exist.
func (r jobRepo) read(ctx context.Context, keys []biz.JobKey) ([]*biz.Job, error) {
	reads := make([][]any, len(keys))
	for i, key := range keys {
		reads[i] = append([]any{"hmget", r.keys.job(key)}, jobFields...)
	}
	results, err := r.runner.ReadAll(ctx, keyJob, reads)
	if err != nil {
		return nil, domainError(err)
	}
	jobs := make([]*biz.Job, len(keys))
	for i, key := range keys {
		if err := results[i].Err; err != nil {
			return nil, domainError(err)
		}
		values, _ := results[i].Value.([]any)
		if len(values) != len(jobFields) {
			return nil, fmt.Errorf("HMGET answered %T", results[i].Value)
		}
		fields, found := texts(values)
		if found == 0 {
			continue
		}
		job, _, err := jobOf(key, fields)
		if err != nil {
			return nil, err
		}
		jobs[i] = &job
	}
	return jobs, nil
}

// texts returns the values as texts, "" for one that is not there, and how many are there.
func texts(values []any) (fields []string, found int) {
	fields = make([]string, len(values))
	for i, value := range values {
		text, ok := value.(string)
		if ok {
			found++
		}
		fields[i] = text
	}
	return fields, found
}

// List implements biz.JobRepo.
func (r jobRepo) List(ctx context.Context, namespace, after string, n int) ([]biz.ListedJob, error) {
	for {
		members, err := r.members(ctx, namespace, after, n)
		if err != nil || len(members) == 0 {
			return nil, err
		}
		keys := make([]biz.JobKey, len(members))
		for i, member := range members {
			_, id, _ := strings.Cut(member, "-")
			keys[i] = biz.JobKey{Namespace: namespace, ID: id}
		}
		jobs, err := r.read(ctx, keys)
		if err != nil {
			return nil, err
		}
		var found []biz.ListedJob
		for i, job := range jobs {
			if job != nil {
				found = append(found, biz.ListedJob{Job: *job, At: members[i]})
			}
		}
		if len(found) > 0 {
			return found, nil
		}
		after = members[len(members)-1]
	}
}

// members returns members of the list of a namespace after one of them, the latest first.
func (r jobRepo) members(ctx context.Context, namespace, after string, n int) ([]string, error) {
	from := "+"
	if after != "" {
		from = "(" + after
	}
	value, call, err := r.runner.Read(ctx, keyJobs, "zrevrangebylex", r.keys.jobs(namespace), from, "-", "limit", 0, n)
	if err != nil {
		return nil, domainError(err)
	}
	members, err := memberTexts(value)
	call.Decoded(err)
	return members, err
}

// memberTexts returns the members in a reply.
func memberTexts(value any) ([]string, error) {
	values, ok := value.([]any)
	if !ok && value != nil {
		return nil, fmt.Errorf("a range answered %T", value)
	}
	var p parser
	members := make([]string, len(values))
	for i, value := range values {
		text, _ := value.(string)
		members[i] = p.text(text)
	}
	return members, p.err
}

// Cancel implements biz.JobRepo.
func (r jobRepo) Cancel(ctx context.Context, key biz.JobKey) (biz.Job, error) {
	reply, err := r.run(ctx, scriptCancelJob, r.keys.job(key))
	if err != nil {
		return biz.Job{}, err
	}
	if reply.Status() == "ABSENT" {
		return biz.Job{}, biz.ErrJobNotFound
	}
	job, _, err := jobReply(reply, key)
	if err != nil {
		return biz.Job{}, err
	}
	if job.State.Ended() {
		r.unqueue(ctx, key, 0)
	}
	return job, unconfirmed(reply, nil)
}

// Unfinished implements biz.JobRepo.
func (r jobRepo) Unfinished(ctx context.Context) ([]biz.JobKey, error) {
	value, call, err := r.runner.Read(ctx, keyJobQueue, "zrange", r.keys.jobQueue(), 0, -1)
	if err != nil {
		return nil, domainError(err)
	}
	members, err := memberTexts(value)
	call.Decoded(err)
	keys := make([]biz.JobKey, len(members))
	for i, member := range members {
		keys[i].Namespace, keys[i].ID, _ = strings.Cut(member, ":")
	}
	return keys, err
}

// Take implements biz.JobRepo.
func (r jobRepo) Take(ctx context.Context, key biz.JobKey) (biz.Job, biz.JobLease, error) {
	reply, err := r.run(ctx, scriptTakeJob, r.keys.job(key), biz.JobLeaseTTL.Milliseconds())
	if err != nil {
		return biz.Job{}, 0, err
	}
	switch reply.Status() {
	case "BUSY":
		return biz.Job{}, 0, biz.ErrJobTaken
	case "ENDED":
		r.unqueue(ctx, key, 0)
		return biz.Job{}, 0, biz.ErrJobNotFound
	case "ABSENT":
		r.unqueue(ctx, key, creationMs)
		return biz.Job{}, 0, biz.ErrJobNotFound
	}
	job, lease, err := jobReply(reply, key)
	if err != nil {
		return biz.Job{}, 0, err
	}
	r.list(ctx, job)
	return job, lease, nil
}

// Save implements biz.JobRepo.
func (r jobRepo) Save(
	ctx context.Context, key biz.JobKey, lease biz.JobLease, state biz.JobState, progress biz.JobProgress,
) (cancel bool, _ error) {
	text, err := encodeProgress(progress)
	if err != nil {
		return false, err
	}
	reply, err := r.run(ctx, scriptSaveJob, r.keys.job(key), int64(lease), stateText(state), text, biz.JobLeaseTTL.Milliseconds())
	if err != nil {
		return false, err
	}
	if reply.Status() == "LOST" {
		return false, biz.ErrLeaseLost
	}
	fields, err := reply.Fields(1, 1)
	if err != nil {
		return false, err
	}
	if state.Ended() {
		r.unqueue(ctx, key, 0)
	}
	return fields[0] == "1", nil
}

// jobReply returns the job that a script has described.
func jobReply(reply rdb.Reply, key biz.JobKey) (biz.Job, biz.JobLease, error) {
	fields, err := reply.Fields(1, 1+len(jobFields))
	if err != nil {
		return biz.Job{}, 0, err
	}
	job, lease, err := jobOf(key, fields[1:])
	if err != nil {
		return biz.Job{}, 0, err
	}
	job.NowMs, err = strconv.ParseInt(fields[0], 10, 64)
	return job, lease, err
}

// jobOf parses the fields of a job, in the order of jobFields.
func jobOf(key biz.JobKey, fields []string) (biz.Job, biz.JobLease, error) {
	var p parser
	job := biz.Job{
		Key: key, CreatedBy: fields[6], State: p.state(fields[4]), Spec: p.spec(fields[5]), Progress: p.progress(fields[7]),
		CreateMs: p.number(fields[0], 1, maxTime), StartMs: p.number(fields[1], 0, maxTime), EndMs: p.number(fields[2], 0, maxTime),
	}
	lease := biz.JobLease(p.number(fields[3], 0, math.MaxInt64))
	if p.err != nil {
		return biz.Job{}, 0, p.err
	}
	return job, lease, nil
}
