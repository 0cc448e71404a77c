package service

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/auth"
	"podlink/internal/biz"
)

// The names of kinds and states are those of the API.
func jobMessage(j *biz.Job) *v1.Job {
	message := &v1.Job{
		Namespace: j.Key.Namespace, Id: j.Key.ID,
		Kind: v1.Job_Kind(v1.Job_Kind_value[string(j.Spec.Kind)]), Service: j.Spec.Service,
		State: v1.Job_State(v1.Job_State_value[string(j.State)]),
		Seen:  j.Progress.Seen, Done: j.Progress.Done, Skipped: j.Progress.Skipped, Failed: j.Progress.Failed,
		Rate: j.Spec.Rate, DryRun: j.Spec.DryRun, Reason: j.Spec.Reason, CreatedBy: j.CreatedBy,
		CreateTime: timeMessage(j.CreateMs), StartTime: timeMessage(j.StartMs), EndTime: timeMessage(j.EndMs),
		Note: j.Progress.Note, Error: j.Progress.Error,
		GraceSeconds: j.Spec.Grace, KeepSeconds: j.Spec.Keep, BelowGeneration: int64(j.Spec.Below), Repair: j.Spec.Repair,
	}
	if j.Spec.Pod != biz.NoPod {
		pod := int32(j.Spec.Pod)
		message.PodId = &pod
	}
	if j.Spec.Kind == biz.Verify {
		message.Faults = faultsMessage(j.Progress.Faults)
	}
	return message
}

func faultsMessage(f biz.JobFaults) *v1.Job_Faults {
	return &v1.Job_Faults{
		EntriesWithoutLink: f.EntriesWithoutLink, LinksWithoutEntry: f.LinksWithoutEntry, LinksWithoutPod: f.LinksWithoutPod,
		ForeignFields: f.ForeignFields, KeysWithoutExpiry: f.KeysWithoutExpiry,
	}
}

// timeMessage returns a time of the store; nil for 0.
func timeMessage(ms int64) *timestamppb.Timestamp {
	if ms == 0 {
		return nil
	}
	return timestamppb.New(time.UnixMilli(ms))
}

// callerOf returns the name of the identity that calls; "": not known.
func callerOf(ctx context.Context) string {
	if call := auth.From(ctx); call != nil {
		return call.Identity.Name
	}
	return ""
}

// jobRequest is implemented by all requests about one job.
type jobRequest interface {
	GetNamespace() string
	GetJob() string
}

func jobKey(r jobRequest) biz.JobKey { return biz.JobKey{Namespace: r.GetNamespace(), ID: r.GetJob()} }

// CreateJob implements the API.
func (s *FleetService) CreateJob(ctx context.Context, r *v1.CreateJobRequest) (*v1.CreateJobReply, error) {
	job, err := s.jobs.Create(ctx, biz.NewJob{
		Namespace: r.GetNamespace(), Service: r.GetService(), Kind: jobKind(r.GetKind()), Pod: cast[biz.PodID](r.PodId),
		Rate: r.GetRate(), DryRun: r.GetDryRun(), Reason: r.GetReason(), RequestID: r.GetRequestId(),
		Grace: r.GetGraceSeconds(), Keep: r.GetKeepSeconds(), Below: biz.Generation(r.GetBelowGeneration()),
		Confirm: r.GetConfirm(), Repair: r.GetRepair(),
	}, callerOf(ctx))
	if err != nil {
		return nil, err
	}
	return &v1.CreateJobReply{Job: jobMessage(&job)}, nil
}

// jobKind returns the kind of a request; "": none that there is.
func jobKind(kind v1.Job_Kind) biz.JobKind {
	if kind == v1.Job_KIND_UNSPECIFIED {
		return ""
	}
	return biz.JobKind(v1.Job_Kind_name[int32(kind)])
}

// ListJobs implements the API.
func (s *FleetService) ListJobs(ctx context.Context, r *v1.ListJobsRequest) (*v1.ListJobsReply, error) {
	jobs, next, err := s.jobs.List(ctx, r.GetNamespace(), sees(ctx), pageOf(r))
	if err != nil {
		return nil, err
	}
	reply := &v1.ListJobsReply{Jobs: make([]*v1.Job, len(jobs)), NextPageToken: next}
	for i := range jobs {
		reply.Jobs[i] = jobMessage(&jobs[i])
	}
	return reply, nil
}

// GetJob implements the API.
func (s *FleetService) GetJob(ctx context.Context, r *v1.GetJobRequest) (*v1.GetJobReply, error) {
	job, err := s.jobs.Get(ctx, jobKey(r), sees(ctx))
	if err != nil {
		return nil, err
	}
	return &v1.GetJobReply{Job: jobMessage(&job)}, nil
}

// CancelJob implements the API.
func (s *FleetService) CancelJob(ctx context.Context, r *v1.CancelJobRequest) (*v1.CancelJobReply, error) {
	job, err := s.jobs.Cancel(ctx, jobKey(r), sees(ctx))
	if err != nil {
		return nil, err
	}
	return &v1.CancelJobReply{Job: jobMessage(&job)}, nil
}

// WatchJob implements the API.
func (s *FleetService) WatchJob(r *v1.WatchJobRequest, stream grpc.ServerStreamingServer[v1.WatchJobReply]) error {
	ctx := stream.Context()
	return s.jobs.Watch(ctx, jobKey(r), sees(ctx), func(job biz.Job) error {
		return stream.Send(&v1.WatchJobReply{Job: jobMessage(&job)})
	})
}
