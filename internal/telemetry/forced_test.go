package telemetry

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"podlink/internal/conf"
)

// TestForcedTraces: whatever callers send, they decide for a bounded number of traces; the ratio decides for the others, and for all
// without a caller's span.
func TestForcedTraces(t *testing.T) {
	random := func() (id trace.TraceID) {
		binary.BigEndian.PutUint64(id[:], rand.Uint64())
		binary.BigEndian.PutUint64(id[8:], rand.Uint64())
		return id
	}
	chosen := func() trace.TraceID { return trace.TraceID{0: 1} } // Below every ratio but 0.
	const calls = 2000
	for name, row := range map[string]struct {
		parentBased bool
		ratio, most float64
		id          func() trace.TraceID
		remote      bool
		flags       trace.TraceFlags
		want        float64 // of calls, give or take the forced ones of the time that the test takes
	}{
		"flag of the caller":                      {true, 0, 100, random, true, trace.FlagsSampled, 100},
		"flag of the caller, none may be forced":  {true, 0, 0, random, true, trace.FlagsSampled, 0},
		"flag of the caller, less than one":       {true, 0, 0.5, random, true, trace.FlagsSampled, 1},
		"flag of the caller, above a bound":       {true, 0.5, 100, random, true, trace.FlagsSampled, 100 + 0.5*(calls-100)},
		"flag of the caller, all are traced":      {true, 1, 1, random, true, trace.FlagsSampled, calls},
		"chosen trace id, flag not followed":      {false, 0.001, 100, chosen, true, 0, 100 + 0.001*(calls-100)},
		"chosen trace id and a flag to the other": {true, 0.5, 100, chosen, true, 0, 0},
		"no span of a caller":                     {true, 0.5, 0, random, false, 0, 0.5 * calls},
		"no span of a caller, all are traced":     {true, 1, 0, random, false, 0, calls},
		"honest callers, flag not followed":       {false, 0.01, 100, random, true, trace.FlagsSampled, 0.01 * calls},
	} {
		t.Run(name, func(t *testing.T) {
			options := samplerOptions(&conf.Trace{SamplingRatio: row.ratio, ParentBased: row.parentBased, MaxForced: row.most})
			tracer := sdktrace.NewTracerProvider(options...).Tracer("test")
			sampled := 0
			for range calls {
				ctx := t.Context()
				if row.remote {
					parent := trace.NewSpanContext(trace.SpanContextConfig{
						TraceID: row.id(), SpanID: trace.SpanID{1}, TraceFlags: row.flags, Remote: true,
					})
					ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
				}
				_, span := tracer.Start(ctx, "call")
				if span.SpanContext().IsSampled() {
					sampled++
				}
				span.End()
			}
			margin := 6*math.Sqrt(calls)/2 + row.most // Chance, and a second's more.
			if row.most == 0 || row.want == calls {
				margin -= row.most
			}
			if row.want == 0 || row.want == calls {
				margin = 0
			}
			require.InDelta(t, row.want, sampled, margin)
		})
	}
}
