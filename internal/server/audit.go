package server

import (
	"context"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/transport"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/audit"
	"podlink/internal/auth"
)

// reasonHeader is where callers say why they change something, for the audit log.
const reasonHeader = "X-Podlink-Reason"

// messages are the request and the reply of a unary call; without a reply, those of a failed one. A stream has none.
type messages struct{ request, reply any }

// record writes a call to the audit log: what it changed, or that it was refused. Without an audit log it costs nothing.
func (c *Chain) record(ctx context.Context, t transport.Transporter, m messages, err error) {
	if c.audit == nil {
		return
	}
	if err != nil {
		c.recordFailure(ctx, t, m, kerrors.FromError(err))
		return
	}
	changes, ok := mutations[t.Operation()]
	if !ok {
		return
	}
	right := rightOf(ctx, t.Operation(), m.request)
	if !c.audit.Wants(right) {
		return
	}
	of := recordOf(ctx, t, m.request)
	of.Right = right
	changes(of, m.request, m.reply, func(r audit.Record) { c.audit.Changed(ctx, r) })
}

// recordFailure writes a failed call: a refusal, or a change that may have been made.
func (c *Chain) recordFailure(ctx context.Context, t transport.Transporter, m messages, public *kerrors.Error) {
	_, mutation := mutations[t.Operation()]
	switch {
	case refusals[public.Reason]:
		r := recordOf(ctx, t, m.request)
		r.Pod, r.Outcome, r.Detail = podOf(m.request), public.Reason, causeText(public)
		r.Right = rightOf(ctx, t.Operation(), m.request)
		c.audit.Refused(ctx, r)
	case mutation && uncertain[public.Reason]:
		r := recordOf(ctx, t, m.request)
		r.Pod, r.Outcome, r.Right = podOf(m.request), public.Reason, rightOf(ctx, t.Operation(), m.request)
		c.audit.Changed(ctx, r)
	}
}

// refusals are the errors of calls that were refused for who their caller is.
var refusals = map[string]bool{
	v1.ErrorReason_UNAUTHENTICATED.String():   true,
	v1.ErrorReason_PERMISSION_DENIED.String(): true,
	v1.ErrorReason_RATE_LIMITED.String():      true,
}

// uncertain are the errors of changes that were made all the same, or perhaps.
var uncertain = map[string]bool{
	v1.ErrorReason_OUTCOME_UNKNOWN.String():         true,
	v1.ErrorReason_REPLICATION_UNCONFIRMED.String(): true,
}

// rightOf returns the right that a call needs: that of its grant, none if it never got so far. With auth.mode off there are no grants,
// and the message alone says it.
func rightOf(ctx context.Context, operation string, request any) auth.Right {
	if call := auth.From(ctx); call != nil {
		return call.Grant.Right
	}
	need, _ := needOf(leastRight(operation), request)
	return need.Right
}

// recordOf returns what the records of a call have in common.
func recordOf(ctx context.Context, t transport.Transporter, request any) audit.Record {
	r := audit.Record{Operation: t.Operation(), Reason: t.RequestHeader().Get(reasonHeader), Peer: remoteAddr(ctx, t)}
	if m, ok := request.(interface{ GetNamespace() string }); ok {
		r.Namespace = m.GetNamespace()
	}
	if m, ok := request.(interface{ GetService() string }); ok {
		r.Service = m.GetService()
	}
	if m, ok := request.(interface{ GetUid() string }); ok {
		r.UID = m.GetUid()
	}
	return r
}

// remoteAddr returns the address from which a call came.
func remoteAddr(ctx context.Context, t transport.Transporter) string {
	if call := auth.From(ctx); call != nil && call.Peer.IsValid() {
		return call.Peer.String()
	}
	if over, ok := t.(khttp.Transporter); ok {
		return over.Request().RemoteAddr
	}
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
}

// podOf returns the pod that a request names.
func podOf(request any) audit.Pod {
	message, ok := request.(proto.Message)
	if !ok {
		return 0
	}
	m := message.ProtoReflect()
	field := m.Descriptor().Fields().ByName("pod_id")
	if field == nil || !m.Has(field) {
		return 0
	}
	return audit.PodOf(int32(m.Get(field).Int()))
}
