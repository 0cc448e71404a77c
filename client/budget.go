package client

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	// firstPause and longestPause are between the attempts of a call.
	firstPause   = 20 * time.Millisecond
	longestPause = 250 * time.Millisecond

	// callsPerRetry is how many calls pay for one retry.
	callsPerRetry = 10
	// maxRetryBurst is how many retries may be saved up.
	maxRetryBurst = 10
	// retryInterval is how often a retry may be made whether calls have paid for it or not.
	retryInterval = time.Second
)

// retryBudget is the token bucket of a client's retries: over time at most 10 % more requests are sent than calls are made, or
// one a second where that is more. A podlink that can't answer so gets the load that it always has, and not a multiple of it.
type retryBudget struct {
	mu    sync.Mutex
	calls int       // that no retry has used up yet
	last  time.Time // of the last retry
}

// earn is called for each call.
func (b *retryBudget) earn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = min(b.calls+1, callsPerRetry*maxRetryBurst)
}

// spend reports whether a request may be sent once more now, and takes it from the budget.
func (b *retryBudget) spend() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.calls < callsPerRetry && now.Sub(b.last) < retryInterval {
		return false
	}
	b.calls = max(0, b.calls-callsPerRetry)
	b.last = now
	return true
}

// wait pauses as between two attempts, and for the first time as long as podlink asks for, until a request may be sent once more. It
// returns false if ctx ends before that.
func (b *retryBudget) wait(ctx context.Context, first time.Duration, between *backoff.ExponentialBackOff) bool {
	next := time.Duration(float64(first) * (1 + pauseSpread*rand.Float64())) //nolint:gosec // It is no secret.
	if first == 0 {
		next = between.NextBackOff()
	}
	for ; pause(ctx, next); next = between.NextBackOff() {
		if b.spend() {
			return true
		}
	}
	return false
}

// pauseSpread is the part by which pauses vary. A simulation, which has to repeat, sets it to 0.
var pauseSpread = backoff.DefaultRandomizationFactor

// pauses returns the pauses between attempts, which grow and vary by half.
func pauses() *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{
		InitialInterval: firstPause, Multiplier: 2, MaxInterval: longestPause, RandomizationFactor: pauseSpread,
	}
}

// pause waits. It returns false if ctx ends before that: at once, if its deadline says so.
func pause(ctx context.Context, d time.Duration) bool {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
