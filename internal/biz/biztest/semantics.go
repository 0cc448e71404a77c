package biztest

import (
	"testing"
	"time"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

// The columns of the contract's table: the current link before a mutation.
const (
	noLink          = "no link"
	samePod         = "same pod"
	temporaryOther  = "temporary link to another pod"
	persistentOther = "persistent link to another pod"
)

// The pods of the table, and the TTLs of the current link and of the request.
const (
	requestedPod biz.PodID = 7
	otherPod     biz.PodID = 3

	currentTTL   biz.TTL = 600
	requestedTTL biz.TTL = 900
	keepSeconds  int32   = 60
)

// cell is one cell of the table, or a variant of it.
type cell struct {
	operation, column, variant string

	pod biz.PodID // of the current link; NoPod: there is none
	ttl biz.TTL

	call func(e *env, key biz.LinkKey) (biz.LinkChange, error)

	applied  bool
	wantPod  biz.PodID // of the link after the mutation; NoPod: there is none
	wantTTL  biz.TTL
	newEpoch bool // the owner has changed
}

// unchanged expects that the condition did not hold and nothing has changed.
func (c cell) unchanged() cell {
	c.applied, c.wantPod, c.wantTTL, c.newEpoch = false, c.pod, c.ttl, false
	return c
}

// linked expects a link to requestedPod.
func (c cell) linked(ttl biz.TTL) cell {
	c.applied, c.wantPod, c.wantTTL, c.newEpoch = true, requestedPod, ttl, c.pod != requestedPod
	return c
}

// removed expects that the link was removed, or kept for some seconds.
func (c cell) removed(keep int32) cell {
	c.applied, c.wantPod, c.wantTTL, c.newEpoch = true, c.pod, biz.TTL(keep), false
	if keep == 0 {
		c.wantPod, c.wantTTL = biz.NoPod, biz.Gone
	}
	return c
}

// kept reports whether the link was already as asked, so that nothing is written.
func (c cell) kept() bool {
	return c.applied && c.pod == c.wantPod && c.ttl == biz.Forever && c.wantTTL == biz.Forever
}

// tableColumns returns the columns; that of the same pod in two variants, persistent and temporary.
func tableColumns() []cell {
	return []cell{
		{column: noLink, pod: biz.NoPod, ttl: biz.Gone},
		{column: samePod, variant: "persistent", pod: requestedPod, ttl: biz.Forever},
		{column: samePod, variant: "temporary", pod: requestedPod, ttl: currentTTL},
		{column: temporaryOther, pod: otherPod, ttl: currentTTL},
		{column: persistentOther, pod: otherPod, ttl: biz.Forever},
	}
}

// cells returns the contract's table, except for the row of ComputeLinkedPod, which is computeCells.
func cells() []cell {
	var all []cell
	add := func(operation, variant string, c cell) {
		c.operation = operation
		if c.variant != "" {
			variant = c.variant + " link, " + variant
		}
		c.variant = variant
		all = append(all, c)
	}
	for _, c := range tableColumns() {
		for variant, ttl := range map[string]biz.TTL{"persistent request": biz.Forever, "temporary request": requestedTTL} {
			c.call = func(e *env, key biz.LinkKey) (biz.LinkChange, error) {
				return e.Links.Set(e.Context(), key, requestedPod, ttl, biz.SetTerms{})
			}
			add("SetLinkedPod", variant, c.linked(ttl))

			c.call = func(e *env, key biz.LinkKey) (biz.LinkChange, error) {
				return e.Links.TrySet(e.Context(), key, requestedPod, ttl, nil)
			}
			if c.column == persistentOther {
				add("TrySetLinkedPod", variant, c.unchanged())
			} else {
				add("TrySetLinkedPod", variant, c.linked(ttl))
			}

			c.call = func(e *env, key biz.LinkKey) (biz.LinkChange, error) {
				return e.Links.SetIfAbsent(e.Context(), key, requestedPod, ttl, biz.SetTerms{})
			}
			if c.column == noLink {
				add("SetLinkedPodIfAbsent", variant, c.linked(ttl))
			} else {
				add("SetLinkedPodIfAbsent", variant, c.unchanged())
			}
		}
		for variant, keep := range map[string]int32{"now": 0, "keep": keepSeconds} {
			c.call = func(e *env, key biz.LinkKey) (biz.LinkChange, error) {
				return e.Links.Remove(e.Context(), key, keep, biz.RemoveTerms{})
			}
			if c.column == noLink {
				add("RemoveLinkedPod", variant, c.unchanged())
			} else {
				add("RemoveLinkedPod", variant, c.removed(keep))
			}

			c.call = func(e *env, key biz.LinkKey) (biz.LinkChange, error) {
				return e.Links.RemoveWithID(e.Context(), key, requestedPod, keep)
			}
			if c.column == samePod {
				add("RemoveLinkedPodWithId", variant, c.removed(keep))
			} else {
				add("RemoveLinkedPodWithId", variant, c.unchanged())
			}
		}
	}
	return all
}

func testSemantics(t *testing.T, s suite) {
	covered := make(map[string]bool)
	for _, c := range cells() {
		covered[c.operation+"/"+c.column] = true
		s.test(t, c.operation+"/"+c.column+"/"+c.variant, c.test)
	}
	for _, c := range computeCells() {
		covered["ComputeLinkedPod/"+c.column] = true
		s.test(t, "ComputeLinkedPod/"+c.column+"/"+c.variant, c.test)
	}
	require.Len(t, covered, 6*4-1, "the table has 6 operations and 4 columns, and ComputeLinkedPod names no pod")
}

func (c cell) test(e *env) {
	key, before := e.key(), biz.NoLink(e.key())
	if c.pod != biz.NoPod {
		before = e.set(key, c.pod, c.ttl)
	}
	var change biz.LinkChange
	var err error
	when := during(func() { change, err = c.call(e, key) })
	require.NoError(e, err)
	require.Equal(e, c.applied, change.Applied)
	require.Equal(e, c.pod, change.Previous, "previous is the pod of the live link before the call")
	require.Equal(e, c.kept(), change.Kept, "kept: the link was persistent already, and to the same pod")
	removed := biz.Epoch(0)
	if c.applied && c.wantPod == biz.NoPod {
		removed = before.Epoch
	}
	require.Equal(e, removed, change.Removed, "the epoch of the removed link")

	want := biz.Link{Key: key, Pod: c.wantPod, TTL: c.wantTTL, Epoch: before.Epoch}
	switch {
	case c.newEpoch:
		require.Greater(e, change.Link.Epoch, before.Epoch)
		e.requireClockEpoch(change.Link.Epoch, when)
		want.Epoch = change.Link.Epoch
	case c.wantPod == biz.NoPod:
		want.Epoch = 0
	}
	e.requireSameLink(want, change.Link)
	e.requireLink(want)
}

// clockSlack is the maximum difference between the clocks of the store and the test.
const clockSlack = time.Second

// requireClockEpoch checks that a new epoch is the store's clock in µs.
func (e *env) requireClockEpoch(epoch biz.Epoch, when span) {
	e.Helper()
	require.GreaterOrEqual(e, int64(epoch), when.start.Add(-clockSlack).UnixMicro(), "an epoch is in µs since 1970")
	require.LessOrEqual(e, int64(epoch), when.end.Add(clockSlack).UnixMicro(), "an epoch is in µs since 1970")
}
