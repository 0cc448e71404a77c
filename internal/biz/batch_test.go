package biz_test

import (
	"context"
	"testing"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

// batchOf asks for persistent links of the uids.
func batchOf(uids ...string) biz.BatchComputeRequest {
	request := biz.BatchComputeRequest{TTL: biz.Forever}
	for _, uid := range uids {
		request.Items = append(request.Items, biz.ComputeItem{UID: uid})
	}
	return request
}

func TestBatchComputeThatLosesARaceReturnsTheWinnersLinkAndReleases(t *testing.T) {
	links, d := openIntercepted(t)
	d.beforeSet = func(ctx context.Context, key biz.LinkKey) {
		if key.UID == "bob" {
			_, err := d.Set(ctx, key, 0, biz.Forever, biz.SetTerms{})
			require.NoError(t, err)
		}
	}
	results, err := links.BatchCompute(t.Context(), service, batchOf("alice", "bob", "carol"))
	require.NoError(t, err)
	for i, want := range []struct {
		outcome biz.Outcome
		pod     biz.PodID
	}{{biz.Created, 0}, {biz.Existing, 0}, {biz.Created, 0}} {
		require.NoError(t, results[i].Err)
		require.Equal(t, want.outcome, results[i].Outcome)
		require.Equal(t, want.pod, results[i].Link.Pod)
	}
	require.Equal(t, []biz.ComputeResult{{biz.Created, 1, nil}, {biz.Existing, 2, nil}, {biz.Created, 1, nil}}, d.ended)
	require.EqualValues(t, 1, d.nextPod(t), "the reservation on pod 1 was released")
}

func TestBatchComputeGivesUpOnItemsThatKeepChanging(t *testing.T) {
	links, d := openIntercepted(t)
	for _, uid := range []string{"alice", "bob"} {
		_, err := d.Set(t.Context(), linkKey(uid), 9, biz.Forever, biz.SetTerms{})
		require.NoError(t, err)
	}
	pod := biz.PodID(100)
	d.beforeSet = func(ctx context.Context, key biz.LinkKey) {
		if key.UID == "alice" {
			pod++
			_, err := d.Set(ctx, key, pod, biz.Forever, biz.SetTerms{})
			require.NoError(t, err)
		}
	}
	results, err := links.BatchCompute(t.Context(), service, batchOf("alice", "bob"))
	require.NoError(t, err)
	require.ErrorIs(t, results[0].Err, biz.ErrContended)
	require.Equal(t, biz.NoLink(linkKey("alice")), results[0].Link)
	require.Equal(t, biz.Relinked, results[1].Outcome)
	require.Equal(t, []biz.ComputeResult{{0, 8, biz.ErrContended}, {biz.Relinked, 1, nil}}, d.ended)
	require.EqualValues(t, 0, d.nextPod(t), "each reservation of alice was released")
}

func TestBatchComputeKeepsTheReservationWhoseOutcomeIsUnknown(t *testing.T) {
	links, d := openIntercepted(t)
	d.insteadOf["BatchSetIfEpoch alice"] = errLost
	d.insteadOf["BatchSetIfEpoch carol"] = biz.ErrStoreFull
	results, err := links.BatchCompute(t.Context(), service, batchOf("alice", "bob", "carol"))
	require.NoError(t, err)
	require.ErrorIs(t, results[0].Err, biz.ErrOutcomeUnknown)
	require.NoError(t, results[1].Err)
	require.ErrorIs(t, results[2].Err, biz.ErrStoreFull)
	require.EqualValues(t, 0, d.nextPod(t), "pods 0 and 1 count one link each, carol's was released")
	require.EqualValues(t, 1, d.nextPod(t))
}

func TestBatchComputeOfAFailingStore(t *testing.T) {
	t.Run("no link can be read", func(t *testing.T) {
		links, d := openIntercepted(t)
		d.insteadOf["BatchGet"] = biz.ErrDeadlineExceeded
		_, err := links.BatchCompute(t.Context(), service, batchOf("alice"))
		require.ErrorIs(t, err, biz.ErrStoreUnavailable, "nothing has changed")
		require.Len(t, d.ended, 1)
		require.Equal(t, err, d.ended[0].Err)
	})
	t.Run("one link can't be read", func(t *testing.T) {
		links, d := openIntercepted(t)
		d.insteadOf["BatchGet bob"] = biz.ErrDeadlineExceeded
		results, err := links.BatchCompute(t.Context(), service, batchOf("alice", "bob"))
		require.NoError(t, err)
		require.Equal(t, biz.Created, results[0].Outcome)
		require.ErrorIs(t, results[1].Err, biz.ErrStoreUnavailable)
	})
	t.Run("no pod can be reserved", func(t *testing.T) {
		links, d := openIntercepted(t)
		_, err := d.Set(t.Context(), linkKey("standing"), 1, biz.Forever, biz.SetTerms{})
		require.NoError(t, err)
		d.insteadOf["BatchReserve"] = errLost
		results, err := links.BatchCompute(t.Context(), service, batchOf("standing", "new"))
		require.NoError(t, err)
		require.Equal(t, biz.Existing, results[0].Outcome)
		require.ErrorIs(t, results[1].Err, biz.ErrStoreUnavailable)
		_, err = links.BatchCompute(t.Context(), service, batchOf("new"))
		require.ErrorIs(t, err, biz.ErrStoreUnavailable, "no item has an answer")
	})
	t.Run("every outcome is unknown", func(t *testing.T) {
		links, d := openIntercepted(t)
		d.insteadOf["BatchGet bob"] = biz.ErrStoreUnavailable
		d.insteadOf["BatchSetIfEpoch alice"] = errLost
		_, err := links.BatchCompute(t.Context(), service, batchOf("bob", "alice"))
		require.ErrorIs(t, err, biz.ErrOutcomeUnknown, "alice may be linked")
	})
}

// silentLinks is a repo whose batches fail with the errors.
type silentLinks struct {
	biz.LinkRepo
	errs []error
}

func (r silentLinks) results() []biz.ChangeResult {
	results := make([]biz.ChangeResult, len(r.errs))
	for i, err := range r.errs {
		results[i].Err = err
	}
	return results
}

func (r silentLinks) BatchSet(context.Context, biz.ServiceKey, []biz.SetItem) []biz.ChangeResult {
	return r.results()
}

func (r silentLinks) BatchRemove(context.Context, biz.ServiceKey, []biz.RemoveItem) []biz.ChangeResult {
	return r.results()
}

// TestBatchesFailOnlyWithoutAnyAnswer: a batch of mutations fails as a whole only if the store has answered for no item, and its
// error does not deny that something may have changed.
func TestBatchesFailOnlyWithoutAnyAnswer(t *testing.T) {
	for name, row := range map[string]struct {
		errs []error
		want error // of the call
	}{
		"all are done":              {[]error{nil, nil}, nil},
		"one is done":               {[]error{biz.ErrStoreUnavailable, nil}, nil},
		"one was refused":           {[]error{errLost, &biz.EpochMismatchError{}}, nil},
		"the store is full":         {[]error{biz.ErrStoreFull, biz.ErrStoreFull}, nil},
		"one is foreign":            {[]error{biz.ErrStoreDataCorrupt, biz.ErrStoreUnavailable}, nil},
		"none was sent":             {[]error{biz.ErrStoreUnavailable, biz.ErrStoreUnavailable}, biz.ErrStoreUnavailable},
		"the caller left":           {[]error{biz.ErrCanceled, biz.ErrCanceled}, biz.ErrCanceled},
		"one may have been carried": {[]error{biz.ErrStoreUnavailable, errLost}, biz.ErrOutcomeUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			links := biz.NewLinkUsecase(silentLinks{errs: row.errs}, nil, biz.Limits{MaxBatch: 2}, biz.NopObserver{})
			pod := biz.PodID(1)
			sets := []biz.NewSetItem{{UID: "a", Pod: &pod, TTL: biz.Forever}, {UID: "b", Pod: &pod, TTL: biz.Forever}}
			results, err := links.BatchSet(t.Context(), service, sets)
			require.ErrorIs(t, err, row.want)
			require.Len(t, results, 2)
			_, err = links.BatchRemove(t.Context(), service, []biz.RemoveItem{{UID: "a"}, {UID: "b"}})
			require.ErrorIs(t, err, row.want)
		})
	}
}

// TestBatchesRefuseBadItems: one bad item fails the whole call before anything is sent, and the error names its field. The repos
// are nil.
func TestBatchesRefuseBadItems(t *testing.T) {
	views := biz.NewPodViews(nil, biz.NopObserver{})
	links := biz.NewLinkUsecase(nil, views, biz.Limits{MaxBatch: 3}, biz.NopObserver{})
	ctx, pod, bad, epoch, badEpoch := t.Context(), new(biz.PodID(1)), new(biz.PodID(-1)), new(biz.Epoch(1)), new(biz.Epoch(-1))
	set := func(change func(*biz.NewSetItem)) error {
		item := biz.NewSetItem{UID: "b", Pod: pod, TTL: biz.Forever}
		change(&item)
		return second(links.BatchSet(ctx, service, []biz.NewSetItem{{UID: "a", Pod: pod, TTL: biz.Forever}, item}))
	}
	remove := func(item biz.RemoveItem) error {
		return second(links.BatchRemove(ctx, service, []biz.RemoveItem{{UID: "a"}, item}))
	}
	verify := func(pod *biz.PodID, item biz.VerifyItem) error {
		return second(links.BatchVerify(ctx, service, pod, []biz.VerifyItem{{UID: "a"}, item}))
	}
	compute := func(change func(*biz.BatchComputeRequest)) error {
		request := batchOf("a", "b")
		change(&request)
		return second(links.BatchCompute(ctx, service, request))
	}
	for name, row := range map[string]struct {
		err   error
		field string
	}{
		"set, no namespace":     {second(links.BatchSet(ctx, biz.ServiceKey{Service: "room"}, nil)), "namespace"},
		"set, no service":       {second(links.BatchSet(ctx, biz.ServiceKey{Namespace: "game"}, nil)), "service"},
		"set, no items":         {second(links.BatchSet(ctx, service, nil)), "items"},
		"set, too many":         {second(links.BatchSet(ctx, service, make([]biz.NewSetItem, 4))), "items"},
		"set, no uid":           {set(func(i *biz.NewSetItem) { i.UID = "" }), "items[1].uid"},
		"set, a uid twice":      {set(func(i *biz.NewSetItem) { i.UID = "a" }), "items[1].uid"},
		"set, no pod":           {set(func(i *biz.NewSetItem) { i.Pod = nil }), "items[1].pod_id"},
		"set, a bad pod":        {set(func(i *biz.NewSetItem) { i.Pod = bad }), "items[1].pod_id"},
		"set, a bad ttl":        {set(func(i *biz.NewSetItem) { i.TTL = 0 }), "items[1].persist_seconds"},
		"set, a bad claim":      {set(func(i *biz.NewSetItem) { i.Terms.Claim = -1 }), "items[1].claim"},
		"set, a bad epoch":      {set(func(i *biz.NewSetItem) { i.Terms.Expected = badEpoch }), "items[1].expected_epoch"},
		"set, a bad bound":      {set(func(i *biz.NewSetItem) { i.Terms.Above = badEpoch }), "items[1].above_epoch"},
		"set, absent and epoch": {set(func(i *biz.NewSetItem) { i.IfAbsent, i.Terms.Expected = true, epoch }), "items[1].expected_epoch"},

		"remove, no items":      {second(links.BatchRemove(ctx, service, nil)), "items"},
		"remove, a bad uid":     {remove(biz.RemoveItem{UID: "\x00"}), "items[1].uid"},
		"remove, a uid twice":   {remove(biz.RemoveItem{UID: "a"}), "items[1].uid"},
		"remove, a bad time":    {remove(biz.RemoveItem{UID: "b", Keep: -2}), "items[1].keep_seconds"},
		"remove, with id, time": {remove(biz.RemoveItem{UID: "b", Keep: -2, Pod: pod}), "items[1].keep_seconds"},
		"remove, a bad epoch":   {remove(biz.RemoveItem{UID: "b", Terms: biz.RemoveTerms{Expected: badEpoch}}), "items[1].expected_epoch"},
		"remove, a bad pod":     {remove(biz.RemoveItem{UID: "b", Pod: bad}), "items[1].pod_id"},
		"remove, pod and epoch": {remove(biz.RemoveItem{UID: "b", Pod: pod, Terms: biz.RemoveTerms{Expected: epoch}}), "items[1].expected_epoch"},

		"verify, no items":    {second(links.BatchVerify(ctx, service, pod, nil)), "items"},
		"verify, no pod":      {verify(nil, biz.VerifyItem{UID: "b"}), "pod_id"},
		"verify, a bad pod":   {verify(bad, biz.VerifyItem{UID: "b"}), "pod_id"},
		"verify, a uid twice": {verify(pod, biz.VerifyItem{UID: "a"}), "items[1].uid"},
		"verify, a bad epoch": {verify(pod, biz.VerifyItem{UID: "b", Epoch: -1}), "items[1].epoch"},

		"compute, no items":      {compute(func(r *biz.BatchComputeRequest) { r.Items = nil }), "items"},
		"compute, too many":      {compute(func(r *biz.BatchComputeRequest) { r.Items = make([]biz.ComputeItem, 4) }), "items"},
		"compute, a uid twice":   {compute(func(r *biz.BatchComputeRequest) { r.Items[1].UID = "a" }), "items[1].uid"},
		"compute, a bad ttl":     {compute(func(r *biz.BatchComputeRequest) { r.TTL = -2 }), "persist_seconds"},
		"compute, a bad label":   {compute(func(r *biz.BatchComputeRequest) { r.Selector = map[string]string{"-": ""} }), "selector"},
		"compute, a bad epoch":   {compute(func(r *biz.BatchComputeRequest) { r.Items[1].AvoidEpoch = -1 }), "items[1].avoid_epoch"},
		"compute, bad avoidance": {compute(func(r *biz.BatchComputeRequest) { r.Items[1].Avoid = []biz.PodID{-1} }), "items[1].avoid_pods[0]"},
		"compute, a bad known":   {compute(func(r *biz.BatchComputeRequest) { r.Items[1].Known = &biz.NewKnown{} }), "items[1].known.pod_id"},
	} {
		var invalid *biz.InvalidArgumentError
		require.ErrorAs(t, row.err, &invalid, name)
		require.Equal(t, row.field, invalid.Field, name)
	}
}
