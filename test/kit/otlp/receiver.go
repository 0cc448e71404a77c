// Package otlp is an OTLP/gRPC trace receiver for tests: a stand-in for a collector.
package otlp

import (
	"context"
	"encoding/hex"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// arrivalTimeout bounds the wait for spans. An exporter sends them every few seconds.
const arrivalTimeout = 20 * time.Second

// Span is a received span.
type Span struct {
	Name, TraceID, ID, Parent string // ids in hex; no parent: ""
	Kind                      string // SPAN_KIND_SERVER …
	Error                     string // the status message, "" unless the status is an error
	Attributes                map[string]string
	Events                    int
	Start, End                time.Time
}

// Receiver collects the spans that it receives.
type Receiver struct {
	collector.UnimplementedTraceServiceServer
	Addr string // host:port

	mu      sync.Mutex
	batches []*tracev1.ResourceSpans
	headers []metadata.MD
	arrived chan struct{} // closed and replaced at each arrival
}

// Start runs a receiver on a free port until the test ends. Options configure its server, for example with TLS.
func Start(tb testing.TB, options ...grpc.ServerOption) *Receiver {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	r := &Receiver{Addr: listener.Addr().String(), arrived: make(chan struct{})}
	server := grpc.NewServer(options...)
	collector.RegisterTraceServiceServer(server, r)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener) // Returns after Stop.
	}()
	tb.Cleanup(func() {
		server.Stop()
		<-ended
	})
	return r
}

// Export implements OTLP's TraceService.
func (r *Receiver) Export(
	ctx context.Context, request *collector.ExportTraceServiceRequest,
) (*collector.ExportTraceServiceResponse, error) {
	headers, _ := metadata.FromIncomingContext(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batches = append(r.batches, request.GetResourceSpans()...)
	r.headers = append(r.headers, headers)
	close(r.arrived)
	r.arrived = make(chan struct{})
	return &collector.ExportTraceServiceResponse{}, nil
}

// Trace waits for n spans of the trace and returns them by start time.
func (r *Receiver) Trace(tb testing.TB, traceID string, n int) []Span {
	tb.Helper()
	timeout := time.After(arrivalTimeout)
	for {
		r.mu.Lock()
		spans, arrived := r.trace(traceID), r.arrived
		r.mu.Unlock()
		if len(spans) >= n {
			require.Len(tb, spans, n, "spans of the trace %s: %v", traceID, spans)
			slices.SortFunc(spans, func(a, b Span) int { return a.Start.Compare(b.Start) })
			return spans
		}
		select {
		case <-arrived:
		case <-timeout:
			require.Failf(tb, "spans are missing", "%d of %d spans of the trace %s have arrived: %v", len(spans), n, traceID, spans)
		}
	}
}

// trace returns the received spans of the trace; all spans for "".
func (r *Receiver) trace(traceID string) []Span {
	var spans []Span
	for _, batch := range r.batches {
		for _, scope := range batch.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				if s := read(span); traceID == "" || s.TraceID == traceID {
					spans = append(spans, s)
				}
			}
		}
	}
	return spans
}

// All returns all spans received so far.
func (r *Receiver) All() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.trace("")
}

// Resource returns the resource attributes of the sender.
func (r *Receiver) Resource() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.batches) == 0 {
		return nil
	}
	return texts(r.batches[0].GetResource().GetAttributes())
}

// Headers returns the headers of each request so far.
func (r *Receiver) Headers() []metadata.MD {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.headers)
}

// Text returns everything received so far as text, for a test to search.
func (r *Receiver) Text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := ""
	for _, batch := range r.batches {
		text += batch.String() + "\n"
	}
	return text
}

func read(span *tracev1.Span) Span {
	s := Span{
		Name:       span.GetName(),
		TraceID:    hex.EncodeToString(span.GetTraceId()),
		ID:         hex.EncodeToString(span.GetSpanId()),
		Parent:     hex.EncodeToString(span.GetParentSpanId()),
		Kind:       span.GetKind().String(),
		Attributes: texts(span.GetAttributes()),
		Events:     len(span.GetEvents()),
		Start:      time.Unix(0, int64(span.GetStartTimeUnixNano())),
		End:        time.Unix(0, int64(span.GetEndTimeUnixNano())),
	}
	if span.GetStatus().GetCode() == tracev1.Status_STATUS_CODE_ERROR {
		s.Error = span.GetStatus().GetMessage()
	}
	return s
}

// texts returns attributes as text: strings as they are, others with their type.
func texts(attributes []*common.KeyValue) map[string]string {
	out := make(map[string]string, len(attributes))
	for _, attribute := range attributes {
		switch value := attribute.GetValue().GetValue().(type) {
		case *common.AnyValue_StringValue:
			out[attribute.GetKey()] = value.StringValue
		default:
			out[attribute.GetKey()] = attribute.GetValue().String()
		}
	}
	return out
}
