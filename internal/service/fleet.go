package service

import (
	"context"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
)

// FleetService implements v1.FleetServiceServer.
type FleetService struct {
	v1.UnimplementedFleetServiceServer

	fleet   *biz.FleetUsecase
	watches *biz.Watches
	exports *biz.Exports
	jobs    *biz.JobUsecase
}

// NewFleetService returns the service on the use cases, and on the watches and exports of this process.
func NewFleetService(fleet *biz.FleetUsecase, watches *biz.Watches, exports *biz.Exports, jobs *biz.JobUsecase) *FleetService {
	return &FleetService{fleet: fleet, watches: watches, exports: exports, jobs: jobs}
}

// pageRequest is implemented by all requests for a page of a list.
type pageRequest interface {
	GetPageSize() int32
	GetPageToken() string
}

func pageOf(r pageRequest) biz.Page { return biz.Page{Size: r.GetPageSize(), Token: r.GetPageToken()} }

// ListNamespaces implements the API.
func (s *FleetService) ListNamespaces(ctx context.Context, r *v1.ListNamespacesRequest) (*v1.ListNamespacesReply, error) {
	namespaces, next, err := s.fleet.Namespaces(ctx, sees(ctx), pageOf(r))
	if err != nil {
		return nil, err
	}
	reply := &v1.ListNamespacesReply{
		Namespaces: make([]*v1.ListNamespacesReply_NamespaceServices, len(namespaces)), NextPageToken: next,
	}
	for i, one := range namespaces {
		reply.Namespaces[i] = &v1.ListNamespacesReply_NamespaceServices{Namespace: one.Namespace, Services: one.Services}
	}
	return reply, nil
}

// ListServices implements the API.
func (s *FleetService) ListServices(ctx context.Context, r *v1.ListServicesRequest) (*v1.ListServicesReply, error) {
	services, next, err := s.fleet.Services(ctx, r.GetNamespace(), sees(ctx), pageOf(r))
	if err != nil {
		return nil, err
	}
	reply := &v1.ListServicesReply{Services: make([]*v1.ServiceSummary, len(services)), NextPageToken: next}
	for i := range services {
		reply.Services[i] = summaryMessage(&services[i])
	}
	return reply, nil
}

func summaryMessage(s *biz.ServiceSummary) *v1.ServiceSummary {
	return &v1.ServiceSummary{
		Service: s.Service, Live: int32(s.Live), InDoubt: int32(s.InDoubt), Dead: int32(s.Dead), Cordoned: int32(s.Cordoned),
		Load: s.Load, Capacity: s.Capacity, Links: s.Links,
	}
}

// ListPodLinks implements the API.
func (s *FleetService) ListPodLinks(ctx context.Context, r *v1.ListPodLinksRequest) (*v1.ListPodLinksReply, error) {
	page, err := s.fleet.PodLinks(ctx, serviceKey(r), cast[biz.PodID](r.PodId), pageOf(r))
	if err != nil {
		return nil, err
	}
	reply := &v1.ListPodLinksReply{
		Links: make([]*v1.Link, len(page.Links)), NextPageToken: page.Next, Complete: page.Complete,
	}
	for i, link := range page.Links {
		reply.Links[i] = linkMessage(link)
	}
	return reply, nil
}

// CountPodLinks implements the API.
func (s *FleetService) CountPodLinks(ctx context.Context, r *v1.CountPodLinksRequest) (*v1.CountPodLinksReply, error) {
	counted, err := s.fleet.CountPodLinks(ctx, serviceKey(r))
	if err != nil {
		return nil, err
	}
	reply := &v1.CountPodLinksReply{
		Counts: make([]*v1.CountPodLinksReply_PodCount, len(counted.Counts)), Complete: counted.Complete, Approximate: counted.Approximate,
	}
	for i, pod := range counted.Counts {
		reply.Counts[i] = &v1.CountPodLinksReply_PodCount{PodId: int32(pod.Pod), Links: pod.Entries}
	}
	return reply, nil
}
