package telemetry

import (
	"fmt"
	"math/rand/v2"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"
)

// forcedSampler bounds the traces that callers can force. A caller does so by the sampling flag of its own span and, where the
// ratio decides by the trace id, by choosing that. Above the bound chance decides, by the ratio.
type forcedSampler struct {
	sampler sdktrace.Sampler
	ratio   float64
	forced  *rate.Limiter
}

// newForcedSampler returns a sampler that lets callers decide for at most perSecond traces a second.
func newForcedSampler(sampler sdktrace.Sampler, ratio, perSecond float64) *forcedSampler {
	return &forcedSampler{sampler: sampler, ratio: ratio, forced: rate.NewLimiter(rate.Limit(perSecond), burstOf(perSecond))}
}

// burstOf returns how many traces may be forced at once: those of a second, and at least one if any may be.
func burstOf(perSecond float64) int {
	if perSecond == 0 {
		return 0
	}
	return max(int(perSecond), 1)
}

// ShouldSample implements sdktrace.Sampler.
func (s *forcedSampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	result := s.sampler.ShouldSample(p)
	caller := trace.SpanContextFromContext(p.ParentContext)
	if result.Decision != sdktrace.RecordAndSample || !caller.IsRemote() || s.forced.Allow() {
		return result
	}
	if rand.Float64() >= s.ratio { //nolint:gosec // No secret.
		result.Decision = sdktrace.Drop
	}
	return result
}

// Description implements sdktrace.Sampler.
func (s *forcedSampler) Description() string {
	return fmt.Sprintf("%s, of callers %g a second", s.sampler.Description(), s.forced.Limit())
}
