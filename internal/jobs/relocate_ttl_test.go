package jobs_test

import (
	"context"
	"sync"
	"testing"

	"podlink/internal/biz"
	"podlink/internal/jobs"

	"github.com/stretchr/testify/require"
)

// interruptedLinks are links of which some change after they were read, before they are moved.
type interruptedLinks struct {
	biz.LinkRepo

	once      sync.Once
	meanwhile func()
}

func (l *interruptedLinks) BatchSet(ctx context.Context, key biz.ServiceKey, items []biz.SetItem) []biz.ChangeResult {
	l.once.Do(l.meanwhile)
	return l.LinkRepo.BatchSet(ctx, key, items)
}

// TestRelocateKeepsWhatALinkHasBecome: a link has the same epoch after its user has left, and after it was made persistent.
func TestRelocateKeepsWhatALinkHasBecome(t *testing.T) {
	inBubble(t, func(f *fleet) {
		f.link(0, 10, 1, biz.Forever, biz.SetTerms{Claim: 7})
		f.link(10, 20, 1, 600, biz.SetTerms{})
		meanwhile := func() {
			_, err := f.links.Remove(f.Context(), keyOf(uidOf(3)), 60, biz.RemoveTerms{})
			require.NoError(f, err)
			_, err = f.links.Remove(f.Context(), keyOf(uidOf(4)), 0, biz.RemoveTerms{})
			require.NoError(f, err)
			_, err = f.links.Set(f.Context(), keyOf(uidOf(13)), 1, biz.Forever, biz.SetTerms{})
			require.NoError(f, err)
		}
		f.start(options{stores: func(s *jobs.Stores) {
			s.Moves = biz.NewLinkUsecase(
				&interruptedLinks{LinkRepo: s.Links, meanwhile: meanwhile}, s.Pods, biz.Limits{MaxBatch: 1000}, biz.NopObserver{},
			)
		}})
		job := f.await(f.create(relocate(1)))
		require.Equal(f, biz.JobDone, job.State)
		require.EqualValues(f, 19, job.Progress.Done)
		require.Zero(f, f.counts()[1])
		require.Equal(f, biz.NoPod, f.store.Link(keyOf(uidOf(4))).Pod, "who has left does not come back")
		for _, i := range []int{0, 3, 9, 10, 13, 19} {
			link := f.store.Link(keyOf(uidOf(i)))
			require.NotEqual(f, biz.PodID(1), link.Pod)
			require.Equal(f, i < 10 && i != 3 || i == 13, link.Persistent(), uidOf(i))
		}
		require.LessOrEqual(f, f.store.Link(keyOf(uidOf(3))).TTL, biz.TTL(60), "a user who has left leaves no link behind for good")
	})
}
