package biz_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"podlink/internal/app"
	"podlink/internal/biz"
	"podlink/internal/conf"
	"podlink/internal/data"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	service = biz.ServiceKey{Namespace: "game", Service: "room"}
	errLost = fmt.Errorf("%w: connection reset", biz.ErrOutcomeUnknown)
)

// forever asks for a persistent link.
var forever = biz.ComputeRequest{TTL: biz.Forever}

func linkKey(uid string) biz.LinkKey {
	return biz.LinkKey{Namespace: "game", UID: uid, Service: "room"}
}

// interceptedStore is the embedded store with hooks before, after or instead of the steps of Compute.
type interceptedStore struct {
	biz.LinkRepo
	biz.NopObserver
	pods biz.PodRepo

	beforeSet func(ctx context.Context, key biz.LinkKey)
	afterSet  error // replaces the reply of SetIfEpoch, which is executed
	insteadOf map[string]error

	ended []biz.ComputeResult
}

func (d *interceptedStore) ComputesEnded(_ context.Context, results []biz.ComputeResult) {
	d.ended = append(d.ended, results...)
}

func (d *interceptedStore) BatchGet(ctx context.Context, namespace, service string, uids []string) ([]biz.LinkResult, error) {
	if err := d.insteadOf["BatchGet"]; err != nil {
		return nil, err
	}
	results, err := d.LinkRepo.BatchGet(ctx, namespace, service, uids)
	for i, uid := range uids {
		if failure := d.insteadOf["BatchGet "+uid]; failure != nil {
			results[i] = biz.LinkResult{Link: biz.NoLink(linkKey(uid)), Err: failure}
		}
	}
	return results, err
}

func (d *interceptedStore) BatchSetIfEpoch(ctx context.Context, key biz.ServiceKey, items []biz.MoveItem) []biz.ChangeResult {
	if d.beforeSet != nil {
		for _, item := range items {
			d.beforeSet(ctx, linkKey(item.UID))
		}
	}
	results := d.LinkRepo.BatchSetIfEpoch(ctx, key, items)
	for i, item := range items {
		if failure := d.insteadOf["BatchSetIfEpoch "+item.UID]; failure != nil {
			results[i] = biz.ChangeResult{Err: failure}
		}
	}
	return results
}

func (d *interceptedStore) BatchSet(ctx context.Context, key biz.ServiceKey, items []biz.SetItem) []biz.ChangeResult {
	if d.beforeSet != nil {
		for _, item := range items {
			d.beforeSet(ctx, linkKey(item.UID))
		}
	}
	return d.LinkRepo.BatchSet(ctx, key, items)
}

func (d *interceptedStore) ComputeEnded(_ context.Context, result biz.ComputeResult) {
	d.ended = append(d.ended, result)
}

// requireEnded requires that the observer has recorded exactly one compute.
func (d *interceptedStore) requireEnded(t *testing.T, outcome biz.Outcome, attempts int, err error) {
	t.Helper()
	require.Equal(t, []biz.ComputeResult{{Outcome: outcome, Attempts: attempts, Err: err}}, d.ended)
}

func (d *interceptedStore) Get(ctx context.Context, key biz.LinkKey) (biz.Link, error) {
	if err := d.insteadOf["Get"]; err != nil {
		return biz.Link{}, err
	}
	return d.LinkRepo.Get(ctx, key)
}

func (d *interceptedStore) SetIfEpoch(
	ctx context.Context, key biz.LinkKey, pod biz.PodID, ttl biz.TTL, move biz.MoveTerms,
) (biz.LinkChange, error) {
	if err := d.insteadOf["SetIfEpoch"]; err != nil {
		return biz.LinkChange{}, err
	}
	if d.beforeSet != nil {
		d.beforeSet(ctx, key)
	}
	change, err := d.LinkRepo.SetIfEpoch(ctx, key, pod, ttl, move)
	if d.afterSet != nil {
		return biz.LinkChange{}, d.afterSet
	}
	return change, err
}

type interceptedPods struct {
	biz.PodRepo
	d *interceptedStore
}

func (s interceptedPods) Reserve(ctx context.Context, key biz.ServiceKey, request biz.ReserveRequest) (biz.Reservation, error) {
	if err := s.d.insteadOf["Reserve"]; err != nil {
		return biz.Reservation{}, err
	}
	return s.PodRepo.Reserve(ctx, key, request)
}

func (s interceptedPods) BatchReserve(
	ctx context.Context, key biz.ServiceKey, requests []biz.ReserveRequest,
) []biz.ReserveResult {
	if err := s.d.insteadOf["BatchReserve"]; err != nil {
		return slices.Repeat([]biz.ReserveResult{{Err: err}}, len(requests))
	}
	return s.PodRepo.BatchReserve(ctx, key, requests)
}

// openIntercepted returns a use-case on an intercepted store in which pods 0 and 1 are READY and pod 9 is SHUTDOWN.
func openIntercepted(t *testing.T) (*biz.LinkUsecase, *interceptedStore) {
	t.Helper()
	c := conf.Default().Data
	store, closeStore, err := app.OpenStore(c, nil, log.NewStdLogger(io.Discard))
	require.NoError(t, err)
	t.Cleanup(closeStore)
	keys := app.Keyspace(c)
	d := &interceptedStore{
		LinkRepo:  data.NewLinkRepo(store.Runner, keys, data.LinkLimits{MaxServices: 256}, data.NewLinkMetrics()),
		pods:      data.NewPodRepo(store.Runner, keys, data.PodLimits{MaxPods: 100, ForgetAfter: time.Hour}, func() string { return "" }),
		insteadOf: map[string]error{},
	}
	for pod, routing := range map[biz.PodID]biz.Routing{0: biz.Ready, 1: biz.Ready, 9: biz.Shutdown} {
		_, err := d.pods.Set(t.Context(), service, biz.Report{
			Pod: pod, State: "up", Routing: routing, TTL: biz.Forever, Capacity: biz.NoCapacity,
		})
		require.NoError(t, err)
	}
	views := biz.NewPodViews(interceptedPods{d.pods, d}, biz.NopObserver{})
	return biz.NewLinkUsecase(d, views, biz.Limits{MaxBatch: 10}, d), d
}

// nextPod reserves a pod for a new link. The pod shows which earlier reservations count.
func (d *interceptedStore) nextPod(t *testing.T) biz.PodID {
	t.Helper()
	reservation, err := d.pods.Reserve(t.Context(), service, biz.ReserveRequest{Linked: biz.NoPod})
	require.NoError(t, err)
	return reservation.Pod
}

func TestComputeThatLosesARaceReturnsTheWinnersLinkAndReleases(t *testing.T) {
	links, d := openIntercepted(t)
	d.beforeSet = func(ctx context.Context, key biz.LinkKey) {
		_, err := d.Set(ctx, key, 1, biz.Forever, biz.SetTerms{})
		require.NoError(t, err)
	}
	computed, err := links.Compute(t.Context(), linkKey("alice"), forever)
	require.NoError(t, err)
	require.Equal(t, biz.Existing, computed.Outcome)
	require.EqualValues(t, 1, computed.Link.Pod)
	require.False(t, computed.Applied)
	d.requireEnded(t, biz.Existing, 2, nil)
	require.EqualValues(t, 0, d.nextPod(t), "the reservation on pod 0 was released")
}

func TestComputeRetriesWhenTheLinkChanges(t *testing.T) {
	links, d := openIntercepted(t)
	moves := 0
	d.beforeSet = func(ctx context.Context, key biz.LinkKey) {
		if moves++; moves <= 3 { // Each time to the unusable pod, each time with a new epoch.
			require.NoError(t, second(d.Remove(ctx, key, 0, biz.RemoveTerms{})))
			require.NoError(t, second(d.Set(ctx, key, 9, biz.Forever, biz.SetTerms{})))
		}
	}
	computed, err := links.Compute(t.Context(), linkKey("alice"), forever)
	require.NoError(t, err)
	require.Equal(t, biz.Relinked, computed.Outcome)
	require.EqualValues(t, 9, computed.Previous)
	require.EqualValues(t, 0, computed.Link.Pod)
	require.Equal(t, 4, moves)
	d.requireEnded(t, biz.Relinked, 4, nil)
	require.EqualValues(t, 1, d.nextPod(t), "one reservation counts, three were released")
}

func TestComputeGivesUpWhenTheLinkKeepsChanging(t *testing.T) {
	links, d := openIntercepted(t)
	d.beforeSet = func(ctx context.Context, key biz.LinkKey) {
		require.NoError(t, second(d.Remove(ctx, key, 0, biz.RemoveTerms{})))
		require.NoError(t, second(d.Set(ctx, key, 9, biz.Forever, biz.SetTerms{})))
	}
	_, err := links.Compute(t.Context(), linkKey("alice"), forever)
	require.ErrorIs(t, err, biz.ErrStoreUnavailable)
	d.requireEnded(t, 0, 8, biz.ErrContended)
	require.EqualValues(t, 0, d.nextPod(t), "every reservation was released")
}

func TestComputeWithALostReplyKeepsItsReservation(t *testing.T) {
	links, d := openIntercepted(t)
	d.afterSet = errLost
	_, err := links.Compute(t.Context(), linkKey("alice"), forever)
	require.ErrorIs(t, err, biz.ErrOutcomeUnknown)
	require.EqualValues(t, 1, d.nextPod(t), "the link may exist, so the reservation counts")
}

func TestComputeThatIsRefusedReleases(t *testing.T) {
	links, d := openIntercepted(t)
	d.insteadOf["SetIfEpoch"] = fmt.Errorf("%w: OOM", biz.ErrStoreFull)
	_, err := links.Compute(t.Context(), linkKey("alice"), forever)
	require.ErrorIs(t, err, biz.ErrStoreFull)
	require.EqualValues(t, 0, d.nextPod(t))
}

func TestComputeThatFailsBeforeItLinksIsSafeToRetry(t *testing.T) {
	for name, row := range map[string]struct {
		step  string
		cause error
		want  error
	}{
		"the read of the link times out":     {"Get", biz.ErrDeadlineExceeded, biz.ErrStoreUnavailable},
		"the store is down":                  {"Get", biz.ErrStoreUnavailable, biz.ErrStoreUnavailable},
		"the caller cancels":                 {"Get", biz.ErrCanceled, biz.ErrCanceled},
		"the link is corrupt":                {"Get", biz.ErrStoreDataCorrupt, biz.ErrStoreDataCorrupt},
		"the reply to a reservation is lost": {"Reserve", errLost, biz.ErrStoreUnavailable},
		"the store is full":                  {"Reserve", biz.ErrStoreFull, biz.ErrStoreFull},
	} {
		t.Run(name, func(t *testing.T) {
			links, d := openIntercepted(t)
			d.insteadOf[row.step] = row.cause
			_, err := links.Compute(t.Context(), linkKey("alice"), forever)
			require.ErrorIs(t, err, row.want)
			if !errors.Is(row.want, row.cause) {
				require.NotErrorIs(t, err, row.cause, "the error has one class")
			}
			link, err := d.LinkRepo.Get(t.Context(), linkKey("alice"))
			require.NoError(t, err)
			require.False(t, link.Exists())
		})
	}
}

func TestComputeOfAServiceThatNeverReported(t *testing.T) {
	links, d := openIntercepted(t)
	key := biz.LinkKey{Namespace: "game", UID: "alice", Service: "silent"}
	_, err := links.Compute(t.Context(), key, forever)
	require.ErrorIs(t, err, biz.ErrNoAvailablePod)

	set, err := d.Set(t.Context(), key, 5, biz.Forever, biz.SetTerms{})
	require.NoError(t, err)
	computed, err := links.Compute(t.Context(), key, forever)
	require.NoError(t, err)
	require.Equal(t, biz.Existing, computed.Outcome, "no pod has ever reported")
	require.Equal(t, set.Link, computed.Link)
}

func TestComputeThatPanicsEnds(t *testing.T) {
	links, d := openIntercepted(t)
	d.beforeSet = func(context.Context, biz.LinkKey) { panic("a test") }
	require.Panics(t, func() { _, _ = links.Compute(t.Context(), linkKey("alice"), forever) })
	d.requireEnded(t, 0, 1, nil)
}

func TestReportsDefaultToTheConfiguredTTL(t *testing.T) {
	_, d := openIntercepted(t)
	pods := biz.NewPodUsecase(biz.NewPodViews(d.pods, biz.NopObserver{}), 7)
	id, own := biz.PodID(3), biz.TTL(60)
	result, err := pods.Set(t.Context(), service, biz.NewReport{Pod: &id, State: "up"})
	require.NoError(t, err)
	require.EqualValues(t, 7, result.Pod.TTL)
	result, err = pods.Set(t.Context(), service, biz.NewReport{Pod: &id, State: "up", TTL: &own})
	require.NoError(t, err)
	require.EqualValues(t, 60, result.Pod.TTL)
}

func TestBatchesReadEachEntryOnce(t *testing.T) {
	links, d := openIntercepted(t)
	require.NoError(t, second(d.Set(t.Context(), linkKey("b"), 1, biz.Forever, biz.SetTerms{})))
	found, err := links.BatchGet(t.Context(), "game", "room", []string{"b", "a", "b", "a"})
	require.NoError(t, err)
	require.Len(t, found, 2)
	require.Equal(t, "b", found[0].Link.Key.UID)
	require.Equal(t, "a", found[1].Link.Key.UID)
}
