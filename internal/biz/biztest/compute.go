package biztest

import (
	"fmt"
	"testing"
	"time"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

// computeCell is a cell of the contract's row for ComputeLinkedPod, or a variant of it.
type computeCell struct {
	column, variant string

	ttl  biz.TTL      // of the current link, which is to otherPod; Gone: there is none
	pods func(e *env) // stores the reports of the service

	outcome biz.Outcome // 0: ErrNoAvailablePod
	wantPod biz.PodID
}

// computeCells is the row. The best pod is always requestedPod; the current link is to otherPod.
func computeCells() []computeCell {
	ready := func(e *env) { e.reportReady(requestedPod) }
	with := func(reports ...biz.Report) func(*env) {
		return func(e *env) {
			for _, report := range reports {
				report.State = "up"
				e.report(report)
			}
		}
	}
	report := func(pod biz.PodID, load int32, routing biz.Routing) biz.Report {
		return biz.Report{Pod: pod, Load: load, Routing: routing, TTL: biz.Forever}
	}
	nothing := func(*env) {}
	better := report(requestedPod, 0, biz.Ready)

	all := []computeCell{
		{noLink, "one pod", biz.Gone, ready, biz.Created, requestedPod},
		{noLink, "the best pod", biz.Gone, with(
			report(1, 6, biz.Ready), report(requestedPod, 5, biz.Ready), report(9, 5, biz.Ready),
			report(0, 0, biz.DenyNew), report(2, 0, biz.Shutdown),
		), biz.Created, requestedPod},
		{noLink, "no pod has ever reported", biz.Gone, nothing, 0, biz.NoPod},
		{noLink, "no pod accepts new links", biz.Gone, with(report(requestedPod, 0, biz.DenyNew)), 0, biz.NoPod},
	}
	for column, ttl := range map[string]biz.TTL{temporaryOther: currentTTL, persistentOther: biz.Forever} {
		for _, c := range []computeCell{
			{variant: "its pod is READY", pods: with(better, report(otherPod, 9, biz.Ready)), outcome: biz.Existing},
			{variant: "its pod is DENY_NEW", pods: with(better, report(otherPod, 9, biz.DenyNew)), outcome: biz.Existing},
			{variant: "no pod has ever reported", pods: nothing, outcome: biz.Existing},

			{variant: "its pod is SHUTDOWN", pods: with(better, report(otherPod, 0, biz.Shutdown)), outcome: biz.Relinked},
			{variant: "its pod is not live", pods: func(e *env) { deadPod(e, otherPod); ready(e) }, outcome: biz.Relinked},
			{variant: "its pod has never reported", pods: ready, outcome: biz.Relinked},
			{variant: "its pod was removed", pods: func(e *env) { removedPod(e, otherPod); ready(e) }, outcome: biz.Relinked},

			{variant: "no pod is usable", pods: with(report(otherPod, 0, biz.Shutdown), report(requestedPod, 0, biz.DenyNew))},
			{variant: "its pod was removed as the last one", pods: func(e *env) { removedPod(e, otherPod) }},
		} {
			c.column, c.ttl, c.wantPod = column, ttl, otherPod
			if c.outcome == biz.Relinked {
				c.wantPod = requestedPod
			}
			all = append(all, c)
		}
	}
	return all
}

// deadPod stores a report of the pod that has expired.
func deadPod(e *env, pod biz.PodID) {
	e.report(biz.Report{Pod: pod, State: "up", TTL: 600})
	e.silence(pod, 600)
}

// removedPod stores a report of the pod and removes it.
func removedPod(e *env, pod biz.PodID) {
	e.reportReady(pod)
	_, err := e.Pods.Remove(e.Context(), e.pods(), pod)
	require.NoError(e, err)
}

func (c computeCell) test(e *env) {
	key, before, previous := e.key(), biz.NoLink(e.key()), biz.NoPod
	if c.ttl != biz.Gone {
		before, previous = e.set(key, otherPod, c.ttl), otherPod
	}
	c.pods(e)
	var computed biz.Computed
	var err error
	when := during(func() { computed, err = e.links().Compute(e.Context(), key, biz.ComputeRequest{TTL: requestedTTL}) })
	if c.outcome == 0 {
		require.ErrorIs(e, err, biz.ErrNoAvailablePod)
		e.requireLink(before)
		return
	}
	require.NoError(e, err)
	change := computed.LinkChange
	require.Equal(e, c.outcome, computed.Outcome)
	require.Equal(e, previous, change.Previous)
	want := before
	if c.outcome != biz.Existing {
		want = biz.Link{Key: key, Pod: c.wantPod, TTL: requestedTTL, Epoch: change.Link.Epoch}
		require.Greater(e, change.Link.Epoch, before.Epoch)
		e.requireClockEpoch(change.Link.Epoch, when)
	}
	e.requireSameLink(want, change.Link)
	e.requireLink(want)
}

// forever asks for a persistent link.
var forever = biz.ComputeRequest{TTL: biz.Forever}

// compute computes the link by a new use-case, whose view is empty.
func (e *env) compute(key biz.LinkKey, request biz.ComputeRequest) biz.Computed {
	e.Helper()
	computed, err := e.links().Compute(e.Context(), key, request)
	require.NoError(e, err)
	return computed
}

// testCompute tests the rules of Compute that are not in the table.
func testCompute(t *testing.T, s suite) {
	s.test(t, "a repeated compute returns the same link", func(e *env) {
		e.reportReady(1, 2)
		first := e.compute(e.key(), forever)
		second := e.compute(e.key(), biz.ComputeRequest{TTL: requestedTTL})
		require.Equal(e, biz.Existing, second.Outcome)
		require.Equal(e, first.Link, second.Link, "its TTL is unchanged")
	})
	s.test(t, "a burst of new uids spreads over the pods between two reports", func(e *env) {
		e.reportReady(0, 1, 2)
		given := make(map[biz.PodID]int)
		for i := range 9 {
			given[e.compute(e.keyOf(string(rune('a'+i)), service), forever).Link.Pod]++
		}
		require.Equal(e, map[biz.PodID]int{0: 3, 1: 3, 2: 3}, given)
	})
	s.test(t, "an existing link reserves nothing", func(e *env) {
		e.reportReady(0, 1)
		e.set(e.key(), 1, biz.Forever)
		for range 5 {
			e.compute(e.key(), forever)
		}
		require.EqualValues(e, 0, e.reserve(biz.NoPod).Pod)
		require.EqualValues(e, 1, e.reserve(biz.NoPod).Pod)
	})
	s.test(t, "a link is described by its pod", func(e *env) {
		report := biz.Report{
			Pod: 3, State: "up", TTL: 600, Capacity: 7, Labels: map[string]string{"zone": "a"}, Address: "game-3:9000",
			Instance: "uid:1", Sequence: 1,
		}
		result, err := e.Pods.Set(e.Context(), e.pods(), report)
		require.NoError(e, err)
		want := result.Pod
		describe := func(uid func(try int) string) (pod *biz.SharedPod) { // A busy machine may not read the pod in time.
			for try := 0; pod == nil && try < 100; try++ {
				pod = e.compute(e.keyOf(uid(try), service), forever).Pod
			}
			return pod
		}
		made := describe(func(try int) string {
			want.Given++
			return fmt.Sprint("new-", try)
		})
		require.NotNil(e, made)
		require.Equal(e, want, made.Pod)
		existing := describe(func(int) string { return "new-0" })
		require.NotNil(e, existing)
		require.Equal(e, want, existing.Pod, "an existing link")
	})
	s.test(t, "a link that the caller could not use", func(e *env) {
		e.reportReady(1, 2)
		avoid := func(link biz.Link, pods ...biz.PodID) biz.Computed {
			return e.compute(link.Key, biz.ComputeRequest{TTL: requestedTTL, Avoid: pods, AvoidEpoch: link.Epoch})
		}
		key := func(uid string) biz.LinkKey { return e.keyOf(uid, service) }
		temporary := e.set(key("temporary"), 1, currentTTL)
		moved := avoid(temporary, 1)
		require.Equal(e, biz.Relinked, moved.Outcome)
		require.EqualValues(e, 2, moved.Link.Pod)
		repeated := avoid(temporary, 1, 2)
		require.Equal(e, biz.Existing, repeated.Outcome, "the link has another epoch")
		e.requireSameLink(moved.Link, repeated.Link)
		require.Equal(e, biz.Existing, avoid(moved.Link, 1, 2).Outcome, "there is no other pod")
		require.Equal(e, biz.Existing, avoid(moved.Link, 1).Outcome, "it is to another pod")
		require.Equal(e, biz.Existing, avoid(e.set(key("persistent"), 1, biz.Forever), 1).Outcome)
		_, err := e.links().Compute(e.Context(), key("new"), biz.ComputeRequest{TTL: requestedTTL, Avoid: []biz.PodID{1, 2}})
		require.ErrorIs(e, err, biz.ErrNoAvailablePod)
		require.EqualValues(e, 2, avoid(biz.NoLink(key("new")), 1).Link.Pod)
	})
	s.test(t, "SetIfEpoch leaves a link that became persistent", func(e *env) {
		e.set(e.key(), 1, currentTTL)
		link := e.set(e.key(), 1, biz.Forever)
		change, err := e.Links.SetIfEpoch(e.Context(), e.key(), 2, currentTTL, biz.MoveTerms{Epoch: link.Epoch, TemporaryOnly: true})
		require.NoError(e, err)
		require.False(e, change.Applied)
		e.requireLink(link)
	})
	s.test(t, "labels choose the pod of a new link only", func(e *env) {
		e.reportReady(1)
		_, err := e.Pods.Set(e.Context(), e.pods(), biz.Report{
			Pod: 2, State: "up", Load: 50, TTL: biz.Forever, Capacity: biz.NoCapacity, Labels: map[string]string{"zone": "a", "disk": "ssd"},
		})
		require.NoError(e, err)
		inZone := func(value string) biz.ComputeRequest {
			return biz.ComputeRequest{TTL: biz.Forever, Selector: map[string]string{"zone": value}}
		}
		require.EqualValues(e, 2, e.compute(e.key(), inZone("a")).Link.Pod)
		require.Equal(e, biz.Existing, e.compute(e.key(), inZone("b")).Outcome)
		_, err = e.links().Compute(e.Context(), e.keyOf("other", service), inZone("b"))
		require.ErrorIs(e, err, biz.ErrNoAvailablePod)
	})
	s.test(t, "a known link is put back after a loss of the store", func(e *env) {
		e.report(biz.Report{Pod: 1, State: "up", TTL: 600})
		e.report(biz.Report{Pod: 2, State: "up", Load: 9, TTL: 600})
		known := func(uid string, pod biz.PodID, epoch biz.Epoch) (biz.Computed, error) {
			return e.links().Compute(e.Context(), e.keyOf(uid, service), biz.ComputeRequest{
				TTL: biz.Forever, Known: &biz.NewKnown{Pod: &pod, Epoch: epoch},
			})
		}
		hourAhead := biz.Epoch(time.Now().Add(time.Hour).UnixMicro())
		for pod, uid := range map[biz.PodID]string{2: "a busy pod", 7: "a pod that has not reported yet"} {
			computed, err := known(uid, pod, hourAhead)
			require.NoError(e, err)
			require.Equal(e, biz.Created, computed.Outcome)
			require.Equal(e, pod, computed.Link.Pod)
			require.Equal(e, hourAhead+1, computed.Link.Epoch)
		}
		computed, err := known("a busy pod", 1, hourAhead+10)
		require.NoError(e, err)
		require.Equal(e, biz.Existing, computed.Outcome, "there is a link")
		_, err = known("another", 1, biz.Epoch(time.Now().Add(48*time.Hour).UnixMicro()))
		var invalid *biz.InvalidArgumentError
		require.ErrorAs(e, err, &invalid)
		require.Equal(e, "known.epoch", invalid.Field)
		e.requireNoLink(e.keyOf("another", service))
	})
	s.test(t, "SetIfEpoch links only at the expected epoch", func(e *env) {
		replaced := e.set(e.key(), 1, biz.Forever)
		moved := e.set(e.key(), 2, biz.Forever)
		for name, epoch := range map[string]biz.Epoch{"no link": 0, "an earlier owner": replaced.Epoch} {
			change, err := e.Links.SetIfEpoch(e.Context(), e.key(), 3, biz.Forever, biz.MoveTerms{Epoch: epoch})
			require.NoError(e, err, name)
			require.False(e, change.Applied, name)
			require.EqualValues(e, 2, change.Previous, name)
			e.requireSameLink(moved, change.Link)
		}
		change, err := e.Links.SetIfEpoch(e.Context(), e.key(), 3, requestedTTL, biz.MoveTerms{Epoch: moved.Epoch})
		require.NoError(e, err)
		require.True(e, change.Applied)
		require.EqualValues(e, 2, change.Previous)
		require.Greater(e, change.Link.Epoch, moved.Epoch)
		e.requireLink(biz.Link{Key: e.key(), Pod: 3, TTL: requestedTTL, Epoch: change.Link.Epoch})
	})
	s.test(t, "SetIfEpoch creates a link that was removed meanwhile", func(e *env) {
		removed := e.set(e.key(), 1, biz.Forever)
		_, err := e.Links.Remove(e.Context(), e.key(), 0, biz.RemoveTerms{})
		require.NoError(e, err)
		change, err := e.Links.SetIfEpoch(e.Context(), e.key(), 3, biz.Forever, biz.MoveTerms{Epoch: removed.Epoch})
		require.NoError(e, err)
		require.True(e, change.Applied)
		require.Equal(e, biz.NoPod, change.Previous)
		require.Greater(e, change.Link.Epoch, removed.Epoch)
	})
}
