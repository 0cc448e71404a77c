package biztest

import (
	"testing"
	"time"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

// cycles is the number of owner changes for which the epoch must grow.
const cycles = 200

func testEpoch(t *testing.T, s suite) {
	s.test(t, "grows with every new owner", func(e *env) {
		// The mutations that create a link, move it, and remove it.
		creates := []func(e *env, pod biz.PodID) (biz.LinkChange, error){
			func(e *env, pod biz.PodID) (biz.LinkChange, error) {
				return e.Links.SetIfAbsent(e.Context(), e.key(), pod, biz.Forever, biz.SetTerms{})
			},
			func(e *env, pod biz.PodID) (biz.LinkChange, error) {
				return e.Links.SetIfEpoch(e.Context(), e.key(), pod, requestedTTL, biz.MoveTerms{Epoch: 0})
			},
			func(e *env, pod biz.PodID) (biz.LinkChange, error) {
				return e.Links.TrySet(e.Context(), e.key(), pod, biz.Forever, nil)
			},
		}
		moves := []func(e *env, pod biz.PodID, last biz.Epoch) (biz.LinkChange, error){
			func(e *env, pod biz.PodID, _ biz.Epoch) (biz.LinkChange, error) {
				return e.Links.Set(e.Context(), e.key(), pod, requestedTTL, biz.SetTerms{})
			},
			func(e *env, pod biz.PodID, last biz.Epoch) (biz.LinkChange, error) {
				return e.Links.SetIfEpoch(e.Context(), e.key(), pod, biz.Forever, biz.MoveTerms{Epoch: last})
			},
		}
		removals := []func(e *env, pod biz.PodID) (biz.LinkChange, error){
			func(e *env, _ biz.PodID) (biz.LinkChange, error) {
				return e.Links.Remove(e.Context(), e.key(), 0, biz.RemoveTerms{})
			},
			func(e *env, pod biz.PodID) (biz.LinkChange, error) {
				return e.Links.RemoveWithID(e.Context(), e.key(), pod, 0)
			},
		}
		var last biz.Epoch
		grows := func(change biz.LinkChange, err error) {
			e.Helper()
			e.requireApplied(change, err)
			require.Greater(e, change.Link.Epoch, last)
			last = change.Link.Epoch
		}
		for i := range cycles {
			grows(creates[i%len(creates)](e, 1))
			grows(moves[i%len(moves)](e, 2, last))
			e.requireApplied(removals[i%len(removals)](e, 2))
		}
	})
	s.test(t, "grows across expiry", func(e *env) {
		var last biz.Epoch
		for range 3 {
			var link biz.Link
			when := during(func() { link = e.set(e.key(), 1, 1) })
			require.Greater(e, link.Epoch, last)
			last = link.Epoch
			when.sleepPast(time.Second)
		}
	})

	// These mutations keep the owner, so they must keep the epoch.
	for name, step := range map[string]struct {
		from, to biz.TTL
		do       func(e *env) (biz.LinkChange, error)
	}{
		"temporary to persistent":    {currentTTL, biz.Forever, setAgain(biz.Forever)},
		"persistent to temporary":    {biz.Forever, requestedTTL, setAgain(requestedTTL)},
		"temporary again":            {currentTTL, requestedTTL, setAgain(requestedTTL)},
		"persistent again":           {biz.Forever, biz.Forever, setAgain(biz.Forever)},
		"temporary kept on removal":  {currentTTL, 60, keepOnRemoval},
		"persistent kept on removal": {biz.Forever, 60, keepOnRemoval},
	} {
		s.test(t, "stays/"+name, func(e *env) {
			before := e.set(e.key(), requestedPod, step.from)
			change, err := step.do(e)
			require.NoError(e, err)
			want := before
			want.TTL = step.to
			e.requireSameLink(want, change.Link)
			e.requireLink(want)
			back := e.set(e.key(), requestedPod, step.from)
			require.Equal(e, before.Epoch, back.Epoch, "and back")
			e.requireLink(before)
		})
	}
}

func setAgain(ttl biz.TTL) func(e *env) (biz.LinkChange, error) {
	return func(e *env) (biz.LinkChange, error) {
		return e.Links.Set(e.Context(), e.key(), requestedPod, ttl, biz.SetTerms{})
	}
}

func keepOnRemoval(e *env) (biz.LinkChange, error) {
	return e.Links.Remove(e.Context(), e.key(), 60, biz.RemoveTerms{})
}

// conditional lists the mutations with an expected epoch.
var conditional = []struct {
	name string
	call func(e *env, expected biz.Epoch) (biz.LinkChange, error)
}{
	{"Set", func(e *env, expected biz.Epoch) (biz.LinkChange, error) {
		return e.Links.Set(e.Context(), e.key(), requestedPod, requestedTTL, biz.SetTerms{Expected: &expected})
	}},
	{"Remove", func(e *env, expected biz.Epoch) (biz.LinkChange, error) {
		return e.Links.Remove(e.Context(), e.key(), 0, biz.RemoveTerms{Expected: &expected})
	}},
	{"Remove and keep", func(e *env, expected biz.Epoch) (biz.LinkChange, error) {
		return e.Links.Remove(e.Context(), e.key(), keepSeconds, biz.RemoveTerms{Expected: &expected})
	}},
}

func testExpectedEpoch(t *testing.T, s suite) {
	for _, mutation := range conditional {
		test := func(name string, run func(e *env)) { s.test(t, mutation.name+"/"+name, run) }

		// mismatches checks that the call fails with the current link in its error, and changes nothing.
		mismatches := func(e *env, expected biz.Epoch, current biz.Link) {
			e.Helper()
			_, err := mutation.call(e, expected)
			var mismatch *biz.EpochMismatchError
			require.ErrorAs(e, err, &mismatch)
			e.requireSameLink(current, mismatch.Current)
			e.requireLink(current)
		}
		for kind, ttl := range map[string]biz.TTL{"persistent": biz.Forever, "temporary": currentTTL} {
			test("the current one/"+kind, func(e *env) {
				before := e.set(e.key(), otherPod, ttl)
				change, err := mutation.call(e, before.Epoch)
				require.NoError(e, err)
				require.True(e, change.Applied)
				require.Equal(e, otherPod, change.Previous)
				e.requireLink(change.Link)
			})
			test("0 and a link/"+kind, func(e *env) {
				mismatches(e, 0, e.set(e.key(), otherPod, ttl))
			})
			test("one of an earlier owner/"+kind, func(e *env) {
				before := e.set(e.key(), requestedPod, biz.Forever)
				mismatches(e, before.Epoch, e.set(e.key(), otherPod, ttl))
			})
			test("one that was never given/"+kind, func(e *env) {
				before := e.set(e.key(), otherPod, ttl)
				for _, expected := range []biz.Epoch{1, before.Epoch - 1, before.Epoch + 1, 1<<63 - 1} {
					mismatches(e, expected, before)
				}
			})
		}
		test("one of a link that was removed", func(e *env) {
			before := e.set(e.key(), requestedPod, biz.Forever)
			_, err := e.Links.Remove(e.Context(), e.key(), 0, biz.RemoveTerms{})
			require.NoError(e, err)
			mismatches(e, before.Epoch, biz.NoLink(e.key()))
		})
		test("one of a link that has expired", func(e *env) {
			var before biz.Link
			when := during(func() { before = e.set(e.key(), requestedPod, 1) })
			when.sleepPast(time.Second)
			mismatches(e, before.Epoch, biz.NoLink(e.key()))
		})
	}

	// Epoch 0 means that there is no link.
	s.test(t, "Set/0 and no link", func(e *env) {
		none := biz.Epoch(0)
		change, err := e.Links.Set(e.Context(), e.key(), requestedPod, requestedTTL, biz.SetTerms{Expected: &none})
		require.NoError(e, err)
		require.True(e, change.Applied)
		require.Equal(e, biz.NoPod, change.Previous)
		e.requireLink(biz.Link{Key: e.key(), Pod: requestedPod, TTL: requestedTTL, Epoch: change.Link.Epoch})
	})
	s.test(t, "Remove/0 and no link", func(e *env) {
		none := biz.Epoch(0)
		change, err := e.Links.Remove(e.Context(), e.key(), 0, biz.RemoveTerms{Expected: &none})
		require.NoError(e, err)
		require.Equal(e, biz.LinkChange{Previous: biz.NoPod, Link: biz.NoLink(e.key())}, change)
	})
}
