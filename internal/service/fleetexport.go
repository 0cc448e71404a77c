package service

import (
	"google.golang.org/grpc"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
)

// ExportLinks implements the API.
func (s *FleetService) ExportLinks(r *v1.ExportLinksRequest, stream grpc.ServerStreamingServer[v1.ExportLinksReply]) error {
	request := biz.ExportRequest{Namespace: r.GetNamespace(), Service: r.GetService(), Resume: r.GetResumeToken()}
	return s.exports.Export(stream.Context(), request, func(m biz.ExportMessage) error { return stream.Send(exportReply(m)) })
}

// restarts are the reasons for which an export begins again; none is RESTART_UNSPECIFIED.
var restarts = map[biz.RestartReason]v1.ExportLinksReply_Restart{biz.RestartStoreChanged: v1.ExportLinksReply_STORE_CHANGED}

func exportReply(m biz.ExportMessage) *v1.ExportLinksReply {
	reply := &v1.ExportLinksReply{
		Links: make([]*v1.Link, len(m.Links)), Restart: restarts[m.Restart], Token: m.Token, Done: m.Done,
	}
	for i, link := range m.Links {
		reply.Links[i] = linkMessage(link)
	}
	return reply
}
