package service

import (
	"context"
	"maps"
	"slices"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
)

// BatchSetLinkedPod implements the API.
func (s *LinkService) BatchSetLinkedPod(
	ctx context.Context, r *v1.BatchSetLinkedPodRequest,
) (*v1.BatchSetLinkedPodReply, error) {
	items, own := make([]biz.NewSetItem, len(r.GetItems())), own(ctx)
	for i, item := range r.GetItems() {
		items[i] = biz.NewSetItem{
			UID: item.GetUid(), Pod: cast[biz.PodID](item.PodId), TTL: persistence(item.PersistSeconds), IfAbsent: item.GetIfAbsent(),
			Terms: biz.SetTerms{
				Expected: cast[biz.Epoch](item.ExpectedEpoch), Claim: biz.Generation(item.GetClaim()),
				Above: cast[biz.Epoch](item.AboveEpoch), Own: own,
			},
		}
	}
	results, err := s.links.BatchSet(ctx, serviceKey(r), items)
	if err != nil {
		return nil, err
	}
	reply := &v1.BatchSetLinkedPodReply{Results: make([]*v1.BatchSetLinkedPodReply_Result, len(results))}
	for i, result := range results {
		reply.Results[i] = &v1.BatchSetLinkedPodReply_Result{
			Linked: result.Applied, Link: linkMessage(result.Link), PreviousPodId: int32(result.Previous),
			Problem: s.problem(ctx, result.Err),
		}
	}
	return reply, nil
}

// BatchRemoveLinkedPod implements the API.
func (s *LinkService) BatchRemoveLinkedPod(
	ctx context.Context, r *v1.BatchRemoveLinkedPodRequest,
) (*v1.BatchRemoveLinkedPodReply, error) {
	items, own := make([]biz.RemoveItem, len(r.GetItems())), own(ctx)
	for i, item := range r.GetItems() {
		items[i] = biz.RemoveItem{
			UID: item.GetUid(), Keep: item.GetKeepSeconds(), Pod: cast[biz.PodID](item.PodId),
			Terms: biz.RemoveTerms{Expected: cast[biz.Epoch](item.ExpectedEpoch), Own: own},
		}
	}
	results, err := s.links.BatchRemove(ctx, serviceKey(r), items)
	if err != nil {
		return nil, err
	}
	reply := &v1.BatchRemoveLinkedPodReply{Results: make([]*v1.BatchRemoveLinkedPodReply_Result, len(results))}
	for i, result := range results {
		reply.Results[i] = &v1.BatchRemoveLinkedPodReply_Result{
			Uid: result.Link.Key.UID, Removed: result.Applied, PreviousPodId: int32(result.Previous),
			Problem: s.problem(ctx, result.Err),
		}
	}
	return reply, nil
}

// BatchVerifyLinkedPod implements the API.
func (s *LinkService) BatchVerifyLinkedPod(
	ctx context.Context, r *v1.BatchVerifyLinkedPodRequest,
) (*v1.BatchVerifyLinkedPodReply, error) {
	items := make([]biz.VerifyItem, len(r.GetItems()))
	for i, item := range r.GetItems() {
		items[i] = biz.VerifyItem{UID: item.GetUid(), Epoch: biz.Epoch(item.GetEpoch())}
	}
	results, err := s.links.BatchVerify(ctx, serviceKey(r), cast[biz.PodID](r.PodId), items)
	if err != nil {
		return nil, err
	}
	reply := &v1.BatchVerifyLinkedPodReply{}
	for _, result := range results {
		if result.Err != nil {
			reply.Problems = append(reply.Problems, s.problemOf(ctx, result.Link.Key.UID, result.Err))
			continue
		}
		reply.Links = append(reply.Links, linkMessage(result.Link))
	}
	return reply, nil
}

// BatchComputeLinkedPod implements the API.
func (s *LinkService) BatchComputeLinkedPod(
	ctx context.Context, r *v1.BatchComputeLinkedPodRequest,
) (*v1.BatchComputeLinkedPodReply, error) {
	request := biz.BatchComputeRequest{
		TTL: persistence(r.PersistSeconds), Selector: r.GetSelector(), Items: make([]biz.ComputeItem, len(r.GetItems())),
	}
	for i, item := range r.GetItems() {
		request.Items[i] = biz.ComputeItem{
			UID: item.GetUid(), Avoid: podsOf(item.GetAvoidPods()), AvoidEpoch: biz.Epoch(item.GetAvoidEpoch()),
			Known: knownLink(item.GetKnown()),
		}
	}
	results, err := s.links.BatchCompute(ctx, serviceKey(r), request)
	if err != nil {
		return nil, err
	}
	reply := &v1.BatchComputeLinkedPodReply{Results: make([]*v1.BatchComputeLinkedPodReply_Result, len(results))}
	pods := make(map[biz.PodID]*biz.SharedPod)
	for i, result := range results {
		reply.Results[i] = &v1.BatchComputeLinkedPodReply_Result{
			Outcome: outcomes[result.Outcome], Link: linkMessage(result.Link), PreviousPodId: int32(result.Previous),
			Problem: s.problem(ctx, result.Err),
		}
		if result.Pod != nil {
			pods[result.Link.Pod] = result.Pod
		}
	}
	for _, id := range slices.Sorted(maps.Keys(pods)) {
		reply.Pods = append(reply.Pods, sharedPodMessage(pods[id]))
	}
	return reply, nil
}
