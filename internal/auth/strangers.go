package auth

import (
	"net/netip"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/time/rate"
)

// The refused tokens of an address: how many a second, how many at once, and of how many addresses they are counted.
const (
	refusedRate   = 1000
	mostRefused   = 1000
	mostStrangers = 4096
)

// strangers bounds what it costs to check tokens that are refused: a signature takes a tenth of a millisecond, and whoever sends it has
// made none. Beyond the bound the tokens of that address are not checked, but for those that were verified before: its other callers,
// perhaps all behind one proxy, keep their access.
type strangers struct {
	byAddress *otter.Cache[netip.Addr, *rate.Limiter]
	now       func() time.Time
}

func newStrangers(now func() time.Time) strangers {
	return strangers{otter.Must(&otter.Options[netip.Addr, *rate.Limiter]{MaximumSize: mostStrangers}), now}
}

// wait returns how long the tokens of an address are not checked; 0: they are.
func (s strangers) wait(from netip.Addr) time.Duration {
	limiter, ok := s.byAddress.GetIfPresent(from)
	if !ok {
		return 0 // None was refused.
	}
	missing := 1 - limiter.TokensAt(s.now())
	return max(0, time.Duration(missing/refusedRate*float64(time.Second)))
}

// refused counts a token that was refused.
func (s strangers) refused(from netip.Addr) {
	if !from.IsValid() {
		return // Only tests have callers without an address.
	}
	limiter, ok := s.byAddress.GetIfPresent(from)
	if !ok {
		limiter, _ = s.byAddress.SetIfAbsent(from, rate.NewLimiter(refusedRate, mostRefused))
	}
	limiter.AllowN(s.now(), 1)
}
