package service

import (
	"context"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
)

// StateService implements v1.StateServiceServer.
type StateService struct {
	v1.UnimplementedStateServiceServer

	pods *biz.PodUsecase
}

// NewStateService returns the service on the use-case.
func NewStateService(pods *biz.PodUsecase) *StateService { return &StateService{pods: pods} }

// serviceRequest is implemented by all requests for one service.
type serviceRequest interface {
	GetNamespace() string
	GetService() string
}

func serviceKey(r serviceRequest) biz.ServiceKey {
	return biz.ServiceKey{Namespace: r.GetNamespace(), Service: r.GetService()}
}

// podMessage converts a pod; nil stays nil.
func podMessage(p *biz.Pod) *v1.Pod {
	if p == nil {
		return nil
	}
	return &v1.Pod{
		PodId:       int32(p.Pod),
		State:       p.State,
		Load:        p.Load,
		Routing:     v1.Routing(p.Routing), // TestEnums checks that the values are the same.
		Live:        p.Liveness == biz.Live,
		HeartbeatMs: p.HeartbeatMs,
		TtlSeconds:  int32(p.TTL),
	}
}

// SetServiceState implements the API.
func (s *StateService) SetServiceState(
	ctx context.Context, r *v1.SetServiceStateRequest,
) (*v1.SetServiceStateReply, error) {
	result, err := s.pods.Set(ctx, serviceKey(r), biz.NewReport{
		Pod:     cast[biz.PodID](r.PodId),
		State:   r.GetState(),
		Load:    r.GetLoad(),
		Routing: biz.Routing(r.GetRouting()),
		TTL:     cast[biz.TTL](r.TtlSeconds),
	})
	if err != nil {
		return nil, err
	}
	return &v1.SetServiceStateReply{Pod: podMessage(&result.Pod), Previous: podMessage(result.Previous)}, nil
}

// GetServiceState implements the API.
func (s *StateService) GetServiceState(
	ctx context.Context, r *v1.GetServiceStateRequest,
) (*v1.GetServiceStateReply, error) {
	pods, err := s.pods.List(ctx, serviceKey(r), r.GetLiveOnly())
	if err != nil {
		return nil, err
	}
	reply := &v1.GetServiceStateReply{Pods: make([]*v1.Pod, len(pods))}
	for i := range pods {
		reply.Pods[i] = podMessage(&pods[i])
	}
	return reply, nil
}

// GetServicePod implements the API.
func (s *StateService) GetServicePod(ctx context.Context, r *v1.GetServicePodRequest) (*v1.GetServicePodReply, error) {
	pod, err := s.pods.Get(ctx, serviceKey(r), cast[biz.PodID](r.PodId))
	if err != nil {
		return nil, err
	}
	return &v1.GetServicePodReply{Pod: podMessage(&pod)}, nil
}

// RemoveServiceState implements the API.
func (s *StateService) RemoveServiceState(
	ctx context.Context, r *v1.RemoveServiceStateRequest,
) (*v1.RemoveServiceStateReply, error) {
	previous, err := s.pods.Remove(ctx, serviceKey(r), cast[biz.PodID](r.PodId))
	if err != nil {
		return nil, err
	}
	return &v1.RemoveServiceStateReply{Removed: previous != nil, Previous: podMessage(previous)}, nil
}
