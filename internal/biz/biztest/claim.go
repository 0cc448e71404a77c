package biztest

import (
	"testing"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

// The generations of processes of a pod, in the order of their starts.
const (
	earlier biz.Generation = 1795408417769593
	current biz.Generation = earlier + 1
	later   biz.Generation = 1<<52 - 1
)

// claim links the key to the pod with a claim, and returns the link.
func (e *env) claim(key biz.LinkKey, pod biz.PodID, ttl biz.TTL, generation biz.Generation) biz.Link {
	e.Helper()
	change, err := e.Links.Set(e.Context(), key, pod, ttl, biz.SetTerms{Claim: generation})
	e.requireApplied(change, err)
	e.requireSameLink(biz.Link{Key: key, Pod: pod, TTL: ttl, Epoch: change.Link.Epoch, Claim: generation}, change.Link)
	return change.Link
}

// claimRow is a Set with a claim of the process current of requestedPod.
type claimRow struct {
	name     string
	before   func(e *env) biz.Link
	terms    func(before biz.Link) biz.SetTerms
	newEpoch bool // the process is a new owner
	want     verdict
}

// verdict is the result of a Set with a claim.
type verdict int

const (
	applied    verdict = iota
	mismatch           // *biz.EpochMismatchError
	superseded         // *biz.SupersededError
)

// claimRows returns the contract's rules of claims. The link of "before" is temporary or persistent.
func claimRows(ttl biz.TTL) []claimRow {
	none := func(e *env) biz.Link { return biz.NoLink(e.key()) }
	unclaimed := func(pod biz.PodID) func(e *env) biz.Link {
		return func(e *env) biz.Link { return e.set(e.key(), pod, ttl) }
	}
	claimed := func(pod biz.PodID, generation biz.Generation) func(e *env) biz.Link {
		return func(e *env) biz.Link { return e.claim(e.key(), pod, ttl, generation) }
	}
	terms := func(change func(terms *biz.SetTerms, before biz.Link)) func(before biz.Link) biz.SetTerms {
		return func(before biz.Link) biz.SetTerms {
			terms := biz.SetTerms{Claim: current}
			change(&terms, before)
			return terms
		}
	}
	any := terms(func(*biz.SetTerms, biz.Link) {})
	expectingIt := terms(func(t *biz.SetTerms, before biz.Link) { t.Expected = &before.Epoch })
	expectingNone := terms(func(t *biz.SetTerms, _ biz.Link) { t.Expected = new(biz.Epoch) })
	expectingAnother := terms(func(t *biz.SetTerms, before biz.Link) { another := before.Epoch + 1; t.Expected = &another })
	below := terms(func(t *biz.SetTerms, before biz.Link) {
		below := before.Epoch - 1
		t.Above, t.Expected = &below, new(biz.Epoch)
	})
	above := terms(func(t *biz.SetTerms, before biz.Link) { t.Above = &before.Epoch })
	aboveExpectingIt := terms(func(t *biz.SetTerms, before biz.Link) { t.Above, t.Expected = &before.Epoch, &before.Epoch })
	aboveExpectingNone := terms(func(t *biz.SetTerms, before biz.Link) { t.Above, t.Expected = &before.Epoch, new(biz.Epoch) })
	return []claimRow{
		{"no link", none, any, true, applied},
		{"no link, expecting none", none, expectingNone, true, applied},
		{"no link, expecting one", none, expectingAnother, false, mismatch},
		{"another pod", unclaimed(otherPod), any, true, applied},
		{"another pod, expecting it", unclaimed(otherPod), expectingIt, true, applied},
		{"another pod, expecting another epoch", unclaimed(otherPod), expectingAnother, false, mismatch},
		{"another pod with a later claim", claimed(otherPod, later), expectingIt, true, applied},
		{"another pod with the same claim", claimed(otherPod, current), any, true, applied},
		{"another pod with the same claim, expecting none", claimed(otherPod, current), expectingNone, false, mismatch},
		{"unclaimed", unclaimed(requestedPod), any, true, applied},
		{"unclaimed, expecting it", unclaimed(requestedPod), expectingIt, true, applied},
		{"unclaimed, expecting none", unclaimed(requestedPod), expectingNone, false, mismatch},
		{"an earlier claim", claimed(requestedPod, earlier), any, true, applied},
		{"claim 1", claimed(requestedPod, 1), any, true, applied},
		{"an earlier claim, expecting it", claimed(requestedPod, earlier), expectingIt, true, applied},
		{"an earlier claim, expecting another", claimed(requestedPod, earlier), expectingAnother, false, mismatch},
		{"the same claim", claimed(requestedPod, current), any, false, applied},
		{"the same claim, expecting it", claimed(requestedPod, current), expectingIt, false, applied},
		{"the same claim, expecting none", claimed(requestedPod, current), expectingNone, false, applied},
		{"the same claim, expecting another", claimed(requestedPod, current), expectingAnother, false, applied},
		{"the same claim, above an earlier epoch", claimed(requestedPod, current), below, false, applied},
		{"the same claim, above its epoch", claimed(requestedPod, current), above, true, applied},
		{"the same claim, above its epoch, expecting it", claimed(requestedPod, current), aboveExpectingIt, true, applied},
		{"the same claim, above its epoch, expecting none", claimed(requestedPod, current), aboveExpectingNone, false, mismatch},
		{"a later claim", claimed(requestedPod, later), any, false, superseded},
		{"a later claim, expecting it", claimed(requestedPod, later), expectingIt, false, superseded},
		{"a later claim, expecting another", claimed(requestedPod, later), expectingAnother, false, superseded},
		{"a later claim, above its epoch", claimed(requestedPod, later), above, false, superseded},
	}
}

func testClaim(t *testing.T, s suite) {
	for kind, ttl := range map[string]biz.TTL{"persistent": biz.Forever, "temporary": currentTTL} {
		for _, row := range claimRows(ttl) {
			s.test(t, row.name+"/"+kind, row.test)
		}

		// These mutations keep the claim, or drop it.
		for name, step := range map[string]struct {
			do    func(e *env, before biz.Link) (biz.LinkChange, error)
			keeps bool
		}{
			"Set of the pod": {func(e *env, before biz.Link) (biz.LinkChange, error) {
				return e.Links.Set(e.Context(), e.key(), requestedPod, requestedTTL, biz.SetTerms{Expected: &before.Epoch})
			}, true},
			"Set of the pod, persistent": {func(e *env, _ biz.Link) (biz.LinkChange, error) {
				return e.Links.Set(e.Context(), e.key(), requestedPod, biz.Forever, biz.SetTerms{})
			}, true},
			"Set of the pod, above its epoch": {func(e *env, before biz.Link) (biz.LinkChange, error) {
				return e.Links.Set(e.Context(), e.key(), requestedPod, biz.Forever, biz.SetTerms{Above: &before.Epoch})
			}, true},
			"TrySet of the pod": {func(e *env, _ biz.Link) (biz.LinkChange, error) {
				return e.Links.TrySet(e.Context(), e.key(), requestedPod, requestedTTL, nil)
			}, true},
			"SetIfAbsent with another claim": {func(e *env, _ biz.Link) (biz.LinkChange, error) {
				return e.Links.SetIfAbsent(e.Context(), e.key(), requestedPod, requestedTTL, biz.SetTerms{Claim: later})
			}, true},
			"SetIfEpoch of another epoch": {func(e *env, _ biz.Link) (biz.LinkChange, error) {
				return e.Links.SetIfEpoch(e.Context(), e.key(), otherPod, requestedTTL, biz.MoveTerms{})
			}, true},
			"RemoveWithID of another pod": {func(e *env, _ biz.Link) (biz.LinkChange, error) {
				return e.Links.RemoveWithID(e.Context(), e.key(), otherPod, 0)
			}, true},
			"Set of another pod": {func(e *env, _ biz.Link) (biz.LinkChange, error) {
				return e.Links.Set(e.Context(), e.key(), otherPod, requestedTTL, biz.SetTerms{})
			}, false},
			"SetIfEpoch": {func(e *env, before biz.Link) (biz.LinkChange, error) {
				return e.Links.SetIfEpoch(e.Context(), e.key(), otherPod, requestedTTL, biz.MoveTerms{Epoch: before.Epoch})
			}, false},
			"Remove and keep": {func(e *env, _ biz.Link) (biz.LinkChange, error) {
				return e.Links.Remove(e.Context(), e.key(), keepSeconds, biz.RemoveTerms{})
			}, false},
			"RemoveWithID and keep": {func(e *env, _ biz.Link) (biz.LinkChange, error) {
				return e.Links.RemoveWithID(e.Context(), e.key(), requestedPod, keepSeconds)
			}, false},
		} {
			s.test(t, name+"/"+kind, func(e *env) {
				before := e.claim(e.key(), requestedPod, ttl, current)
				change, err := step.do(e, before)
				require.NoError(e, err)
				want := change.Link
				want.Claim = 0
				if step.keeps {
					want.Claim, want.Epoch = current, before.Epoch
				}
				e.requireSameLink(want, change.Link)
				e.requireLink(want)
			})
		}
	}

	s.test(t, "SetIfAbsent claims a new link", func(e *env) {
		change, err := e.Links.SetIfAbsent(e.Context(), e.key(), requestedPod, currentTTL, biz.SetTerms{Claim: later})
		e.requireApplied(change, err)
		require.Equal(e, later, change.Link.Claim)
		e.requireLink(change.Link)
	})
	s.test(t, "a removed link has no claim", func(e *env) {
		before := e.claim(e.key(), requestedPod, biz.Forever, later)
		e.requireApplied(e.Links.Remove(e.Context(), e.key(), 0, biz.RemoveTerms{}))
		after := e.claim(e.key(), requestedPod, biz.Forever, earlier)
		require.Greater(e, after.Epoch, before.Epoch)
	})
	s.test(t, "one owner of two processes", func(e *env) {
		attempts := race(concurrency, func(i int) result {
			terms := biz.SetTerms{Claim: biz.Generation(1 + i%10), Expected: new(biz.Epoch)}
			change, err := e.view(i).Links.Set(e.Context(), e.key(), requestedPod, biz.Forever, terms)
			return result{change: change, err: err}
		})
		owners := make(map[biz.Generation]biz.Epoch) // with their epochs
		for _, a := range attempts {
			if a.err == nil {
				owners[a.change.Link.Claim] = a.change.Link.Epoch
			}
		}
		require.Len(e, owners, 1, "only one process found no link")
	})
	s.test(t, "no two processes have one epoch", func(e *env) {
		attempts := race(concurrency, func(i int) result {
			terms := biz.SetTerms{Claim: biz.Generation(1 + i%10)}
			change, err := e.view(i).Links.Set(e.Context(), e.key(), requestedPod, biz.Forever, terms)
			return result{change: change, err: err}
		})
		owners := make(map[biz.Epoch]biz.Generation)
		for _, a := range attempts {
			if a.err != nil {
				require.ErrorAs(e, a.err, new(*biz.SupersededError))
				continue
			}
			link := a.change.Link
			owner, known := owners[link.Epoch]
			require.True(e, !known || owner == link.Claim)
			owners[link.Epoch] = link.Claim
		}
		last, err := e.Links.Get(e.Context(), e.key())
		require.NoError(e, err)
		require.EqualValues(e, 10, last.Claim, "the last process has it")
	})
}

func (row claimRow) test(e *env) {
	before := row.before(e)
	terms := row.terms(before)
	var change biz.LinkChange
	var err error
	when := during(func() { change, err = e.Links.Set(e.Context(), e.key(), requestedPod, requestedTTL, terms) })
	switch row.want {
	case mismatch:
		var mismatched *biz.EpochMismatchError
		require.ErrorAs(e, err, &mismatched)
		e.requireSameLink(before, mismatched.Current)
		e.requireLink(before)
		return
	case superseded:
		var replaced *biz.SupersededError
		require.ErrorAs(e, err, &replaced)
		require.Equal(e, biz.SupersededError{Generation: before.Claim}, *replaced)
		e.requireLink(before)
		return
	case applied:
	}
	e.requireApplied(change, err)
	require.Equal(e, before.Pod, change.Previous)
	want := biz.Link{Key: e.key(), Pod: requestedPod, TTL: requestedTTL, Epoch: before.Epoch, Claim: terms.Claim}
	if row.newEpoch {
		want.Epoch = change.Link.Epoch
		require.Greater(e, want.Epoch, before.Epoch)
		e.requireClockEpoch(want.Epoch, when)
	}
	e.requireSameLink(want, change.Link)
	e.requireLink(want)

	// The reply was lost, so the caller repeats the call, whatever it expected.
	again, err := e.Links.Set(e.Context(), e.key(), requestedPod, requestedTTL, terms)
	e.requireApplied(again, err)
	e.requireSameLink(want, again.Link)
}

// day is a day in µs, as in epochs.
const day = 24 * 60 * 60 * 1_000_000

// linking has the mutations that give an epoch, greater than above if that is not 0.
var linking = map[string]func(e *env, above biz.Epoch) (biz.LinkChange, error){
	"Set": func(e *env, above biz.Epoch) (biz.LinkChange, error) {
		return e.Links.Set(e.Context(), e.key(), requestedPod, biz.Forever, biz.SetTerms{Above: &above})
	},
	"Set with a claim": func(e *env, above biz.Epoch) (biz.LinkChange, error) {
		return e.Links.Set(e.Context(), e.key(), requestedPod, currentTTL, biz.SetTerms{Above: &above, Claim: current})
	},
	"SetIfAbsent": func(e *env, above biz.Epoch) (biz.LinkChange, error) {
		return e.Links.SetIfAbsent(e.Context(), e.key(), requestedPod, currentTTL, biz.SetTerms{Above: &above})
	},
	"SetIfEpoch": func(e *env, above biz.Epoch) (biz.LinkChange, error) {
		return e.Links.SetIfEpoch(e.Context(), e.key(), requestedPod, biz.Forever, biz.MoveTerms{Above: above})
	},
}

func testAboveEpoch(t *testing.T, s suite) {
	for name, link := range linking {
		s.test(t, name+"/an hour ahead", func(e *env) {
			now := e.set(e.keyOf("clock", service), requestedPod, biz.Forever).Epoch
			change, err := link(e, now+day/24)
			e.requireApplied(change, err)
			require.Equal(e, now+day/24+1, change.Link.Epoch)
			e.requireLink(change.Link)

			e.requireApplied(e.Links.Set(e.Context(), e.key(), otherPod, biz.Forever, biz.SetTerms{}))
			moved, err := e.Links.Get(e.Context(), e.key())
			require.NoError(e, err)
			require.Equal(e, change.Link.Epoch+1, moved.Epoch, "the epoch goes on growing")
		})
		for variant, above := range map[string]biz.Epoch{"0": 0, "long ago": 1} {
			s.test(t, name+"/"+variant, func(e *env) {
				var change biz.LinkChange
				var err error
				when := during(func() { change, err = link(e, above) })
				e.requireApplied(change, err)
				e.requireClockEpoch(change.Link.Epoch, when)
			})
		}
		s.test(t, name+"/more than a day ahead", func(e *env) {
			now := e.set(e.keyOf("clock", service), requestedPod, biz.Forever).Epoch
			for _, above := range []biz.Epoch{now + day + day/24, 1<<53 - 2} {
				e.requireTooFarAhead(link(e, above))
				e.requireNoLink(e.key())
			}
			before := e.claim(e.key(), requestedPod, biz.Forever, current)
			e.requireTooFarAhead(link(e, now+day+day/24))
			e.requireLink(before)
		})
	}
	s.test(t, "SetIfEpoch/only a temporary link", func(e *env) {
		persistent := e.set(e.key(), otherPod, biz.Forever)
		move := biz.MoveTerms{Epoch: persistent.Epoch, TemporaryOnly: true}
		change, err := e.Links.SetIfEpoch(e.Context(), e.key(), requestedPod, currentTTL, move)
		require.NoError(e, err)
		require.Equal(e, biz.LinkChange{Previous: otherPod, Link: persistent}, change)
		e.requireLink(persistent)

		e.set(e.key(), otherPod, currentTTL)
		change, err = e.Links.SetIfEpoch(e.Context(), e.key(), requestedPod, currentTTL, move)
		e.requireApplied(change, err)
		require.Equal(e, requestedPod, change.Link.Pod)
		e.requireLink(change.Link)
	})
}

func (e *env) requireTooFarAhead(_ biz.LinkChange, err error) {
	e.Helper()
	var invalid *biz.InvalidArgumentError
	require.ErrorAs(e, err, &invalid)
	require.Equal(e, "above_epoch", invalid.Field)
}
