package service

import (
	"context"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
)

// WorkloadService implements v1.WorkloadServiceServer.
type WorkloadService struct {
	v1.UnimplementedWorkloadServiceServer

	workloads *biz.WorkloadUsecase
}

// NewWorkloadService returns the service on the use case.
func NewWorkloadService(workloads *biz.WorkloadUsecase) *WorkloadService {
	return &WorkloadService{workloads: workloads}
}

func workloadMessage(w biz.Workload) *v1.Workload {
	return &v1.Workload{Namespace: w.Key.Namespace, Service: w.Key.Service, State: w.State, UpdateMs: w.UpdateMs}
}

// SetWorkloadState implements the API.
func (s *WorkloadService) SetWorkloadState(
	ctx context.Context, r *v1.SetWorkloadStateRequest,
) (*v1.SetWorkloadStateReply, error) {
	workload, err := s.workloads.Set(ctx, serviceKey(r), r.GetState())
	if err != nil {
		return nil, err
	}
	return &v1.SetWorkloadStateReply{Workload: workloadMessage(workload)}, nil
}

// GetWorkloadState implements the API.
func (s *WorkloadService) GetWorkloadState(
	ctx context.Context, r *v1.GetWorkloadStateRequest,
) (*v1.GetWorkloadStateReply, error) {
	workload, err := s.workloads.Get(ctx, serviceKey(r))
	if err != nil {
		return nil, err
	}
	return &v1.GetWorkloadStateReply{Workload: workloadMessage(workload)}, nil
}

// BatchGetWorkloadState implements the API.
func (s *WorkloadService) BatchGetWorkloadState(
	ctx context.Context, r *v1.BatchGetWorkloadStateRequest,
) (*v1.BatchGetWorkloadStateReply, error) {
	workloads, err := s.workloads.BatchGet(ctx, r.GetNamespace(), r.GetServices())
	if err != nil {
		return nil, err
	}
	reply := &v1.BatchGetWorkloadStateReply{States: make(map[string]string, len(workloads))}
	for _, workload := range workloads {
		reply.States[workload.Key.Service] = workload.State
	}
	return reply, nil
}

// RemoveWorkloadState implements the API.
func (s *WorkloadService) RemoveWorkloadState(
	ctx context.Context, r *v1.RemoveWorkloadStateRequest,
) (*v1.RemoveWorkloadStateReply, error) {
	previous, err := s.workloads.Remove(ctx, serviceKey(r))
	if err != nil {
		return nil, err
	}
	reply := &v1.RemoveWorkloadStateReply{Removed: previous != nil}
	if previous != nil {
		reply.Previous = workloadMessage(*previous)
	}
	return reply, nil
}
