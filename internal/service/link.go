package service

import (
	"context"
	"sort"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
)

// LinkService implements v1.LinkServiceServer.
type LinkService struct {
	v1.UnimplementedLinkServiceServer

	links    *biz.LinkUsecase
	problems Problems
}

// NewLinkService returns the service on the use-case.
func NewLinkService(links *biz.LinkUsecase, problems Problems) *LinkService {
	return &LinkService{links: links, problems: problems}
}

// linkRequest is implemented by all requests for one link.
type linkRequest interface {
	GetNamespace() string
	GetUid() string
	GetService() string
}

func linkKey(r linkRequest) biz.LinkKey {
	return biz.LinkKey{Namespace: r.GetNamespace(), UID: r.GetUid(), Service: r.GetService()}
}

// cast converts an optional number to a type of the domain; nil stays nil.
func cast[To, From ~int32 | ~int64](value *From) *To {
	if value == nil {
		return nil
	}
	to := To(*value)
	return &to
}

// persistence converts an optional TTL; unset means Forever.
func persistence(seconds *int32) biz.TTL {
	if seconds == nil {
		return biz.Forever
	}
	return biz.TTL(*seconds)
}

func linkMessage(l biz.Link) *v1.Link {
	return &v1.Link{
		Namespace:  l.Key.Namespace,
		Uid:        l.Key.UID,
		Service:    l.Key.Service,
		PodId:      int32(l.Pod),
		Persistent: l.Persistent(),
		TtlSeconds: int32(l.TTL),
		Epoch:      int64(l.Epoch),
		Claim:      int64(l.Claim),
	}
}

// SetLinkedPod implements the API.
func (s *LinkService) SetLinkedPod(ctx context.Context, r *v1.SetLinkedPodRequest) (*v1.SetLinkedPodReply, error) {
	change, err := s.links.Set(ctx, linkKey(r), cast[biz.PodID](r.PodId), persistence(r.PersistSeconds), biz.SetTerms{
		Expected: cast[biz.Epoch](r.ExpectedEpoch), Claim: biz.Generation(r.GetClaim()), Above: cast[biz.Epoch](r.AboveEpoch), Own: own(ctx),
	})
	if err != nil {
		return nil, err
	}
	return &v1.SetLinkedPodReply{Link: linkMessage(change.Link), PreviousPodId: int32(change.Previous)}, nil
}

// TrySetLinkedPod implements the API.
func (s *LinkService) TrySetLinkedPod(
	ctx context.Context, r *v1.TrySetLinkedPodRequest,
) (*v1.TrySetLinkedPodReply, error) {
	change, err := s.links.TrySet(ctx, linkKey(r), cast[biz.PodID](r.PodId), persistence(r.PersistSeconds), own(ctx))
	if err != nil {
		return nil, err
	}
	return &v1.TrySetLinkedPodReply{
		Linked: change.Applied, Link: linkMessage(change.Link), PreviousPodId: int32(change.Previous),
	}, nil
}

// SetLinkedPodIfAbsent implements the API.
func (s *LinkService) SetLinkedPodIfAbsent(
	ctx context.Context, r *v1.SetLinkedPodIfAbsentRequest,
) (*v1.SetLinkedPodIfAbsentReply, error) {
	change, err := s.links.SetIfAbsent(ctx, linkKey(r), cast[biz.PodID](r.PodId), persistence(r.PersistSeconds), biz.SetTerms{
		Claim: biz.Generation(r.GetClaim()), Above: cast[biz.Epoch](r.AboveEpoch),
	})
	if err != nil {
		return nil, err
	}
	return &v1.SetLinkedPodIfAbsentReply{Created: change.Applied, Link: linkMessage(change.Link)}, nil
}

var outcomes = map[biz.Outcome]v1.ComputeLinkedPodReply_Outcome{
	biz.Existing: v1.ComputeLinkedPodReply_EXISTING,
	biz.Created:  v1.ComputeLinkedPodReply_CREATED,
	biz.Relinked: v1.ComputeLinkedPodReply_RELINKED,
}

// ComputeLinkedPod implements the API.
func (s *LinkService) ComputeLinkedPod(
	ctx context.Context, r *v1.ComputeLinkedPodRequest,
) (*v1.ComputeLinkedPodReply, error) {
	computed, err := s.links.Compute(ctx, linkKey(r), computeRequest(r))
	if err != nil {
		return nil, err
	}
	return &v1.ComputeLinkedPodReply{
		Outcome: outcomes[computed.Outcome], Link: linkMessage(computed.Link), PreviousPodId: int32(computed.Previous),
		Pod: sharedPodMessage(computed.Pod),
	}, nil
}

func computeRequest(r *v1.ComputeLinkedPodRequest) biz.ComputeRequest {
	return biz.ComputeRequest{
		TTL: persistence(r.PersistSeconds), Avoid: podsOf(r.GetAvoidPods()), AvoidEpoch: biz.Epoch(r.GetAvoidEpoch()),
		Selector: r.GetSelector(), Known: knownLink(r.GetKnown()),
	}
}

func podsOf(ids []int32) []biz.PodID {
	var pods []biz.PodID
	for _, id := range ids {
		pods = append(pods, biz.PodID(id))
	}
	return pods
}

// knownLink converts a known link; nil stays nil.
func knownLink(known *v1.ComputeLinkedPodRequest_Known) *biz.NewKnown {
	if known == nil {
		return nil
	}
	return &biz.NewKnown{Pod: cast[biz.PodID](known.PodId), Epoch: biz.Epoch(known.GetEpoch())}
}

// GetLinkedPod implements the API.
func (s *LinkService) GetLinkedPod(ctx context.Context, r *v1.GetLinkedPodRequest) (*v1.GetLinkedPodReply, error) {
	link, err := s.links.Get(ctx, linkKey(r))
	if err != nil {
		return nil, err
	}
	return &v1.GetLinkedPodReply{Link: linkMessage(link)}, nil
}

// GetLinkedPodIfPersist implements the API.
func (s *LinkService) GetLinkedPodIfPersist(
	ctx context.Context, r *v1.GetLinkedPodIfPersistRequest,
) (*v1.GetLinkedPodIfPersistReply, error) {
	link, err := s.links.GetIfPersist(ctx, linkKey(r))
	if err != nil {
		return nil, err
	}
	return &v1.GetLinkedPodIfPersistReply{Link: linkMessage(link)}, nil
}

// BatchGetLinkedPod implements the API.
func (s *LinkService) BatchGetLinkedPod(
	ctx context.Context, r *v1.BatchGetLinkedPodRequest,
) (*v1.BatchGetLinkedPodReply, error) {
	results, err := s.links.BatchGet(ctx, r.GetNamespace(), r.GetService(), r.GetUids())
	if err != nil {
		return nil, err
	}
	reply := &v1.BatchGetLinkedPodReply{}
	byPod := make(map[biz.PodID]*v1.BatchGetLinkedPodReply_PodUids)
	for _, result := range results {
		link := result.Link
		if result.Err != nil {
			reply.Problems = append(reply.Problems, s.problemOf(ctx, link.Key.UID, result.Err))
			continue
		}
		if !link.Exists() {
			reply.UnlinkedUids = append(reply.UnlinkedUids, link.Key.UID)
			continue
		}
		group, ok := byPod[link.Pod]
		if !ok {
			group = &v1.BatchGetLinkedPodReply_PodUids{PodId: int32(link.Pod)}
			byPod[link.Pod] = group
			reply.Pods = append(reply.Pods, group)
		}
		group.Uids = append(group.Uids, link.Key.UID)
	}
	sort.Slice(reply.Pods, func(i, j int) bool { return reply.Pods[i].PodId < reply.Pods[j].PodId })
	return reply, nil
}

// RemoveLinkedPod implements the API.
func (s *LinkService) RemoveLinkedPod(
	ctx context.Context, r *v1.RemoveLinkedPodRequest,
) (*v1.RemoveLinkedPodReply, error) {
	change, err := s.links.Remove(ctx, linkKey(r), r.GetKeepSeconds(), biz.RemoveTerms{
		Expected: cast[biz.Epoch](r.ExpectedEpoch), Own: own(ctx),
	})
	if err != nil {
		return nil, err
	}
	return &v1.RemoveLinkedPodReply{Removed: change.Applied, PreviousPodId: int32(change.Previous)}, nil
}

// RemoveLinkedPodWithId implements the API.
//
//nolint:revive // The name is the API's.
func (s *LinkService) RemoveLinkedPodWithId(
	ctx context.Context, r *v1.RemoveLinkedPodWithIdRequest,
) (*v1.RemoveLinkedPodWithIdReply, error) {
	change, err := s.links.RemoveWithID(ctx, linkKey(r), cast[biz.PodID](r.PodId), r.GetKeepSeconds())
	if err != nil {
		return nil, err
	}
	return &v1.RemoveLinkedPodWithIdReply{Removed: change.Applied, Link: linkMessage(change.Link)}, nil
}

// ListLinkedServices implements the API.
func (s *LinkService) ListLinkedServices(
	ctx context.Context, r *v1.ListLinkedServicesRequest,
) (*v1.ListLinkedServicesReply, error) {
	links, err := s.links.List(ctx, r.GetNamespace(), r.GetUid())
	if err != nil {
		return nil, err
	}
	links = visible(ctx, links)
	reply := &v1.ListLinkedServicesReply{Links: make([]*v1.Link, len(links))}
	for i, link := range links {
		reply.Links[i] = linkMessage(link)
	}
	return reply, nil
}
