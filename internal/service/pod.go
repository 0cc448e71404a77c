package service

import (
	"context"
	"math"

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

// sharedPodMessage converts a pod that many computes return; nil stays nil. The message must not be modified.
func sharedPodMessage(p *biz.SharedPod) *v1.Pod {
	if p == nil {
		return nil
	}
	return p.Converted(func(p *biz.Pod) any { return podMessage(p) }).(*v1.Pod)
}

// podMessage converts a pod; nil stays nil.
func podMessage(p *biz.Pod) *v1.Pod {
	if p == nil {
		return nil
	}
	message := &v1.Pod{
		PodId:           int32(p.Pod),
		State:           p.State,
		Load:            p.Load,
		Routing:         v1.Routing(p.Effective()), // TestEnums checks that the values are the same.
		Live:            p.Liveness == biz.Live,
		HeartbeatMs:     p.HeartbeatMs,
		TtlSeconds:      int32(p.TTL),
		InstanceId:      p.Instance,
		Generation:      int64(p.Generation),
		Labels:          p.Labels,
		Address:         p.Address,
		ReportedRouting: v1.Routing(p.Routing),
		Cordon:          v1.Routing(p.Cordon),
		Given:           int32(min(p.Given, math.MaxInt32)),
		InDoubt:         p.Liveness == biz.InDoubt,
	}
	if p.Capacity != biz.NoCapacity {
		message.Capacity = &p.Capacity
	}
	return message
}

// SetServiceState implements the API.
func (s *StateService) SetServiceState(
	ctx context.Context, r *v1.SetServiceStateRequest,
) (*v1.SetServiceStateReply, error) {
	result, err := s.pods.Set(ctx, serviceKey(r), biz.NewReport{
		Pod:        cast[biz.PodID](r.PodId),
		State:      r.GetState(),
		Load:       r.GetLoad(),
		Routing:    biz.Routing(r.GetRouting()),
		TTL:        cast[biz.TTL](r.TtlSeconds),
		Capacity:   r.Capacity,
		Labels:     r.GetLabels(),
		Address:    r.GetAddress(),
		Instance:   r.GetInstanceId(),
		Sequence:   r.GetSequence(),
		Generation: biz.Generation(r.GetGeneration()),
		Supersedes: biz.Generation(r.GetSupersedes()),
	})
	if err != nil {
		return nil, err
	}
	return &v1.SetServiceStateReply{
		Pod: podMessage(&result.Pod), Previous: podMessage(result.Previous), Applied: result.Applied, StoreId: result.StoreID,
	}, nil
}

// CordonPod implements the API.
func (s *StateService) CordonPod(ctx context.Context, r *v1.CordonPodRequest) (*v1.CordonPodReply, error) {
	var cordon *biz.Routing
	if r.Cordon != nil {
		given := biz.Routing(r.GetCordon())
		cordon = &given
	}
	pod, err := s.pods.Cordon(ctx, serviceKey(r), cast[biz.PodID](r.PodId), cordon, cast[biz.TTL](r.TtlSeconds))
	if err != nil {
		return nil, err
	}
	return &v1.CordonPodReply{Pod: podMessage(&pod)}, nil
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
