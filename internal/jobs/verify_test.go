package jobs_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"podlink/internal/biz"
	"podlink/internal/jobs"
	"podlink/test/kit/model"

	"github.com/stretchr/testify/require"
)

// staleIndex is an index that has entries of users without a link, beside the others.
type staleIndex struct {
	biz.IndexRepo
	stale []string
}

func (i staleIndex) Entries(
	ctx context.Context, key biz.ServiceKey, pod biz.PodID, token string, n int,
) ([]biz.IndexEntry, string, error) {
	entries, next, err := i.IndexRepo.Entries(ctx, key, pod, token, n)
	if next == "" && key == game {
		for _, uid := range i.stale {
			entries = append(entries, biz.IndexEntry{UID: uid, Epoch: 5})
		}
	}
	return entries, next, err
}

// repairs is a feed that keeps the updates of the index.
type repairs struct {
	biz.FeedRepo
	mu      sync.Mutex
	added   []string
	removed []string
}

func (r *repairs) Flush(_ context.Context, parts []biz.FlushPart) []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, part := range parts {
		for _, update := range part.Updates {
			if update.Op == biz.AddEntry {
				r.added = append(r.added, update.Entry.UID)
			} else {
				r.removed = append(r.removed, update.Entry.UID)
			}
		}
	}
	return make([]error, len(parts))
}

// TestVerifyCountsEachKindOfFault, and repairs the index if it is asked to, and nothing else.
func TestVerifyCountsEachKindOfFault(t *testing.T) {
	for name, repair := range map[string]bool{"counts": false, "repairs": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(f *fleet) {
				f.link(0, 100, 1, biz.Forever, biz.SetTerms{})
				f.link(100, 103, 9, 600, biz.SetTerms{}) // Pod 9 has no report.
				f.store.Corrupt("ns", uidOf(50))
				f.store.Corrupt("ns", uidOf(51))
				f.store.Hide(func(uid string) bool { return uid >= uidOf(10) && uid < uidOf(14) })
				moves, feed := f.countMoves(), new(repairs)
				f.start(options{stores: func(s *jobs.Stores) {
					s.Index, s.Feed = staleIndex{s.Index, []string{"gone"}}, feed
				}})
				job := f.await(f.create(biz.JobSpec{Kind: biz.Verify, Pod: biz.NoPod, Repair: repair}))
				require.Equal(f, biz.JobDone, job.State, job.Progress.Error)
				require.EqualValues(f, 4, job.Progress.Faults.LinksWithoutEntry)
				require.EqualValues(f, 3, job.Progress.Faults.LinksWithoutPod)
				require.EqualValues(f, 2, job.Progress.Faults.ForeignFields)
				require.Positive(f, job.Progress.Faults.EntriesWithoutLink)
				require.Empty(f, moves())
				if repair {
					slices.Sort(feed.added)
					require.Equal(f, []string{uidOf(10), uidOf(11), uidOf(12), uidOf(13)}, feed.added)
					require.Contains(f, feed.removed, "gone")
				} else {
					require.Empty(f, feed.added)
					require.Empty(f, feed.removed)
				}
			})
		})
	}
}

// TestVerifyOfALostIndex waits once for each page for links that may be new, not once for each pod.
func TestVerifyOfALostIndex(t *testing.T) {
	inBubble(t, func(f *fleet) {
		for n := range 2000 {
			f.link(n, n+1, biz.PodID(n%4), biz.Forever, biz.SetTerms{})
		}
		f.store.Hide(func(string) bool { return true })
		feed := new(repairs)
		f.start(options{stores: func(s *jobs.Stores) { s.Feed = feed }})
		job := f.await(f.create(biz.JobSpec{Kind: biz.Verify, Pod: biz.NoPod, Repair: true}))
		require.Equal(f, biz.JobDone, job.State, job.Progress.Error)
		require.EqualValues(f, 2000, job.Progress.Faults.LinksWithoutEntry)
		require.EqualValues(f, 2000, job.Progress.Done)
		require.Len(f, feed.added, 2000)
		require.Less(f, job.EndMs-job.StartMs, int64(3000), "one page, four pods")
	})
}

// TestVerifyOfAnotherService finds none of these faults.
func TestVerifyOfAnotherService(t *testing.T) {
	inBubble(t, func(f *fleet) {
		f.link(0, 10, 9, biz.Forever, biz.SetTerms{})
		f.store.Corrupt("ns", uidOf(5))
		f.store.Hide(func(string) bool { return true })
		f.start(options{})
		job := f.await(f.create(biz.JobSpec{Kind: biz.Verify, Service: "chat", Pod: biz.NoPod}))
		require.Equal(f, biz.JobDone, job.State)
		require.Zero(f, job.Progress.Faults)
	})
}

var _ biz.KeyScanner = (*model.Podlink)(nil)
