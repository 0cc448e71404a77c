package biztest

import (
	"testing"
	"time"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

// owned lists the mutations of links that must be the pod's own, as requestedPod makes them with the epoch of the current link.
// The last argument is that pod, nil for the mutation without the condition.
var owned = []struct {
	name string
	call func(e *env, current biz.Link, own *biz.PodID) (biz.LinkChange, error)
	// refuses: another pod's link is a result without an error. creates: without the condition, the call makes a link where there is
	// none.
	refuses, creates bool
}{
	{"Set", func(e *env, current biz.Link, own *biz.PodID) (biz.LinkChange, error) {
		terms := biz.SetTerms{Expected: &current.Epoch, Own: own}
		return e.Links.Set(e.Context(), e.key(), requestedPod, requestedTTL, terms)
	}, false, true},
	{"Set with a claim", func(e *env, current biz.Link, own *biz.PodID) (biz.LinkChange, error) {
		terms := biz.SetTerms{Expected: &current.Epoch, Claim: later, Own: own}
		return e.Links.Set(e.Context(), e.key(), requestedPod, biz.Forever, terms)
	}, false, true},
	{"Set with a claim, above the epoch", func(e *env, current biz.Link, own *biz.PodID) (biz.LinkChange, error) {
		terms := biz.SetTerms{Expected: &current.Epoch, Claim: later, Above: &current.Epoch, Own: own}
		return e.Links.Set(e.Context(), e.key(), requestedPod, biz.Forever, terms)
	}, false, true},
	{"Set of any epoch", func(e *env, _ biz.Link, own *biz.PodID) (biz.LinkChange, error) {
		return e.Links.Set(e.Context(), e.key(), requestedPod, biz.Forever, biz.SetTerms{Own: own})
	}, false, true},
	{"TrySet", func(e *env, _ biz.Link, own *biz.PodID) (biz.LinkChange, error) {
		return e.Links.TrySet(e.Context(), e.key(), requestedPod, requestedTTL, own)
	}, true, true},
	{"Remove", func(e *env, current biz.Link, own *biz.PodID) (biz.LinkChange, error) {
		return e.Links.Remove(e.Context(), e.key(), 0, biz.RemoveTerms{Expected: &current.Epoch, Own: own})
	}, false, false},
	{"Remove and keep", func(e *env, current biz.Link, own *biz.PodID) (biz.LinkChange, error) {
		return e.Links.Remove(e.Context(), e.key(), keepSeconds, biz.RemoveTerms{Expected: &current.Epoch, Own: own})
	}, false, false},
	{"Remove of any epoch", func(e *env, _ biz.Link, own *biz.PodID) (biz.LinkChange, error) {
		return e.Links.Remove(e.Context(), e.key(), 0, biz.RemoveTerms{Own: own})
	}, false, false},
	{"RemoveWithID", func(e *env, _ biz.Link, _ *biz.PodID) (biz.LinkChange, error) {
		return e.Links.RemoveWithID(e.Context(), e.key(), requestedPod, 0)
	}, true, false},
}

func testOwn(t *testing.T, s suite) {
	own := requestedPod
	for _, mutation := range owned {
		// unchanged checks that the call finds a link that is not the pod's, and changes nothing.
		unchanged := func(e *env, current biz.Link) {
			e.Helper()
			for range 2 { // The reply was lost, so the caller repeats the call.
				change, err := mutation.call(e, current, &own)
				if mutation.refuses || !mutation.creates && !current.Exists() {
					require.NoError(e, err)
					require.False(e, change.Applied)
					require.Equal(e, current.Pod, change.Previous)
					e.requireSameLink(current, change.Link)
				} else {
					var mismatched *biz.EpochMismatchError
					require.ErrorAs(e, err, &mismatched)
					e.requireSameLink(current, mismatched.Current)
				}
				e.requireLink(current)
			}
		}
		for kind, ttl := range map[string]biz.TTL{"persistent": biz.Forever, "temporary": currentTTL} {
			s.test(t, mutation.name+"/its own/"+kind, func(e *env) {
				before := e.claim(e.key(), requestedPod, ttl, current)
				got, err := mutation.call(e, before, &own)
				e.requireApplied(got, err)
				require.Equal(e, requestedPod, got.Previous)
				e.requireLink(got.Link)

				// It does what it does without the condition.
				e.claim(e.key(), otherPod, ttl, current)
				again := e.claim(e.key(), requestedPod, ttl, current)
				want, err := mutation.call(e, again, nil)
				e.requireApplied(want, err)
				require.Equal(e, want.Link.Epoch == again.Epoch, got.Link.Epoch == before.Epoch, "a new epoch")
				want.Link.Epoch = got.Link.Epoch
				e.requireSameLink(want.Link, got.Link)
			})
			s.test(t, mutation.name+"/another pod's/"+kind, func(e *env) {
				unchanged(e, e.set(e.key(), otherPod, ttl))
			})
			s.test(t, mutation.name+"/another pod's, claimed/"+kind, func(e *env) {
				unchanged(e, e.claim(e.key(), otherPod, ttl, later))
			})
		}
		s.test(t, mutation.name+"/none", func(e *env) { unchanged(e, biz.NoLink(e.key())) })
		s.test(t, mutation.name+"/its own has expired", func(e *env) {
			when := during(func() { e.set(e.key(), requestedPod, 1) })
			when.sleepPast(time.Second)
			unchanged(e, biz.NoLink(e.key()))
		})
	}

	s.test(t, "another epoch of its own is a mismatch", func(e *env) {
		before := e.claim(e.key(), requestedPod, biz.Forever, current)
		successor := e.claim(e.key(), requestedPod, biz.Forever, later)
		require.Greater(e, successor.Epoch, before.Epoch)
		for _, err := range []error{
			second(e.Links.Set(e.Context(), e.key(), requestedPod, biz.Forever, biz.SetTerms{Expected: &before.Epoch, Own: &own})),
			second(e.Links.Remove(e.Context(), e.key(), 0, biz.RemoveTerms{Expected: &before.Epoch, Own: &own})),
		} {
			require.ErrorAs(e, err, new(*biz.EpochMismatchError), "a process that was replaced")
		}
		e.requireLink(successor)
	})
	s.test(t, "a later process of the pod goes first", func(e *env) {
		before := e.claim(e.key(), requestedPod, biz.Forever, later)
		terms := biz.SetTerms{Expected: &before.Epoch, Claim: current, Own: &own}
		err := second(e.Links.Set(e.Context(), e.key(), requestedPod, biz.Forever, terms))
		require.ErrorAs(e, err, new(*biz.SupersededError))
		e.requireLink(before)
	})
	s.test(t, "SetIfAbsent makes a link of its own", func(e *env) {
		terms := biz.SetTerms{Claim: current, Own: &own}
		change, err := e.Links.SetIfAbsent(e.Context(), e.key(), requestedPod, biz.Forever, terms)
		e.requireApplied(change, err)
		e.requireLink(change.Link)
	})
	s.test(t, "of many pods only the owner", func(e *env) {
		before := e.set(e.key(), requestedPod, biz.Forever)
		attempts := race(concurrency, func(i int) result {
			pod := biz.PodID(i % 10)
			terms := biz.SetTerms{Expected: &before.Epoch, Claim: current, Own: &pod}
			change, err := e.view(i).Links.Set(e.Context(), e.key(), pod, biz.Forever, terms)
			return result{change: change, err: err}
		})
		applied := 0
		for _, a := range attempts {
			if a.err == nil {
				applied++
				require.Equal(e, requestedPod, a.change.Link.Pod)
			}
		}
		require.Equal(e, concurrency/10, applied, "the owner's, one of which claims it and the others repeat that")
	})
}
