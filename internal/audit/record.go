package audit

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"podlink/internal/auth"
)

// Record is what a line of the audit log says, without what the context of the call says: who calls, from where, by which right
// and rule, and the trace id. Fields that are zero are left out.
type Record struct {
	Operation   string // the rpc; loglevel, pprof; reload
	Namespace   string
	Service     string
	UID         string
	Pod         Pod // which the call was about, or which has the link now
	PreviousPod Pod // which had the link before
	Epoch       int64
	Outcome     string // of a change: what it did; of a refusal: the reason of the error
	Reason      string // why, as the caller says
	Detail      string // of a refusal: its cause; of an event: what it was about. Never a secret

	// Where the context of the call doesn't say it: with auth.mode off, or before the caller is known.
	Peer  string
	Right auth.Right
}

// kept returns a copy that can be kept: texts of a refused call are not checked yet, and can be as long as its message.
func (r *Record) kept() Record {
	c := *r
	for _, text := range []*string{&c.Operation, &c.Namespace, &c.Service, &c.UID, &c.Peer, &c.Reason, &c.Detail} {
		*text = strings.Clone((*text)[:min(len(*text), maxText+1)])
	}
	return c
}

// Pod is the ordinal of a pod. The zero value is no pod.
type Pod int64

// PodOf returns the pod with an ordinal, or none for a negative one, as in the API.
func PodOf(ordinal int32) Pod { return max(Pod(ordinal)+1, 0) }

// event is what a line is about.
type event int

const (
	changed event = iota
	refused
	happened
)

// events has the names of events in lines and metrics.
var events = [...]string{changed: "change", refused: "refusal", happened: "event"}

// entry is a Record with what the context of its call says.
type entry struct {
	Record

	at       time.Time
	event    event
	trace    trace.TraceID
	identity auth.Identity
	right    auth.Right
	rule     string
	count    int
}

// entry returns the entry of a Record, nil without a log.
func (l *Log) entry(ctx context.Context, ev event, r Record) *entry {
	if l == nil {
		return nil
	}
	e := &entry{Record: r, at: time.Now(), event: ev, trace: trace.SpanContextFromContext(ctx).TraceID(), right: r.Right}
	if call := auth.From(ctx); call != nil {
		e.identity, e.rule = call.Identity, call.Grant.Rule
		if call.Grant.Right != auth.None {
			e.right = call.Grant.Right
		}
		if e.Peer == "" && call.Peer.IsValid() {
			e.Peer = call.Peer.String()
		}
	}
	return e
}

// hostOf returns the host of a peer's address: its port differs from connection to connection.
func hostOf(peer string) string {
	from, err := netip.ParseAddrPort(peer)
	if err != nil {
		return peer
	}
	return auth.Host(from.Addr()).String()
}
