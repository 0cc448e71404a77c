package server

import (
	"math"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/time/rate"

	"podlink/internal/auth"
)

// maxBuckets bounds the callers whose rate is counted. One that is dropped starts with a full bucket.
const maxBuckets = 16384

// Rates says how many calls a caller may make: the policy.
type Rates interface {
	// Rate returns the calls a second of an identity; 0: as many as usual.
	Rate(who auth.Identity) float64
	// Generation is another number after each change.
	Generation() uint64
}

// rates limits how many calls each caller makes. A call has a price, which it takes from the caller's bucket; the bucket holds what
// the caller may spend in a second.
type rates struct {
	policy  Rates
	usual   float64 // calls a second
	metrics *DoorMetrics
	buckets *otter.Cache[bucketKey, *buckets]
	now     func() time.Time
}

func newRates(policy Rates, usual float64, metrics *DoorMetrics) *rates {
	return &rates{
		policy:  policy,
		usual:   usual,
		metrics: metrics,
		buckets: otter.Must(&otter.Options[bucketKey, *buckets]{MaximumSize: maxBuckets}),
		now:     time.Now,
	}
}

// bucketKey is whose calls are counted together. The pods of a StatefulSet are one service account, so an identity alone is too
// coarse: the pod that a caller has proven to be counts apart, and without one the address from which it comes.
type bucketKey struct {
	name, pod string
	peer      netip.Addr
}

func keyOf(c *caller) bucketKey {
	if c.Identity.Pod != "" {
		return bucketKey{name: c.Identity.Name, pod: c.Identity.Pod}
	}
	return bucketKey{name: c.Identity.Name, peer: auth.Host(c.Peer.Addr())}
}

// buckets are those of a caller. Reports have one for themselves, so that overload does not make pods look dead.
type buckets struct {
	calls, reports *rate.Limiter
	burst          atomic.Int64  // of both
	generation     atomic.Uint64 // of the policy that has set them
}

// callerBuckets are the buckets that the calls of a connection need next, most likely: those of its last caller.
type callerBuckets struct {
	who auth.Identity
	*buckets
}

// find returns the buckets of a caller.
func (r *rates) find(c *caller) *buckets {
	if c.peer != nil {
		if last := c.peer.buckets.Load(); last != nil && last.who == c.Identity {
			return last.buckets
		}
	}
	key := keyOf(c)
	found, ok := r.buckets.GetIfPresent(key)
	if !ok {
		generation := r.policy.Generation() // Before the limit, which may change after.
		limit, burst := r.limit(c.Identity)
		made := &buckets{calls: rate.NewLimiter(limit, burst), reports: rate.NewLimiter(limit, burst)}
		made.burst.Store(int64(burst))
		made.generation.Store(generation)
		found, _ = r.buckets.SetIfAbsent(key, made)
	}
	if c.peer != nil {
		c.peer.buckets.Store(&callerBuckets{c.Identity, found})
	}
	return found
}

// of returns the buckets of a caller, as the policy has them.
func (r *rates) of(c *caller, now time.Time) *buckets {
	generation := r.policy.Generation()
	found := r.find(c)
	if before := found.generation.Load(); before != generation && found.generation.CompareAndSwap(before, generation) {
		limit, burst := r.limit(c.Identity)
		found.burst.Store(int64(burst))
		for _, limiter := range []*rate.Limiter{found.calls, found.reports} {
			limiter.SetLimitAt(now, limit)
			limiter.SetBurstAt(now, burst)
		}
	}
	return found
}

func (r *rates) limit(who auth.Identity) (rate.Limit, int) {
	perSecond := r.policy.Rate(who)
	if perSecond <= 0 {
		perSecond = r.usual
	}
	return rate.Limit(perSecond), int(math.Max(1, math.Ceil(perSecond)))
}

// take takes an amount from the bucket of a call's caller, and returns an error if the bucket has too little. An amount that is
// greater than the bucket takes a full one, and leaves it in debt. A bucket whose time goes back fills twice: now is the time of a
// moment ago at the earliest.
func (r *rates) take(c *caller, p *price, amount int, now time.Time) error {
	if amount <= 0 {
		return nil
	}
	all := r.of(c, now)
	limiter := all.calls
	if p.report {
		limiter = all.reports
	}
	burst := int(all.burst.Load())
	least := min(amount, burst)
	if !limiter.AllowN(now, least) {
		r.metrics.Refused(RefusedByRate)
		missing := float64(least) - limiter.TokensAt(now)
		return tooManyCalls(time.Duration(missing / float64(limiter.Limit()) * float64(time.Second)))
	}
	for amount -= least; amount > 0; amount -= burst {
		limiter.ReserveN(now, min(amount, burst))
	}
	return nil
}

func tooManyCalls(wait time.Duration) error {
	return rateLimited(wait, "this caller makes too many calls; nothing was carried out; it is safe to retry after a pause")
}
