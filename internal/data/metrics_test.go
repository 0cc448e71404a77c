package data

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	redistest "podlink/test/kit/redis"
)

// TestFailedReads: a foreign value is counted as corrupt wherever a read finds it; NOSCRIPT is not counted as a failure.
func TestFailedReads(t *testing.T) {
	server := redistest.Start(t)
	store := openStore(t, onServer(server.Addr()))
	links, key := reposOf(store).Links, biz.LinkKey{Namespace: "ns", UID: "u", Service: "game"}
	failures := func(command, kind string) float64 {
		return gauge(t, store, fmt.Sprintf(`podlink_store_errors_total{command=%q,kind=%q}`, command, kind))
	}
	uids := []string{"absent", key.UID}
	batch := func() error { return firstOf(links.BatchGet(t.Context(), key.Namespace, key.Service, uids)) }
	name, client := store.keys.links(key.Namespace, key.UID), server.Client(t)

	require.NoError(t, second(links.Set(t.Context(), key, 1, 600, biz.SetTerms{})))
	require.NoError(t, client.ScriptFlush(t.Context()).Err())
	require.NoError(t, batch(), "the second pipeline, for temporary links, needs a script")
	for _, kind := range []string{
		"unavailable", "outcome_unknown", "unconfirmed", "full", "corrupt", "deadline", "canceled", "other",
	} {
		require.Zero(t, failures("pipeline", kind), kind)
	}
	require.NoError(t, client.HSet(t.Context(), name, key.Service, "foreign 1 0").Err())
	require.ErrorIs(t, second(links.Get(t.Context(), key)), biz.ErrStoreDataCorrupt)
	require.InDelta(t, 1, failures("HGET", "corrupt"), 0)
	require.ErrorIs(t, batch(), biz.ErrStoreDataCorrupt)
	require.InDelta(t, 1, failures("pipeline", "corrupt"), 0, "although the call succeeds")

	require.NoError(t, client.Del(t.Context(), name).Err())
	require.NoError(t, client.Set(t.Context(), name, "foreign", 0).Err())
	require.ErrorIs(t, batch(), biz.ErrStoreDataCorrupt)
	require.InDelta(t, 2, failures("pipeline", "corrupt"), 0, "although the first read succeeded")
}

// TestLinkOutcomes provokes every value of the outcome label.
func TestLinkOutcomes(t *testing.T) {
	server := redistest.Start(t)
	store := openStore(t, onServer(server.Addr()))
	links, key := reposOf(store).Links, biz.LinkKey{Namespace: "ns", UID: "u", Service: "game"}
	other := biz.LinkKey{Namespace: key.Namespace, UID: key.UID, Service: "chat"} // Its field remains after expiry: the key has a link.
	stale := biz.Epoch(1)
	crowded := NewLinkRepo(store.Runner, store.keys, LinkLimits{MaxServices: 1}, store.metrics)
	for _, step := range []struct {
		call             func() error
		command, outcome string
	}{
		{func() error { return second(links.Remove(t.Context(), key, 0, biz.RemoveTerms{})) }, "statefulRemoveLink", "absent"},
		{func() error { return second(links.Set(t.Context(), key, 1, biz.Forever, biz.SetTerms{})) }, "statefulSetLink", "created"},
		{func() error { return second(links.Set(t.Context(), key, 2, biz.Forever, biz.SetTerms{})) }, "statefulSetLink", "moved"},
		{func() error { return second(links.Set(t.Context(), key, 2, 600, biz.SetTerms{})) }, "statefulSetLink", "kept"},
		{func() error { return second(links.TrySet(t.Context(), key, 3, biz.Forever, nil)) }, "statefulTrySetLink", "moved"},
		{func() error { return second(links.TrySet(t.Context(), key, 4, biz.Forever, nil)) }, "statefulTrySetLink", "refused"},
		{func() error {
			return second(links.SetIfAbsent(t.Context(), key, 4, biz.Forever, biz.SetTerms{}))
		}, "statefulSetLinkIfAbsent", "existing"},
		{func() error {
			return second(links.SetIfEpoch(t.Context(), key, 4, biz.Forever, biz.MoveTerms{Epoch: 0}))
		}, "statefulComputeLinkIfAbsent", "existing"},
		{func() error { return second(links.Remove(t.Context(), key, 60, biz.RemoveTerms{})) }, "statefulRemoveLink", "kept"},
		{func() error { return second(links.Set(t.Context(), other, 1, 1, biz.SetTerms{})) }, "statefulSetLink", "created"},
		{func() error { time.Sleep(1100 * time.Millisecond); return second(links.Get(t.Context(), other)) }, "statefulGetLink", "expired"},
		{func() error {
			return second(links.BatchGet(t.Context(), other.Namespace, other.Service, []string{other.UID}))
		}, "statefulGetLink", "expired"},
		{func() error { return second(links.RemoveWithID(t.Context(), key, 9, 0)) }, "statefulRemoveLinkWithId", "absent"},
		{func() error { return second(links.RemoveWithID(t.Context(), key, 3, 0)) }, "statefulRemoveLinkWithId", "removed"},
		{func() error {
			var mismatch *biz.EpochMismatchError
			require.ErrorAs(t, second(links.Set(t.Context(), key, 1, biz.Forever, biz.SetTerms{Expected: &stale})), &mismatch)
			return nil
		}, "statefulSetLink", "epoch_mismatch"},
		{func() error {
			return second(links.Set(t.Context(), key, 1, biz.Forever, biz.SetTerms{Claim: 7}))
		}, "statefulSetLink", "created"},
		{func() error {
			return second(links.Set(t.Context(), key, 1, biz.Forever, biz.SetTerms{Claim: 7}))
		}, "statefulSetLink", "kept"},
		{func() error {
			return second(links.Set(t.Context(), key, 1, biz.Forever, biz.SetTerms{Claim: 8}))
		}, "statefulSetLink", "kept"},
		{func() error {
			require.ErrorAs(t, second(links.Set(t.Context(), key, 1, biz.Forever, biz.SetTerms{Claim: 7})), new(*biz.SupersededError))
			return nil
		}, "statefulSetLink", "superseded"},
		{func() error {
			require.ErrorAs(t, second(links.Set(t.Context(), key, 1, biz.Forever, biz.SetTerms{Above: ptr(biz.Epoch(1 << 52))})),
				new(*biz.InvalidArgumentError))
			return nil
		}, "statefulSetLink", "too_far_ahead"},
		{func() error {
			other.Service = "other"
			require.ErrorAs(t, second(crowded.TrySet(t.Context(), other, 1, biz.Forever, nil)), new(*biz.LimitError))
			return nil
		}, "statefulTrySetLink", "limit_exceeded"},
	} {
		counter := store.metrics.WithLabelValues(step.command, step.outcome)
		all, one := testutil.CollectAndCount(store.metrics), testutil.ToFloat64(counter)
		require.NoError(t, step.call(), "%s, %s", step.command, step.outcome)
		require.InDelta(t, one+1, testutil.ToFloat64(counter), 0, "%s, %s", step.command, step.outcome)
		require.Equal(t, all, testutil.CollectAndCount(store.metrics), "no other series is added")
	}
}
