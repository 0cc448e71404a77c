package service

import (
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
)

// SharedReply is a message of a stream that many callers get: it is encoded once for each transport.
type SharedReply struct {
	*v1.WatchLinksReply

	forms [2]struct {
		once sync.Once
		text []byte
		err  error
	}
}

// Form is an encoding of a SharedReply.
type Form int

// The encodings.
const (
	Wire Form = iota
	JSON
)

// Encoded returns what encode returns for the message, which it is asked once for each form. Nobody may change it.
func (s *SharedReply) Encoded(form Form, encode func(proto.Message) ([]byte, error)) ([]byte, error) {
	f := &s.forms[form]
	f.once.Do(func() { f.text, f.err = encode(s.WatchLinksReply) })
	return f.text, f.err
}

// WatchLinks implements the API.
func (s *FleetService) WatchLinks(r *v1.WatchLinksRequest, stream grpc.ServerStreamingServer[v1.WatchLinksReply]) error {
	request := biz.WatchRequest{
		Service: biz.ServiceKey{Namespace: r.GetNamespace(), Service: r.GetService()},
		Pod:     cast[biz.PodID](r.PodId), UID: r.GetUid(), Resume: r.GetResumeToken(),
	}
	return s.watches.Watch(stream.Context(), request, func(m *biz.WatchMessage) error {
		return stream.SendMsg(m.Form(func() any { return watchReply(m) }))
	})
}

// resyncs are the reasons for which changes are missing; none is RESYNC_UNSPECIFIED.
var resyncs = map[biz.ResyncReason]v1.WatchLinksReply_Resync{
	biz.ResyncStart:   v1.WatchLinksReply_START,
	biz.ResyncGap:     v1.WatchLinksReply_GAP,
	biz.ResyncTrimmed: v1.WatchLinksReply_TRIMMED,
	biz.ResyncSlow:    v1.WatchLinksReply_SLOW,
}

var changeKinds = map[biz.ChangeKind]v1.LinkChange_Kind{
	biz.Linked:    v1.LinkChange_LINKED,
	biz.Moved:     v1.LinkChange_MOVED,
	biz.Persisted: v1.LinkChange_PERSISTED,
	biz.Expiring:  v1.LinkChange_EXPIRING,
	biz.Removed:   v1.LinkChange_REMOVED,
	biz.Uncertain: v1.LinkChange_UNCERTAIN,
}

func watchReply(m *biz.WatchMessage) *SharedReply {
	reply := &v1.WatchLinksReply{Resync: resyncs[m.Resync], Token: m.Token, Changes: make([]*v1.LinkChange, len(m.Changes))}
	for i := range m.Changes {
		c := &m.Changes[i]
		reply.Changes[i] = &v1.LinkChange{
			Kind: changeKinds[c.Kind], Link: linkMessage(c.Link), PreviousPodId: int32(c.Previous), By: c.By, Time: timestamppb.New(c.Time),
		}
	}
	return &SharedReply{WatchLinksReply: reply}
}
