// Package sim is what the simulators of the client share: the plans of faults, the pods' service with its storage, and the
// behavior of the users. One simulator runs in virtual time, in client/; the other with real processes, in test/sim.
package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Fault is one fault of a plan.
type Fault struct {
	Kind  Kind
	At    time.Duration // after the begin of the plan
	Lasts time.Duration // 0: it is an event
	Pod   int32         // of a fault of one pod
}

// String implements fmt.Stringer.
func (f Fault) String() string {
	text := fmt.Sprintf("%6.2fs %s", f.At.Seconds(), f.Kind)
	if strings.HasPrefix(string(f.Kind), "pod ") {
		text += fmt.Sprintf(" %d", f.Pod)
	}
	if f.Lasts > 0 {
		text += fmt.Sprintf(" for %.2fs", f.Lasts.Seconds())
	}
	return text
}

// Kind is a kind of fault.
type Kind string

// The kinds of faults.
const (
	PodlinkKilled   Kind = "podlink killed"
	PodlinkFrozen   Kind = "podlink frozen"
	PodlinkFlapping Kind = "podlink flapping"
	OnePodlinkAway  Kind = "one podlink killed"
	RepliesLost     Kind = "replies lost"
	StoreKilled     Kind = "store killed"
	StoreFrozen     Kind = "store frozen"
	StoreFlushed    Kind = "store flushed"
	StoreFailedOver Kind = "store failed over"
	PodKilled       Kind = "pod killed and restarted"
	PodFrozen       Kind = "pod frozen"
	PodDoubled      Kind = "pod doubled"
	PodCut          Kind = "pod cut off from podlink"
	PodDrained      Kind = "pod drained and restarted"
	PodsCut         Kind = "all pods cut off from podlink"
	AnswersSlow     Kind = "answers slow"
	UserCorrupt     Kind = "user corrupt"
	UsersMoved      Kind = "users moved by hand"
	CallerCut       Kind = "caller cut off from podlink"
)

// Kinds are all faults that a plan may have.
var Kinds = []Kind{
	PodlinkKilled, PodlinkFrozen, PodlinkFlapping, OnePodlinkAway, RepliesLost, StoreKilled, StoreFrozen, StoreFlushed, StoreFailedOver,
	PodKilled, PodFrozen, PodDoubled, PodCut, PodDrained, PodsCut, AnswersSlow, UserCorrupt, UsersMoved, CallerCut,
}

// everywhere are the faults that strike all pods alike. Two of them do not overlap.
var everywhere = []Kind{
	PodlinkKilled, PodlinkFrozen, PodlinkFlapping, OnePodlinkAway, RepliesLost, StoreKilled, StoreFrozen, StoreFailedOver, PodsCut,
	AnswersSlow,
}

// Everywhere reports whether the fault strikes all pods alike.
func (k Kind) Everywhere() bool { return slices.Contains(everywhere, k) }

// Plan draws the faults of a run, by a generator that is the plan's alone. Faults last half a ttl to five ttl, and begin half a
// ttl to two ttl after another.
func Plan(random *rand.Rand, kinds []Kind, count int, ttl time.Duration, pods int32) []Fault {
	between := func(low, high float64) time.Duration {
		return time.Duration((low + (high-low)*random.Float64()) * float64(ttl)).Round(time.Millisecond)
	}
	var faults []Fault
	at := between(1, 2)
	free := make(map[string]time.Duration) // when what a fault strikes is well again
	for range count {
		f := Fault{Kind: kinds[random.IntN(len(kinds))], At: at, Lasts: between(.5, 5), Pod: random.Int32N(pods)}
		strikes := string(f.Kind)
		switch {
		case f.Kind.Everywhere():
			strikes = "everywhere"
		case strings.HasPrefix(strikes, "pod "):
			strikes = fmt.Sprint("pod ", f.Pod)
		}
		switch f.Kind {
		case StoreFlushed, StoreFailedOver, UsersMoved:
			f.Lasts = 0
		case OnePodlinkAway, RepliesLost, AnswersSlow:
			f.Lasts = min(f.Lasts, 2*ttl)
		default:
		}
		f.At = max(f.At, free[strikes])
		free[strikes] = f.At + f.Lasts + between(.5, 1)
		faults = append(faults, f)
		at += between(.5, 2)
	}
	slices.SortStableFunc(faults, func(a, b Fault) int { return int(a.At - b.At) })
	return faults
}

// End is when the last fault of the plan is over.
func End(faults []Fault) time.Duration {
	last := time.Duration(0)
	for _, f := range faults {
		last = max(last, f.At+f.Lasts)
	}
	return last
}
