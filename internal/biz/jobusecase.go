package biz

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// jobPoll is the time between two reads of a job that is watched.
const jobPoll = time.Second

// JobUsecase implements the operations on jobs. internal/jobs carries them out.
type JobUsecase struct {
	jobs  JobRepo
	pods  *PodViews
	index bool
	rate  int32
}

// JobOptions are the settings of a JobUsecase.
type JobOptions struct {
	Index bool  // the index is kept: jobs about one pod need it
	Rate  int32 // steps a second of one job at most
}

// NewJobUsecase returns the use-case on the repos.
func NewJobUsecase(jobs JobRepo, pods *PodViews, o JobOptions) *JobUsecase {
	return &JobUsecase{jobs: jobs, pods: pods, index: o.Index, rate: o.Rate}
}

// Create asks for a job, and returns it. With a RequestID that a job of the namespace has it returns that job.
func (u *JobUsecase) Create(ctx context.Context, request NewJob, by string) (Job, error) {
	if err := request.validate(u.rate); err != nil {
		return Job{}, err
	}
	job := Job{Key: request.key(), Spec: request.spec(), CreatedBy: by}
	if request.RequestID != "" {
		stored, err := u.jobs.Get(ctx, job.Key)
		if !errors.Is(err, ErrJobNotFound) {
			return sameJob(stored, job.Spec, err)
		}
	}
	if err := u.possible(ctx, request.Namespace, job.Spec); err != nil {
		return Job{}, err
	}
	stored, err := u.jobs.Create(ctx, job)
	return sameJob(stored, job.Spec, err)
}

// sameJob returns the stored job if it is what was asked for: a request id is for one job.
func sameJob(stored Job, spec JobSpec, err error) (Job, error) {
	if err != nil {
		return Job{}, err
	}
	if stored.Spec != spec {
		return Job{}, &InvalidArgumentError{"request_id", "must not be that of another job"}
	}
	return stored, nil
}

// possible refuses a job that could not end.
func (u *JobUsecase) possible(ctx context.Context, namespace string, spec JobSpec) error {
	if !u.index {
		return ErrIndexDisabled
	}
	if spec.Kind != Relocate {
		return nil
	}
	return u.pods.OthersTakeLinks(ctx, ServiceKey{Namespace: namespace, Service: spec.Service}, spec.Pod)
}

// OthersTakeLinks returns ErrNoAvailablePod if no other pod of the service takes new links.
func (v *PodViews) OthersTakeLinks(ctx context.Context, key ServiceKey, pod PodID) error {
	pods, err := v.List(ctx, key)
	if err != nil {
		return err
	}
	takes := func(other Pod) bool {
		full := other.Capacity != NoCapacity && int64(other.Load)+other.Given >= int64(other.Capacity)
		return other.Pod != pod && other.Liveness == Live && other.Effective() == Ready && !full
	}
	if !slices.ContainsFunc(pods, takes) {
		return fmt.Errorf("%w: %s of %s, beside pod %d", ErrNoAvailablePod, key.Service, key.Namespace, pod)
	}
	return nil
}

// Get returns the job. sees says which services the caller may see; nil: all. A job of another service is not found.
func (u *JobUsecase) Get(ctx context.Context, key JobKey, sees func(ServiceKey) bool) (Job, error) {
	if err := key.validate(); err != nil {
		return Job{}, err
	}
	job, err := u.jobs.Get(ctx, key)
	if err == nil && !job.seenBy(sees) {
		err = ErrJobNotFound
	}
	return unlessMissing(job, err)
}

func unlessMissing(job Job, err error) (Job, error) {
	if err != nil {
		return Job{}, err
	}
	return job, nil
}

func (k JobKey) validate() error {
	return firstError(validateName("namespace", k.Namespace), validateName("job", k.ID))
}

// seenBy reports whether a caller may see the job. One about a whole namespace is for those who may see any service of it.
func (j *Job) seenBy(sees func(ServiceKey) bool) bool {
	return sees == nil || sees(ServiceKey{Namespace: j.Key.Namespace, Service: j.Spec.Service})
}

// List returns a page of the jobs of the namespace that the caller may see, the latest first.
func (u *JobUsecase) List(ctx context.Context, namespace string, sees func(ServiceKey) bool, page Page) ([]Job, string, error) {
	if err := firstError(validateName("namespace", namespace), page.validate()); err != nil {
		return nil, "", err
	}
	after, err := parseTokenOfJobs(namespace, page.Token)
	if err != nil {
		return nil, "", err
	}
	var jobs []Job
	for {
		listed, err := u.jobs.List(ctx, namespace, after, page.size())
		if err != nil {
			return nil, "", err
		}
		if len(listed) == 0 {
			return jobs, "", nil
		}
		for _, one := range listed {
			after = one.At
			if one.seenBy(sees) {
				jobs = append(jobs, one.Job)
			}
			if len(jobs) == page.size() {
				return jobs, tokenOfJobs(namespace, after), nil
			}
		}
	}
}

// Cancel asks for the end of a job, and returns it. What it has done stays. One that has ended stays as it is.
func (u *JobUsecase) Cancel(ctx context.Context, key JobKey, sees func(ServiceKey) bool) (Job, error) {
	if _, err := u.Get(ctx, key, sees); err != nil {
		return Job{}, err
	}
	return u.jobs.Cancel(ctx, key)
}

// Watch sends the job, and again each second in which it has changed, until it has ended, ctx ends, or send fails.
func (u *JobUsecase) Watch(ctx context.Context, key JobKey, sees func(ServiceKey) bool, send func(Job) error) error {
	var last Job
	for {
		job, err := u.Get(ctx, key, sees)
		if err != nil {
			return err
		}
		if job != last {
			if err := send(job); err != nil || job.State.Ended() {
				return err
			}
			last = job
		}
		if err := pause(ctx, jobPoll); err != nil {
			return err
		}
	}
}

// NewJob is an unvalidated job.
type NewJob struct {
	Namespace, Service string
	Kind               JobKind
	Pod                *PodID
	Rate               int32
	DryRun             bool
	Reason, RequestID  string
	Grace, Keep        int32
	Below              Generation
	Confirm            string // RemoveAll: the name of what is removed
	Repair             bool
}

// key returns the key of the job. The id is that of the request, so that a repeated one finds the job.
func (n *NewJob) key() JobKey {
	id := rand.Text()
	if n.RequestID != "" {
		sum := sha256.Sum256([]byte(n.RequestID))
		id = base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16])
	}
	return JobKey{n.Namespace, strings.ToLower(id)}
}

func (n *NewJob) spec() JobSpec {
	spec := JobSpec{
		Kind: n.Kind, Service: n.Service, Pod: NoPod, Rate: n.Rate, DryRun: n.DryRun, Reason: n.Reason,
		Grace: n.Grace, Keep: n.Keep, Below: n.Below, Repair: n.Repair,
	}
	if n.Pod != nil {
		spec.Pod = *n.Pod
	}
	return spec
}
