package biztest

import (
	"fmt"
	"testing"
	"time"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

// uids returns n uids.
func uids(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprint("user-", i)
	}
	return all
}

// computeAll computes a batch by a new use-case.
func (e *env) computeAll(r Repos, request biz.BatchComputeRequest) []biz.ComputedResult {
	e.Helper()
	results, err := e.usecaseOf(r).BatchCompute(e.Context(), e.pods(), request)
	require.NoError(e, err)
	require.Len(e, results, len(request.Items))
	return results
}

func newUsers(uids []string) biz.BatchComputeRequest {
	request := biz.BatchComputeRequest{TTL: biz.Forever}
	for _, uid := range uids {
		request.Items = append(request.Items, biz.ComputeItem{UID: uid})
	}
	return request
}

// testBatches tests batches of many items. That an item is like a call is tested by the other tests, with batches of one.
func testBatches(t *testing.T, s suite) {
	s.test(t, "each item of BatchSet has its own result", func(e *env) {
		key := func(uid string) biz.LinkKey { return e.keyOf(uid, service) }
		old := e.set(key("moved"), 1, biz.Forever)
		kept := e.set(key("kept"), 1, biz.Forever)
		none := biz.Epoch(0)
		items := []biz.SetItem{
			{UID: "created", Pod: 2, TTL: biz.Forever},
			{UID: "moved", Pod: 2, TTL: requestedTTL},
			{UID: "kept", Pod: 2, TTL: biz.Forever, Terms: biz.SetTerms{Expected: &none}},
			{UID: "claimed", Pod: 2, TTL: biz.Forever, Terms: biz.SetTerms{Claim: 7}},
			{UID: "kept too", Pod: 1, TTL: requestedTTL, IfAbsent: true},
			{UID: "absent", Pod: 3, TTL: biz.Forever, IfAbsent: true, Terms: biz.SetTerms{Claim: 8}},
		}
		too := e.set(key("kept too"), 4, biz.Forever)
		results := e.Links.BatchSet(e.Context(), e.pods(), items)
		require.Len(e, results, len(items))
		for i, want := range []struct {
			applied  bool
			previous biz.PodID
			link     biz.Link
		}{
			{true, biz.NoPod, biz.Link{Key: key("created"), Pod: 2, TTL: biz.Forever}},
			{true, 1, biz.Link{Key: key("moved"), Pod: 2, TTL: requestedTTL}},
			{},
			{true, biz.NoPod, biz.Link{Key: key("claimed"), Pod: 2, TTL: biz.Forever, Claim: 7}},
			{false, 4, too},
			{true, biz.NoPod, biz.Link{Key: key("absent"), Pod: 3, TTL: biz.Forever, Claim: 8}},
		} {
			got := results[i]
			if i == 2 {
				var mismatch *biz.EpochMismatchError
				require.ErrorAs(e, got.Err, &mismatch)
				require.Equal(e, kept, mismatch.Current)
				require.Equal(e, biz.LinkChange{Previous: biz.NoPod, Link: biz.NoLink(key("kept"))}, got.LinkChange)
				e.requireLink(kept)
				continue
			}
			require.NoError(e, got.Err, items[i].UID)
			require.Equal(e, want.applied, got.Applied, items[i].UID)
			require.Equal(e, want.previous, got.Previous, items[i].UID)
			want.link.Epoch = got.Link.Epoch
			e.requireSameLink(want.link, got.Link)
			e.requireLink(got.Link)
		}
		require.Greater(e, results[1].Link.Epoch, old.Epoch)
	})
	s.test(t, "each item of BatchRemove has its own result", func(e *env) {
		for _, uid := range []string{"gone", "kept", "other pod", "its pod", "other epoch"} {
			e.set(e.keyOf(uid, service), 1, biz.Forever)
		}
		epoch, one, two := biz.Epoch(1), biz.PodID(1), biz.PodID(2)
		results := e.Links.BatchRemove(e.Context(), e.pods(), []biz.RemoveItem{
			{UID: "gone"}, {UID: "kept", Keep: 60}, {UID: "other pod", Pod: &two}, {UID: "its pod", Pod: &one},
			{UID: "other epoch", Terms: biz.RemoveTerms{Expected: &epoch}}, {UID: "never linked"},
		})
		require.Len(e, results, 6)
		for i, applied := range []bool{true, true, false, true, false, false} {
			require.Equal(e, applied, results[i].Applied, i)
			require.Equal(e, i == 4, results[i].Err != nil, i)
		}
		require.ErrorAs(e, results[4].Err, new(*biz.EpochMismatchError))
		require.EqualValues(e, 1, results[0].Previous)
		require.EqualValues(e, 1, results[2].Previous)
		require.Equal(e, biz.NoPod, results[5].Previous)
		for uid, ttl := range map[string]biz.TTL{
			"gone": biz.Gone, "kept": 60, "other pod": biz.Forever, "its pod": biz.Gone, "other epoch": biz.Forever,
		} {
			link, err := e.Links.Get(e.Context(), e.keyOf(uid, service))
			require.NoError(e, err)
			e.requireTTL(ttl, link.TTL)
		}
	})
	s.test(t, "a thousand items", func(e *env) {
		var sets []biz.SetItem
		var removals []biz.RemoveItem
		for i, uid := range uids(1000) {
			sets = append(sets, biz.SetItem{UID: uid, Pod: biz.PodID(i), TTL: biz.Forever})
			pod := biz.PodID(i + i%2)
			removals = append(removals, biz.RemoveItem{UID: uid, Pod: &pod})
		}
		for i, result := range e.Links.BatchSet(e.Context(), e.pods(), sets) {
			require.NoError(e, result.Err)
			require.Equal(e, e.keyOf(sets[i].UID, service), result.Link.Key)
			require.EqualValues(e, i, result.Link.Pod)
		}
		for i, result := range e.Links.BatchRemove(e.Context(), e.pods(), removals) {
			require.NoError(e, result.Err)
			require.Equal(e, i%2 == 0, result.Applied)
		}
		links, err := e.Links.BatchGet(e.Context(), e.namespace, service, uids(1000))
		require.NoError(e, err)
		for i, link := range links {
			require.Equal(e, i%2 == 1, link.Link.Exists())
		}
	})
	s.test(t, "BatchVerify returns what differs", func(e *env) {
		items, want := []biz.VerifyItem{}, map[string]biz.Link{}
		add := func(uid string, pod biz.PodID, ttl biz.TTL, epoch biz.Epoch, differs bool) {
			link := biz.NoLink(e.keyOf(uid, service))
			if pod != biz.NoPod {
				link = e.set(link.Key, pod, ttl)
			}
			items = append(items, biz.VerifyItem{UID: uid, Epoch: link.Epoch + epoch})
			if differs {
				want[uid] = link
			}
		}
		for i := range 20 {
			n := fmt.Sprint(" ", i)
			add("mine"+n, 3, biz.Forever, 0, false)
			add("mine for a while"+n, 3, requestedTTL, 0, false)
			add("another epoch"+n, 3, biz.Forever, -1, true)
			add("another pod"+n, 4, biz.Forever, 0, true)
			add("gone"+n, biz.NoPod, biz.Gone, 5, true)
			add("no link"+n, biz.NoPod, biz.Gone, 0, true)
		}
		claimed, err := e.Links.Set(e.Context(), e.keyOf("claimed", service), 3, biz.Forever, biz.SetTerms{Claim: 9})
		require.NoError(e, err)
		items, want["claimed"] = append(items, biz.VerifyItem{UID: "claimed", Epoch: 1}), claimed.Link
		pod := biz.PodID(3)
		results, err := e.usecaseOf(e.Repos).BatchVerify(e.Context(), e.pods(), &pod, items)
		require.NoError(e, err)
		require.Len(e, results, len(want))
		last := -1
		for _, result := range results {
			require.NoError(e, result.Err)
			e.requireSameLink(want[result.Link.Key.UID], result.Link)
			for at := last + 1; ; at++ {
				if items[at].UID == result.Link.Key.UID {
					last = at
					break
				}
			}
		}
	})
	s.test(t, "BatchReserve chooses as single calls do", func(e *env) {
		labels := []map[string]string{nil, {"zone": "a"}, {"zone": "b"}, {"zone": "a", "kind": "x"}}
		single := biz.ServiceKey{Namespace: e.namespace, Service: "single"}
		for i := range biz.PodID(40) {
			report := biz.Report{
				Pod: i, State: "up", Load: int32(i*7%5) + 1, TTL: 600, Capacity: biz.NoCapacity, Labels: labels[i%4],
			}
			if i%3 == 0 {
				report.Capacity = report.Load + int32(i%6)
			}
			if i%11 == 5 {
				report.TTL = biz.Forever
			}
			if i == 20 {
				report.Routing = biz.Shutdown
			}
			for _, key := range []biz.ServiceKey{e.pods(), single} {
				require.NoError(e, second(e.Pods.Set(e.Context(), key, report)))
			}
		}
		for round, selector := range []map[string]string{nil, {"zone": "a"}, nil, {"kind": "x"}, {"zone": "c"}} {
			var requests []biz.ReserveRequest
			for i := range 150 {
				request := biz.ReserveRequest{Linked: biz.NoPod, Selector: selector}
				switch pod := biz.PodID((i*13 + round) % 45); i % 5 {
				case 0:
					request.Avoid = []biz.PodID{0, 1, 2, 3, 4, 5, 10, 11, 12, pod}
				case 1:
					request.Linked = pod
				case 2:
					request.Linked, request.Leave, request.Avoid = pod, true, []biz.PodID{pod}
				case 3:
					request.Known = &biz.KnownLink{Pod: pod, Epoch: 5}
				}
				requests = append(requests, request)
			}
			results := e.Pods.BatchReserve(e.Context(), e.pods(), requests)
			require.Len(e, results, len(requests))
			for i, request := range requests {
				want, err := e.Pods.Reserve(e.Context(), single, request)
				require.NoError(e, err)
				require.NoError(e, results[i].Err)
				got := results[i].Reservation
				want.HeartbeatMs, got.HeartbeatMs = min(want.HeartbeatMs, 1), min(got.HeartbeatMs, 1)
				require.Equal(e, want, got, "round %d, request %d: %+v", round, i, request)
			}
			batched, err := e.Pods.List(e.Context(), e.pods())
			require.NoError(e, err)
			alone, err := e.Pods.List(e.Context(), single)
			require.NoError(e, err)
			for i := range alone {
				require.Equal(e, alone[i].Given, batched[i].Given, "round %d, pod %d", round, i)
			}
		}
	})
	s.test(t, "BatchReserve with many silent pods", func(e *env) {
		for pod := range biz.PodID(200) {
			e.report(biz.Report{Pod: pod, State: "up", TTL: 1})
		}
		e.pass(time.Minute)
		e.report(biz.Report{Pod: 200, State: "up", Load: 5, TTL: 600})
		requests := make([]biz.ReserveRequest, 300)
		for i := range requests {
			requests[i].Linked = biz.NoPod
		}
		for _, result := range e.Pods.BatchReserve(e.Context(), e.pods(), requests) {
			require.NoError(e, result.Err)
			require.EqualValues(e, 200, result.Pod)
		}
		require.EqualValues(e, 300, e.get(200).Given)
	})
	s.test(t, "BatchRelease undoes the reservations", func(e *env) {
		e.reportReady(0, 1, 2)
		var reservations []biz.Reservation
		for _, result := range e.Pods.BatchReserve(e.Context(), e.pods(), make([]biz.ReserveRequest, 0)) {
			reservations = append(reservations, result.Reservation)
		}
		require.Empty(e, reservations)
		requests := make([]biz.ReserveRequest, 400)
		for i := range requests {
			requests[i].Linked = biz.NoPod
		}
		for _, result := range e.Pods.BatchReserve(e.Context(), e.pods(), requests) {
			require.NoError(e, result.Err)
			reservations = append(reservations, result.Reservation)
		}
		tick()
		e.reportReady(2)
		require.NoError(e, e.Pods.BatchRelease(e.Context(), e.pods(), reservations[100:]))
		require.EqualValues(e, 34, e.get(0).Given)
		require.EqualValues(e, 33, e.get(1).Given)
		require.Zero(e, e.get(2).Given)
	})
	s.test(t, "BatchCompute spreads new users evenly between two reports", func(e *env) {
		var pods []biz.PodID
		for pod := range biz.PodID(7) {
			pods = append(pods, pod)
		}
		e.reportReady(pods...)
		given := make(map[biz.PodID]int)
		for batch := range 4 {
			var names []string
			for i := range 75 {
				names = append(names, fmt.Sprint(batch, "-", i))
			}
			for i, result := range e.computeAll(e.view(batch), newUsers(names)) {
				require.NoError(e, result.Err)
				require.Equal(e, biz.Created, result.Outcome)
				require.Equal(e, biz.NoPod, result.Previous)
				require.Equal(e, names[i], result.Link.Key.UID)
				if result.Pod != nil {
					require.Equal(e, result.Link.Pod, result.Pod.Pod.Pod)
				}
				e.requireLink(result.Link)
				given[result.Link.Pod]++
			}
		}
		for _, pod := range pods {
			require.InDelta(e, 300.0/7, given[pod], 1, "pod %d", pod)
		}
	})
	s.test(t, "BatchCompute mixes outcomes", func(e *env) {
		e.reportReady(1, 2)
		e.report(biz.Report{Pod: 3, State: "up", Routing: biz.Shutdown, TTL: biz.Forever})
		standing := e.set(e.keyOf("standing", service), 1, biz.Forever)
		dead := e.set(e.keyOf("of a dead pod", service), 3, biz.Forever)
		left := e.set(e.keyOf("left", service), 1, currentTTL)
		far, one := biz.Epoch(time.Now().Add(48*time.Hour).UnixMicro()), biz.PodID(1)
		results := e.computeAll(e.Repos, biz.BatchComputeRequest{TTL: requestedTTL, Items: []biz.ComputeItem{
			{UID: "standing"}, {UID: "new"}, {UID: "of a dead pod"},
			{UID: "left", Avoid: []biz.PodID{1}, AvoidEpoch: left.Epoch},
			{UID: "nowhere to go", Avoid: []biz.PodID{1, 2}},
			{UID: "known too far ahead", Known: &biz.NewKnown{Pod: &one, Epoch: far}},
		}})
		for i, want := range []biz.Outcome{biz.Existing, biz.Created, biz.Relinked, biz.Relinked, 0, 0} {
			require.Equal(e, want, results[i].Outcome, i)
			require.Equal(e, want == 0, results[i].Err != nil, i)
		}
		e.requireSameLink(standing, results[0].Link)
		require.Greater(e, results[2].Link.Epoch, dead.Epoch)
		require.EqualValues(e, 3, results[2].Previous)
		require.EqualValues(e, 2, results[3].Link.Pod)
		require.ErrorIs(e, results[4].Err, biz.ErrNoAvailablePod)
		var invalid *biz.InvalidArgumentError
		require.ErrorAs(e, results[5].Err, &invalid)
		require.Equal(e, "known.epoch", invalid.Field)
		e.requireNoLink(e.keyOf("known too far ahead", service))
		given := e.get(1).Given + e.get(2).Given
		require.EqualValues(e, 3, given, "the reservation of the last one was released")
	})
	s.test(t, "concurrent batches of the same users give each one owner", func(e *env) {
		e.reportReady(0, 1, 2, 3)
		const batches, users = 8, 60
		all := race(batches, func(i int) []biz.ComputedResult {
			results, err := e.usecaseOf(e.view(i)).BatchCompute(e.Context(), e.pods(), newUsers(uids(users)))
			require.NoError(e, err)
			return results
		})
		created := 0
		for user := range users {
			for _, results := range all {
				require.NoError(e, results[user].Err)
				require.Equal(e, all[0][user].Link, results[user].Link)
				if results[user].Outcome == biz.Created {
					created++
				}
			}
		}
		require.Equal(e, users, created)
		given := int64(0)
		for pod := range biz.PodID(4) {
			given += e.get(pod).Given
		}
		require.GreaterOrEqual(e, given, int64(users), "each link counts; what was not used is released if there is time")
	})
}

// second returns the error.
func second[T any](_ T, err error) error { return err }
