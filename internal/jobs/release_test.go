package jobs_test

import (
	"testing"
	"time"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

// TestReleaseIsForWhatAnEarlierProcessLeftBehind and for nothing else.
func TestReleaseIsForWhatAnEarlierProcessLeftBehind(t *testing.T) {
	inBubble(t, func(f *fleet) {
		for i, row := range []struct {
			pod   biz.PodID
			ttl   biz.TTL
			claim biz.Generation
		}{
			0: {1, biz.Forever, 5}, // of an earlier process
			1: {1, biz.Forever, 9}, // of the same process
			2: {1, biz.Forever, 12},
			3: {1, biz.Forever, 0}, // nobody has claimed it
			4: {1, 1000, 5},        // it expires anyway
			5: {2, biz.Forever, 5}, // of another pod
		} {
			_, err := f.links.Set(f.Context(), keyOf(uidOf(i)), row.pod, row.ttl, biz.SetTerms{Claim: row.claim})
			require.NoError(f, err)
		}
		before := make([]biz.Link, 6)
		for i := range before {
			before[i] = f.store.Link(keyOf(uidOf(i)))
		}
		f.start(options{})
		job := f.await(f.create(biz.JobSpec{Kind: biz.Release, Service: "game", Pod: 1, Below: 9, Keep: 300}))
		require.Equal(f, biz.JobDone, job.State)
		require.EqualValues(f, 1, job.Progress.Done)
		released := f.store.Link(keyOf(uidOf(0)))
		require.Equal(f, before[0].Pod, released.Pod)
		require.Equal(f, before[0].Epoch, released.Epoch)
		require.InDelta(f, 300, int(released.TTL), 30)
		for i := 1; i < len(before); i++ {
			after := f.store.Link(keyOf(uidOf(i)))
			after.TTL = before[i].TTL
			require.Equal(f, before[i], after, "%d", i)
		}
	})
}

func TestDryRunOfReleaseChangesNothing(t *testing.T) {
	inBubble(t, func(f *fleet) {
		f.link(0, 10, 1, biz.Forever, biz.SetTerms{Claim: 5})
		f.start(options{})
		job := f.await(f.create(biz.JobSpec{Kind: biz.Release, Service: "game", Pod: 1, Below: 9, Keep: 300, DryRun: true}))
		require.EqualValues(f, 10, job.Progress.Done)
		require.True(f, f.store.Link(keyOf(uidOf(3))).Persistent())
	})
}

// TestRemoveTakesTheLinksOlderThanTheJob with the pods and the workloads, of one service or of all.
func TestRemoveTakesTheLinksOlderThanTheJob(t *testing.T) {
	other := biz.ServiceKey{Namespace: "ns", Service: "chat"}
	far := biz.ServiceKey{Namespace: "far", Service: "game"}
	for name, row := range map[string]struct {
		service string
		stays   []biz.ServiceKey
	}{
		"a service":   {"game", []biz.ServiceKey{other, far}},
		"a namespace": {"", []biz.ServiceKey{far}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(f *fleet) {
				all := []biz.ServiceKey{game, other, far}
				workloads := f.store.Podlink().Workloads()
				for _, key := range all {
					f.report(key, 1)
					_, err := workloads.Set(f.Context(), key, "up")
					require.NoError(f, err)
					for i := range 100 {
						_, err := f.links.Set(f.Context(), biz.LinkKey{Namespace: key.Namespace, UID: uidOf(i), Service: key.Service},
							1, biz.Forever, biz.SetTerms{})
						require.NoError(f, err)
					}
				}
				f.start(options{rate: 10})
				key := f.create(biz.JobSpec{Kind: biz.RemoveAll, Service: row.service, Pod: biz.NoPod})
				time.Sleep(3 * time.Second)
				f.link(500, 501, 2, biz.Forever, biz.SetTerms{}) // It is newer than the job.
				job := f.await(key)
				require.Equal(f, biz.JobDone, job.State, job.Progress.Error)
				require.Equal(f, map[biz.PodID]int64{2: 1}, f.counts())
				for _, key := range all {
					links, err := f.store.Podlink().Index().IndexedPods(f.Context(), key)
					require.NoError(f, err)
					pods, err := f.pods.List(f.Context(), key)
					require.NoError(f, err)
					_, err = workloads.Get(f.Context(), key)
					if contains(row.stays, key) {
						require.EqualValues(f, 100, links[0].Entries)
						require.NotEmpty(f, pods)
						require.NoError(f, err)
					} else {
						require.Empty(f, pods, "%v", key)
						require.ErrorIs(f, err, biz.ErrWorkloadNotFound)
					}
				}
			})
		})
	}
}

func contains(keys []biz.ServiceKey, key biz.ServiceKey) bool {
	for _, other := range keys {
		if other == key {
			return true
		}
	}
	return false
}

func TestDryRunOfRemoveChangesNothing(t *testing.T) {
	inBubble(t, func(f *fleet) {
		f.link(0, 100, 1, biz.Forever, biz.SetTerms{})
		f.start(options{})
		job := f.await(f.create(biz.JobSpec{Kind: biz.RemoveAll, Service: "game", Pod: biz.NoPod, DryRun: true}))
		require.EqualValues(f, 100, job.Progress.Done)
		require.EqualValues(f, 100, f.counts()[1])
		pods, err := f.pods.List(f.Context(), game)
		require.NoError(f, err)
		require.Len(f, pods, 4)
	})
}
